"""A client's end of a WebSocket: by hand on TCP, cheap and able to do what is forbidden, or by a library."""

import random
import socket
import struct
from dataclasses import dataclass
from typing import Final, Protocol

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket_url

from tests.harness.frames import CLOSE, PING, PONG, TEXT, upgrade_request

READ_BYTES: Final = 64 * 1024
SMALL_BUFFER: Final = 16 * 1024
NORMAL: Final = (1000).to_bytes(2)
NO_LINGER: Final = struct.pack("ii", 1, 0)
CONNECTION_LOST: Final = (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionClosed)


@dataclass(frozen=True)
class Address:
    """Where the relay is."""

    url: str
    host: str
    port: int


class SocketStream(Protocol):
    """What a client needs of a WebSocket. `code` is the close code that came, None if none did."""

    code: int | None

    async def send(self, text: str) -> None:
        """Send a text frame; raises one of `CONNECTION_LOST`."""

    async def receive(self) -> str | None:
        """Return the next text frame, None once the connection is over."""

    async def close(self) -> None:
        """Send a close frame; the connection is over once `receive` says so."""

    async def dispose(self) -> None:
        """Let go of the socket, whatever its state."""


def masked(opcode: int, payload: bytes, rng: random.Random, *, first: int | None = None) -> bytes:
    """Return a client's frame; `first` is its first byte where that is not simply FIN and the opcode."""
    size = len(payload)
    extended = b"" if size <= 125 else size.to_bytes(2) if size < 1 << 16 else size.to_bytes(8)
    short = {0: size, 2: 126, 8: 127}[len(extended)]
    mask = rng.randbytes(4)
    stretched = (mask * (size // 4 + 1))[:size]
    hidden = (int.from_bytes(payload) ^ int.from_bytes(stretched)).to_bytes(size)
    return bytes([0x80 | opcode if first is None else first, 0x80 | short]) + extended + mask + hidden


class RawLink:
    """Frames by hand. Only a whole frame is taken out of what was read, so that reading can be given up and resumed."""

    def __init__(self, stream: trio.SocketStream, rng: random.Random) -> None:
        self._stream = stream
        self._rng = rng
        self._received = bytearray()
        self._closing = False
        self.writing = trio.Lock()
        self.code: int | None = None

    async def upgrade(self) -> None:
        """Ask for a WebSocket; raises one of `CONNECTION_LOST` if there is none to be had."""
        await self._stream.send_all(upgrade_request())
        while b"\r\n\r\n" not in self._received:
            await self._more()
        head, self._received = self._received.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise trio.BrokenResourceError(head.decode())

    async def send(self, text: str) -> None:
        await self.write(masked(TEXT, text.encode(), self._rng))

    async def write(self, data: bytes) -> None:
        """Send bytes, of a frame or of none."""
        async with self.writing:
            await self._stream.send_all(data)

    async def receive(self) -> str | None:
        try:
            while True:
                opcode, payload = await self._frame()
                if opcode == TEXT:
                    return payload.decode()
                if opcode == PING:
                    await self.write(masked(PONG, payload, self._rng))
                elif opcode == CLOSE:
                    self.code = int.from_bytes(payload[:2])
                    await self.close()
                    return None
        except CONNECTION_LOST:
            return None

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            await self.write(masked(CLOSE, NORMAL, self._rng))

    async def tear(self, data: bytes = b"") -> None:
        """Reset the connection, right behind these bytes."""
        async with self.writing:
            if data:
                await self._stream.send_all(data)
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            await trio.aclose_forcefully(self._stream)

    async def dispose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def _frame(self) -> tuple[int, bytes]:
        while (whole := self._whole()) is None:
            await self._more()
        start, end = whole
        opcode, payload = self._received[0] & 0x0F, bytes(self._received[start:end])
        del self._received[:end]
        return opcode, payload

    def _whole(self) -> tuple[int, int] | None:
        """Return where the payload of the first frame begins and ends, if it is all there."""
        if len(self._received) < 2:
            return None
        extra = {126: 2, 127: 8}.get(self._received[1], 0)
        size = int.from_bytes(self._received[2 : 2 + extra]) if extra else self._received[1]
        end = 2 + extra + size
        return (2 + extra, end) if len(self._received) >= max(end, 2 + extra) else None

    async def _more(self) -> None:
        data = await self._stream.receive_some(READ_BYTES)
        if not data:
            raise trio.BrokenResourceError
        self._received += data


class LibraryLink:
    """A WebSocket of trio-websocket, which answers pings by itself."""

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

    async def dispose(self) -> None:
        await trio.aclose_forcefully(self._connection)


async def tcp(address: Address, *, small: bool = False) -> trio.SocketStream:
    """Connect, with a small receive buffer if asked to."""
    made = trio.socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    try:
        if small:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        await made.connect((address.host, address.port))
    except BaseException:
        made.close()
        raise
    return trio.SocketStream(made)


async def raw(address: Address, rng: random.Random, *, small: bool = False) -> RawLink:
    """Open a WebSocket by hand; raises OSError or one of `CONNECTION_LOST`."""
    stream = await tcp(address, small=small)
    link = RawLink(stream, rng)
    try:
        await link.upgrade()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return link


async def library(nursery: trio.Nursery, address: Address) -> LibraryLink:
    """Open a WebSocket of the library; it lives in the nursery."""
    return LibraryLink(await connect_websocket_url(nursery, address.url))
