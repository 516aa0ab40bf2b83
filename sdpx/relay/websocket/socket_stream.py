"""A TCP connection over a standard socket: a Trio stream that can also be read and written at once, without waiting.

Trio's own sockets have no synchronous send, and a descriptor that is remembered elsewhere may be somebody else's by the
time it is used. So the link owns its socket, tells Trio before it closes it, and has no descriptor any more from then on.

Other than Trio's own streams a link lets nobody else run where it sends or closes without waiting.
"""

import socket
from typing import Final

import trio

CLOSED: Final = -1
READ_BYTES: Final = 64 * 1024


class SocketStream(trio.abc.HalfCloseableStream):
    """One connection; whoever has it closes it. `remote` is its other end as `host:port`, as far as the system told."""

    __slots__ = ("_is_waited_for", "remote", "socket")

    def __init__(self, sock: socket.socket, remote: str = "unknown") -> None:
        sock.setblocking(False)
        self.socket = sock
        self.remote = remote
        self._is_waited_for = False

    def receive_now(self, max_bytes: int = READ_BYTES) -> bytes | None:
        """Return what there is, empty at the end of the stream, or None if there is nothing yet; raises `OSError`."""
        try:
            return self.socket.recv(max_bytes)
        except (BlockingIOError, InterruptedError):
            return None

    def receive_or_end(self) -> bytes | None:
        """Return what there is, as `receive_now` does; an error is an end."""
        try:
            return self.socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the socket takes and return how much that was; raises `OSError`."""
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def wait_readable(self) -> None:
        """Wait until there is something to receive."""
        self._is_waited_for = True
        await trio.lowlevel.wait_readable(self._open_socket())

    async def wait_writable(self) -> None:
        """Wait until the socket takes something."""
        self._is_waited_for = True
        await trio.lowlevel.wait_writable(self._open_socket())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive, as any Trio stream does; who could go on without waiting lets others run first."""
        try:
            data = self.receive_now(max_bytes or READ_BYTES)
            if data is not None:
                await trio.lowlevel.checkpoint()
            while data is None:
                await self.wait_readable()
                data = self.receive_now(max_bytes or READ_BYTES)
        except OSError as error:
            raise self._map_exceptions(error) from error
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, as any Trio stream does."""
        left = memoryview(data)
        try:
            while left := left[self.send_now(left) :]:
                await self.wait_writable()
        except OSError as error:
            raise self._map_exceptions(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes something."""
        try:
            await self.wait_writable()
        except OSError as error:
            raise self._map_exceptions(error) from error

    async def send_eof(self) -> None:
        """Send no more; what comes can still be received."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._map_exceptions(error) from error

    async def aclose(self) -> None:
        """Close the socket; whoever waits for it hears that."""
        self.close()

    def close(self) -> None:
        """Do so at once."""
        if self.socket.fileno() != CLOSED:
            if self._is_waited_for:
                trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    def _open_socket(self) -> socket.socket:
        if self.socket.fileno() == CLOSED:
            raise trio.ClosedResourceError
        return self.socket

    def _map_exceptions(self, error: OSError) -> Exception:
        if self.socket.fileno() == CLOSED:
            return trio.ClosedResourceError()
        return trio.BrokenResourceError(str(error))
