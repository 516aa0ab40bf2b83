"""`sdpx peer` as scripts and CI jobs rely on it: what it waits for, and each way to fail, provoked for real."""

import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

from tests.e2e.test_foreign_client import Client, client
from tests.harness.coturn import free_port
from tests.harness.processes import Line, Program, peer, relay, sdpx

pytestmark = pytest.mark.e2e

BLACK_HOLE = "192.0.2.1"  # RFC 5737: nobody is there


async def verdict_and_status(program: Program, code: str, seconds: float) -> tuple[Line, int]:
    """Wait for the end within its deadline; the one verdict, whose sentence is the error's, and the exit status."""
    with trio.fail_after(seconds):
        status = await program.ended()
    verdicts = [line for line in program.lines if line["event"] == "diagnosis"]
    error = await program.wait_for("error")
    assert [line["code"] for line in verdicts] == [code]
    assert (error["code"], error["reason"]) == (code, verdicts[0]["message"])
    assert verdicts[0]["message"] in program.stderr.decode()
    return verdicts[0], status


def without_candidates(sdp: str) -> str:
    return "".join(line for line in sdp.splitlines(keepends=True) if "candidate" not in line)


def with_candidate(sdp: str, address: str) -> str:
    return without_candidates(sdp) + f"a=candidate:1 1 udp 2130706431 {address} 9 typ host\r\na=end-of-candidates\r\n"


async def answer_for(me: Client) -> str:
    """Be asked and offered; return the answer that would do."""
    await me.receive("paired")
    await me.pc.accept_offer((await me.receive("offer"))["sdp"])
    return await me.pc.create_answer()


# ---- the relay ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def refusing(status: str, body: dict[str, str]) -> AsyncIterator[str]:
    """Be a relay that lets nobody in."""
    payload = json.dumps(body).encode()

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(f"HTTP/1.1 {status}\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, refuse, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("status", "code"), [("401 Unauthorized", "unauthorized"), ("503 Full", "full")])
async def test_a_relay_that_lets_nobody_in_is_status_6(status: str, code: str) -> None:
    """The relay's own word and sentence, at once, without another try."""
    async with refusing(status, {"code": code, "message": "Not you"}) as url, sdpx("peer", "--url", url) as program:
        assert await program.ended() == 6
        assert (await program.wait_for("error"))["code"] == code
        assert "Not you" in program.stderr.decode()
        assert "reconnecting" not in program.events


async def test_a_relay_that_is_not_reached_within_the_time_is_unreachable() -> None:
    """`--within` ends the waiting for a relay that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        async with sdpx("peer", "--url", url, "--expect", "channel", "--within", "0.5") as program:
            assert await program.ended() == 3
            assert (await program.wait_for("error"))["code"] == "relay_unreachable"


# ---- waiting for a peer ---------------------------------------------------------------------------------------------


async def test_wait_asks_until_the_target_is_there() -> None:
    """The one that asks may be started first."""
    expect = ("--expect", "channel", "--within", "20")
    async with relay() as (_, url), peer(url, "--pair", "bob", "--wait", "20", *expect) as (a, _):
        delayed = await a.wait_for("pair_retry_scheduled", target_id="bob", code="target_not_found")
        assert delayed["delay_ms"] > 0
        async with peer(url, "--id", "bob", *expect) as (b, _):
            assert (await a.ended(), await b.ended()) == (0, 0)


async def test_wait_asks_until_the_target_is_free() -> None:
    """Somebody who is busy now may be free in time."""
    async with relay() as (_, url), peer(url, "--id", "bob") as (_, b_id), peer(url, "--pair", b_id) as (first, _):
        await first.wait_for("channel_open")
        async with peer(url, "--pair", b_id, "--wait", "20", "--expect", "channel") as (second, _):
            await second.wait_for("pair_retry_scheduled", code="target_already_paired")
            assert await first.end() == 0
            assert await second.ended() == 0


async def test_wait_has_an_end() -> None:
    """A peer that does not come: status 4 and the relay's words, like one that was not waited for."""
    async with relay() as (_, url), peer(url, "--pair", "nobody", "--wait", "1") as (program, _):
        with trio.fail_after(5):
            assert await program.ended() == 4
        assert program.events.count("pair_requested") > 2
        assert (await program.wait_for("error"))["code"] == "target_not_found"


# ---- what is expected -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", ["exchange", "connected", "channel", "message"])
async def test_both_sides_leave_with_0_as_soon_as_it_is_so(expected: str) -> None:
    """Neither misses what it expects because the other was faster."""
    expect = ("--expect", expected, "--within", "20")
    async with relay() as (_, url), peer(url, *expect) as (b, b_id), peer(url, "--pair", b_id, *expect) as (a, _):
        if expected == "message":
            await a.say("ping")
            assert await b.ended() == 0
            assert await a.ended() == 12  # nobody answered it
        else:
            assert (await a.ended(), await b.ended()) == (0, 0)
        for program in (a, b):
            assert "closed" in program.events
        assert (expected == "exchange") or ("connection_summary" in a.events and "connection_summary" in b.events)


async def test_once_and_expect_send_everything_and_wait_for_the_answer() -> None:
    """`echo ping | sdpx peer --once --expect message` is a question and its answer."""
    async with (
        relay() as (_, url),
        peer(url) as (b, b_id),
        peer(url, "--pair", b_id, "--once", "--expect", "message") as (a, _),
    ):
        await a.say("ping")
        await a.end_input()
        await b.wait_for("channel_message", text="ping")
        await trio.sleep(0.3)
        assert a.process.returncode is None
        await b.say("pong")
        assert await a.ended() == 0
        await a.wait_for("channel_message", text="pong")


async def test_nobody_comes_within_the_time() -> None:
    """Status 13, and the sentence says how far it came."""
    async with relay() as (_, url), peer(url, "--expect", "channel", "--within", "1") as (program, _):
        assert await program.ended() == 13
        error = await program.wait_for("error", code="expectation_not_met")
        assert "no peer was paired" in error["reason"]


async def test_no_message_comes_within_the_time() -> None:
    """The channel is open, and that was not enough."""
    expect = ("--expect", "message", "--within", "3")
    async with relay() as (_, url), peer(url) as (_, b_id), peer(url, "--pair", b_id, *expect) as (a, _):
        assert await a.ended() == 13
        assert "before a message came" in a.stderr.decode()
        assert "diagnosis" not in a.events
        await a.wait_for("connection_summary")


async def test_a_signal_before_it_is_so_is_no_success() -> None:
    """A CI job that is ended by SIGTERM has not seen what it expected."""
    async with relay() as (_, url), peer(url, "--expect", "channel") as (program, _):
        assert await program.end() == 13
        assert "SIGTERM" in program.stderr.decode()


async def test_a_signal_while_a_pairing_waits_says_what_it_waits_for() -> None:
    """The sentence is of the pairing that there was, although that is over by then."""
    async with (
        relay() as (_, url),
        client(url) as me,
        peer(url, "--pair", me.id, "--expect", "channel") as (program, _),
    ):
        await program.wait_for("offer_sent")
        assert await program.end() == 13
        assert f"no answer had come from {me.id}" in program.stderr.decode()


async def test_the_phase_that_failed_has_its_status_also_when_within_ends_it() -> None:
    """Paired, and no answer within the time: that, and not merely that the expectation was not met."""
    expect = ("--expect", "channel", "--within", "1.5")
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id, *expect) as (program, _):
        await me.receive("paired")
        _, status = await verdict_and_status(program, "no_answer", 15)
        assert status == 8


# ---- the connection -------------------------------------------------------------------------------------------------


async def test_a_peer_that_leaves_before_there_is_a_connection() -> None:
    """Status 7."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id) as (program, _):
        await me.receive("paired")
        await me.receive("offer")
        await me.send(type="unpair")
        verdict, status = await verdict_and_status(program, "pairing_lost", 15)
        assert status == 7
        assert verdict["description_received"] is False


async def test_no_answer() -> None:
    """Status 8, at the deadline, with one attempt: who is silent once is silent again."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id, "--timeout", "1") as (program, _):
        await me.receive("paired")
        verdict, status = await verdict_and_status(program, "no_answer", 15)
        assert status == 8
        assert (verdict["description_sent"], verdict["description_received"]) == (True, False)
        assert verdict["after_ms"] >= 1000


async def test_no_offer() -> None:
    """A receiver that expects something ends with it, too; without that it is free for the next."""
    for arguments, status in [(("--expect", "channel"), 8), ((), None)]:
        async with (
            relay() as (_, url),
            peer(url, "--timeout", "1", *arguments) as (program, peer_id),
            client(url) as me,
        ):
            await me.send(type="pair_request", target_id=peer_id)
            if status is None:
                await program.wait_for("diagnosis", code="no_offer")
                await program.wait_for("ready")
            else:
                _, ended = await verdict_and_status(program, "no_offer", 15)
                assert ended == status


async def test_only_mdns_candidates() -> None:
    """What a browser offers that has no camera permission, on another network: status 9."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id, "--timeout", "4") as (program, _):
        await me.send(
            type="answer", sdp=with_candidate(await answer_for(me), "5f0a2b1e-0000-4000-8000-000000000001.local")
        )
        verdict, status = await verdict_and_status(program, "only_mdns", 20)
        assert status == 9
        assert (verdict["remote_mdns"], verdict["remote_candidates"]) == (1, {"host": 1})


async def test_no_candidates() -> None:
    """An answer without an address: status 9."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id, "--timeout", "2") as (program, _):
        await me.send(type="answer", sdp=without_candidates(await answer_for(me)) + "a=end-of-candidates\r\n")
        _, status = await verdict_and_status(program, "no_common_candidates", 20)
        assert status == 9


async def test_a_black_hole() -> None:
    """An address where nobody is: status 10 at the deadline."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id, "--timeout", "3") as (program, _):
        answer = await answer_for(me)
        await me.pc.close()
        await me.send(type="answer", sdp=with_candidate(answer, BLACK_HOLE))
        verdict, status = await verdict_and_status(program, "ice_failed", 20)
        assert status == 10
        assert verdict["remote_candidates"] == {"host": 1}


async def test_a_wrong_fingerprint() -> None:
    """Status 11, long before the deadline, and no second try: somebody may be in between."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id) as (program, _):
        wrong = r"\1" + ":".join(["AA"] * 32) + "\r"
        await me.send(type="answer", sdp=re.sub(r"(a=fingerprint:sha-256 ).*", wrong, await answer_for(me)))
        _, status = await verdict_and_status(program, "fingerprint_mismatch", 20)
        assert status == 11
        assert "connection_retry" not in program.events


# ---- an end that nobody tells of ------------------------------------------------------------------------------------


async def open_channel(a: Program, b: Program) -> None:
    await a.wait_for("channel_open")
    await b.wait_for("channel_open")


async def test_a_killed_peer_is_noticed_without_a_relay() -> None:
    """SIGKILL, and no relay that could tell: the heartbeat does, in about three seconds."""
    async with (
        relay() as (server, url),
        peer(url, "--no-reconnect") as (b, b_id),
        peer(url, "--no-reconnect", "--pair", b_id) as (a, _),
    ):
        await open_channel(a, b)
        server.process.kill()
        await a.wait_for("disconnected")
        b.process.kill()
        began = trio.current_time()
        verdict, status = await verdict_and_status(a, "peer_silent", 20)
        assert status == 12
        assert trio.current_time() - began > 2
        assert verdict["silent_ms"] >= 3000


async def test_a_peer_that_stands_still_is_given_up_after_its_retries() -> None:
    """SIGSTOP: its socket and its path are there, and it is silent."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id, "--retries", "0") as (a, _):
        await open_channel(a, b)
        b.process.send_signal(signal.SIGSTOP)
        _, status = await verdict_and_status(a, "peer_silent", 20)
        assert status == 12
        await a.wait_for("connection_summary")


async def test_a_connection_that_vanished_is_built_again() -> None:
    """A peer that stood still and comes back is connected anew, on the same pairing, by nobody's hand."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, _):
        await open_channel(a, b)
        b.process.send_signal(signal.SIGSTOP)
        await a.wait_for("diagnosis", code="peer_silent", retrying=True)
        await a.wait_for("connection_retry", peer_id=b_id, attempt=1)
        seen = len(b.lines)
        b.process.send_signal(signal.SIGCONT)
        await b.wait_for("channel_open", after=seen)
        await a.say("again")
        await b.wait_for("channel_message", text="again")
        assert a.events.count("paired") == 1


# ---- a relay that goes and comes back -------------------------------------------------------------------------------


@asynccontextmanager
async def relay_at(port: int) -> AsyncIterator[Program]:
    async with sdpx("serve", "--port", str(port)) as server:
        await server.wait_for("server_listening")
        yield server


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_channel_survives_a_relay_that_is_restarted(number: signal.Signals) -> None:
    """Both dial again and get their IDs again; the talk was never interrupted, and both are free for others after it."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    async with relay_at(port) as first, peer(url, "--id", "bob") as (b, b_id), peer(url, "--pair", b_id) as (a, a_id):
        await open_channel(a, b)
        first.process.send_signal(number)
        await a.wait_for("disconnected")
        await a.wait_for("reconnecting", attempt=1)
        await a.say("no relay")
        await b.wait_for("channel_message", text="no relay")
        async with relay_at(port):
            for program, own_id in ((a, a_id), (b, b_id)):
                down = program.events.index("disconnected")
                await program.wait_for("id_assigned", after=down, id=own_id)
            await trio.sleep(0.5)
            await b.say("new relay")
            await a.wait_for("channel_message", text="new relay")
            assert a.events.count("pair_requested") == 1
            async with peer(url, "--pair", a_id) as (other, other_id):  # the relay knows nothing of the talk
                assert await other.ended() == 7
                await a.wait_for("pairing_declined", peer_id=other_id, present_peer_id=b_id)
            assert await b.end() == 0
            await a.wait_for("ready", peer_id=b_id)
            async with peer(url, "--pair", a_id, "--expect", "channel") as (c, _):
                assert await c.ended() == 0


async def test_a_pair_finds_itself_again_after_a_relay_was_down() -> None:
    """With --pair, what was lost with the relay is asked for again, until the other is back too."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    async with relay_at(port) as first, peer(url, "--id", "bob") as (b, b_id), peer(url, "--pair", b_id) as (a, _):
        await open_channel(a, b)
        first.process.kill()
        await a.wait_for("disconnected")
        b.process.kill()
        await a.wait_for("diagnosis", code="peer_silent")
        seen = len(a.lines)
        async with relay_at(port):
            await a.wait_for("pair_requested", target_id="bob")
            await trio.sleep(0.5)
            async with peer(url, "--id", "bob") as (again, _):
                await a.wait_for("channel_open", after=seen)
                await a.say("welcome back")
                await again.wait_for("channel_message", text="welcome back")


async def test_a_relay_that_is_lost_is_fatal_only_if_that_is_wanted() -> None:
    """--no-reconnect: status 3."""
    async with relay() as (server, url), peer(url, "--no-reconnect") as (program, _):
        assert await server.end() == 0
        assert await program.ended() == 3
        assert (await program.wait_for("error"))["code"] == "relay_lost"
        assert "reconnecting" not in program.events


# ---- driven by a program --------------------------------------------------------------------------------------------


async def do(program: Program, **command: Any) -> None:
    await program.say(json.dumps(command))


async def test_a_program_drives_a_peer_by_commands() -> None:
    """Pair, talk in text and bytes, leave, pair again, close: in order, and a bad line does nothing but say so."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--stdin", "json") as (a, _):
        await a.say("hello")
        await a.wait_for("input_rejected", code="bad_json")
        await do(a, pair=b_id)
        await do(a, send="grüß dich")
        await do(a, send_base64="AP8=")
        await b.wait_for("channel_message", text="grüß dich")
        assert (await b.wait_for("channel_message", bytes=2))["base64"] == "AP8="
        await do(a, pair="somebody")
        await a.wait_for("input_rejected", code="already_paired")
        await do(a, send="bye")
        await do(a, unpair=True)
        await a.wait_for("ready", peer_id=b_id, reason="unpaired")
        await b.wait_for("channel_message", text="bye")
        await b.wait_for("ready")
        seen, said = len(b.lines), len(a.lines)
        await do(a, pair=b_id)
        await do(a, send="last words")
        await a.wait_for("channel_message_sent", after=said)
        await do(a, close=True)
        assert await a.ended() == 0
        await b.wait_for("channel_message", after=seen, text="last words")


async def test_a_second_pairing_took_what_it_took_itself() -> None:
    """For who asked since then, for who was asked since it was free: not the time of the pairing before."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--stdin", "json") as (a, _):
        await do(a, pair=b_id)
        await b.wait_for("channel_open")
        await trio.sleep(1)
        await do(a, unpair=True)
        for program in (a, b):
            await program.wait_for("connection_summary")
        seen = {program: len(program.lines) for program in (a, b)}
        await do(a, pair=b_id)
        await b.wait_for("channel_open", after=seen[b])
        await do(a, unpair=True)
        for program in (a, b):
            paired = await program.wait_for("paired", after=seen[program])
            summary = await program.wait_for("connection_summary", after=seen[program])
            assert summary["phases"]["pairing"] < paired["ms"] - program.lines[seen[program] - 1]["ms"] + 500


async def test_a_message_for_one_peer_does_not_go_to_the_next() -> None:
    """Before the first pairing it waits; between two it is refused."""
    json_input = ("--stdin", "json")
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url) as (c, c_id), peer(url, *json_input) as (a, _):
        await do(a, send="first")
        await do(a, pair=b_id)
        await b.wait_for("channel_message", text="first")
        await do(a, unpair=True)
        await do(a, send="for b")
        await a.wait_for("input_rejected", code="not_paired")
        await do(a, pair=c_id)
        await do(a, send="for c")
        await c.wait_for("channel_message", text="for c")
        assert [line["text"] for line in c.lines if line["event"] == "channel_message"] == ["for c"]


async def test_a_refused_pairing_does_not_end_a_driven_peer() -> None:
    """It hears the relay's word, and goes on; closing without a peer is fine."""
    async with relay() as (_, url), peer(url, "--stdin", "json") as (a, _):
        await do(a, pair="nobody")
        await a.wait_for("server_error", code="target_not_found", target_id="nobody")
        await do(a, close=True)
        assert await a.ended() == 0


async def test_a_killed_peer_is_no_good_end_for_once() -> None:
    """--once is done when the channel closes; a foreign peer whose socket breaks while it is open did not close it."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id, "--once") as (program, _):
        await me.send(type="answer", sdp=await answer_for(me))
        await program.wait_for("channel_open")
        await trio.aclose_forcefully(me.socket._stream)
        _, status = await verdict_and_status(program, "channel_closed", 20)
        assert status == 12
