"""Real sdpx processes, started and driven as a user's program would drive them."""

import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from sdpx.child_process import ChildProcess, child_process, environment
from tests.harness.log import Line, LogRecorder

__all__ = ["COMMON", "Line", "Program", "environment", "peer", "relay", "sdpx"]

COMMON: Final = ["ts", "level", "event", "message"]
TEST_SECONDS: Final = 60.0


class Program(ChildProcess):
    """An sdpx process: its log lines, its input, its exit status."""

    def __init__(self, process: trio.Process) -> None:
        super().__init__(process)
        self.log = LogRecorder()
        self.stderr = b""
        self._open_outputs = 2

    async def read_stdout(self) -> None:
        while line := await self.receive_line():
            self.log.put([line])
            assert list(self.log.records[-1])[:4] == COMMON, line
        assert self._buffer == b""
        self._output_ended()

    async def read_stderr(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.stderr += chunk
        self._output_ended()

    def _output_ended(self) -> None:
        self._open_outputs -= 1
        self.log.changed.set()

    @property
    def lines(self) -> list[Line]:
        return self.log.records

    @property
    def events(self) -> list[str]:
        return self.log.events

    async def wait_for(self, event: str, *, after: int = 0, **keys: object) -> Line:
        """Return the first such line behind the first `after` lines."""
        while (line := self.log.first(event, after=after, **keys)) is None:
            after = len(self.lines)
            assert self._open_outputs, f"ended without {event} {keys}: {self.events} {self.stderr.decode()}"
            await self.log.changed.wait()
        return line

    async def say(self, text: str) -> None:
        await self.send_line(text)

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def ended(self) -> int:
        """Wait for the process and all of its output to end; a traceback on stderr fails the test."""
        status = await self.process.wait()
        while self._open_outputs:
            await self.log.changed.wait()
        assert b"Traceback" not in self.stderr, self.stderr.decode()
        return status

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return await self.ended()


@asynccontextmanager
async def sdpx(*arguments: str) -> AsyncIterator[Program]:
    """Run `sdpx` with these arguments; it is killed at the end of the block."""
    with trio.fail_after(TEST_SECONDS):
        async with (
            trio.open_nursery() as nursery,
            child_process("-m", "sdpx", *arguments, stderr=subprocess.PIPE) as process,
        ):
            program = Program(process)
            nursery.start_soon(program.read_stdout)
            nursery.start_soon(program.read_stderr)
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
