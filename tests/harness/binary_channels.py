"""Two ends of a data channel in memory, with the interface of `BinaryChannel`."""

from collections import deque

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.peer.webrtc.binary_channel import BinaryChannel


class MemoryChannel(BinaryChannel):
    """One end; `capacity` bytes go over before the sender waits for the reader."""

    def __init__(self, max_message_size: int = 64 * 1024, capacity: int = 256 * 1024) -> None:
        self._size = max_message_size
        self.capacity = capacity
        self.peer: MemoryChannel
        self.closed = False
        self.waiting = deque[bytes | str]()
        self.changed = RepeatedEvent()

    async def opened(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check()

    @property
    def max_message_size(self) -> int:
        return self._size

    def _check(self) -> None:
        if self.closed:
            raise trio.BrokenResourceError

    @property
    def unacknowledged(self) -> int:
        return 0 if self.closed else sum(map(len, self.peer.waiting))

    async def send(self, data: bytes | str) -> None:
        self._check()
        assert 0 < len(data) <= self._size
        self.peer.waiting.append(data)
        self.peer.changed.set()
        await trio.lowlevel.checkpoint()
        while self.unacknowledged > self.capacity:
            await self.changed.wait()
            self._check()

    async def receive(self) -> list[bytes | str]:
        await trio.lowlevel.checkpoint()
        while not self.waiting and not self.closed:
            await self.changed.wait()
        found: list[bytes | str] = list(self.waiting)
        self.waiting.clear()
        self.peer.changed.set()
        return found

    def close(self) -> None:
        """Close both ends; the messages that were sent still arrive."""
        for end in (self, self.peer):
            end.closed = True
            end.changed.set()

    def cut(self) -> None:
        """Lose the connection, with the messages on their way."""
        for end in (self, self.peer):
            end.waiting.clear()
        self.close()


def channel_pair(max_message_size: int = 64 * 1024) -> tuple[MemoryChannel, MemoryChannel]:
    a, b = MemoryChannel(max_message_size), MemoryChannel(max_message_size)
    a.peer, b.peer = b, a
    return a, b
