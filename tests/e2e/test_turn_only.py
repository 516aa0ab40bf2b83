"""`--ice-transport relay` with a real coturn, which checks the credentials that `sdpx serve` issues."""

import json
import time
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


def issuing(directory: Path, port: int, ttl: int) -> tuple[str, ...]:
    """Return the options of a relay that issues credentials for this coturn."""
    path = directory / "turn-secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return ("--turn-secret-file", str(path), "--turn-url", f"turn:127.0.0.1:{port}", "--turn-ttl", str(ttl))


def kinds(program: Program, event: str) -> set[str | None]:
    return {line["candidate_type"] for line in program.of(event)}


async def test_two_peers_connect_through_a_turn_server_only(tmp_path: Path) -> None:
    """Relayed candidates are the only ones sent, and those of the selected pair."""
    async with coturn(tmp_path, SECRET) as port, relay(*issuing(tmp_path, port, 600)) as (_, url):
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


async def expired_credentials(directory: Path, port: int) -> dict[str, Any]:
    """Return credentials of a relay that have expired."""
    async with relay(*issuing(directory, port, 1)) as (_, url), open_websocket_url(f"{url}/?id=bob") as client:
        [server] = json.loads(await client.get_message())["ice_servers"]
    expiry = int(server["username"].partition(":")[0])
    await trio.sleep(max(0.0, expiry + 1.1 - time.time()))  # coturn counts whole seconds
    return dict(server)


async def test_expired_turn_credentials_are_diagnosed(tmp_path: Path) -> None:
    async with coturn(tmp_path, SECRET) as port, relay() as (_, url):
        expired = await expired_credentials(tmp_path, port)
        login = f"{quote(expired['username'], safe='')}:{quote(expired['credential'], safe='')}"
        turn = ("--turn", f"turn:{login}@127.0.0.1:{port}", "--timeout", "5", *ONLY)
        async with (
            sdpx("peer", "--url", url, "--id", "bob"),  # needs no relayed candidate, so that it does not leave first
            sdpx("peer", "--url", url, "--pair", "bob", "--wait", "10", *turn) as alice,
        ):
            diagnosis = await alice.wait_for("diagnosis", retrying=False)
            assert diagnosis["code"] == "turn_refused"
            assert diagnosis["turn_refusals"] == [f"turn:127.0.0.1:{port}?transport=udp 401"]
            assert "credentials have expired" in diagnosis["message"]
            assert diagnosis["local_candidates"] == {}
            assert await alice.ended() == 10
