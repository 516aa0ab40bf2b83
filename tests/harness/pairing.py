"""A pairing from both sides, with real RTCPeerConnections in one process and a relay that a test can tamper with."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import trio

from sdpx.ice_servers import IceServer
from sdpx.log import Log
from sdpx.peer.input import MessageQueue
from sdpx.peer.options import Expected, PeerOptions
from sdpx.peer.pair_session import PairSession
from sdpx.peer.webrtc import peer_connection
from sdpx.peer.webrtc.runtime import WebRtcRuntime, open_webrtc_runtime
from sdpx.protocol import codec
from sdpx.protocol.messages import Candidate, CandidateInit, Description, Paired
from tests.harness.log import Line, LogRecorder

if TYPE_CHECKING:
    from sdpx.peer.diagnostics.diagnosis import Diagnosis
    from sdpx.peer.diagnostics.trace import Phase

Frame = Description | Candidate
Tamper = Callable[[Frame], list[Frame]]


class Side(LogRecorder):
    """One side of a pairing: its log as lines, the phases it reached, the frames that it sent."""

    def __init__(
        self, paired: Paired, options: PeerOptions, servers: tuple[IceServer, ...], runtime: WebRtcRuntime
    ) -> None:
        super().__init__()
        self.phases: list[Phase] = []
        self.sent: list[Frame] = []
        self.failure: Diagnosis | None = None
        self.other: Side
        self.tamper: Tamper = lambda frame: [frame]
        self.unwritten: list[Callable[[], None]] | None = None  # a list collects the frames that wait for the relay
        self.program_log = Log(self.put, trio.current_time)
        self.on_written = self.program_log.note_written
        self.source = MessageQueue(trio.lowlevel.checkpoint, lambda *_: None)
        self.pairing = PairSession(
            paired,
            options,
            self.program_log,
            self.source,
            self._send,
            runtime,
            servers,
            {"dial": 0.1},
            self.phases.append,
        )

    async def _send(self, frame: msgspec.Struct, on_written: Callable[[], None]) -> None:
        assert isinstance(frame, Description | Candidate)
        self.sent.append(frame)
        if self.unwritten is not None:
            self.unwritten.append(on_written)
            return
        on_written()
        for each in self.tamper(frame):
            relayed = codec.parse_server(codec.encode(each))
            assert isinstance(relayed, Description | Candidate)
            self.other.pairing.receive(relayed)

    async def reach_deadline(self, *events: str) -> Line:
        """Let the deadline of the attempt pass as soon as these events are logged; returns the diagnosis."""
        for event in events:
            await self.wait_for(event)
        attempt = self.pairing._attempt
        assert attempt is not None
        attempt._deadline = trio.current_time()
        await attempt._watch_deadline()
        return await self.wait_for("diagnosis")

    async def run(self) -> None:
        self.failure = await self.pairing.run()
        self.put([b'{"event":"ended"}'])


@asynccontextmanager
async def pairing(
    *,
    timeout: float = 20.0,
    servers: tuple[IceServer, ...] = (),
    a: Tamper | None = None,
    b: Tamper | None = None,
    once: bool = False,
    retries: int = 1,
    expect: Expected | None = None,
    relay_only: tuple[bool, bool] = (False, False),
    channel: str = "chat",
) -> AsyncIterator[tuple[Side, Side]]:
    """Run both sides while the block runs; `a` and `b` tamper with the frames that each of them sends."""
    of_a, of_b = (
        PeerOptions(
            "ws://relay.test",
            timeout=timeout,
            retries=retries,
            once=once,
            expect=expect,
            channel=channel,
            ice_transport="relay" if only else "all",
        )
        for only in relay_only
    )
    with trio.fail_after(40):
        async with open_webrtc_runtime(lambda: peer_connection, Log(LogRecorder().put, trio.current_time)) as runtime:
            await runtime.loaded()
            one = Side(Paired("bob", is_initiator=True), of_a, servers, runtime)
            two = Side(Paired("alice", is_initiator=False), of_b, servers, runtime)
            one.other, two.other = two, one
            one.tamper, two.tamper = a or one.tamper, b or two.tamper
            await runtime.run(one.run)
            await runtime.run(two.run)
            yield one, two


def in_sdp(old: str, new: str) -> Tamper:
    """Change descriptions on their way."""

    def tamper(frame: Frame) -> list[Frame]:
        if isinstance(frame, Description):
            assert old in frame.sdp
            return [Description(frame.type, frame.sdp.replace(old, new), frame.peer_id, frame.agent)]
        return [frame]

    return tamper


def without_line(start: str) -> Tamper:
    def tamper(frame: Frame) -> list[Frame]:
        if isinstance(frame, Description):
            kept = [line for line in frame.sdp.splitlines(keepends=True) if not line.startswith(start)]
            return [Description(frame.type, "".join(kept), frame.peer_id, frame.agent)]
        return [frame]

    return tamper


def nothing(_frame: Frame) -> list[Frame]:
    return []


async def both_open(*sides: Side) -> None:
    for side in sides:
        await side.wait_for("channel_open")


NOWHERE = CandidateInit("candidate:1 1 udp 2122260223 00000000-0000-4000-8000-000000000000.local 9 typ host", "0", 0)
