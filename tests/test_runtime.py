"""What every program does around its work."""

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
def test_a_signal_counts_from_the_first_moment(name: str) -> None:
    """Whoever reads the first line may send one at once: an orderly end, and no traceback."""
    program = [sys.executable, "-c", PROGRAM.format(name=name)]
    ended = subprocess.run(program, check=False, capture_output=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_under_nohup_a_hangup_ends_nothing() -> None:
    """Who ignores it when the program starts means it."""
    program = [sys.executable, "-c", PROGRAM.format(name="SIGHUP")]
    with subprocess.Popen(["nohup", *program], stderr=subprocess.DEVNULL) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1.5)
        child.terminate()
        assert child.wait(30) == 0
