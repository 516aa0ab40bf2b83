"""A double of `SocketStream`: two ends in memory, joined by buffers that fill. All that waits and all that fails is as on a socket.

`receive_some` and `send_all` are the real ones; only what `SocketStream` asks of the kernel is done here.
"""

import errno
from typing import Final, cast

import trio

from sdpx.relay.websocket.socket_stream import CLOSED, READ_BYTES, SocketStream

PLENTY: Final = 1 << 30
NARROW: Final = 16  # bytes: next to nothing of a frame
OPEN: Final = 3  # a descriptor; nobody reads from it
NOBODY: Final = ("client", 0)


class Pipe:
    """The bytes under way in one direction, `room` of them at most."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.data = bytearray()
        self.ended = False  # by who writes
        self.reset = False
        self.deaf = False  # nobody will read
        self._changed = trio.Event()

    @property
    def is_readable(self) -> bool:
        return bool(self.data) or self.ended or self.reset or self.deaf

    @property
    def is_writable(self) -> bool:
        return len(self.data) < self.room or self.ended or self.reset or self.deaf

    def put(self, data: bytes | bytearray | memoryview) -> int:
        if self.ended or self.deaf or self.reset:
            raise BrokenPipeError(errno.EPIPE, "nobody reads any more")
        taken = bytes(data)[: self.room - len(self.data)]
        self.data += taken
        self.wake()
        return len(taken)

    def take(self, max_bytes: int) -> bytes | None:
        if self.reset:
            raise ConnectionResetError(errno.ECONNRESET, "the connection was reset")
        taken = bytes(self.data[:max_bytes])
        del self.data[:max_bytes]
        self.wake()
        return taken if taken or self.ended else None

    async def change(self) -> None:
        await self._changed.wait()

    def wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Descriptor:
    """What is asked of a link's socket: whether it is open."""

    def __init__(self) -> None:
        self.number = OPEN

    def fileno(self) -> int:
        return self.number


class MemoryLink(SocketStream):
    """One end of a connection in memory."""

    def __init__(self, coming: Pipe, going: Pipe, remote: tuple[str, int] = NOBODY) -> None:
        self._coming = coming
        self._going = going
        self._descriptor = Descriptor()
        self.remote = f"{remote[0]}:{remote[1]}"
        self.socket = cast("trio.socket.SocketType", self._descriptor)  # type: ignore[assignment]  # as far as it is asked

    @property
    def is_closed(self) -> bool:
        return self._descriptor.number == CLOSED

    def receive_now(self, max_bytes: int = READ_BYTES) -> bytes | None:
        self._fail_if_closed()
        return self._coming.take(min(max_bytes, READ_BYTES))

    def receive_or_end(self) -> bytes | None:
        try:
            return self.receive_now()
        except OSError:
            return b""

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        self._fail_if_closed()
        return self._going.put(data)

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.is_closed and not self._coming.is_readable:
            await self._coming.change()
        if self.is_closed:
            raise trio.ClosedResourceError

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.is_closed and not self._going.is_writable:
            await self._going.change()
        if self.is_closed:
            raise trio.ClosedResourceError

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._going.ended = True
        self._going.wake()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self, *, reset: bool = False) -> None:
        """Close at once; a reset also loses what the other end has not read yet."""
        self._descriptor.number = CLOSED
        self._coming.deaf = self._going.ended = True
        self._going.reset = self._going.reset or reset
        self._coming.wake()
        self._going.wake()

    def stop_listening(self) -> None:
        """Take nothing any more, which the other end learns by sending."""
        self._coming.deaf = True

    def _fail_if_closed(self) -> None:
        if self.is_closed:
            raise OSError(errno.EBADF, "the link is closed")


def link_pair(room: int = PLENTY, remote: tuple[str, int] = NOBODY) -> tuple[MemoryLink, MemoryLink]:
    """Return a client's end and the relay's; on the way to the client there is `room` for that many bytes."""
    to_relay, to_client = Pipe(PLENTY), Pipe(room)
    return MemoryLink(to_client, to_relay), MemoryLink(to_relay, to_client, remote)


def narrow_link_pair() -> tuple[MemoryLink, MemoryLink]:
    """Return the ends of a link on which nearly all that the client does not read waits in the relay."""
    return link_pair(NARROW)
