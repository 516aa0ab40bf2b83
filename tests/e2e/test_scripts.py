"""`sdpx peer` as scripts and CI jobs rely on it, as far as only processes show it; tests/peer/test_session.py has the rest."""

import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from sdpx.child_process import ChildProcess, child_process
from sdpx.peer.negotiation.description import parse_description
from tests.harness.coturn import free_port
from tests.harness.foreign_client import foreign_client
from tests.harness.processes import Line, Program, peer, relay, sdpx, two_peers

pytestmark = pytest.mark.e2e


async def diagnosis_and_status(program: Program, code: str) -> tuple[Line, int]:
    """Wait for the end; return the one diagnosis, with the sentence of the error, and the exit status."""
    status = await program.ended()
    diagnoses = program.of("diagnosis")
    error = await program.wait_for("error")
    assert [line["code"] for line in diagnoses] == [code]
    assert (error["code"], error["reason"]) == (code, diagnoses[0]["message"])
    assert diagnoses[0]["message"] in program.stderr.decode()
    return diagnoses[0], status


@pytest.mark.parametrize("expected", ["exchange", "message"])
async def test_both_peers_exit_with_0_as_soon_as_they_have_what_they_expect(expected: str) -> None:
    """The first one to exit does not take it from the other; the one that asks may be started first."""
    expect = ("--no-stun", "--expect", expected, "--within", "30")
    async with relay() as (_, url), sdpx("peer", "--url", url, "--pair", "bob", "--wait", "30", *expect) as a:
        if expected == "message":
            await a.say("ping")
        delayed = await a.wait_for("pair_retry_scheduled", target_id="bob", code="target_not_found")
        assert delayed["delay_ms"] > 0
        async with sdpx("peer", "--url", url, "--id", "bob", *expect) as b:
            assert await b.ended() == 0
            assert await a.ended() == (0 if expected == "exchange" else 12)  # no message came back
            for program in (a, b):
                assert "closed" in program.events
                assert ("connection_summary" in program.events) or expected == "exchange"


async def test_a_signal_before_the_expectation_is_met_is_status_13() -> None:
    async with relay() as (_, url), peer(url, "--expect", "channel") as (program, _):
        assert await program.end() == 13
        assert "SIGTERM" in program.stderr.decode()


async def test_a_wrong_fingerprint_is_status_11_at_once() -> None:
    """There is no second attempt: the connection may be intercepted."""
    async with relay() as (_, url), foreign_client(url) as me, peer(url, "--pair", me.id) as (program, _):
        await me.receive("paired")
        await me.pc.accept_offer(parse_description((await me.receive("offer"))["sdp"], "offer"))
        wrong = re.sub(r"(?<=[ :])[0-9A-F]{2}(?=[:\r])", "AA", await me.pc.create_answer())
        await me.send(type="answer", sdp=wrong)
        _, status = await diagnosis_and_status(program, "fingerprint_mismatch")
        assert status == 11
        assert "connection_retry" not in program.events


async def test_a_killed_peer_is_noticed_without_a_relay() -> None:
    """After SIGKILL only the heartbeat ends the pairing, in about three seconds."""
    stay = ("--no-reconnect",)
    async with relay() as (server, url), two_peers(url, alice=stay, bob=stay) as (a, b):
        server.process.kill()
        await a.wait_for("disconnected")
        b.process.kill()
        began = trio.current_time()
        diagnosis, status = await diagnosis_and_status(a, "peer_silent")
        assert status == 12
        assert trio.current_time() - began > 2
        assert diagnosis["silent_ms"] >= 3000


async def test_every_message_arrives_at_a_receiver_with_an_output_that_is_read_late() -> None:
    """2 MB do not fit into pipes and buffers: the sender waits, and ends when the last message is written."""
    lines = [f"{number} " + "x" * 60_000 for number in range(40)]
    bobs = ("-m", "sdpx", "peer", "--no-stun", "--id", "bob", "--url")
    async with relay() as (_, url), child_process(*bobs, url) as process, trio.open_nursery() as nursery:
        bob = ChildProcess(process)
        while b"id_assigned" not in await bob.receive_line():
            pass
        async with sdpx("peer", "--url", url, "--no-stun", "--pair", "bob", "--once") as a:

            async def type_all() -> None:
                for line in lines:
                    await a.say(line)
                await a.end_input()

            nursery.start_soon(type_all)
            await a.wait_for("channel_message_sent")
            await trio.sleep(1)
            assert len(a.of("channel_message_sent")) < len(lines)
            received: list[str] = []
            while len(received) < len(lines):
                event = json.loads(await bob.receive_line())
                if event["event"] == "channel_message":
                    received.append(event["text"])
            assert received == lines
            nursery.start_soon(bob.discard_output)
            assert await a.ended() == 0
            process.kill()


# ---- a relay that is restarted --------------------------------------------------------------------------------------


@asynccontextmanager
async def relay_at(port: int) -> AsyncIterator[Program]:
    async with sdpx("serve", "--port", str(port)) as server:
        await server.wait_for("server_listening")
        yield server


@asynccontextmanager
async def peers_of_a_killed_relay() -> AsyncIterator[tuple[Program, Program, int]]:
    """Yield alice and bob, with an open data channel, and the port of the relay that they have lost."""
    port = free_port()
    async with relay_at(port) as first, two_peers(f"ws://127.0.0.1:{port}") as (a, b):
        first.process.kill()
        await a.wait_for("disconnected")
        yield a, b, port


async def test_a_channel_survives_a_relay_that_is_restarted() -> None:
    """Both peers reconnect with their IDs and keep the channel; when it is closed they are ready for another pairing."""
    async with peers_of_a_killed_relay() as (a, b, port):
        await a.wait_for("reconnecting", attempt=1)
        await a.say("no relay")
        await b.wait_for("channel_message", text="no relay")
        async with relay_at(port):
            for program, own_id in ((a, "alice"), (b, "bob")):
                down = program.events.index("disconnected")
                await program.wait_for("id_assigned", after=down, id=own_id)
            await b.say("new relay")
            await a.wait_for("channel_message", text="new relay")
            assert a.events.count("paired") == 1
            assert await b.end() == 0
            await a.wait_for("ready", peer_id="bob")


async def test_pair_is_requested_again_when_relay_and_peer_come_back() -> None:
    """The pairing was lost with the relay and the killed peer; the peer with `--pair` is not restarted."""
    async with peers_of_a_killed_relay() as (a, b, port):
        b.process.kill()
        await a.wait_for("diagnosis", code="peer_silent")
        seen = len(a.lines)
        async with relay_at(port), peer(f"ws://127.0.0.1:{port}", "--id", "bob") as (again, _):
            await a.wait_for("channel_open", after=seen)
            assert a.events.count("paired") == 2
            await a.say("welcome back")
            await again.wait_for("channel_message", text="welcome back")


# ---- controlled by a program ----------------------------------------------------------------------------------------


async def command(program: Program, **keys: Any) -> None:
    await program.say(json.dumps(keys))


async def test_a_program_controls_a_peer_by_commands() -> None:
    """Pair, send text and bytes, leave, pair again, close: all is sent before the peer leaves."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--stdin", "json") as (a, _):
        await a.say("hello")
        await a.wait_for("input_rejected", code="bad_json")
        await command(a, pair=b_id)
        await command(a, send="grüß dich")
        await command(a, send_base64="AP8=")
        await b.wait_for("channel_message", base64="AP8=")
        await command(a, send="bye")
        await command(a, unpair=True)
        await a.wait_for("ready", peer_id=b_id, reason="unpaired")
        await b.wait_for("ready")
        received = [line.get("text", line.get("base64")) for line in b.of("channel_message")]
        assert received == ["grüß dich", "AP8=", "bye"]
        seen, said = len(b.lines), len(a.lines)
        await command(a, pair=b_id)
        await command(a, send="last words")
        await a.wait_for("channel_message_sent", after=said)
        await command(a, close=True)
        assert await a.ended() == 15  # "hello" was no command
        await b.wait_for("channel_message", after=seen, text="last words")


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_signal_during_a_delivery_is_no_success(signals: int) -> None:
    """The receiver stands still: the first signal gives it a second, the second signal ends the peer at once."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, _):
        await a.wait_for("channel_open")
        b.process.send_signal(signal.SIGSTOP)
        try:
            await a.say("lost")
            await a.wait_for("channel_message_sent")
            for _ in range(signals):
                a.process.send_signal(signal.SIGTERM)
                await trio.sleep(0.1)
            assert await a.ended() == 12
            [event] = a.of("messages_unconfirmed")
            assert (event["messages"], event["bytes"]) == (1, 4)
        finally:
            b.process.send_signal(signal.SIGCONT)
