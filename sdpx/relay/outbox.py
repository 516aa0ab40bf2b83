"""What waits to be written to one client: a queue that is bounded in frames and in bytes."""

from collections import deque

import trio


class Outbox:
    """Frames in order, from anybody, to the one writer of a socket.

    `put` never blocks: when the bounds are reached it says so, and the caller lets that client go, since a client that does
    not read must cost nobody else anything. One frame always fits, whatever its size.
    """

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[tuple[str, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, text: str) -> bool:
        """Queue a frame; False if the outbox is full or closed, and then nothing was queued."""
        size = len(text) if text.isascii() else len(text.encode())
        full = len(self._frames) >= self._max_frames or self._bytes + size > self._max_bytes
        if self._closed or (full and self._frames):
            return False
        self._frames.append((text, size))
        self._bytes += size
        self._wake()
        return True

    def close(self) -> None:
        """Take no more frames; those that wait can still be taken out."""
        self._closed = True
        self._wake()

    async def get(self) -> str | None:
        """Wait for the next frame and take it out; None once the outbox is closed and empty."""
        while not self._frames:
            if self._closed:
                return None
            await self._changed.wait()
        text, size = self._frames.popleft()
        self._bytes -= size
        return text

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
