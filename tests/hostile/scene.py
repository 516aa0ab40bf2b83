"""The scene of an attack: a real relay, a well-behaved pair at work beside it, and what the attack may not cost.

A test gets a `Scene`, does its worst through it, and returns. Around that, `attacked` demands: two well-behaved clients
relayed all the while, and two newcomers can afterwards; nobody waited longer than 2 s; the relay lives, holds no more
descriptors than before, no more than 64 MiB of memory on top, idles when nothing is asked of it, wrote nothing on stderr, and
logged no fault of its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from trio_websocket import connect_websocket_url

from tests.harness.processes import RelayProcess
from tests.harness.relay import Client, RawClient

PATIENCE: Final = 2.0  # seconds that a well-behaved pair may ever wait
ROUNDS: Final = 3  # that the pair works at least
MEMORY: Final = 64 * 1024 * 1024
SETTLE: Final = 12.0  # seconds until what an attack opened has to be gone: the relay's own deadlines, and some
SDP: Final = "v=0\r\n" + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 80


@dataclass
class GoodPair:
    """Two clients on a real library that do what clients do, round after round."""

    a: Client
    b: Client
    rounds: int = 0
    slowest: float = 0.0

    async def work(self) -> None:
        """Relay offers and answers for ever, and note how long a round took at most."""
        while True:
            await self.round()
            await trio.sleep(0.02)

    async def close(self) -> None:
        """Close both, without a word."""
        for client in (self.a, self.b):
            await trio.aclose_forcefully(client.socket)
            await trio.aclose_forcefully(client.socket._stream)  # which it leaves open when the relay closed first

    async def round(self) -> None:
        """Relay an offer, an answer and a candidate, and look at each."""
        self.rounds += 1
        began = trio.current_time()
        await _relay(self.a, self.b, type="offer", sdp=SDP, number=self.rounds)
        await _relay(self.b, self.a, type="answer", sdp=SDP, number=self.rounds)
        await _relay(self.a, self.b, type="candidate", candidate=None, number=self.rounds)
        self.slowest = max(self.slowest, trio.current_time() - began)


async def _relay(sender: Client, receiver: Client, **message: Any) -> None:
    await sender.send(**message)
    assert await receiver.receive() == message | {"from_peer": True}


@dataclass
class Scene:
    """What a test attacks, and with what."""

    server: RelayProcess
    nursery: trio.Nursery
    pair: GoodPair
    behind: int  # bytes of log from before the attack
    opened: list[trio.abc.AsyncResource] = field(default_factory=list)

    async def tcp(self) -> RawClient:
        """Open a TCP connection, with nothing sent on it."""
        stream = await trio.open_tcp_stream(self.server.host, self.server.port)
        self.opened.append(stream)
        return RawClient(stream)

    async def raw(self, target: str = "/") -> tuple[RawClient, str]:
        """Open a WebSocket of raw bytes; returns it and its ID. It reads nothing unless told to."""
        client = await self.tcp()
        return client, (await client.open(target))["id"]

    async def client(self, target: str = "/") -> Client:
        """Open a WebSocket on a real library, which answers pings and reads by itself."""
        client = await dial(self.nursery, self.server.url + target)
        self.opened.append(client.socket)
        return client

    async def paired(self) -> tuple[Client, Client]:
        """Open two of them and pair them, the first as initiator."""
        a, b = await self.client(), await self.client()
        await a.pair(b)
        return a, b

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return what the relay logged of these events since the attack began."""
        return self.server.events(*names, behind=self.behind)

    async def close_all(self) -> None:
        """Close whatever is still open, without a word."""
        for resource in self.opened:
            await trio.aclose_forcefully(resource)


async def usable(*clients: Client) -> None:
    """Demand that each of these is answered still, and that nothing else was sent to it."""
    for client in clients:
        await client.send(type="ping", t="still here?")
        assert await client.receive() == {"type": "pong", "t": "still here?"}


async def dial(nursery: trio.Nursery, url: str) -> Client:
    client = Client(await connect_websocket_url(nursery, url))
    client.id = (await client.receive())["id"]
    return client


async def newcomers(nursery: trio.Nursery, url: str) -> GoodPair:
    """Two well-behaved clients connect and pair."""
    pair = GoodPair(await dial(nursery, url), await dial(nursery, url))
    await pair.a.pair(pair.b)
    return pair


@asynccontextmanager
async def attacked(server: RelayProcess) -> AsyncIterator[Scene]:
    """Watch over an attack on this relay: see the top of this file for what is demanded."""
    descriptors, behind = server.descriptors, server.logged
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            scene = Scene(server, nursery, await newcomers(nursery, server.url), behind)
            scene.opened += [scene.pair.a.socket, scene.pair.b.socket]
            async with trio.open_nursery() as working:
                working.start_soon(scene.pair.work)
                yield scene
                with trio.fail_after(PATIENCE):
                    latecomers = await newcomers(nursery, server.url)
                    await latecomers.round()
                    scene.opened += [latecomers.a.socket, latecomers.b.socket]
                while scene.pair.rounds < ROUNDS:
                    await trio.sleep(0.02)
                working.cancel_scope.cancel()
            assert scene.pair.slowest < PATIENCE
            assert server.memory - server.memory_at_start < MEMORY
            await scene.close_all()
            nursery.cancel_scope.cancel()
        await _back_to(server, descriptors)
    await _idles(server)
    assert server.process.poll() is None
    assert server.stderr == ""
    assert server.memory - server.memory_at_start < MEMORY
    assert not [line for line in server.events(behind=behind) if line["level"] == "error"]


async def _back_to(server: RelayProcess, descriptors: int) -> None:
    with trio.fail_after(SETTLE):
        while server.descriptors > descriptors:
            await trio.sleep(0.05)


async def _idles(server: RelayProcess) -> None:
    before = server.cpu
    await trio.sleep(0.2)
    assert server.cpu - before < 0.15
