"""What waits to be written to one client: a queue that is bounded in frames and in bytes."""

from collections import deque
from typing import NamedTuple

import trio


class Waiting(NamedTuple):
    """A frame, its size in bytes of memory, and since when it is on its way through the relay."""

    text: str
    size: int
    since: float | None


class Held:
    """How many bytes wait in all outboxes of a relay."""

    def __init__(self) -> None:
        self.bytes = 0


class Outbox:
    """Frames in order, from anybody, to the one writer of a socket.

    `put` never blocks: when the bounds are reached it says so, and the caller lets that client go, since a client that does
    not read must cost nobody else anything. One frame always fits, whatever its size. Sizes are of memory, which is more
    than what is sent where a text is not ASCII.
    """

    def __init__(self, max_frames: int, max_bytes: int, held: Held) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._held = held
        self._frames: deque[Waiting] = deque()
        self.bytes = 0
        self._closed = False
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, text: str, since: float | None = None) -> bool:
        """Queue a frame; False if the outbox is full or closed, and then nothing was queued.

        `since` comes out with it: the moment at which the relay took the frame, if it was one to relay.
        """
        size = text.__sizeof__()
        full = len(self._frames) >= self._max_frames or self.bytes + size > self._max_bytes
        if self._closed or (full and self._frames):
            return False
        self._frames.append(Waiting(text, size, since))
        self._count(size)
        self._wake()
        return True

    def close(self) -> None:
        """Take no more frames; those that wait can still be taken out, and count no more among what all hold."""
        self._closed = True
        self._held.bytes -= self.bytes
        self._held = Held()
        self._wake()

    def clear(self) -> None:
        """Forget the frames that wait."""
        self._frames.clear()
        self._count(-self.bytes)

    def take_all(self) -> list[Waiting]:
        """Take out all frames that wait."""
        taken = list(self._frames)
        self.clear()
        return taken

    async def get(self) -> Waiting | None:
        """Wait for the next frame and take it out; None once the outbox is closed and empty."""
        while not self._frames:
            if self._closed:
                return None
            await self._changed.wait()
        waiting = self._frames.popleft()
        self._count(-waiting.size)
        return waiting

    def _count(self, size: int) -> None:
        self.bytes += size
        self._held.bytes += size

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
