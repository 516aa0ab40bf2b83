"""WebSocket connections of the soak's clients: of raw frames, cheap and able to violate the protocol, or of a library."""

import random
import socket
from dataclasses import dataclass
from typing import Final, Protocol

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket_url

from tests.harness.frames import CLOSE, PING, PONG, TEXT, FrameReader, frame, upgrade_request
from tests.harness.tcp import reset_on_close

READ_BYTES: Final = 64 * 1024
SMALL_BUFFER: Final = 16 * 1024
NORMAL: Final = (1000).to_bytes(2)
CONNECTION_LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed)


@dataclass(frozen=True)
class Address:
    """The address of the relay."""

    url: str
    host: str
    port: int


class Connection(Protocol):
    """A WebSocket connection. `code` is the received close code, if any."""

    code: int | None

    async def send(self, text: str) -> None:
        """Send a text frame. Raises one of `CONNECTION_LOST`."""

    async def receive(self) -> str | None:
        """Return the next text frame; None once the connection has ended."""

    async def close(self) -> None:
        """Send a close frame; `receive` reports the end of the connection."""

    async def abort(self) -> None:
        """Close the socket in any state."""


class RawConnection:
    """A connection of raw frames. Reading can be cancelled and resumed: only complete frames are removed from the buffer."""

    def __init__(self, stream: trio.SocketStream, rng: random.Random) -> None:
        self._stream = stream
        self._rng = rng
        self._reader = FrameReader()
        self._closing = False
        self._write_lock = trio.Lock()
        self.code: int | None = None

    async def open(self) -> None:
        """Open the WebSocket. Raises one of `CONNECTION_LOST`."""
        await self._stream.send_all(upgrade_request())
        while (head := self._reader.next_head()) is None:
            await self._receive_some()
        if not head.startswith("HTTP/1.1 101 "):
            raise trio.BrokenResourceError(head)

    async def send(self, text: str) -> None:
        await self._send_frame(TEXT, text.encode())

    async def write(self, data: bytes) -> None:
        """Send bytes, which need not be a frame."""
        async with self._write_lock:
            await self._stream.send_all(data)

    async def receive(self) -> str | None:
        try:
            while True:
                while (found := self._reader.next_frame()) is None:
                    await self._receive_some()
                opcode, payload = found
                if opcode == TEXT:
                    return payload.decode()
                if opcode == PING:
                    await self._send_frame(PONG, payload)
                elif opcode == CLOSE:
                    self.code = int.from_bytes(payload[:2])
                    await self.close()
                    return None
        except CONNECTION_LOST:
            return None

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            await self._send_frame(CLOSE, NORMAL)

    async def reset(self, data: bytes = b"") -> None:
        """Send these bytes, then reset the connection."""
        async with self._write_lock:
            if data:
                await self._stream.send_all(data)
            reset_on_close(self._stream)
            await trio.aclose_forcefully(self._stream)

    async def abort(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def _send_frame(self, opcode: int, payload: bytes) -> None:
        await self.write(frame(opcode, payload, mask=self._rng.randbytes(4)))

    async def _receive_some(self) -> None:
        data = await self._stream.receive_some(READ_BYTES)
        if not data:
            raise trio.BrokenResourceError
        self._reader.data += data


class LibraryConnection:
    """A connection of trio-websocket, which answers pings by itself."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self.code: int | None = None

    async def send(self, text: str) -> None:
        await self._connection.send_message(text)

    async def receive(self) -> str | None:
        try:
            return str(await self._connection.get_message())
        except ConnectionClosed as closed:
            self.code = closed.reason.code if closed.reason else None
            return None

    async def close(self) -> None:
        await self._connection.aclose()

    async def abort(self) -> None:
        await trio.aclose_forcefully(self._connection)


async def open_tcp(address: Address, *, small: bool = False) -> trio.SocketStream:
    """Open a TCP connection, with a small receive buffer if `small`."""
    made = trio.socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        if small:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        await made.connect((address.host, address.port))
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


async def open_raw(address: Address, rng: random.Random, *, small: bool = False) -> RawConnection:
    """Open a WebSocket of raw frames. Raises OSError or one of `CONNECTION_LOST`."""
    stream = await open_tcp(address, small=small)
    connection = RawConnection(stream, rng)
    try:
        await connection.open()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return connection


async def open_library(nursery: trio.Nursery, address: Address) -> LibraryConnection:
    """Open a WebSocket of trio-websocket, whose tasks run in the nursery."""
    return LibraryConnection(await connect_websocket_url(nursery, address.url))
