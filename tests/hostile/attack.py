"""An attack on a real relay, a reference pair of clients beside it, and what the attack may not cost.

A test gets an `Attack`, attacks through it, and returns. Around that, `attack_on` requires: two well-behaved clients are
relayed all the while, and two new ones can connect, pair and be relayed afterwards; no round takes longer than 2 s; the relay
still runs, has no more descriptors open than before, at most 64 MiB more memory, is idle when nothing is asked of it, wrote
nothing on stderr, and logged no error but those that the test expects.
"""

import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Final

import trio
from trio_websocket import connect_websocket_url

from tests.harness.frames import upgrade_request
from tests.harness.processes import RelayProcess
from tests.harness.relay import Client, RawClient

ROUND_SECONDS: Final = 2.0  # that a round of the reference pair may take on an idle machine
ROUNDS: Final = 3  # of the pair, at least
ATTACK_SECONDS: Final = 120.0
MEMORY: Final = 64 * 1024 * 1024
SETTLE: Final = 12.0  # seconds until the relay has closed its end of what an attack opened: its own deadlines, and some
ELSEWHERE: Final = "127.0.0.2"  # another address that attacks, while the well-behaved come from 127.0.0.1
SDP: Final = "v=0\r\n" + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 80


def patience() -> float:
    """Return the seconds that a round of the reference pair may take now: more where other processes share the cores."""
    return ROUND_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass
class ReferencePair:
    """Two clients on a real library that do what clients do, round after round."""

    a: Client
    b: Client
    rounds: int = 0
    slowest: float = 0.0

    async def work(self) -> None:
        """Relay offers and answers for ever, and note how long a round took at most."""
        while True:
            await self.round()
            await trio.sleep(0.05)

    async def close(self) -> None:
        """Close both without a close frame."""
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
class Attack:
    """A relay under attack, and the attacker's connections to it. With a `tls` context all connections are TLS connections."""

    server: RelayProcess
    nursery: trio.Nursery
    pair: ReferencePair
    behind: int  # bytes of log from before the attack
    tls: ssl.SSLContext | None = None
    opened: list[trio.abc.AsyncResource] = field(default_factory=list)

    async def tcp(self, address: str | None = None) -> trio.SocketStream:
        """Open a TCP connection, from this address of the attacker."""
        stream = await trio.open_tcp_stream(self.server.host, self.server.port, local_address=address)
        self.opened.append(stream)
        return stream

    async def connect(self, address: str | None = None) -> RawClient:
        """Open a connection, with nothing sent on it but the TLS handshake where there is one."""
        return await self.over(await self.tcp(address))

    async def over(self, stream: trio.SocketStream) -> RawClient:
        """Do the TLS handshake, where there is one, on a TCP connection."""
        if self.tls is None:
            return RawClient(stream)
        tls = trio.SSLStream(stream, self.tls, server_hostname=self.server.host, https_compatible=True)
        await tls.do_handshake()
        return RawClient(tls)

    async def raw(self, target: str = "/") -> tuple[RawClient, str]:
        """Open a WebSocket of raw bytes; returns it and its ID. Nothing reads it but the test."""
        client = await self.connect()
        return client, (await client.open(target))["id"]

    async def client(self, target: str = "/") -> Client:
        """Open a WebSocket on a real library, which answers pings and reads by itself."""
        client = await dial(self.nursery, self.server.url + target, self.tls)
        self.opened.append(client.socket)
        return client

    async def paired(self) -> tuple[Client, Client]:
        """Open two of them and pair them, the first as initiator."""
        a, b = await self.client(), await self.client()
        await a.pair(b)
        return a, b

    async def paired_with_raw(self) -> tuple[Client, RawClient, str]:
        """Pair a client with a raw one, which has not read its `paired`; returns both, and the ID of the raw one."""
        a = await self.client()
        raw, raw_id = await self.raw()
        await a.send(type="pair_request", target_id=raw_id)
        assert await a.receive() == {"type": "paired", "peer_id": raw_id, "is_initiator": True}
        return a, raw, raw_id

    async def request(self, target: str = "/") -> tuple[int, str]:
        """Request a WebSocket, which stays open; returns the status, and the body of a refusal."""
        client = await self.connect()
        await client.send(upgrade_request(target))
        status, _, body = await client.response()
        if status != 101:
            await trio.aclose_forcefully(client.stream)
        return status, body.decode()

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return what the relay logged of these events since the attack began."""
        return self.server.events(*names, behind=self.behind)

    async def wait_for_events(self, count: int, *names: str) -> list[dict[str, Any]]:
        """Wait until the relay has logged so many of these events since the attack began; returns them."""
        while len(found := self.events(*names)) < count:  # within `ATTACK_SECONDS`: it is no service to the pair
            await trio.sleep(0.01)
        return found

    async def close_all(self) -> None:
        """Close all connections that are still open, without close frames."""
        for resource in self.opened:
            await trio.aclose_forcefully(resource)


async def usable(*clients: Client) -> None:
    """Demand that each of these is answered still, and that nothing else was sent to it."""
    for client in clients:
        await client.send(type="ping", t="still here?")
        assert await client.receive() == {"type": "pong", "t": "still here?"}


def tcp_of(client: RawClient) -> trio.SocketStream:
    """Return a client's TCP connection."""
    stream = client.stream
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    assert isinstance(stream, trio.SocketStream)
    return stream


async def half_close(client: RawClient) -> None:
    """Send FIN, and stay to read."""
    await tcp_of(client).send_eof()


async def sends_until_cut(client: RawClient, chunk: bytes, pause: float = 0.0) -> int:
    """Send this for ever, and return how many bytes it took until the relay cut the connection."""
    sent = 0
    try:
        while True:
            await client.send(chunk)
            sent += len(chunk)
            await trio.sleep(pause)
    except trio.BrokenResourceError:
        return sent


def client_hello(context: ssl.SSLContext | None) -> bytes:
    """Return the first bytes of a TLS handshake."""
    assert context is not None
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def dial(nursery: trio.Nursery, url: str, tls: ssl.SSLContext | None = None) -> Client:
    client = Client(await connect_websocket_url(nursery, url, ssl_context=tls))
    client.id = (await client.receive())["id"]
    return client


async def connect_pair(nursery: trio.Nursery, url: str, tls: ssl.SSLContext | None = None) -> ReferencePair:
    """Connect two well-behaved clients and pair them."""
    pair = ReferencePair(await dial(nursery, url, tls), await dial(nursery, url, tls))
    await pair.a.pair(pair.b)
    return pair


@asynccontextmanager
async def attack_on(
    server: RelayProcess, tls: ssl.SSLContext | None = None, expected_errors: frozenset[str] = frozenset()
) -> AsyncIterator[Attack]:
    """Open an attack on this relay and check what it costs: see the top of this file."""
    descriptors, behind = server.descriptors, server.logged
    with trio.fail_after(ATTACK_SECONDS):
        async with trio.open_nursery() as nursery:
            attack = Attack(server, nursery, await connect_pair(nursery, server.url, tls), behind, tls)
            attack.opened += [attack.pair.a.socket, attack.pair.b.socket]
            async with trio.open_nursery() as working:
                working.start_soon(attack.pair.work)
                yield attack
                with trio.fail_after(patience()):
                    latecomers = await connect_pair(nursery, server.url, tls)
                    await latecomers.round()
                    attack.opened += [latecomers.a.socket, latecomers.b.socket]
                while attack.pair.rounds < ROUNDS:
                    await trio.sleep(0.05)
                working.cancel_scope.cancel()
            assert attack.pair.slowest < patience()
            assert server.memory - server.memory_at_start < MEMORY
            await attack.close_all()
            nursery.cancel_scope.cancel()
        await _back_to(server, descriptors)
    await _idles(server)
    assert server.process.poll() is None
    assert server.stderr == ""
    assert server.memory - server.memory_at_start < MEMORY
    assert {line["event"] for line in server.events(behind=behind) if line["level"] == "error"} <= expected_errors


async def _back_to(server: RelayProcess, descriptors: int) -> None:
    with trio.fail_after(SETTLE * patience() / ROUND_SECONDS):
        while server.descriptors > descriptors:
            await trio.sleep(0.05)


async def _idles(server: RelayProcess) -> None:
    before = server.cpu
    await trio.sleep(0.2)
    assert server.cpu - before < 0.15


Test = Callable[..., Awaitable[None]]


def in_one_attack(arguments: str | tuple[str, ...], cases: Mapping[str, Any]) -> Callable[[Test], Test]:
    """Let a test run with each of these cases in turn, within one attack: its set-up takes longer than most cases."""
    names = (arguments,) if isinstance(arguments, str) else arguments

    def decorate(test: Test) -> Test:
        async def run_all(**fixtures: Any) -> None:
            for case, value in cases.items():
                values = (value,) if isinstance(arguments, str) else value
                try:
                    await test(**fixtures, **dict(zip(names, values, strict=True)))
                except Exception as error:
                    error.add_note(f"case: {case}")
                    raise

        whole = signature(test)
        fixtures = [parameter for name, parameter in whole.parameters.items() if name not in names]
        run_all.__signature__ = whole.replace(parameters=fixtures)  # type: ignore[attr-defined]  # what pytest reads
        run_all.__name__, run_all.__doc__, run_all.__module__ = test.__name__, test.__doc__, test.__module__
        return run_all

    return decorate
