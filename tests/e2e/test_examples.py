"""The programs in sdpx/docs/examples that control a peer as a child process, each against a real relay and a real peer."""

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.docs.generate import EXAMPLES
from tests.harness.processes import Program, environment, peer, relay

pytestmark = pytest.mark.e2e

CHANNEL_LOST, EXPECTATION_FAILED = 12, 13
INTERPRETERS = {"child_process.py": [sys.executable], "child_process.mjs": ["node"], "child_process.sh": ["bash"]}
Done = list[Any]


@asynccontextmanager
async def running(
    name: str, folder: Path, *, within: float = 60, status: int = 0
) -> AsyncIterator[tuple[Program, Done]]:
    """Run an example, with another time limit, and the peer that it asks for.

    Yields that peer, and a list that gets the example's result, which must have this exit status.
    """
    interpreter = INTERPRETERS[name]
    for needed in (interpreter[0], *(["jq"] if name.endswith(".sh") else [])):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done: Done = []
    async with relay() as (_, url), trio.open_nursery() as nursery:

        async def run() -> None:
            settings = environment() | {"PATH": path, "SDPX_URL": url, "SDPX_NO_STUN": "1"}
            program = folder / name
            program.write_text(EXAMPLES[name].read_text().replace("60", str(within)))
            command = [*interpreter, str(program)]
            done.append(
                await trio.run_process(command, env=settings, capture_stdout=True, capture_stderr=True, check=False)
            )

        nursery.start_soon(run)
        async with peer(url, "--id", "robot", "--stdin", "json") as (robot, _):
            await robot.wait_for("channel_message", text="forward")
            yield robot, done
            with trio.fail_after(30):
                while not done:
                    await trio.sleep(0.05)
    assert done[0].returncode == status, done[0].stderr.decode()


@pytest.mark.parametrize("name", INTERPRETERS)
async def test_example_sends_a_message_and_prints_the_reply(name: str, tmp_path: Path) -> None:
    async with running(name, tmp_path) as (robot, done):
        await robot.say(json.dumps({"send": "on my way"}))
        await robot.wait_for("ready")
    assert done[0].stdout.decode() == "reply from the robot: on my way\n"


@pytest.mark.parametrize("name", INTERPRETERS)
async def test_example_ends_when_the_other_side_leaves(name: str, tmp_path: Path) -> None:
    """The exit status says that no reply came."""
    async with running(name, tmp_path, status=CHANNEL_LOST) as (robot, done):
        await robot.say(json.dumps({"close": True}))
    assert done[0].stdout.decode() == ""


@pytest.mark.long
async def test_example_ends_when_the_other_side_sends_nothing(tmp_path: Path) -> None:
    """The exit status says that no reply came."""
    async with running("child_process.py", tmp_path, within=8, status=EXPECTATION_FAILED) as (robot, done):
        await robot.wait_for("ready")
    assert done[0].stdout.decode() == ""
