"""The send queue of one connection: WebSocket frames to be written, bounded in number and in bytes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from sdpx.relay.core.overload import QueuedBytes

# A WebSocket frame; of a relayed one also its sender, and the time at which it came.
QueuedFrame = tuple[bytes, object, float]


@dataclass(slots=True, eq=False, repr=False)
class SendQueue:
    """Frames in order, from any sender, to the one writer of a socket.

    `put` never blocks: when a bound is reached it returns 0, and the caller disconnects the client, since a client that does
    not read must not affect the others. One frame always fits, whatever its size. Sizes are of memory. `last_progress` is the
    time at which a frame was last written, or at which the first frame was queued.
    """

    _max_frames: int
    _max_bytes: int
    _total: QueuedBytes
    _on_frame_sent: Callable[[float], None]  # see `ConnectionHandler`
    _clock: Callable[[], float] = trio.current_time
    frames: list[QueuedFrame] = field(default_factory=list)
    size: int = 0
    last_progress: float = 0.0
    _closed: bool = False
    _changed: trio.Event | None = None  # only while `wait` waits

    def __len__(self) -> int:
        return len(self.frames)

    def put(self, data: bytes, sender: object = None, since: float = 0.0) -> int:
        """Queue a frame; returns the number of frames in the queue, or 0 if it is full or closed and the frame was dropped."""
        if self._closed:
            return 0
        size, frames = data.__sizeof__(), self.frames
        if not frames:
            self.last_progress = since or self._clock()
        elif len(frames) >= self._max_frames or self.size + size > self._max_bytes:
            return 0
        frames.append((data, sender, since))
        self.size += size
        self._total.bytes += size
        if self._changed is not None:
            self._wake()
        return len(frames)

    def prepend(self, data: bytes, now: float) -> None:
        """Put bytes in front of the first frame: they are written as a part of it."""
        if self.frames:
            first, sender, since = self.frames[0]
            self.frames[0] = data + first, sender, since
            self._count(len(data))
        else:
            self.put(data, since=now)

    def put_all(self, many: Iterable[bytes]) -> None:
        """Queue frames regardless of the bounds: those of a replay buffer, which has the same bounds, and `your_id`."""
        now = self._clock()
        for data in many:
            if not self.frames:
                self.last_progress = now
            self.frames.append((data, None, now))
            self._count(data.__sizeof__())
        self._wake()

    @property
    def waiting_since(self) -> float:
        """The time at which the first frame came that is still in the queue."""
        return next((since for _, _, since in self.frames if since), self.last_progress)

    def close(self) -> None:
        """Accept no more frames. Those in the queue can still be taken out, and no longer count for all queues."""
        self._closed = True
        self._total.bytes -= self.size
        self._total = QueuedBytes()
        self._wake()

    async def wait(self) -> bool:
        """Wait until there is a frame; returns False once the queue is closed and empty."""
        while not self.frames and not self._closed:
            self._changed = self._changed or trio.Event()
            await self._changed.wait()
        return bool(self.frames)

    def peek(self, max_bytes: int) -> list[QueuedFrame]:
        """Return the first frame and the ones behind it, up to `max_bytes` together."""
        total, count = 0, 0
        for data, _, _ in self.frames:
            total += data.__sizeof__()
            if count and total > max_bytes:
                break
            count += 1
        return self.frames[:count]

    def drop(self, count: int, now: float) -> None:
        """Take out the first `count` frames, one or more, which have been written."""
        written, size = self.frames, self.size
        if count < len(written):
            written = written[:count]
            size = size_of(written)
        for _, sender, since in written:
            if sender is not None:
                self._on_frame_sent(now - since)
        del self.frames[:count]
        self.size -= size
        self._total.bytes -= size
        self.last_progress = now

    def take_all(self) -> list[QueuedFrame]:
        """Take out all frames."""
        taken, self.frames = self.frames, []
        self._count(-self.size)
        return taken

    def _count(self, size: int) -> None:
        self.size += size
        self._total.bytes += size

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def size_of(frames: Iterable[QueuedFrame]) -> int:
    """Return the bytes of memory that frames occupy."""
    return sum([data.__sizeof__() for data, _, _ in frames])
