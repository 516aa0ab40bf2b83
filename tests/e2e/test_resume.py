"""Resume with a real relay: a proxy resets the connections of its clients after any byte.

The clients run the rules of `sdpx peer` (sdpx.peer.signaling.resume) on a socket. In each pair A sends offers and B answers
them, each with candidates, repeatedly.
"""

import random
from typing import Any, Final

import pytest
import trio

from sdpx.peer.signaling.resume import ResumeResult
from tests.harness.processes import relay
from tests.harness.resuming_client import ResumingClient
from tests.harness.tcp import reset

pytestmark = pytest.mark.e2e

CUTS: Final = 200
PAIRS: Final = 8
CANDIDATE: Final = {"type": "candidate", "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host"}}


class Proxy:
    """Forwards bytes in both directions, and resets connections between them until it has done so `CUTS` times."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self.cuts = 0
        self.dead: list[trio.SocketStream] = []  # lost connections of which the relay is not notified

    async def serve(self, client: trio.SocketStream) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", self._port)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forward, client, upstream, nursery.cancel_scope)
                nursery.start_soon(self._forward, upstream, client, nursery.cancel_scope)
        finally:
            for end in (client, upstream):
                if end not in self.dead:
                    reset(end)

    def close(self) -> None:
        """Close the lost connections."""
        for each in self.dead:
            reset(each)

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


class ComparedClient(ResumingClient):
    """A client whose messages are compared with those that its peer receives."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.sent: list[str] = []
        self.received: list[str] = []
        self.paired = trio.Event()

    def send_compared(self, **message: Any) -> None:
        """Send a message that is compared with what the peer receives."""
        self.sent.append(message.get("sdp", "candidate"))
        self.send(message)

    def on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "paired":
            assert not self.paired.is_set()
            self.paired.set()
            return
        assert message["type"] in ("offer", "answer", "candidate"), message
        self.received.append(message.get("sdp", "candidate"))
        if message["type"] == "offer":
            self.send_compared(**CANDIDATE)
            self.send_compared(type="answer", sdp=message["sdp"])


async def exchange(a: ComparedClient, b: ComparedClient, proxy: Proxy) -> None:
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
        clients = [ComparedClient(listener.socket.getsockname()[1]) for _ in range(2 * PAIRS)]
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
            assert (a.gaps, b.gaps) == (0, 0)
            assert not a.refusals + b.refusals
            assert (a.closes + b.closes).keys() <= {4001}
        assert proxy.cuts == CUTS
        assert sum(len(client.results) for client in clients) > CUTS / 4
        nursery.cancel_scope.cancel()
    proxy.close()
    assert "internal_error" not in server.events
