"""Runtime: signals."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal
from sdpx.runtime import LogOptions, run

async def main(log, stop):
    os.kill(os.getpid(), signal.{name})
    await stop.wait()

raise SystemExit(run(main, LogOptions()))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_right_after_start_shuts_down_in_order(name: str) -> None:
    """The exit status is 0, without a traceback."""
    program = [sys.executable, "-c", PROGRAM.format(name=name)]
    ended = subprocess.run(program, check=False, capture_output=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_sighup_is_ignored_under_nohup() -> None:
    """A SIGHUP that is ignored at start stays ignored."""
    program = [sys.executable, "-c", PROGRAM.format(name="SIGHUP")]
    with subprocess.Popen(["nohup", *program], stderr=subprocess.DEVNULL) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.5)
        child.terminate()
        assert child.wait(30) == 0
