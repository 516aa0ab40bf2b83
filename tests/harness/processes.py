"""Real sdpx processes, started and driven as a user's program would drive them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
import trio

from sdpx.child_process import Line, LoggedProcess, child_process, environment

__all__ = [
    "COMMON",
    "Line",
    "Program",
    "RelayProcess",
    "environment",
    "peer",
    "relay",
    "relay_process",
    "sdpx",
    "server_process",
    "two_peers",
]

COMMON: Final = ["ts", "level", "event", "message"]
TEST_SECONDS: Final = 180.0
START_SECONDS: Final = 90.0
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Program(LoggedProcess):
    """An sdpx process: its log lines, its input, its exit status."""

    def __init__(self, process: trio.Process) -> None:
        super().__init__(process, assert_common)
        self.stderr = b""
        self._was_read = trio.Event()

    async def run(self) -> None:
        """Read the log and stderr until the process has ended."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_stderr)
            await super().run()
        assert self._buffer == b""
        self._was_read.set()

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.stderr += chunk

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    def of(self, event: str) -> list[Line]:
        """Return the lines of this event."""
        return [line for line in self.lines if line["event"] == event]

    async def wait_for(self, event: str, *, after: int = 0, **keys: object) -> Line:
        """Return the first such line behind the first `after` lines; the test fails if the process ends without one."""
        line = await super().wait_for(event, after=after, **keys)
        if line is None:
            await self._was_read.wait()
            pytest.fail(f"ended without {event} {keys}: {self.events} {self.stderr.decode()}")
        return line

    async def say(self, text: str) -> None:
        await self.send_line(text)

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def ended(self) -> int:
        """Wait for the process and all of its output to end; a traceback on stderr fails the test."""
        status = await self.process.wait()
        await self._was_read.wait()
        assert b"Traceback" not in self.stderr, self.stderr.decode()
        return status

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return await self.ended()


def assert_common(line: Line) -> None:
    """Assert that the keys that all log lines have come first."""
    assert list(line)[: len(COMMON)] == COMMON, line


@asynccontextmanager
async def sdpx(*arguments: str, module: Sequence[str] = ("sdpx",)) -> AsyncIterator[Program]:
    """Run `sdpx`, or another module, with these arguments; it is killed at the end of the block."""
    with trio.fail_after(TEST_SECONDS):
        async with (
            trio.open_nursery() as nursery,
            child_process("-m", *module, *arguments, stderr=subprocess.PIPE) as process,
        ):
            program = Program(process)
            nursery.start_soon(program.run)
            try:
                yield program
            finally:
                process.kill()


@asynccontextmanager
async def relay(*arguments: str) -> AsyncIterator[tuple[Program, str]]:
    """Run a relay on a free port; yields the process and the URL."""
    async with sdpx("serve", "--port", "0", *arguments) as server:
        yield server, (await server.wait_for("server_listening"))["url"]


@asynccontextmanager
async def peer(url: str, *arguments: str) -> AsyncIterator[tuple[Program, str]]:
    """Run a peer without STUN servers; yields the process and the ID."""
    async with sdpx("peer", "--url", url, "--no-stun", *arguments) as program:
        yield program, (await program.wait_for("id_assigned"))["id"]


@asynccontextmanager
async def two_peers(
    url: str, *, alice: Sequence[str] = (), bob: Sequence[str] = ()
) -> AsyncIterator[tuple[Program, Program]]:
    """Start alice and bob at the same time; alice requests the pairing. Yields them when the data channel is open."""
    common = ("peer", "--url", url, "--no-stun")
    async with (
        sdpx(*common, "--id", "bob", *bob) as b,
        sdpx(*common, "--id", "alice", "--pair", "bob", "--wait", "30", *alice) as a,
    ):
        await a.wait_for("channel_open")
        await b.wait_for("channel_open")
        yield a, b


class RelayProcess:
    """A server process with its `log` in a file, observed from outside."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, errors: Path) -> None:
        self.process = process
        self.log = log
        self._errors = errors
        listening = self._wait_for_listening()
        self.url: str = listening["url"]
        self.host: str = listening["host"]
        self.port: int = listening["port"]
        self.memory_at_start = self.memory

    def _wait_for_listening(self) -> Line:
        def is_listening() -> bool:
            assert self.process.poll() is None, self.stderr
            return bool(self.events("server_listening"))

        wait_until(is_listening, "server_listening")
        return self.events("server_listening")[0]

    @property
    def stderr(self) -> str:
        return self._errors.read_text()

    def events(self, *names: str, behind: int = 0) -> list[Line]:
        """Return the log lines of these events, or of all, from byte `behind` on."""
        complete = self.log.read_bytes()[behind:].rpartition(b"\n")[0]
        lines = [msgspec.json.decode(line, type=Line) for line in complete.splitlines()]
        return [line for line in lines if not names or line["event"] in names]

    @property
    def logged(self) -> int:
        """The size of the log in bytes."""
        return self.log.stat().st_size

    @property
    def memory(self) -> int:
        """The resident set size in bytes."""
        return resident_bytes(self.process.pid)

    @property
    def descriptors(self) -> int:
        """The number of open file descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    @property
    def cpu(self) -> float:
        """The CPU time in seconds."""
        return cpu_seconds(self.process.pid)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Return the resident set size of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def wait_until(condition: Callable[[], object], awaited: str, seconds: float = START_SECONDS) -> None:
    """Block until a condition holds; the test fails if it does not within `seconds`, which only guard against hanging."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {awaited}"
        time.sleep(0.01)


@contextmanager
def server_process(folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[RelayProcess]:
    """Run Python with these arguments, its outputs written to `folder`; `prefix` is a command that runs it."""
    log, errors = folder / "log", folder / "stderr"
    with log.open("wb") as out, errors.open("wb") as err:
        command = [*prefix, sys.executable, *arguments]
        process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment())
    try:
        yield RelayProcess(process, log, errors)
    finally:
        process.kill()
        process.wait()


def relay_process(folder: Path, *options: str, prefix: tuple[str, ...] = ()) -> AbstractContextManager[RelayProcess]:
    """Run `sdpx serve` on a free port (see `server_process`)."""
    return server_process(folder, "-m", "sdpx", "serve", "--port", "0", *options, prefix=prefix)
