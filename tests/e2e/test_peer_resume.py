"""Real processes, and between them and the relay a proxy that breaks connections: a handshake does not notice."""

import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
import trio

from tests.harness.breaking_proxy import Cutter, cutting
from tests.harness.coturn import free_port
from tests.harness.processes import Program, peer, relay, sdpx

pytestmark = pytest.mark.e2e

ROUNDS: Final = 20
CUTS: Final = 4
NEVER: Final = ("negotiation_error", "server_error", "diagnosis", "connection_retry", "input_rejected")


@asynccontextmanager
async def two_behind_proxies(*arguments: str) -> AsyncIterator[tuple[Program, Cutter, Program, Cutter, Program]]:
    """Run a relay, and two peers driven by commands, each behind a proxy of its own."""
    async with (
        relay(*arguments) as (server, url),
        cutting(int(url.rpartition(":")[2])) as a_way,
        cutting(a_way.target) as b_way,
    ):
        json = ("--stdin", "json", "--log-level", "debug")
        async with peer(a_way.url, "--id", "alice", *json) as (a, _), peer(b_way.url, "--id", "bob", *json) as (b, _):
            yield server, a_way, a, b_way, b


def count(program: Program, event: str) -> int:
    return program.events.count(event)


async def cut_on(way: Cutter, dice: random.Random) -> None:
    """Reset the connections at a few random moments; each may hit a dial, too."""
    for _ in range(CUTS):
        await trio.sleep(dice.uniform(0.005, 0.04))
        way.cut()


async def test_handshakes_under_cuts() -> None:
    """Twenty of them, while both ways are reset at random: each comes to an open channel on both sides, by one pairing."""
    dice = random.Random(7)
    async with two_behind_proxies() as (server, a_way, a, b_way, b):
        for done in range(ROUNDS):
            marks = len(a.lines), len(b.lines)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut_on, a_way, dice)
                nursery.start_soon(cut_on, b_way, dice)
                await a.say('{"pair":"bob"}')
                await a.wait_for("channel_open", after=marks[0])
                await b.wait_for("channel_open", after=marks[1])
                nursery.cancel_scope.cancel()
            await a.say('{"unpair":true}')
            await a.wait_for("ready", after=marks[0])
            await b.wait_for("ready", after=marks[1])
            assert count(a, "paired") == count(b, "paired") == done + 1
        for program in (a, b):
            assert count(program, "relay_resumed") > ROUNDS / 2
            assert count(program, "id_assigned") == 1
            assert [line for line in program.lines if line["event"] in NEVER] == []
            for once in ("channel_open", "exchange_complete", "pc_created"):
                assert count(program, once) == ROUNDS
            assert "resume" not in "".join(str(line) for line in program.lines if line["event"] != "relay_resumed")
        assert count(server, "paired") == ROUNDS
        assert count(server, "client_disconnected") == 0


async def test_a_relay_that_believes_the_old_socket_alive() -> None:
    """Both ways stand still in the middle of it, and no side sees a loss: whoever waits for a word of the relay takes over."""
    async with two_behind_proxies() as (server, a_way, a, _, b):
        a_way.freeze()
        await a.say('{"pair":"bob"}')
        await a.wait_for("relay_resumed")
        await a.wait_for("channel_open")
        await b.wait_for("channel_open")
        assert count(server, "client_disconnected") == 0
        assert count(server, "paired") == 1
        resumed = await server.wait_for("client_resumed", client_id="alice")
        assert resumed["client_id"] == "alice"


async def test_a_channel_and_its_pairing_outlive_a_cut() -> None:
    """Nothing is orphaned: who leaves afterwards leaves by the relay, and both are free at once."""
    async with two_behind_proxies() as (server, a_way, a, b_way, b):
        await a.say('{"pair":"bob"}')
        await a.wait_for("channel_open")
        await b.wait_for("channel_open")
        a_way.cut()
        b_way.cut()
        await a.wait_for("relay_resumed")
        await b.wait_for("relay_resumed")
        await a.say('{"send":"still here"}')
        await b.wait_for("channel_message", text="still here")
        mark = len(b.lines)
        await a.say('{"unpair":true}')
        await b.wait_for("ready", after=mark, reason="left")
        assert (await server.wait_for("unpaired"))["reason"] == "left"


async def test_a_relay_that_was_restarted_has_forgotten() -> None:
    """Then it is as without numbers: a new ID line, the channel lives on, and a pairing without one is asked for again."""
    port = free_port()
    serve = ("serve", "--port", str(port))
    url = f"ws://127.0.0.1:{port}"
    async with sdpx(*serve) as first:
        await first.wait_for("server_listening")
        async with peer(url, "--id", "bob") as (b, _), peer(url, "--id", "alice", "--pair", "bob") as (a, _):
            await a.wait_for("channel_open")
            await b.wait_for("channel_open")
            first.process.kill()
            await first.ended()
            async with sdpx(*serve):
                for program in (a, b):
                    await program.wait_for("disconnected")
                    mark = program.events.index("disconnected")
                    assert (await program.wait_for("id_assigned", after=mark))["id"] in ("alice", "bob")
                    assert count(program, "relay_resumed") == 0
                await a.say("over the old channel")
                await b.wait_for("channel_message", text="over the old channel")


async def test_a_relay_that_follows_the_founding_design_to_the_letter() -> None:
    """It knows no numbers, so it gets none; a lost socket is the end of a pairing there, and a new beginning."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.literal_server", str(port)]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.DEVNULL)
    try:
        await listens(port)
        async with cutting(port) as way, peer(way.url) as (b, b_id), peer(way.url, "--pair", b_id, "--once") as (a, _):
            await a.wait_for("channel_open")
            await b.wait_for("channel_open")
            way.cut()
            for program in (a, b):
                await program.wait_for("id_assigned", after=program.events.index("channel_open"))
                assert count(program, "relay_resumed") == 0
            await a.say("the channel lives on")
            await b.wait_for("channel_message", text="the channel lives on")
    finally:
        process.kill()
        await process.wait()


async def listens(port: int) -> None:
    """Wait until somebody accepts connections there."""
    with trio.fail_after(20):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)
            else:
                await stream.aclose()
                return
