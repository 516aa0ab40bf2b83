"""Lines of standard input, read only as they are wanted.

Nothing is read before the first line is asked for, and what was read and not yet used is held: a line is lost neither to a
waiting reader that gave up nor to a data channel that closed. Reading happens in a thread, since a file cannot be polled and a
terminal must not be made non-blocking; on the program's end the thread is left behind in its read.
"""

from collections.abc import Callable
from typing import Final

import trio

MAX_LINE: Final = 64 * 1024
CHUNK: Final = 64 * 1024


class Lines:
    """An input of lines; `read(n)` blocks and returns up to n bytes, none at the end.

    `refuse(code, reason)` is told of a line that cannot be used: over `longest` bytes, or not UTF-8.
    """

    def __init__(
        self, read: Callable[[int], bytes], refuse: Callable[[str, str], None], longest: int = MAX_LINE
    ) -> None:
        self._longest = longest
        self._read = read
        self._refuse = refuse
        self._wanted = trio.Event()
        self._held: str | None = None
        self._send, self._receive = trio.open_memory_channel[str](0)

    async def run(self) -> None:
        """Read until the end of the input."""
        await self._wanted.wait()
        async with self._send:
            pending = bytearray()
            skipping = False
            while chunk := await self._next_chunk():
                pending += chunk
                *whole, rest = pending.split(b"\n")
                for line in whole:
                    if not skipping:
                        await self._offer(bytes(line))
                    skipping = False
                pending = bytearray() if skipping else rest
                if len(pending) > self._longest:
                    self._refuse_long()
                    pending, skipping = bytearray(), True
            if pending:
                await self._offer(bytes(pending))

    async def next(self) -> str | None:
        """Return the next line, without its line end; None at the end of the input."""
        self._wanted.set()
        if self._held is not None:
            line, self._held = self._held, None
            return line
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return None

    def unread(self, line: str) -> None:
        """Put back the line that was returned last: it is the next one again."""
        self._held = line

    @property
    def has_waiting(self) -> bool:
        """Whether a line was read that nobody has taken, or that was put back."""
        return self._held is not None or self._receive.statistics().tasks_waiting_send > 0

    async def _next_chunk(self) -> bytes:
        try:
            return await trio.to_thread.run_sync(self._read, CHUNK, abandon_on_cancel=True)
        except OSError:
            return b""  # a closed stdin has no lines

    async def _offer(self, line: bytes) -> None:
        if len(line) > self._longest:
            self._refuse_long()
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._refuse("not_utf8", "A line of the input is not UTF-8 and was not sent")
            return
        await self._send.send(text)

    def _refuse_long(self) -> None:
        self._refuse("too_long", f"A line of the input has more than {self._longest} bytes and was not sent")
