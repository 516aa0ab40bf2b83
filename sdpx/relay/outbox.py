"""What waits to be written to one client: a queue that is bounded in frames and in bytes."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import trio
from msgspec import Struct

from sdpx.relay.host import Sender

T = TypeVar("T", str, bytes)


class Waiting(Struct, Generic[T], frozen=True, eq=False):
    """A frame and its size in bytes of memory; of a relayed one also who sent it, and when it came."""

    data: T
    size: int
    sender: Sender | None
    since: float


class Held:
    """How many bytes wait in all outboxes of a relay."""

    def __init__(self) -> None:
        self.bytes = 0


class Outbox(Generic[T]):
    """Frames in order, from anybody, to the one writer of a socket.

    `put` never blocks: when the bounds are reached it says so, and the caller lets that client go, since a client that does
    not read must cost nobody else anything. One frame always fits, whatever its size. Sizes are of memory, which is more
    than what is sent where a text is not ASCII.
    """

    __slots__ = (
        "_changed",
        "_clock",
        "_closed",
        "_frames",
        "_held",
        "_max_bytes",
        "_max_frames",
        "bytes",
        "stalled_since",
    )

    def __init__(
        self, max_frames: int, max_bytes: int, held: Held, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._held = held
        self._clock = clock
        self._frames: list[Waiting[T]] = []
        self.bytes = 0
        self.stalled_since = 0.0
        self._closed = False
        self._changed: trio.Event | None = None  # if somebody waits for a frame

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, data: T, sender: Sender | None = None, since: float = 0.0) -> int:
        """Queue a frame; returns how many wait now, or 0 if the outbox is full or closed and nothing was queued."""
        size, frames = data.__sizeof__(), self._frames
        if self._closed:
            return 0
        if not frames:
            self.stalled_since = since or self._clock()
        elif len(frames) >= self._max_frames or self.bytes + size > self._max_bytes:
            return 0
        frames.append(Waiting(data, size, sender, since))
        self.bytes += size
        self._held.bytes += size
        if self._changed is not None:
            self._wake()
        return len(frames)

    def put_all(self, many: Iterable[T]) -> None:
        """Queue frames whatever the bounds: they have been within those of somebody else until now."""
        waiting = [Waiting(data, data.__sizeof__(), None, 0.0) for data in many]
        if waiting and not self._frames:
            self.stalled_since = self._clock()
        self._frames += waiting
        self._count(sum(each.size for each in waiting))
        self._wake()

    def close(self) -> None:
        """Take no more frames; those that wait can still be taken out, and count no more among what all hold."""
        self._closed = True
        self._held.bytes -= self.bytes
        self._held = Held()
        self._wake()

    def take_all(self) -> list[Waiting[T]]:
        """Take out all frames that wait."""
        taken, self._frames = self._frames, []
        self._count(-self.bytes)
        return taken

    async def get(self) -> Waiting[T] | None:
        """Wait for the next frame, and leave it in until it is sent; None once the outbox is closed and empty."""
        while not self._frames:
            if self._closed:
                return None
            self._changed = self._changed or trio.Event()
            await self._changed.wait()
        return self._frames[0]

    def first(self, max_bytes: int) -> list[Waiting[T]]:
        """Return the frames that are the next to leave: one, and those behind it of `max_bytes` at most, with it."""
        if self.bytes <= max_bytes:
            return self._frames.copy()
        total, count = 0, 0
        for waiting in self._frames:
            total += waiting.size
            if count and total > max_bytes:
                break
            count += 1
        return self._frames[:count]

    def drop(self, count: int, now: float) -> None:
        """Take out that many from the front: they are sent. `stalled_since` is when this happened last."""
        frames = self._frames
        if count == len(frames):
            size = self.bytes
            frames.clear()
        else:
            size = sum([waiting.size for waiting in frames[:count]])
            del frames[:count]
        if count:
            self.stalled_since = now
        self.bytes -= size
        self._held.bytes -= size

    @property
    def head(self) -> Waiting[T] | None:
        """The frame that is the next to leave."""
        return self._frames[0] if self._frames else None

    def pop(self) -> Waiting[T]:
        """Take out the head: it is sent. `stalled_since` is when this happened last, or when something began to wait."""
        waiting = self._frames[0]
        self.drop(1, self._clock())
        return waiting

    def _count(self, size: int) -> None:
        self.bytes += size
        self._held.bytes += size

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
