"""A relay and its clients in one process, joined by socket pairs; and WebSocket frames written by hand."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeVar

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from sdpx.log import Log
from sdpx.relay.acceptor import Acceptor
from sdpx.relay.client import ClientSession
from sdpx.relay.cluster.memory import MemoryDirectory, MemoryEngine
from sdpx.relay.cluster_relay import ClusterRelay
from sdpx.relay.core.limits import Limits
from sdpx.relay.relay import Relay
from sdpx.relay.websocket.epoll_engine import EpollEngine
from sdpx.relay.websocket.socket_stream import SocketStream
from tests.harness.frames import CLOSE, TEXT, FrameReader, upgrade_request
from tests.harness.log import LogRecorder
from tests.harness.socket_pair import NARROW, socket_pair

PATIENT: Final = Limits(ping_interval=10_000, idle_timeout=20_000)  # with clients that are silent for long


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

    async def pair(self, other: "Client | RawClient") -> None:
        """Request a pairing with another client, and have both read `paired`."""
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
    """A client that writes and reads bytes, and so can misbehave: it answers nothing by itself."""

    stream: trio.abc.Stream
    _reader: FrameReader = field(default_factory=FrameReader)
    id: str = ""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Read an HTTP response's head, and its body if it has one: its status, headers and body."""
        while (head := self._reader.next_head()) is None:
            assert await self._more(), "the relay closed without an answer"
        status, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = int(headers.get("content-length", "0"))
        while len(self._reader.data) < size:
            assert await self._more(), "the relay closed in the middle of a response"
        body = bytes(self._reader.data[:size])
        del self._reader.data[:size]
        return int(status.split()[1]), headers, body

    async def page(self, path: str, headers: str = "") -> tuple[int, str]:
        """Request a page; returns its status and text."""
        await self.send(f"GET {path} HTTP/1.1\r\nHost: relay.test\r\n{headers}\r\n".encode())
        status, _, body = await self.response()
        return status, body.decode()

    async def open(self, target: str = "/") -> dict[str, Any]:
        """Open a WebSocket and return the relay's first frame."""
        await self.send(upgrade_request(target))
        status, _, _ = await self.response()
        assert status == 101
        your_id = await self.receive()
        self.id = your_id["id"]
        return your_id

    async def receive(self) -> dict[str, Any]:
        opcode, payload = await self.frame()
        assert opcode == TEXT
        message: dict[str, Any] = json.loads(payload)
        return message

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame of the relay: its opcode and payload."""
        while (frame := self._reader.next_frame()) is None:
            assert await self._more(), "the relay closed in the middle of a frame"
        return frame

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
        return bytes(self._reader.data)

    async def _more(self) -> bool:
        data = await self.stream.receive_some(65536)
        self._reader.data += data
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

    @property
    def relays(self) -> list[Relay]:
        return [self.relay]

    @property
    def clients(self) -> int:
        return sum(each.clients for each in self.relays)

    def session(self, client_id: str) -> ClientSession:
        return next(each._sessions[client_id] for each in self.relays if client_id in each._sessions)

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
        """Return a client with narrow socket buffers: the relay cannot write more than the client reads."""
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


Engine = Literal["epoll", "trio-websocket", "cluster"]
ENGINES: Final[tuple[Engine, ...]] = ("epoll", "trio-websocket")


Harness = TypeVar("Harness", bound=RelayHarness)


@contextmanager
def closing(harness: Harness, background: trio.Nursery) -> Iterator[Harness]:
    """Cancel the tasks of a relay at the end of the block, and close the sockets of its clients."""
    try:
        yield harness
    finally:
        harness.nursery.cancel_scope.cancel()
        background.cancel_scope.cancel()
        harness.close()


@asynccontextmanager
async def relay_harness(limits: Limits | None = None, *, engine: Engine = "epoll") -> AsyncIterator[RelayHarness]:
    """Open a relay on this engine, or a cluster of two; at the end whatever still runs in it is cancelled."""
    if engine == "cluster":
        async with cluster_harness(limits) as cluster:
            yield cluster
        return
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
        with closing(RelayHarness(relay, acceptor, recorder, nursery, epoll), background) as harness:
            yield harness


@dataclass
class ClusterHarness(RelayHarness):
    """Nodes of one cluster in one process; each connection goes to the next node. `relay` and `acceptor` are of the first."""

    nodes: list[RelayHarness] = field(default_factory=list)
    memory: MemoryEngine = field(default_factory=lambda: MemoryEngine(trio.current_time))
    _next: int = 0

    @property
    def relays(self) -> list[Relay]:
        return [each.relay for each in self.nodes]

    def serve(self, stream: SocketStream) -> None:
        """Let the next node serve its end of a connection."""
        self._next += 1
        self.nodes[(self._next - 1) % len(self.nodes)].serve(stream)

    def close(self) -> None:
        """Close all sockets."""
        super().close()
        for node in self.nodes:
            node.close()

    async def start_node(self, background: trio.Nursery, limits: Limits, log: Log, lease: float) -> RelayHarness:
        """Start a node."""
        epoll = EpollEngine(self.nursery, log.begin_batch, log.end_batch)
        names = iter([f"node{len(self.nodes) + 1}", *(f"again{number}" for number in range(10))])
        directory = MemoryDirectory(limits, self.memory, lease, lambda: next(names))
        relay = ClusterRelay(directory, limits, log)
        relay.batch = epoll.batch
        acceptor = Acceptor(limits, relay, engine=epoll)
        background.start_soon(epoll.run)
        await background.start(relay.run)
        self.nodes.append(RelayHarness(relay, acceptor, self.log, self.nursery, epoll))
        return self.nodes[-1]


@asynccontextmanager
async def cluster_harness(
    limits: Limits | None = None, *, nodes: int = 2, lease: float = 1000.0
) -> AsyncIterator[ClusterHarness]:
    """Open a cluster on the epoll engine, whose directory is in memory; at the end whatever still runs in it is cancelled."""
    recorder = LogRecorder()
    log = Log(recorder.put, trio.current_time, level="debug")
    limits = limits or Limits()
    async with trio.open_nursery() as background, trio.open_nursery() as nursery:
        unused: Any = None
        cluster = ClusterHarness(unused, unused, recorder, nursery, None)
        for _ in range(nodes):
            await cluster.start_node(background, limits, log, lease)
        cluster.relay, cluster.acceptor = cluster.nodes[0].relay, cluster.nodes[0].acceptor
        cluster.engine = cluster.nodes[0].engine
        with closing(cluster, background):
            yield cluster


class OpenRelay(Protocol):
    """How to open a relay in a test that runs with both engines."""

    def __call__(self, limits: Limits | None = None) -> AbstractAsyncContextManager[RelayHarness]: ...


async def takes(action: Callable[[], Awaitable[object]]) -> float:
    """Do it, and return how many (virtual) seconds it took."""
    began = trio.current_time()
    await action()
    return trio.current_time() - began


async def raw_pair(relay: RelayHarness) -> tuple[RawClient, Client]:
    """Return a raw client `a`, paired with `b`, which uses a WebSocket library."""
    a, b = relay.raw(), await relay.client("/?id=b")
    await a.open("/?id=a")
    await b.pair(a)
    return a, b
