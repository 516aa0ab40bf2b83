"""What waits to be written to one client: a queue that is bounded in frames and in bytes."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import trio

from sdpx.relay.websocket.handler import FrameSender

T = TypeVar("T", str, bytes)


# A frame; of a relayed one also who sent it, and when it came.
Waiting = tuple[T, FrameSender | None, float]


class QueuedBytes:
    """How many bytes wait in all outboxes of a relay."""

    def __init__(self) -> None:
        self.bytes = 0


class SendQueue(Generic[T]):
    """Frames in order, from anybody, to the one writer of a socket.

    `put` never blocks: when the bounds are reached it says so, and the caller lets that client go, since a client that does
    not read must cost nobody else anything. One frame always fits, whatever its size. Sizes are of memory, which is more
    than what is sent where a text is not ASCII.
    """

    __slots__ = (
        "_changed",
        "_clock",
        "_closed",
        "_held",
        "_max_bytes",
        "_max_frames",
        "bytes",
        "last_progress",
        "waiting",
    )

    def __init__(
        self, max_frames: int, max_bytes: int, held: QueuedBytes, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._held = held
        self._clock = clock
        self.waiting: list[Waiting[T]] = []
        self.bytes = 0
        self.last_progress = 0.0
        self._closed = False
        self._changed: trio.Event | None = None  # if somebody waits for a frame

    def __len__(self) -> int:
        return len(self.waiting)

    def put(self, data: T, sender: FrameSender | None = None, since: float = 0.0) -> int:
        """Queue a frame; returns how many wait now, or 0 if the outbox is full or closed and nothing was queued."""
        if self._closed:
            return 0
        size, waiting = data.__sizeof__(), self.waiting
        if not waiting:
            self.last_progress = since or self._clock()
        elif not self.bytes:
            self.count()
        if waiting and (len(waiting) >= self._max_frames or self.bytes + size > self._max_bytes):
            return 0
        waiting.append((data, sender, since))
        self.bytes += size
        self._held.bytes += size
        if self._changed is not None:
            self._wake()
        return len(waiting)

    def put_uncounted(self, data: T, sender: FrameSender | None, since: float) -> bool:
        """Queue a frame that is to be taken out at once, if no other waits: it is not counted until it turns out to stay.

        Returns False if it has to be `put`. It stays if another comes behind it, or the caller says so by `count`.
        """
        if self.waiting or self._closed:
            return False
        self.waiting.append((data, sender, since))
        self.last_progress = since
        return True

    def count(self) -> None:
        """Count a frame that was put alone, and stays."""
        if self.waiting and not self.bytes:
            self._count(size_of(self.waiting))

    def put_all(self, many: Iterable[T]) -> None:
        """Queue frames whatever the bounds: they have been within those of somebody else until now."""
        self.count()
        waiting: list[Waiting[T]] = [(data, None, 0.0) for data in many]
        if waiting and not self.waiting:
            self.last_progress = self._clock()
        self.waiting += waiting
        self._count(size_of(waiting))
        self._wake()

    def close(self) -> None:
        """Take no more frames; those that wait can still be taken out, and count no more among what all hold."""
        self._closed = True
        self._held.bytes -= self.bytes
        self._held = QueuedBytes()
        self._wake()

    def take_all(self) -> list[Waiting[T]]:
        """Take out all frames that wait."""
        taken, self.waiting = self.waiting, []
        self._count(-self.bytes)
        return taken

    async def get(self) -> Waiting[T] | None:
        """Wait for the next frame, and leave it in until it is sent; None once the outbox is closed and empty."""
        while not self.waiting:
            if self._closed:
                return None
            self._changed = self._changed or trio.Event()
            await self._changed.wait()
        return self.waiting[0]

    def first(self, max_bytes: int) -> list[Waiting[T]]:
        """Return the frames that are the next to leave: one, and those behind it of `max_bytes` at most, with it."""
        total, count = 0, 0
        for data, _, _ in self.waiting:
            total += data.__sizeof__()
            if count and total > max_bytes:
                break
            count += 1
        return self.waiting[:count]

    def drop(self, count: int, now: float) -> None:
        """Take out that many from the front: they are sent. `last_progress` is when this happened last."""
        if count:
            self.count()
            size = size_of(self.waiting[:count])
            del self.waiting[:count]
            self.bytes -= size
            self._held.bytes -= size
            self.last_progress = now

    def drop_all(self, now: float) -> None:
        """Take out what there is: it is sent."""
        if self.bytes:
            self._count(-self.bytes)
        self.waiting.clear()
        self.last_progress = now

    @property
    def head(self) -> Waiting[T] | None:
        """The frame that is the next to leave."""
        return self.waiting[0] if self.waiting else None

    def pop(self) -> Waiting[T]:
        """Take out the head: it is sent. `last_progress` is when this happened last, or when something began to wait."""
        waiting = self.waiting[0]
        self.drop(1, self._clock())
        return waiting

    def _count(self, size: int) -> None:
        self.bytes += size
        self._held.bytes += size

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def size_of(waiting: Iterable[Waiting[T]]) -> int:
    """Return how many bytes of memory frames take."""
    return sum([data.__sizeof__() for data, _, _ in waiting])
