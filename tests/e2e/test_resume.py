"""Coming back, with a real relay: a proxy between it and its clients resets their connections, in any byte of what they carry.

The clients are the rules of `sdpx peer` (sdpx.peer.signaling.resume) on a socket. In each pair A sends offers and B answers them, each
between candidates of its own, as in a handshake, over and over.
"""

import json
import random
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.peer.signaling.resume import ResumeResult, ResumeState, SequenceCheck
from sdpx.protocol import codec
from sdpx.protocol.messages import ServerAck, YourId
from tests.harness.frames import CLOSE, PING, PONG, TEXT, frame, upgrade_request
from tests.harness.processes import relay

pytestmark = pytest.mark.e2e

CUTS: Final = 200
PAIRS: Final = 8
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a close that sends RST
CANDIDATE: Final = {"type": "candidate", "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host"}}


class Proxy:
    """Passes bytes on, both ways, and resets connections in the middle of them until it has cut often enough."""

    def __init__(self, port: int, dice: random.Random) -> None:
        self._port = port
        self._dice = dice
        self.cuts = 0
        self.forgotten: list[trio.SocketStream] = []  # the relay is not told that they are dead

    async def serve(self, client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", self._port)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, client, upstream, nursery.cancel_scope)
                nursery.start_soon(self._pass_on, upstream, client, nursery.cancel_scope)
        finally:
            for end in (client, upstream):
                if end not in self.forgotten:
                    _reset(end)

    def close(self) -> None:
        """Let go of what was forgotten."""
        for each in self.forgotten:
            _reset(each)

    async def _pass_on(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(4096):
                if self.cuts < CUTS and self._dice.random() < 0.2:
                    self.cuts += 1
                    await sink.send_all(data[: self._dice.randrange(len(data) + 1)])
                    break
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if self._dice.random() < 0.3:
            self.forgotten.append(source if source.socket.getpeername()[1] == self._port else sink)
        scope.cancel()


def _reset(stream: trio.SocketStream) -> None:
    if stream.socket.fileno() != -1:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        stream.socket.close()


class Robot:
    """A client that comes back, always: one socket after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.rules = ResumeState()
        self.id: str | None = None
        self.sent: list[str] = []
        self.heard: list[str] = []
        self.paired = trio.Event()
        self.standings: list[ResumeResult] = []
        self.answers = False
        self._welcomed = False
        self._out: list[str] = []
        self._changed = RepeatedEvent()

    def send(self, message: dict[str, Any]) -> None:
        text = self.rules.send(json.dumps(message))
        if self._welcomed:
            self._write(text)

    def say(self, **message: Any) -> None:
        """Send something that is compared with what arrives."""
        self.sent.append(message.get("sdp", "candidate"))
        self.send(message)

    def _write(self, *texts: str) -> None:
        self._out += texts
        self._changed.set()

    async def live(self) -> None:
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", self._port)
                async with stream, trio.open_nursery() as nursery:
                    self._welcomed, self._out = False, []
                    nursery.start_soon(self._read, stream, nursery.cancel_scope)
                    nursery.start_soon(self._send_out, stream, nursery.cancel_scope)
            except OSError:
                pass
            await trio.sleep(0.001)

    async def _send_out(self, stream: trio.SocketStream, scope: trio.CancelScope) -> None:
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
        received = bytearray()
        try:
            while data := await stream.receive_some(65536):
                received += data
                if received.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in received:
                    del received[: received.index(b"\r\n\r\n") + 4]
                assert not received.startswith(b"HTTP/1.1 4"), bytes(received)
                for opcode, payload in frames_in(received):
                    if opcode == PING:
                        await stream.send_all(frame(PONG, payload))
                    elif opcode == TEXT:
                        self._take(payload.decode())
                    else:
                        assert opcode == CLOSE
                        assert payload[:2] == (4001).to_bytes(2)
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    def _take(self, text: str) -> None:
        message = codec.parse_server(text)
        if isinstance(message, YourId):
            self._take_welcome(message)
        elif isinstance(message, ServerAck):
            assert self.rules.confirm(message.client_seq)
        elif (arrival := self.rules.receive(text, trio.current_time())) is SequenceCheck.NEW:
            self._hear(json.loads(text))
        else:
            assert arrival is SequenceCheck.DUPLICATE

    def _take_welcome(self, message: YourId) -> None:
        self.standings.append(self.rules.welcome(message))
        self.id = message.id
        self._welcomed = True
        if self.rules.ack_due is not None:
            self._write(self.rules.ack())
        self._write(*self.rules._unconfirmed)

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "paired":
            assert not self.paired.is_set()
            self.paired.set()
            return
        assert message["type"] in ("offer", "answer", "candidate"), message
        self.heard.append(message.get("sdp", "candidate"))
        if message["type"] == "offer":
            self.say(**CANDIDATE)
            self.say(type="answer", sdp=message["sdp"])


def frames_in(received: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take whole frames out of what was received; an HTTP head is none."""
    while len(received) >= 2 and not b"HTTP/1.1 101".startswith(received[:12]):
        extra = {126: 2, 127: 8}.get(received[1], 0)
        size = int.from_bytes(received[2 : 2 + extra]) if extra else received[1]
        end = 2 + extra + size
        if len(received) < max(end, 2 + extra):
            return
        opcode, payload = received[0] & 0x0F, bytes(received[2 + extra : end])
        del received[:end]
        yield opcode, payload


async def shake_hands(a: Robot, b: Robot, proxy: Proxy) -> None:
    """Let A offer, with a candidate, while the proxy cuts; then wait until both know that all has arrived."""
    while a.id is None or b.id is None:
        await trio.sleep(0.01)
    a.send({"type": "pair_request", "target_id": b.id})
    await a.paired.wait()
    rounds = 0
    while proxy.cuts < CUTS or rounds < 10:
        rounds += 1
        while not (a.rules.has_room and b.rules.has_room):
            await trio.sleep(0.01)
        a.say(type="offer", sdp=f"offer {rounds} {'x' * 500}")
        a.say(**CANDIDATE)
        await trio.sleep(0.01)
    while len(b.heard) < len(a.sent) or len(a.heard) < len(b.sent) or a.rules.confirmed < a.rules.sent:
        await trio.sleep(0.02)


@pytest.mark.parametrize("option", ["--engine=epoll", "--engine=trio-websocket"])
async def test_a_thousand_resets_in_the_middle_of_handshakes_lose_nothing_and_repeat_nothing(option: str) -> None:
    dice = random.Random(6)
    async with (
        relay(option, "--rate", "0", "--max-clients-per-ip", "0") as (server, url),
        trio.open_nursery() as nursery,
    ):
        proxy = Proxy(int(url.rpartition(":")[2]), dice)
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        robots = [Robot(listener.socket.getsockname()[1]) for _ in range(2 * PAIRS)]
        for robot in robots:
            nursery.start_soon(robot.live)
        async with trio.open_nursery() as talks:
            for a, b in zip(robots[::2], robots[1::2], strict=True):
                talks.start_soon(shake_hands, a, b, proxy)
        for a, b in zip(robots[::2], robots[1::2], strict=True):
            assert b.heard == a.sent
            assert a.heard == b.sent
            assert set(a.standings[1:] + b.standings[1:]) == {ResumeResult.RESUMED}
            assert len(a.sent) >= 20
        assert proxy.cuts == CUTS
        assert sum(len(robot.standings) for robot in robots) > CUTS / 4
        nursery.cancel_scope.cancel()
    proxy.close()
    assert "internal_error" not in server.events
