"""Two SCTP transports, of sdpx or of aiortc, with a bad network between them, on a loop with a clock that jumps."""

import asyncio
import random
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpTransport

from sdpx.peer.webrtc.sctp_ext import SctpTransport, upgrade

PORT = 5000


class JumpingSelector(selectors.DefaultSelector):
    """A selector that does not wait for the next timer of its loop, but sets the clock forward to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(timeout and 0.0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop with the clock of such a selector."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(main: Coroutine[Any, Any, None], seconds: float = 3600.0) -> None:
    """Run a coroutine on such a loop, for so many of its seconds at most."""

    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await main

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(limited())


@dataclass
class Network:
    """The shares of packets that are lost, come twice, and come late."""

    loss: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    delay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def arrivals(self) -> list[float]:
        """Return after how many seconds a packet arrives, each time that it does."""
        draw = self.random.random
        if draw() < self.loss:
            return []
        return [self.delay * (1 + (5 * draw() if draw() < self.late else 0)) for _ in range(1 + (draw() < self.twice))]


class FakeDtls:
    """A DTLS transport that sends over the network."""

    state = "connected"

    def __init__(self, network: Network, role: str) -> None:
        self._network = network
        self._role = role
        self._data_receiver: RTCSctpTransport | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self.other: FakeDtls
        self.sent = 0  # packets

    async def _send_data(self, packet: bytes) -> None:
        self.sent += 1
        loop = asyncio.get_running_loop()
        for delay in self._network.arrivals():
            later = 1e-9 * self.sent  # timers of the same time are in no order
            loop.call_later(delay + later, self.other.receive, packet)

    def receive(self, packet: bytes) -> None:
        if self._data_receiver is not None:
            task = asyncio.ensure_future(self._data_receiver._handle_data(packet))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _register_data_receiver(self, receiver: RTCSctpTransport) -> None:
        self._data_receiver = receiver

    def _unregister_data_receiver(self, _receiver: RTCSctpTransport) -> None:
        self._data_receiver = None


class End:
    """One transport with its channel, and the messages that it has received."""

    def __init__(self, dtls: FakeDtls, *, fast: bool, ordered: bool) -> None:
        self.dtls = dtls
        self.flaws: list[str] = []
        self.sctp: Any = RTCSctpTransport(dtls)  # type: ignore[arg-type]
        if fast:
            upgrade(self.sctp, -1, lambda _stream, flaw: self.flaws.append(flaw))
        self.window = self.sctp._advertised_rwnd
        self.received: list[bytes | str] = []
        parameters = RTCDataChannelParameters(label="x", negotiated=True, id=1, ordered=ordered)
        self.channel = RTCDataChannel(self.sctp, parameters)
        self.channel.on("message", self.received.append)

    async def start(self) -> None:
        await self.sctp.start(RTCSctpTransport.getCapabilities(), PORT)

    async def open(self) -> None:
        while self.channel.readyState != "open":
            assert self.channel.readyState != "closed", "the association was given up"
            await asyncio.sleep(0.05)

    def chunks_in_flight(self) -> list[int]:
        return [each.tsn for each in self.sctp._sent_queue]


async def connect(network: Network, *, fast: tuple[bool, bool] = (True, True), ordered: bool = True) -> tuple[End, End]:
    """Return two connected ends; `fast` says which of them are of sdpx."""
    one, other = FakeDtls(network, "client"), FakeDtls(network, "server")
    one.other, other.other = other, one
    ends = End(one, fast=fast[0], ordered=ordered), End(other, fast=fast[1], ordered=ordered)
    for end in ends:
        await end.start()
    for end in ends:
        await end.open()
    return ends


def alone() -> SctpTransport:
    """Return an established transport of sdpx with packets that go nowhere; inside a running loop."""
    network = Network(loss=1.0)
    dtls = FakeDtls(network, "client")
    end = End(dtls, fast=True, ordered=True)
    sctp: SctpTransport = end.sctp
    sctp._last_received_tsn = 0
    sctp._local_tsn, sctp._last_sacked_tsn, sctp._advanced_peer_ack_tsn = 1, 0, 0
    sctp._reconfig_request_seq = 1
    sctp._remote_port = PORT
    sctp._set_state(sctp.State.ESTABLISHED)
    return sctp
