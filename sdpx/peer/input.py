"""Standard input of `sdpx peer`: its lines, the messages that they are or command, and the prompt for the ID of a peer.

Nothing is read before the first line is needed, and a line that was read and not used is kept: neither a cancelled reader nor
a data channel that closes loses one. A thread does the reading, since a file cannot be polled and a terminal must not be made
non-blocking; when the program ends the thread is left in its read.
"""

import sys
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, IncrementalDecoder, getincrementaldecoder
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.events import peer
from sdpx.ids import validate_id
from sdpx.log import Log
from sdpx.peer.negotiation.confirmation import Message

MAX_LINE: Final = 256 * 1024
CHUNK: Final = 64 * 1024
QUEUE_BOUND: Final = 1024


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
                if len(pending) > self._max_size + len(BOM_UTF8 + b"\r"):
                    self._reject_long()
                    pending, skipping = bytearray(), True
            if pending:
                await self._offer(bytes(pending))
        self.ended.set()

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
        """Put back the line returned last: it is the next one again."""
        self._held = line

    @property
    def has_waiting(self) -> bool:
        """Whether a line was read and not taken, or put back."""
        return self._held is not None or self._receive.statistics().tasks_waiting_send > 0

    async def _next_chunk(self) -> bytes:
        try:
            chunk = await trio.to_thread.run_sync(self._read, CHUNK, abandon_on_cancel=True)
        except OSError:
            return b""  # a closed stdin has no lines
        if self._is_first and self._utf16 is None and chunk.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            self._utf16 = getincrementaldecoder("utf-16")("replace")
        return self._utf16.decode(chunk).encode(errors="replace") if self._utf16 else chunk

    async def _offer(self, line: bytes) -> None:
        line = line.removeprefix(BOM_UTF8 if self._is_first else b"").removesuffix(b"\r")
        self._is_first = False
        if len(line) > self._max_size:
            self._reject_long()
            return
        try:
            text = line.decode()
        except UnicodeDecodeError:
            self._log.emit(peer.InputRejected("not_utf8", "A line of the input is not UTF-8 and was not sent"))
            return
        await self._send.send(text)

    def _reject_long(self) -> None:
        reason = f"A line of the input has more than {self._max_size} bytes and was not sent"
        self._log.emit(peer.InputRejected("too_long", reason))


class MessageSource(Protocol):
    """The messages to send over a data channel; `next` is called when the one before has been sent."""

    @property
    def has_unsent(self) -> bool:
        """Whether a message was not sent, or not wholly: the one returned last, or one that waits."""

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

    @property
    def has_unsent(self) -> bool:
        """Whether a line that was read was not sent; a line that was not read does not count."""
        return self._sending or self._lines.has_waiting

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
    """The messages of `--stdin json`, in order, at most `QUEUE_BOUND`; they go over the data channels that open next."""

    def __init__(self, until: Callable[[], Awaitable[None]]) -> None:
        self._until = until
        self._items: deque[Message] = deque()
        self._sending = False
        self._ended = False
        self._changed = RepeatedEvent()

    @property
    def is_full(self) -> bool:
        """Whether no further message may be added."""
        return len(self._items) >= QUEUE_BOUND

    @property
    def has_unsent(self) -> bool:
        """Whether a message waits, or is being sent."""
        return bool(self._items) or self._sending

    def put(self, item: Message) -> None:
        """Add a message."""
        self._items.append(item)
        self._changed.set()

    def end(self) -> None:
        """Mark the end: no more messages will be added."""
        self._ended = True
        self._changed.set()

    def clear(self) -> int:
        """Drop the waiting messages; returns their number."""
        count = len(self._items)
        self._items.clear()
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
        self._changed.set()
        return item

    def unread(self, item: Message) -> None:
        """Put back the message returned last."""
        self._items.appendleft(item)
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
                print("Type an ID to connect to, or wait to be called: ", end="", file=sys.stderr, flush=True)  # noqa: T201
            with trio.CancelScope() as self._reading:
                line = await self._lines.next()
                if self._free.is_set() or line is None:
                    return None if line is None else line.strip()
                self._lines.unread(line)
