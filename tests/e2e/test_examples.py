"""The README's programs that drive a peer as a child, each run against a real relay and a real robot."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness.processes import environment, peer, relay

pytestmark = pytest.mark.e2e

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
SECTION = README.split("\n## A peer as a child process\n")[1].split("\n## ")[0]
RUN = {"python": ([sys.executable], "py"), "js": (["node"], "mjs"), "bash": (["bash"], "sh")}


@pytest.mark.parametrize("language", RUN)
async def test_a_program_drives_a_peer(language: str, tmp_path: Path) -> None:
    """It says its line, hears the robot's, closes, and ends with the peer's exit status."""
    (example,) = re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    interpreter, suffix = RUN[language]
    for needed in (interpreter[0], *(["jq"] if language == "bash" else [])):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    program = tmp_path / f"drive.{suffix}"
    program.write_text(example)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    async with relay() as (_, url), trio.open_nursery() as nursery:
        done: list[Any] = []

        async def drive() -> None:
            settings = environment() | {"PATH": path, "SDPX_URL": url, "SDPX_NO_STUN": "1"}
            command = [*interpreter, str(program)]
            done.append(
                await trio.run_process(command, env=settings, capture_stdout=True, capture_stderr=True, check=False)
            )

        nursery.start_soon(drive)
        async with peer(url, "--id", "robot", "--stdin", "json") as (robot, _):
            await robot.wait_for("channel_message", text="forward")
            await robot.say(json.dumps({"send": "on my way"}))
            await robot.wait_for("ready")
            with trio.fail_after(15):
                while not done:
                    await trio.sleep(0.05)
    assert done[0].stdout.decode() == "the robot says on my way\n"
    assert done[0].returncode == 0, done[0].stderr.decode()
