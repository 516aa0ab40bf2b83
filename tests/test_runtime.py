"""Runtime: signals."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from sdpx.errors import ExitStatus
from sdpx.runtime import LogFailures, print_error

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
    """Send a program this signal right after its start; returns exit status, stdout and stderr.

    The tests may themselves run under nohup, which ignores SIGHUP.
    """
    command = ["env", "--default-signal=HUP", *prefix, sys.executable, "-c", PROGRAM.format(name=name, seconds=seconds)]
    ended = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signal_right_after_start_shuts_down_in_order(name: str) -> None:
    """The exit status is 0, without a traceback."""
    assert run(name, 30) == (0, b"requested", b"")


def test_unwritten_log_shuts_down_with_status_1_and_a_sentence_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """`--on-log-failure exit`, and every program but the relay."""
    requests: list[str] = []
    failures = LogFailures("exit", requests.append, float)
    assert failures.status(all_written=True) is ExitStatus.OK
    failures.on_failure(OSError(28, "No space left on device"), 3)
    assert requests == ["failed writes to stdout"]
    assert failures.status(all_written=True) is ExitStatus.INTERNAL
    assert capsys.readouterr().err == "sdpx: Cannot write the log to stdout: No space left on device; lines lost: 3\n"


def test_end_of_the_log_that_is_not_read_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines are left when the reader has stalled for too long."""
    assert LogFailures("exit", pytest.fail, float).status(all_written=False) is ExitStatus.INTERNAL
    assert "not written" in capsys.readouterr().err


def test_relay_that_serves_on_reports_it_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """`--on-log-failure serve`: the first loss is reported at once, and the exit status stays 0."""
    times = iter([0.0, 0.0, 1.0, 59.0, 60.0, 60.0])
    failures = LogFailures("serve", pytest.fail, lambda: next(times))
    for _ in range(4):
        failures.on_failure(OSError(28, "No space left on device"), 10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("lost: ")[2] for line in lines] == [
        "10. The relay keeps serving",
        "40. The relay keeps serving",
    ]
    assert failures.status(all_written=True) is ExitStatus.OK


def test_unwritten_log_that_cannot_be_reported_either_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay serves on, but its exit status is not 0."""
    failures = LogFailures("serve", pytest.fail, float)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        failures.on_failure(OSError(28, "No space left on device"), 3)
        assert failures.status(all_written=True) is ExitStatus.INTERNAL
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_sentence_on_stderr_has_no_character_that_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as an answer of a hostile relay."""
    assert print_error("The relay refused: \x1b[2J\x9b\u202e")
    assert capsys.readouterr().err == "sdpx: The relay refused: \\u001b[2J\\u009b\\u202e\n"


def test_sighup_is_ignored_under_nohup() -> None:
    """A SIGHUP that is ignored at start stays ignored."""
    status, written, _ = run("SIGHUP", 0.5, "nohup")
    assert (status, written) == (0, b"ignored")


def test_signal_before_the_program_has_started_ends_the_process() -> None:
    """While modules are being loaded there is a handler, or the kernel would ignore SIGTERM for process 1 of a container."""
    loading = "import os, sys; sys.modules['sdpx.cli.app'] = type('M', (), {'main': lambda: os.kill(os.getpid(), 15)})"
    command = [sys.executable, "-c", f"{loading}\nfrom sdpx.__main__ import main\nmain()"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 128 + 15
