"""Runtime: signals."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, trio
from sdpx.options import LogOptions
from sdpx.runtime import run

async def main(log, stop):
    os.kill(os.getpid(), signal.{name})
    with trio.move_on_after({seconds}):
        await stop.wait()
    os.write(1, b"requested" if stop.requested else b"ignored")

raise SystemExit(run(main, LogOptions()))
"""


def run(name: str, seconds: float, *prefix: str) -> tuple[int, bytes, bytes]:
    """Send a program this signal right after its start; returns exit status, stdout and stderr."""
    command = [*prefix, sys.executable, "-c", PROGRAM.format(name=name, seconds=seconds)]
    ended = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_right_after_start_shuts_down_in_order(name: str) -> None:
    """The exit status is 0, without a traceback."""
    assert run(name, 30) == (0, b"requested", b"")


def test_sighup_is_ignored_under_nohup() -> None:
    """A SIGHUP that is ignored at start stays ignored."""
    status, written, _ = run("SIGHUP", 0.5, "nohup")
    assert (status, written) == (0, b"ignored")
