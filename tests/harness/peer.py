"""A session in memory: the test plays the relay, opens and closes the fake connections, and types the input."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from trio.testing import wait_all_tasks_blocked

from sdpx.errors import Ending
from sdpx.events.webrtc import ChannelClosed, ChannelOpen, ConnectionState, IceConnectionState
from sdpx.ice_servers import IceServer
from sdpx.log import Log
from sdpx.peer.command_runner import CommandRunner
from sdpx.peer.input import Lines
from sdpx.peer.negotiation.confirmation import Receipt
from sdpx.peer.negotiation.description import RemoteDescription
from sdpx.peer.options import PeerOptions
from sdpx.peer.session import Session
from sdpx.peer.signaling.client import Connected, Disconnected, SignalingClient, SignalingEvent, Stopped
from sdpx.peer.signaling.reliable_channel import ReliableChannel
from sdpx.peer.webrtc.data_channel import DataChannels
from sdpx.peer.webrtc.events import HeartbeatReceived, MessageReceived, RtcEvent
from sdpx.peer.webrtc.peer_connection import PeerConnection
from sdpx.peer.webrtc.runtime import Job, WebRtcRuntime
from sdpx.protocol.messages import CandidateInit, Description, Paired, PairRequest, ServerMessage
from tests.harness.log import LogRecorder

SDP = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\na=fingerprint:sha-256 00:11\r\na=setup:active\r\n"
    "a=candidate:1 1 udp 2130706431 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n"
)
OTHER_SDP = SDP.replace("o=- 1 1", "o=- 2 1").replace("abcd", "wxyz")  # of another session


class TypedLines(Lines):
    """Lines that a test types."""

    def __init__(self, log: Log) -> None:
        super().__init__(bytes, log)

    async def run(self) -> None: ...

    def type(self, *lines: str) -> None:
        self._waiting.extend(lines)
        self._changed.set()

    def end(self) -> None:
        self._is_at_end = True
        self._changed.set()


class FakeDataChannels(DataChannels):
    """Opens and closes when the other side does."""

    is_open = False
    max_message_size = 0

    def __init__(self, emit: Callable[[RtcEvent], None]) -> None:
        self._emit = emit
        self.sent: list[str | bytes] = []
        self.receipts: list[Receipt] = []
        self.doubtful = (0, 0)
        self.answers = False  # heartbeats, by a packet

    async def create(self, label: str, number: int | None = None) -> None: ...

    async def create_heartbeat(self) -> None: ...

    async def send_beat(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        if self.answers:
            self.last_packet = trio.current_time()

    last_packet = 0.0

    @property
    def is_connected(self) -> bool:
        return self.is_open

    def release(self, data: str | bytes) -> None: ...

    def unacknowledged(self) -> tuple[int, int]:
        return self.doubtful

    def has(self, label: str | None) -> bool:
        return self.is_open and label in (None, "chat")

    async def send(self, data: str | bytes, label: str | None = None, on_taken: Callable[[], object] = object) -> bool:
        await trio.lowlevel.checkpoint()
        if self.is_open:
            on_taken()
            self.sent.append(data)
        return self.is_open

    async def finish(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_open:
            self.is_open = False
            self._emit(ChannelClosed("chat"))


class FakePeerConnection(PeerConnection):
    """Takes any description; `connect`, `open`, `receive` and `close_channel` are the acts of the other side."""

    selected_pair = None
    pair_count = 1
    dtls_error = ""
    fingerprint_mismatch = False
    consent_expired = False

    def __init__(self, servers: Sequence[IceServer]) -> None:
        self.servers = list(servers)
        self.remote = None
        self.closed = False
        self.candidates: list[CandidateInit] = []
        self._fake_events, self.events = trio.open_memory_channel[RtcEvent](1000)
        self.fake_channels = FakeDataChannels(self._fake_events.send_nowait)
        self.channels = self.fake_channels

    @property
    def sent(self) -> list[str | bytes]:
        """The messages that the other side has received."""
        return self.fake_channels.sent

    async def emit(self, *events: RtcEvent) -> None:
        for event in events:
            self._fake_events.send_nowait(event)
        await wait_all_tasks_blocked()

    async def connect(self) -> None:
        """Let ICE and DTLS succeed."""
        await self.emit(IceConnectionState("completed"), ConnectionState("connected"))

    async def open(self) -> None:
        """Let the connection succeed and the data channel open."""
        self.fake_channels.is_open = True
        await self.connect()
        await self.emit(ChannelOpen("chat"))

    async def close_channel(self) -> None:
        await self.fake_channels.finish()
        await wait_all_tasks_blocked()

    async def confirm(self, received: int, written: int | None = None) -> None:
        """Send a heartbeat as an sdpx does."""
        await self.emit(HeartbeatReceived(Receipt(received, received if written is None else written)))

    async def receive(self, *messages: str | bytes) -> None:
        await self.emit(*map(MessageReceived, messages))

    async def create_offer(self) -> str:
        return SDP

    async def create_answer(self) -> str:
        return SDP

    async def accept_offer(self, offer: RemoteDescription) -> None:
        self.remote = offer

    async def accept_answer(self, answer: RemoteDescription) -> None:
        self.remote = answer

    def continues(self, offer: RemoteDescription) -> bool:
        return self.remote is not None and offer.continues(self.remote)

    local_end = CandidateInit("", "0", 0)

    async def add_candidate(self, init: CandidateInit) -> None:
        self.candidates.append(init)

    async def end_candidates(self) -> None: ...

    async def close(self) -> None:
        self.closed, self.fake_channels.is_open = True, False
        self._fake_events.close()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()


class FakeRuntime(WebRtcRuntime):
    """Runs jobs in a nursery, without asyncio."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.connections: list[FakePeerConnection] = []

    async def loaded(self) -> None:
        await trio.lowlevel.checkpoint()

    async def connect(self, servers: Sequence[IceServer], *, relay_only: bool, allow_loopback: bool) -> PeerConnection:
        assert not relay_only
        self.connections.append(FakePeerConnection(servers))
        return self.connections[-1]

    async def run(self, job: Job) -> None:
        self._nursery.start_soon(job)


class FakeChannel(ReliableChannel):
    """Writes each frame at once."""

    def __init__(self) -> None:
        self.sent: list[msgspec.Struct] = []

    async def send(self, message: msgspec.Struct, on_written: Callable[[], None] | None = None) -> bool:
        self.sent.append(message)
        if on_written is not None:
            on_written()
        return True


class FakeSignaling(SignalingClient):
    """The relay, as a test plays it."""

    def __init__(self) -> None:
        self._send_event, self.events = trio.open_memory_channel[SignalingEvent](100)
        self.channel = FakeChannel()
        self.drops = 0
        self.connected_since: float | None = None

    async def send(self, message: msgspec.Struct, on_written: Callable[[], None] | None = None) -> bool:
        return self.connected_since is not None and await self.channel.send(message, on_written)

    async def drop(self) -> None:
        self.drops += 1

    @property
    def sent(self) -> list[msgspec.Struct]:
        """The frames that the relay has received."""
        return self.channel.sent

    async def connect(self, ice_servers: Any = msgspec.UNSET) -> None:
        self.connected_since = trio.current_time()
        await self.say(Connected("me", ice_servers, 0.1, self.channel))

    async def lose(self) -> None:
        self.connected_since = None
        await self.say(Disconnected())

    async def stop(self, ending: Ending) -> None:
        await self.say(Stopped(ending))

    async def say(self, *events: SignalingEvent | ServerMessage) -> None:
        """Let the session handle these events, one after the other."""
        for event in events:
            self._send_event.send_nowait(event)
            await wait_all_tasks_blocked()


class SessionHarness:
    """A running session; `type` types lines, or commands as dictionaries."""

    def __init__(self, options: PeerOptions, nursery: trio.Nursery) -> None:
        self.log = LogRecorder()
        self.relay = FakeSignaling()
        self.runtime = FakeRuntime(nursery)
        log = Log(self.log.put, trio.current_time)
        self.lines = TypedLines(log)
        self.log.on_written = log.note_written
        self.session = Session(options, self.relay, self.runtime, self.lines, log, lambda: 0.0)
        commands = CommandRunner(self.lines, self.session.queue, self.session)
        self._run_commands = commands.run if options.stdin == "json" else None
        self.ending: Ending | None = None
        self.finished = trio.Event()

    async def run(self) -> None:
        try:
            await self.session.run(self._run_commands)
        except Ending as ending:
            self.ending = ending
        self.finished.set()

    @property
    def pc(self) -> FakePeerConnection:
        """The present connection, or the last one."""
        return self.runtime.connections[-1]

    @property
    def requests(self) -> list[str]:
        """The targets that were requested."""
        return [frame.target_id for frame in self.relay.sent if isinstance(frame, PairRequest)]

    async def pair(self, peer_id: str = "bob", *, is_initiator: bool = True) -> FakePeerConnection:
        """Let the relay pair this peer; returns its connection."""
        await self.relay.say(Paired(peer_id, is_initiator))
        return self.pc

    async def exchange(self, *, sdpx: bool = False) -> None:
        """Let the other side answer the offer, or offer, as an sdpx if so said."""
        sent = any(isinstance(frame, Description) for frame in self.relay.sent)
        agent = "sdpx/1" if sdpx else msgspec.UNSET
        await self.relay.say(Description("answer" if sent else "offer", SDP, agent=agent))

    async def open(self, peer_id: str = "bob", *, sdpx: bool = False) -> FakePeerConnection:
        """Let the relay pair this peer, and the data channel open."""
        pc = await self.pair(peer_id)
        await self.relay.say(Description("answer", SDP, agent="sdpx/1" if sdpx else msgspec.UNSET))
        await pc.open()
        return pc

    async def type(self, *lines: str | dict[str, object]) -> None:
        self.lines.type(*(line if isinstance(line, str) else json.dumps(line) for line in lines))
        await wait_all_tasks_blocked()

    async def ended(self) -> int:
        """Wait for the end; returns the exit status."""
        await self.finished.wait()
        assert all(pc.closed for pc in self.runtime.connections)
        return 0 if self.ending is None else self.ending.status.value

    @property
    def events(self) -> list[str]:
        return self.log.events

    def codes(self, event: str) -> list[str]:
        """The codes of all such events."""
        return [line["code"] for line in self.log.of(event)]


@asynccontextmanager
async def session(*, connected: bool = True, **options: Any) -> AsyncIterator[SessionHarness]:
    """Run a session with these `PeerOptions` while the block runs."""
    async with trio.open_nursery() as nursery:
        harness = SessionHarness(PeerOptions("ws://relay.test", **options), nursery)
        nursery.start_soon(harness.run)
        await wait_all_tasks_blocked()
        if connected:
            await harness.relay.connect()
        yield harness
        nursery.cancel_scope.cancel()


def check_diagnosis(peer: SessionHarness, code: str, status: int) -> None:
    """Check the one diagnosis, and that the program ended with it."""
    assert peer.codes("diagnosis") == [code]
    assert peer.ending is not None
    assert (peer.ending.code, peer.ending.status) == (code, status)
    assert peer.ending.reason == peer.log.of("diagnosis")[0]["message"]
