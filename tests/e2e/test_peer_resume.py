"""Resume of real peers: a proxy between them and the relay breaks connections, and the handshake goes on."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import trio

from sdpx.errors import ExitStatus
from tests.harness.breaking_proxy import BreakingProxy, breaking_proxy
from tests.harness.processes import Program, peer, relay, sdpx, server_process

pytestmark = pytest.mark.e2e

ROUNDS: Final = 6
CUTS: Final = 4
NEVER: Final = ("negotiation_error", "server_error", "diagnosis", "connection_retry", "input_rejected")


@asynccontextmanager
async def two_behind_proxies(
    *arguments: str,
) -> AsyncIterator[tuple[Program, BreakingProxy, Program, BreakingProxy, Program]]:
    """Run a relay, and two peers driven by commands, each behind a proxy of its own."""
    async with (
        relay(*arguments) as (server, url),
        breaking_proxy(int(url.rpartition(":")[2])) as a_proxy,
        breaking_proxy(a_proxy.target) as b_proxy,
    ):
        json = ("--stdin", "json", "--log-level", "debug")
        async with (
            peer(a_proxy.url, "--id", "alice", *json) as (a, _),
            peer(b_proxy.url, "--id", "bob", *json) as (b, _),
        ):
            yield server, a_proxy, a, b_proxy, b


def count(program: Program, event: str) -> int:
    return program.events.count(event)


async def reset_repeatedly(proxy: BreakingProxy, rng: random.Random) -> None:
    """Reset the connections at a few random moments; each may hit a dial, too."""
    for _ in range(CUTS):
        await trio.sleep(rng.uniform(0.005, 0.04))
        proxy.reset()


async def test_handshakes_complete_while_connections_are_reset() -> None:
    """Each ends with an open channel on both sides, by one pairing."""
    rng = random.Random(7)
    async with two_behind_proxies() as (server, a_proxy, a, b_proxy, b):
        for done in range(ROUNDS):
            marks = len(a.lines), len(b.lines)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reset_repeatedly, a_proxy, rng)
                nursery.start_soon(reset_repeatedly, b_proxy, rng)
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
            for once in ("exchange_complete", "pc_created"):
                assert count(program, once) == ROUNDS
            opened = [line for line in program.lines if line["event"] == "channel_open" and line["label"] == "chat"]
            assert len(opened) == ROUNDS  # beside those for files
            assert "resume" not in "".join(str(line) for line in program.lines if line["event"] != "relay_resumed")
        assert count(server, "paired") == ROUNDS
        assert count(server, "client_disconnected") == 0


@pytest.mark.long
async def test_peer_takes_over_from_a_frozen_connection() -> None:
    """Neither side sees a loss: the peer that waits for the relay opens another connection."""
    async with two_behind_proxies() as (server, a_proxy, a, _, b):
        a_proxy.freeze()
        await a.say('{"pair":"bob"}')
        await a.wait_for("relay_resumed")
        await a.wait_for("channel_open")
        await b.wait_for("channel_open")
        assert count(server, "client_disconnected") == 0
        assert count(server, "paired") == 1
        resumed = await server.wait_for("client_resumed", client_id="alice")
        assert resumed["client_id"] == "alice"


async def test_pairing_survives_a_reset() -> None:
    """No pairing is detached: a peer that leaves later does so at the relay, and both are free at once."""
    async with two_behind_proxies() as (server, a_proxy, a, b_proxy, b):
        await a.say('{"pair":"bob"}')
        await a.wait_for("channel_open")
        await b.wait_for("channel_open")
        a_proxy.reset()
        b_proxy.reset()
        await a.wait_for("relay_resumed")
        await b.wait_for("relay_resumed")
        await a.say('{"send":"still here"}')
        await b.wait_for("channel_message", text="still here")
        mark = len(b.lines)
        await a.say('{"unpair":true}')
        await b.wait_for("ready", after=mark, reason="left")
        assert (await server.wait_for("unpaired"))["reason"] == "left"


async def test_relay_without_resume_ends_the_pairing_and_the_channel_survives(tmp_path: Path) -> None:
    """The relay ignores the query for sequence numbers; the peers get new sessions."""
    with server_process(tmp_path, "-m", "tests.bench.literal_server") as server:
        async with (
            breaking_proxy(server.port) as proxy,
            peer(proxy.url) as (b, b_id),  # the server ignores a requested ID
            peer(proxy.url, "--pair", b_id, "--once") as (a, _),
        ):
            await a.wait_for("channel_open")
            await b.wait_for("channel_open")
            proxy.reset()
            for program in (a, b):
                await program.wait_for("id_assigned", after=program.events.index("channel_open"))
                assert count(program, "relay_resumed") == 0
            await a.say("over the old channel")
            await b.wait_for("channel_message", text="over the old channel")


async def test_refusal_of_the_id_of_a_killed_peer_says_when_it_is_free() -> None:
    async with relay("--resume-window", "600") as (server, url):
        async with peer(url, "--id", "bob") as (bob, _):
            bob.process.kill()
            await server.wait_for("client_suspended")
        async with sdpx("peer", "--url", url, "--id", "bob") as again:
            assert await again.ended() == ExitStatus.REFUSED
    assert b"'bob' is in use, or its program was killed or cut off less than 600 s ago" in again.stderr
