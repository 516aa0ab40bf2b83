"""Standard input of `sdpx peer`: its lines, the messages that they are or command, and the prompt for the ID of a peer.

Nothing is read before the first line is needed, and a line that was read and not used is kept: neither a cancelled reader nor
a data channel that closes loses one. A thread does the reading, since a file cannot be polled and a terminal must not be made
non-blocking; when the program ends the thread is left in its read.
"""

import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, IncrementalDecoder, getincrementaldecoder
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.events import peer
from sdpx.ids import validate_id
from sdpx.log import Log
from sdpx.peer.negotiation.confirmation import Message, size_of

MAX_LINE: Final = 256 * 1024
CHUNK: Final = 64 * 1024
QUEUE_BOUND: Final = 1024
QUEUE_BYTES: Final = 4 * 1024 * 1024


class Lines:
    """The lines of an input; `read(n)` blocks and returns up to n bytes, none at the end.

    A line over `max_size` bytes, or not in UTF-8, is logged as `input_rejected` and skipped. A line ends with LF or CRLF. A
    byte order mark at the start is skipped; that of UTF-16, as of Windows programs, announces UTF-16. With `at_once` reading
    does not wait for the first line to be needed.
    """

    def __init__(
        self, read: Callable[[int], bytes], log: Log, max_size: int = MAX_LINE, *, at_once: bool = False
    ) -> None:
        self._read = read
        self._log = log
        self._max_size = max_size
        self._wanted = trio.Event()
        if at_once:
            self._wanted.set()
        self._is_first = True  # no line was read
        self._utf16: IncrementalDecoder | None = None
        self.ended = trio.Event()
        self._waiting: deque[str] = deque()
        self._pending = bytearray()  # the beginning of a line
        self._chunk = b""  # read, and not divided into lines
        self._is_at_end = False
        self._changed = RepeatedEvent()
        self.rejected = Counter[str]()  # messages, and lines that may have been messages, by code

    async def run(self) -> None:
        """Read until the end of the input."""
        await self._wanted.wait()
        skipping = False
        while chunk := await self._next_chunk():
            self._pending += chunk
            *whole, rest = self._pending.split(b"\n")
            for line in whole:
                if not skipping:
                    self._add(bytes(line))
                skipping = False
            self._pending, self._chunk = bytearray() if skipping else rest, b""
            if len(self._pending) > self._max_size + len(BOM_UTF8 + b"\r"):
                self._reject_long()
                self._pending, skipping = bytearray(), True
            await self._all_taken()
        if self._pending:
            self._add(bytes(self._pending))
            self._pending.clear()
        self._is_at_end = True
        self._changed.set()
        await self._all_taken()
        self.ended.set()

    async def _all_taken(self) -> None:
        while self._waiting:
            await self._changed.wait()

    async def next(self) -> str | None:
        """Return the next line, without its line end; None at the end of the input."""
        self._wanted.set()
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._is_at_end:
                return None
            await self._changed.wait()
        line = self._waiting.popleft()
        self._changed.set()
        return line

    def unread(self, line: str) -> None:
        """Put back the line returned last: it is the next one again."""
        self._waiting.appendleft(line)
        self._changed.set()

    @property
    def waiting(self) -> int:
        """The number of lines that were read, wholly or in part, and not taken, or put back."""
        return len(self._waiting) + bool(self._pending or self._chunk)

    def drain(self) -> list[str]:
        """Take all lines that wait, at the end of the program."""
        lines = [*self._waiting, *([self._pending.decode(errors="replace")] if self._pending else ())]
        self._waiting.clear()
        self._pending.clear()
        return lines

    def reject(self, code: str, reason: str, messages: int = 1) -> None:
        """Log that input is not used, and count the messages that are not sent therefore."""
        self._log.emit(peer.InputRejected(code, reason))
        self.rejected[code] += messages

    async def _next_chunk(self) -> bytes:
        def read() -> None:
            self._chunk = self._read(CHUNK)

        try:
            await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        except OSError:
            return b""  # a closed stdin has no lines
        chunk = self._chunk
        if self._is_first and self._utf16 is None and chunk.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            self._utf16 = getincrementaldecoder("utf-16")("replace")
        return self._utf16.decode(chunk).encode(errors="replace") if self._utf16 else chunk

    def _add(self, line: bytes) -> None:
        line = line.removeprefix(BOM_UTF8 if self._is_first else b"").removesuffix(b"\r")
        self._is_first = False
        if len(line) > self._max_size:
            self._reject_long()
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self.reject("not_utf8", "A line of the input is not UTF-8 and was not sent")
            return
        self._waiting.append(text)
        self._changed.set()

    def _reject_long(self) -> None:
        self.reject("too_long", f"A line of the input has more than {self._max_size} bytes and was not sent")


class MessageSource(Protocol):
    """The messages to send over a data channel; `next` is called when the one before has been sent."""

    @property
    def unsent(self) -> int:
        """The number of messages that were read and not sent, or not wholly: the one returned last, and those that wait."""

    def reject(self, code: str, reason: str, messages: int = 1) -> None:
        """Log that messages are not sent, and count them."""

    def mark_idle(self) -> None:
        """Note that no message is being sent any more."""

    async def next(self) -> Message | None:
        """Return the next message; None when there will be no more."""

    def unread(self, item: Message) -> None:
        """Put back the message returned last, which was not sent."""


class LineSource:
    """Each line is a message. The end of the input is passed on once `until()` returns: `--expect` may need a reply first."""

    def __init__(self, lines: Lines, until: Callable[[], Awaitable[None]]) -> None:
        self._lines = lines
        self._until = until
        self._sending = False
        self.reject = lines.reject

    @property
    def unsent(self) -> int:
        """The number of lines that were read and not sent; a line that was not read does not count."""
        return self._lines.waiting + self._sending

    def mark_idle(self) -> None:
        """Note that no line is being sent any more."""
        self._sending = False

    async def next(self) -> Message | None:
        """Return the next line; the one before has been sent."""
        self._sending = False
        line = await self._lines.next()
        if line is None:
            await self._until()
        self._sending = line is not None
        return None if line is None else Message(line)

    def unread(self, item: Message) -> None:
        """Put back the line returned last."""
        assert isinstance(item.data, str)
        self._sending = False
        self._lines.unread(item.data)


class MessageQueue:
    """The messages of `--stdin json`, in order, at most `QUEUE_BOUND` and `QUEUE_BYTES`.

    They go over the data channels that open next. `reject` logs and counts messages that are not sent.
    """

    def __init__(self, until: Callable[[], Awaitable[None]], reject: Callable[..., None]) -> None:
        self._until = until
        self.reject: Callable[..., None] = reject
        self._items: deque[Message] = deque()
        self._size = 0
        self._sending = False
        self._ended = False
        self._changed = RepeatedEvent()

    @property
    def is_full(self) -> bool:
        """Whether no further message may be added."""
        return len(self._items) >= QUEUE_BOUND or self._size >= QUEUE_BYTES

    @property
    def unsent(self) -> int:
        """The number of messages that wait, or are being sent."""
        return len(self._items) + self._sending

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Message) -> None:
        """Add a message."""
        self._items.append(item)
        self._size += size_of(item.data)
        self._changed.set()

    def end(self) -> None:
        """Mark the end: no more messages will be added."""
        self._ended = True
        self._changed.set()

    def clear(self) -> int:
        """Drop the waiting messages; returns their number."""
        count = len(self._items)
        self._items.clear()
        self._size = 0
        self._changed.set()
        return count

    async def next(self) -> Message | None:
        """Return the first message; the one before has been sent."""
        self.mark_idle()
        while not self._items:
            if self._ended:
                await self._until()
                return None
            await self._changed.wait()
        self._sending = True
        item = self._items.popleft()
        self._size -= size_of(item.data)
        self._changed.set()
        return item

    def unread(self, item: Message) -> None:
        """Put back the message returned last."""
        self._items.appendleft(item)
        self._size += size_of(item.data)
        self.mark_idle()

    def mark_idle(self) -> None:
        """Note that no message is being sent any more."""
        self._sending = False
        self._changed.set()

    async def change(self) -> None:
        """Wait until the queue changes."""
        await self._changed.wait()


class Prompt:
    """Reads the IDs of peers to pair with, one a line, while there is no pairing: during one the lines are messages."""

    def __init__(self, lines: Lines, log: Log) -> None:
        self._lines = lines
        self._log = log
        self._connected = trio.Event()
        self._free = trio.Event()
        self._free.set()
        self._reading = trio.CancelScope()

    def start(self) -> None:
        """Begin to read: the relay is connected."""
        self._connected.set()

    def pause(self) -> None:
        """Stop reading: a pairing begins."""
        self._free = trio.Event()
        self._reading.cancel()

    def resume(self) -> None:
        """Read again: the pairing is over."""
        self._free.set()

    async def run(self, request: Callable[[str], Awaitable[object]]) -> None:
        """Call `request` with each ID, until the input ends."""
        while (target := await self._next()) is not None:
            if target and (flaw := validate_id(target[:80])):
                self._log.emit(peer.InputRejected("bad_id", flaw))
            elif target:
                await request(target)

    async def _next(self) -> str | None:
        await self._connected.wait()
        while True:
            while not self._free.is_set():  # checked again after each wait: a pairing may have begun meanwhile
                await self._free.wait()
            if not self._log.draw_prompt() and sys.stdin and sys.stderr and sys.stdin.isatty() and sys.stderr.isatty():
                print("Type an ID to connect to, or wait to be called:", file=sys.stderr, flush=True)  # noqa: T201
            with trio.CancelScope() as self._reading:
                line = await self._lines.next()
                if self._free.is_set() or line is None:
                    return None if line is None else line.strip()
                self._lines.unread(line)
