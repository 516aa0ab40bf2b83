"""Real sdpx processes, started and read as a program that drives them would."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

Line = dict[str, Any]
COMMON = ["ts", "level", "event", "message"]


class Program:
    """A child process: the lines of its log so far, its input, its end."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.stderr = b""
        self._news = trio.Event()
        self._open_outputs = 2

    async def read_stdout(self) -> None:
        assert self.process.stdout is not None
        pending = b""
        async for chunk in self.process.stdout:
            *whole, pending = (pending + chunk).split(b"\n")
            for raw in whole:
                line = msgspec.json.decode(raw, type=Line)
                assert list(line)[:4] == COMMON, raw
                self.lines.append(line)
            self._wake()
        assert pending == b""
        self._output_ended()

    async def read_stderr(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.stderr += chunk
        self._output_ended()

    def _output_ended(self) -> None:
        self._open_outputs -= 1
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]

    async def wait_for(self, event: str, *, after: int = 0, **keys: object) -> Line:
        """Return the first such line behind the first `after` lines."""
        seen = after
        while True:
            for line in self.lines[seen:]:
                seen += 1
                if line["event"] == event and keys.items() <= line.items():
                    return line
            assert self._open_outputs, f"ended without {event} {keys}: {self.events} {self.stderr.decode()}"
            await self._news.wait()

    async def say(self, text: str) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{text}\n".encode())

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def ended(self) -> int:
        """Wait for the process to end and for all of its output; it never leaves a traceback."""
        status = await self.process.wait()
        while self._open_outputs:
            await self._news.wait()
        assert b"Traceback" not in self.stderr, self.stderr.decode()
        return status

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return await self.ended()


def environment() -> dict[str, str]:
    """Return this environment without what would steer an sdpx."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SDPX_")}


@asynccontextmanager
async def sdpx(*arguments: str) -> AsyncIterator[Program]:
    """Run `sdpx` with these arguments; it is killed if it outlives the block, and the test by its deadline."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "sdpx", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    program = Program(process)
    try:
        with trio.fail_after(45):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program.read_stdout)
                nursery.start_soon(program.read_stderr)
                try:
                    yield program
                finally:
                    process.kill()
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()


@asynccontextmanager
async def relay(*arguments: str) -> AsyncIterator[tuple[Program, str]]:
    """Run a relay on a free port; yields it and its URL."""
    async with sdpx("serve", "--port", "0", *arguments) as server:
        yield server, (await server.wait_for("server_listening"))["url"]


@asynccontextmanager
async def peer(url: str, *arguments: str) -> AsyncIterator[tuple[Program, str]]:
    """Run a peer without STUN; yields it and its ID."""
    async with sdpx("peer", "--url", url, "--no-stun", *arguments) as program:
        yield program, (await program.wait_for("id_assigned"))["id"]
