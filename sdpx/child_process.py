"""Child processes that exchange lines with this program."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from sdpx.concurrency import RepeatedEvent

EXIT_SECONDS: Final = 8.0
READ_BYTES: Final = 1024 * 1024
MAX_LINE: Final = 64 * 1024 * 1024


Line = dict[str, Any]


class ChildProcess:
    """A Python process: lines to its stdin, lines from its stdout."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""

    async def send_line(self, line: str) -> None:
        """Write a line to stdin."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{line}\n".encode())

    async def receive_line(self) -> bytes:
        """Return the next line of stdout with its line feed; nothing at the end of the output, or beyond `MAX_LINE`."""
        while b"\n" not in self._buffer:
            data = await self._receive_some()
            self._buffer += data
            if not data or len(self._buffer) > MAX_LINE:
                return b""
        line, separator, self._buffer = self._buffer.partition(b"\n")
        return line + separator

    async def discard_output(self) -> None:
        """Read stdout to its end."""
        while await self._receive_some():
            pass

    async def _receive_some(self) -> bytes | bytearray:
        assert self.process.stdout is not None
        return await self.process.stdout.receive_some(READ_BYTES)


class LoggedProcess(ChildProcess):
    """A process of sdpx, with the log lines that it has written; `on_line` is called with each."""

    def __init__(self, process: trio.Process, on_line: Callable[[Line], object] = id) -> None:
        super().__init__(process)
        self.lines: list[Line] = []
        self._on_line = on_line
        self._ended = False
        self._changed = RepeatedEvent()

    async def run(self) -> None:
        """Read the log until the process has ended."""
        while raw := await self.receive_line():
            self.lines.append(msgspec.json.decode(raw, type=Line))
            self._on_line(self.lines[-1])
            self._changed.set()
        await self.process.wait()
        self._ended = True
        self._changed.set()

    async def wait_ended(self) -> None:
        """Wait until the process has ended and its log has been read."""
        while not self._ended:
            await self._changed.wait()

    async def wait_for(self, event: str, *, after: int = 0, **keys: object) -> Line | None:
        """Wait for a line of this event with these keys, behind the first `after` lines, and return it.

        Returns None if the process has ended without one.
        """
        while True:
            for line in self.lines[after:]:
                if line["event"] == event and keys.items() <= line.items():
                    return line
            if self._ended:
                return None
            after = max(after, len(self.lines))
            await self._changed.wait()


def environment() -> dict[str, str]:
    """Return the environment variables of this process but those that configure sdpx."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SDPX_")}


@asynccontextmanager
async def child_process(
    *arguments: str,
    program: Sequence[str] = (sys.executable,),
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[trio.Process]:
    """Run Python, or another program, with these arguments, in a session of its own, with stdin and stdout piped.

    `variables` are added to its environment, for what a list of processes must not show.

    At the end of the block the process is terminated, and killed if it has not exited after `EXIT_SECONDS`.
    """
    process = await trio.lowlevel.open_process(
        [*program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment() | dict(variables or {}),
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        with trio.move_on_after(EXIT_SECONDS, shield=True):
            process.terminate()
            await process.wait()
        process.kill()
