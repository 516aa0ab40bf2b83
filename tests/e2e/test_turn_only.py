"""A path through a TURN server and no other: credentials that `sdpx serve` mints, and a real coturn that checks them."""

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import trio
from trio_websocket import open_websocket_url

from tests.harness.coturn import coturn
from tests.harness.processes import Program, relay, sdpx

pytestmark = pytest.mark.e2e

SECRET: Final = "north-by-northwest"
ONLY: Final = ("--ice-transport", "relay")


def minting(directory: Path, port: int, ttl: int) -> tuple[str, ...]:
    """Return what makes a relay mint credentials for that coturn."""
    path = directory / "turn-secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return ("--turn-secret-file", str(path), "--turn-url", f"turn:127.0.0.1:{port}", "--turn-ttl", str(ttl))


def kinds(program: Program, event: str) -> set[str | None]:
    return {line["candidate_type"] for line in program.lines if line["event"] == event}


async def test_two_peers_with_no_other_path_connect_through_it(tmp_path: Path) -> None:
    """Nothing but relayed candidates is offered, and they are what the channel goes over."""
    async with coturn(tmp_path, SECRET) as port, relay(*minting(tmp_path, port, 600)) as (_, url):
        leave = ("--once", "--expect", "message")
        async with (
            sdpx("peer", "--url", url, "--id", "bob", *ONLY, *leave) as bob,
            sdpx("peer", "--url", url, "--pair", "bob", "--wait", "10", *ONLY, *leave) as alice,
        ):
            for program in (alice, bob):
                await program.wait_for("channel_open")
                await program.say("through the relay")
            for program in (alice, bob):
                await program.wait_for("channel_message", text="through the relay")
            for program in (alice, bob):
                await program.end_input()
            for program in (alice, bob):
                assert await program.ended() == 0
                assert (await program.wait_for("connection_summary"))["local_candidate"] == "relay"
                assert kinds(program, "candidate_sent") == {"relay", None}
                assert SECRET not in str(program.lines)


async def ended_credentials(directory: Path, port: int) -> dict[str, Any]:
    """Let a relay mint some, and wait until they have ended."""
    async with relay(*minting(directory, port, 1)) as (_, url), open_websocket_url(f"{url}/?id=bob") as client:
        [server] = json.loads(await client.get_message())["ice_servers"]
    await trio.sleep(2.5)
    return dict(server)


async def test_with_credentials_that_have_ended_there_is_no_path_and_the_verdict_says_why(tmp_path: Path) -> None:
    async with coturn(tmp_path, SECRET) as port, relay() as (_, url):
        ended = await ended_credentials(tmp_path, port)
        login = f"{quote(ended['username'], safe='')}:{quote(ended['credential'], safe='')}"
        turn = ("--turn", f"turn:{login}@127.0.0.1:{port}", "--timeout", "5", *ONLY)
        async with (
            sdpx("peer", "--url", url, "--id", "bob", *turn),
            sdpx("peer", "--url", url, "--pair", "bob", "--wait", "10", *turn) as alice,
        ):
            verdict = await alice.wait_for("diagnosis", retrying=False)
            assert verdict["code"] == "turn_refused"
            assert verdict["turn_refusals"] == [f"turn:127.0.0.1:{port}?transport=udp 401"]
            assert "has expired" in verdict["message"]
            assert verdict["local_candidates"] == {}
            assert await alice.ended() == 10
