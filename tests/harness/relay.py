"""A relay and its clients in one process, joined by socket pairs; and WebSocket frames written by hand."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from sdpx.log import Log
from sdpx.relay.acceptor import Acceptor
from sdpx.relay.core.limits import Limits
from sdpx.relay.relay import Relay
from sdpx.relay.websocket.epoll_engine import EpollEngine
from sdpx.relay.websocket.socket_stream import SocketStream
from tests.harness.log import LogRecorder
from tests.harness.socket_pair import NARROW, socket_pair

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
MASK: Final = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, mask: bytes = MASK) -> bytes:
    """Return a WebSocket frame (RFC 6455, 5.2), with its length in the shortest form."""
    size = len(payload)
    extended = b"" if size <= 125 else size.to_bytes(2) if size < 1 << 16 else size.to_bytes(8)
    short = {0: size, 2: 126, 8: 127}[len(extended)]
    head = bytes([0x80 * fin | opcode, 0x80 * masked | short]) + extended
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def message(**keys: Any) -> bytes:
    """Return a client's text frame with this object in it, masked with zeros: cheap to make, and as good as any."""
    return frame(TEXT, json.dumps(keys).encode(), mask=bytes(4))


def upgrade_request(target: str = "/") -> bytes:
    """Return the head of a request for a WebSocket, written by hand."""
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: relay.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


@dataclass
class Client:
    """A client of the relay on a real WebSocket library, which answers pings by itself."""

    socket: WebSocketConnection
    id: str = ""

    async def send(self, **message: Any) -> None:
        await self.socket.send_message(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.socket.get_message())
        return message

    async def pair(self, other: "Client") -> None:
        await self.send(type="pair_request", target_id=other.id)
        assert (await self.receive())["type"] == "paired"
        assert (await other.receive())["type"] == "paired"

    async def closed(self) -> int:
        """Read until the connection ends and return its close code."""
        with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012  reading is one act
            while True:
                await self.socket.get_message()
        assert caught.value.reason is not None
        return caught.value.reason.code


@dataclass
class RawClient:
    """A client that writes and reads bytes, and so can misbehave: it answers nothing unless told to."""

    stream: trio.abc.Stream
    _received: bytearray = field(default_factory=bytearray)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Read an HTTP response's head, and its body if it has one: its status, headers and body."""
        while b"\r\n\r\n" not in self._received:
            assert await self._more(), "the relay closed without an answer"
        head, self._received = self._received.split(b"\r\n\r\n", 1)
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self._take(int(headers.get("content-length", "0")))
        return int(status.split()[1]), headers, body

    async def open(self, target: str = "/") -> dict[str, Any]:
        """Open a WebSocket and return the relay's first frame."""
        await self.send(upgrade_request(target))
        status, _, _ = await self.response()
        assert status == 101
        return await self.receive()

    async def receive(self) -> dict[str, Any]:
        opcode, payload = await self.frame()
        assert opcode == TEXT
        message: dict[str, Any] = json.loads(payload)
        return message

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame of the relay: its opcode and payload."""
        first, second = await self._take(2)
        extra = {126: 2, 127: 8}.get(second, 0)
        size = int.from_bytes(await self._take(extra)) if extra else second
        return first & 0x0F, await self._take(size)

    async def close_code(self) -> int:
        """Read frames up to the close frame and return its code."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2])

    async def rest(self) -> bytes:
        """Read to the end of the stream."""
        while await self._more():
            pass
        return bytes(self._received)

    async def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            assert await self._more(), "the relay closed in the middle of a frame"
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    async def _more(self) -> bool:
        data = await self.stream.receive_some(65536)
        self._received += data
        return bool(data)


@dataclass
class RelayHarness:
    """A relay whose connections are socket pairs: the far end of each is handed out as a client."""

    relay: Relay
    acceptor: Acceptor
    log: LogRecorder
    nursery: trio.Nursery
    engine: EpollEngine | None
    _streams: list[SocketStream] = field(default_factory=list)

    def connect(self, room: int | None = None, remote: str = "client:0") -> SocketStream:
        """Open a connection on which `room` bytes fit on the way to the client; return the client's end."""
        return self.connect_pair(room, remote)[0]

    def connect_pair(self, room: int | None = None, remote: str = "client:0") -> tuple[SocketStream, SocketStream]:
        """Open a connection and return both ends."""
        client, server = self.socket_pair(room, remote)
        self.serve(server)
        return client, server

    def socket_pair(self, room: int | None = None, remote: str = "client:0") -> tuple[SocketStream, SocketStream]:
        """Return both ends of a connection that the relay does not serve yet."""
        client, server = socket_pair(room, remote)
        self._streams += [client, server]
        return client, server

    def serve(self, stream: SocketStream) -> None:
        """Let the relay serve its end of a connection, as `sdpx serve` does."""
        if self.engine is None:
            self.nursery.start_soon(self.acceptor.serve, stream)
        else:
            self.acceptor.accept([stream])

    def raw(self, room: int | None = None, remote: str = "client:0") -> RawClient:
        return RawClient(self.connect(room, remote))

    def narrow(self) -> RawClient:
        """Return a client with next to no room on its way: what it does not read, the relay cannot write."""
        return self.raw(NARROW)

    async def client(self, target: str = "/", subprotocols: list[str] | None = None) -> Client:
        """Dial the relay and read its `your_id`."""
        socket = await wrap_client_stream(
            self.nursery,
            self.connect(),  # type: ignore[arg-type]  # any stream will do
            "relay.test",
            target,
            subprotocols=subprotocols,
        )
        client = Client(socket)
        client.id = (await client.receive())["id"]
        return client

    async def pair(self) -> tuple[Client, Client]:
        """Dial the relay twice and pair the two."""
        a, b = await self.client("/?id=a"), await self.client("/?id=b")
        await a.pair(b)
        return a, b

    def close(self) -> None:
        """Close all sockets."""
        for stream in self._streams:
            stream.close()


Engine = Literal["epoll", "trio-websocket"]
ENGINES: Final[tuple[Engine, ...]] = ("epoll", "trio-websocket")


@asynccontextmanager
async def relay_harness(limits: Limits | None = None, *, engine: Engine = "epoll") -> AsyncIterator[RelayHarness]:
    """Open a relay on this engine; at the end whatever still runs in it is cancelled."""
    recorder = LogRecorder()
    log = Log(recorder.put, trio.current_time, level="debug")
    async with trio.open_nursery() as background, trio.open_nursery() as nursery:
        epoll = EpollEngine(nursery, log.begin_batch, log.end_batch) if engine == "epoll" else None
        limits = limits or Limits()
        relay = Relay(limits, log)
        acceptor = Acceptor(limits, relay, engine=epoll)
        background.start_soon(relay.run)
        if epoll is not None:
            background.start_soon(epoll.run)
        harness = RelayHarness(relay, acceptor, recorder, nursery, epoll)
        try:
            yield harness
        finally:
            nursery.cancel_scope.cancel()
            background.cancel_scope.cancel()
            harness.close()


class OpenRelay(Protocol):
    """How to open a relay in a test that runs with both engines."""

    def __call__(self, limits: Limits | None = None) -> AbstractAsyncContextManager[RelayHarness]: ...


async def takes(action: Callable[[], Awaitable[object]]) -> float:
    """Do it, and return how many (virtual) seconds it took."""
    began = trio.current_time()
    await action()
    return trio.current_time() - began
