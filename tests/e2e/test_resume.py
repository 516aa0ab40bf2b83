"""Resume with a real relay: a proxy resets the connections of its clients after any byte.

The clients run the rules of `sdpx peer` (sdpx.peer.signaling.resume) on a socket. In each pair A sends offers and B answers
them, each with candidates, repeatedly.
"""

import json
import random
import socket
import struct
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.peer.signaling.resume import ResumeResult, ResumeState, SequenceCheck
from sdpx.protocol import codec
from sdpx.protocol.messages import ServerAck, YourId
from tests.harness.frames import CLOSE, PING, PONG, TEXT, FrameReader, frame, upgrade_request
from tests.harness.processes import relay

pytestmark = pytest.mark.e2e

CUTS: Final = 200
PAIRS: Final = 8
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a close that sends RST
CANDIDATE: Final = {"type": "candidate", "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host"}}


class Proxy:
    """Forwards bytes in both directions, and resets connections between them until it has done so `CUTS` times."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self.cuts = 0
        self.dead: list[trio.SocketStream] = []  # dead connections that the relay is not told of

    async def serve(self, client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", self._port)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forward, client, upstream, nursery.cancel_scope)
                nursery.start_soon(self._forward, upstream, client, nursery.cancel_scope)
        finally:
            for end in (client, upstream):
                if end not in self.dead:
                    _reset(end)

    def close(self) -> None:
        """Close the dead connections."""
        for each in self.dead:
            _reset(each)

    async def _forward(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(4096):
                if self.cuts < CUTS and self._rng.random() < 0.2:
                    self.cuts += 1
                    await sink.send_all(data[: self._rng.randrange(len(data) + 1)])
                    break
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if self._rng.random() < 0.3:
            self.dead.append(source if source.socket.getpeername()[1] == self._port else sink)
        scope.cancel()


def _reset(stream: trio.SocketStream) -> None:
    if stream.socket.fileno() != -1:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        stream.socket.close()


class ResumingClient:
    """A client that always reconnects and resumes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.rules = ResumeState()
        self.id: str | None = None
        self.sent: list[str] = []
        self.received: list[str] = []
        self.paired = trio.Event()
        self.results: list[ResumeResult] = []
        self.answers = False
        self._welcomed = False
        self._out: list[str] = []
        self._changed = RepeatedEvent()

    def send(self, message: dict[str, Any]) -> None:
        text = self.rules.send(json.dumps(message))
        if self._welcomed:
            self._write(text)

    def send_compared(self, **message: Any) -> None:
        """Send a message that is compared with what the peer receives."""
        self.sent.append(message.get("sdp", "candidate"))
        self.send(message)

    def _write(self, *texts: str) -> None:
        self._out += texts
        self._changed.set()

    async def run(self) -> None:
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                async with stream, trio.open_nursery() as nursery:
                    self._welcomed, self._out = False, []
                    nursery.start_soon(self._read, stream, nursery.cancel_scope)
                    nursery.start_soon(self._write_all, stream, nursery.cancel_scope)
            except OSError:
                pass
            await trio.sleep(0.001)

    async def _write_all(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            await stream.send_all(upgrade_request(f"/?{urlencode(self.rules.query())}"))
            while True:
                with trio.move_on_after(0.02):
                    while not self._out:
                        await self._changed.wait()
                due = self.rules.ack_due
                if self._welcomed and due is not None and due <= trio.current_time():
                    self._out.append(self.rules.ack())
                texts, self._out = self._out, []
                await stream.send_all(b"".join(frame(TEXT, text.encode(), mask=bytes(4)) for text in texts))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()

    async def _read(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
        reader, head = FrameReader(), None
        try:
            while data := await stream.receive_some(65536):
                reader.data += data
                if head is None:
                    head = reader.next_head()
                    assert head is None or head.startswith("HTTP/1.1 101"), head
                while head is not None and (found := reader.next_frame()) is not None:
                    opcode, payload = found
                    if opcode == PING:
                        await stream.send_all(frame(PONG, payload))
                    elif opcode == TEXT:
                        self._on_text(payload.decode())
                    else:
                        assert opcode == CLOSE
                        assert payload[:2] == (4001).to_bytes(2)
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    def _on_text(self, text: str) -> None:
        message = codec.parse_server(text)
        if isinstance(message, YourId):
            self._on_welcome(message)
        elif isinstance(message, ServerAck):
            assert self.rules.confirm(message.client_seq)
        elif (arrival := self.rules.receive(text, trio.current_time())) is SequenceCheck.NEW:
            self._on_message(json.loads(text))
        else:
            assert arrival is SequenceCheck.DUPLICATE

    def _on_welcome(self, message: YourId) -> None:
        self.results.append(self.rules.on_your_id(message))
        self.id = message.id
        self._welcomed = True
        if self.rules.ack_due is not None:
            self._write(self.rules.ack())
        self._write(*self.rules._unconfirmed)

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "paired":
            assert not self.paired.is_set()
            self.paired.set()
            return
        assert message["type"] in ("offer", "answer", "candidate"), message
        self.received.append(message.get("sdp", "candidate"))
        if message["type"] == "offer":
            self.send_compared(**CANDIDATE)
            self.send_compared(type="answer", sdp=message["sdp"])


async def exchange(a: ResumingClient, b: ResumingClient, proxy: Proxy) -> None:
    """Send offers and candidates while the proxy resets connections; then wait until all messages are confirmed."""
    while a.id is None or b.id is None:
        await trio.sleep(0.01)
    a.send({"type": "pair_request", "target_id": b.id})
    await a.paired.wait()
    rounds = 0
    while proxy.cuts < CUTS or rounds < 10:
        rounds += 1
        while not (a.rules.has_room and b.rules.has_room):
            await trio.sleep(0.01)
        a.send_compared(type="offer", sdp=f"offer {rounds} {'x' * 500}")
        a.send_compared(**CANDIDATE)
        await trio.sleep(0.01)
    while len(b.received) < len(a.sent) or len(a.received) < len(b.sent) or a.rules.confirmed < a.rules.sent:
        await trio.sleep(0.02)


@pytest.mark.parametrize("engine", ["--engine=epoll", "--engine=trio-websocket"])
async def test_no_message_is_lost_or_repeated_by_resets_during_handshakes(engine: str) -> None:
    rng = random.Random(6)
    async with (
        relay(engine, "--rate", "0", "--max-clients-per-ip", "0") as (server, url),
        trio.open_nursery() as nursery,
    ):
        proxy = Proxy(int(url.rpartition(":")[2]), rng)
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        clients = [ResumingClient(listener.socket.getsockname()[1]) for _ in range(2 * PAIRS)]
        for client in clients:
            nursery.start_soon(client.run)
        async with trio.open_nursery() as exchanges:
            for a, b in zip(clients[::2], clients[1::2], strict=True):
                exchanges.start_soon(exchange, a, b, proxy)
        for a, b in zip(clients[::2], clients[1::2], strict=True):
            assert b.received == a.sent
            assert a.received == b.sent
            assert set(a.results[1:] + b.results[1:]) == {ResumeResult.RESUMED}
            assert len(a.sent) >= 20
        assert proxy.cuts == CUTS
        assert sum(len(client.results) for client in clients) > CUTS / 4
        nursery.cancel_scope.cancel()
    proxy.close()
    assert "internal_error" not in server.events
