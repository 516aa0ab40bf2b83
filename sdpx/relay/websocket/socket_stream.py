"""A TCP connection as a Trio stream that can also be read and written synchronously.

Trio's own sockets have no synchronous send. A `SocketStream` owns its socket, notifies Trio before it closes it and has no
descriptor from then on, so that no descriptor is used that the system has given to another socket since.

Unlike Trio's own streams it has no checkpoint where it sends or closes without waiting.
"""

import select
import socket
from typing import Final

import trio

CLOSED: Final = -1
READ_BYTES: Final = 64 * 1024
RDHUP: Final = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset is noticed


class SocketStream(trio.abc.HalfCloseableStream):
    """One connection; its owner closes it. `remote` is the address of the other end as `host:port`."""

    __slots__ = ("_is_waited_for", "remote", "socket")
    handshake_error: Exception | None = None  # why no TLS connection came up, if there was to be one

    def __init__(self, sock: socket.socket, remote: str = "unknown") -> None:
        sock.setblocking(False)
        self.socket = sock
        self.remote = remote
        self._is_waited_for = False

    @property
    def is_closed(self) -> bool:
        """Whether this end has been closed."""
        return self.socket.fileno() == CLOSED

    @property
    def is_abandoned(self) -> bool:
        """Whether the other end has closed the connection, whatever still waits to be received."""
        poll = select.poll()
        poll.register(self.socket, RDHUP)
        return bool(poll.poll(0))

    def receive_now(self, max_bytes: int = READ_BYTES) -> bytes | None:
        """Return the bytes that have arrived, empty at the end of the stream, None if there are none yet; raises `OSError`."""
        try:
            return self.socket.recv(max_bytes)
        except (BlockingIOError, InterruptedError):
            return None

    def receive_or_end(self, max_bytes: int = READ_BYTES) -> bytes | None:
        """Receive as `receive_now` does, and take an error for the end of the stream."""
        try:
            return self.socket.recv(max_bytes)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much as the socket takes and return how many bytes that were; raises `OSError`.

        The next call has to begin with the bytes that this one did not take.
        """
        try:
            return self.socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def wait_readable(self) -> None:
        """Wait until there is something to receive."""
        self._is_waited_for = True
        await trio.lowlevel.wait_readable(self._open_socket())

    async def wait_writable(self) -> None:
        """Wait until the socket has room."""
        self._is_waited_for = True
        await trio.lowlevel.wait_writable(self._open_socket())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive, as any Trio stream does."""
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
        """Wait until the socket has room."""
        try:
            await self.wait_writable()
        except OSError as error:
            raise self._map_exceptions(error) from error

    async def send_eof(self) -> None:
        """Send no more; bytes can still be received."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._map_exceptions(error) from error

    async def aclose(self) -> None:
        """Close the socket; a task that waits for it gets `trio.ClosedResourceError`."""
        self.close()

    def close(self) -> None:
        """Do the same without being async."""
        if not self.is_closed:
            if self._is_waited_for:
                trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    def _open_socket(self) -> socket.socket:
        if self.is_closed:
            raise trio.ClosedResourceError
        return self.socket

    def _map_exceptions(self, error: OSError) -> Exception:
        return trio.ClosedResourceError() if self.is_closed else trio.BrokenResourceError(str(error))
