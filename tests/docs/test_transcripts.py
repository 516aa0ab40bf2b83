"""The examples of README.md and protocol.md, run with real processes."""

import json
import re
from contextlib import AsyncExitStack
from typing import Final

import pytest
from trio_websocket import open_websocket_url

from tests.docs.generate import ROOT
from tests.harness.processes import Program, peer, relay

pytestmark = pytest.mark.e2e

README: Final = (ROOT / "README.md").read_text()
INITIATOR: Final = "hnd2btzv3vf5r34cq"  # the generated ID in the README's output
PORT: Final = re.compile(r"127\.0\.0\.1:\d+")


def shown() -> list[list[str]]:
    """The output blocks of the README, each as its lines of event and message."""
    return [PORT.sub("ADDRESS", block).splitlines() for block in re.findall(r"```text\n(.*?)```", README, re.DOTALL)]


def printed(program: Program, initiator: str) -> list[str]:
    lines = (f"{line['event']}\t{line['message']}" for line in program.lines)
    return [PORT.sub("ADDRESS", line).replace(initiator, INITIATOR) for line in lines]


def is_subsequence(some: list[str], lines: list[str]) -> bool:
    rest = iter(lines)
    return all(line in rest for line in some)


async def test_the_first_handshake_prints_what_the_readme_shows() -> None:
    """The lines shown are among the lines printed, in this order."""
    async with relay() as (server, url), peer(url, "--id", "bob") as (bob, _):
        async with peer(url, "--pair", "bob", "--once") as (program, initiator):
            await program.say("hello")
            await program.end_input()
            assert await program.ended() == 0
        await bob.wait_for("ready")
        await server.wait_for("unpaired")
        for lines, printer in zip(shown(), (server, bob, program), strict=True):
            output = printed(printer, initiator)
            assert is_subsequence(lines, output), output


async def test_the_protocol_example_is_what_the_relay_does() -> None:
    """Frames are equal to those shown, except for the message of an error."""
    text = (ROOT / "sdpx" / "docs" / "protocol.md").read_text()
    lines = re.findall(r"^([ab]) (<-|->) (\{.*\})$", text, re.MULTILINE)
    assert lines
    async with relay() as (_, url), AsyncExitStack() as stack:
        sockets = {name: await stack.enter_async_context(open_websocket_url(f"{url}?id={name}")) for name in "ab"}
        for name, direction, frame in lines:
            if direction == "->":
                await sockets[name].send_message(frame)
            else:
                received = json.loads(await sockets[name].get_message())
                assert received | ({"message": "..."} if "message" in received else {}) == json.loads(frame)
