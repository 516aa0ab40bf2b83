"""What is to be sent over the data channel, item by item, from lines of text or from a program's commands."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from sdpx.peer.input.lines import Lines

WAITING: Final = 1024


class MessageSource(Protocol):
    """Where a pairing takes what it sends: the next is asked for once the one before has been sent."""

    @property
    def has_unsent(self) -> bool:
        """Whether there is a message that was not sent, or not wholly: the one returned last, or one that waits."""

    async def next(self) -> str | bytes | None:
        """Return the next message, text or binary; None when there will be no more."""

    def unread(self, item: str | bytes) -> None:
        """Put back the one that was returned last: it was not sent."""


class LineSource:
    """Each line is a message. Their end is passed on only once `until()` returns: `--expect` may want more than sending."""

    def __init__(self, lines: Lines, until: Callable[[], Awaitable[None]]) -> None:
        self._lines = lines
        self._until = until
        self._sending = False

    @property
    def has_unsent(self) -> bool:
        """Whether a line that was read was not sent; an input that has nothing to read has none."""
        return self._sending or self._lines.has_waiting

    async def next(self) -> str | bytes | None:
        """Return the next line; the one before has been sent."""
        self._sending = False
        line = await self._lines.next()
        if line is None:
            await self._until()
        self._sending = line is not None
        return line

    def unread(self, item: str | bytes) -> None:
        """Put a line back."""
        assert isinstance(item, str)
        self._sending = False
        self._lines.unread(item)


class MessageQueue:
    """Messages of a program's commands, in order, `WAITING` of them at most.

    What waits is sent over whatever data channel opens next.
    """

    def __init__(self, until: Callable[[], Awaitable[None]]) -> None:
        self._until = until
        self._items: deque[str | bytes] = deque()
        self._sending = False
        self._ended = False
        self._moved = trio.Event()

    @property
    def is_full(self) -> bool:
        """Whether no more can wait."""
        return len(self._items) >= WAITING

    @property
    def is_empty(self) -> bool:
        """Whether all has been sent."""
        return not self._items and not self._sending

    @property
    def has_unsent(self) -> bool:
        """Whether not all has been sent."""
        return not self.is_empty

    def put(self, item: str | bytes) -> None:
        """Add a message."""
        self._items.append(item)
        self._move()

    def end(self) -> None:
        """Say that no more will come."""
        self._ended = True
        self._move()

    def forget(self) -> int:
        """Drop all that waits; returns how many."""
        count = len(self._items)
        self._items.clear()
        self._move()
        return count

    async def next(self) -> str | bytes | None:
        """Return the first that waits; the one before has been sent."""
        self.rest()
        while not self._items:
            if self._ended:
                await self._until()
                return None
            await self._moved.wait()
        self._sending = True
        item = self._items.popleft()
        self._move()
        return item

    def unread(self, item: str | bytes) -> None:
        """Put back the one that was returned last."""
        self._items.appendleft(item)
        self.rest()

    def rest(self) -> None:
        """Note that nothing is being sent any more."""
        self._sending = False
        self._move()

    async def change(self) -> None:
        """Wait until something of all this has changed."""
        await self._moved.wait()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
