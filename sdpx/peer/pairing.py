"""One pairing, from `paired` to its end: offer and answer, the data channel, the talk over it.

Frames of the peer come through a bounded inbox and are taken one by one, in order, off the relay's reader: adding a
candidate may wait for a name to resolve. Candidates that come before the remote description are held until it is there.
The one RTCPeerConnection is closed however the pairing ends, also when it is cancelled.
"""

import base64
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final

import msgspec
import trio
from msgspec import UNSET, UnsetType

from sdpx.errors import NoConnection
from sdpx.events import Event, peer
from sdpx.log import Log
from sdpx.messages import Candidate, CandidateInit, Description
from sdpx.peer import rtc
from sdpx.peer.lines import Lines
from sdpx.peer.options import PeerOptions
from sdpx.peer.sdp import candidate_type, media_count

CHANNEL_LABEL: Final = "chat"
INBOX_BOUND: Final = 512
HELD_CANDIDATES: Final = 256

_STATES: Final[dict[rtc.StateKind, Callable[[str], Event]]] = {
    "ice_gathering": peer.IceGatheringState,
    "ice_connection": peer.IceConnectionState,
    "connection": peer.ConnectionState,
    "signaling": peer.SignalingState,
}
_LATE: Final = {
    "offer": "No offer came from the peer within {seconds:g} s of the pairing",
    "answer": "No answer came from the peer within {seconds:g} s of the pairing",
    "connection": "The connection did not come up within {seconds:g} s of the pairing",
}


class Outcome(Enum):
    """How a pairing ended by itself; else it was cancelled from outside."""

    FAILED = auto()
    DONE = auto()


class Pairing:
    """The negotiation and the talk with one peer. `send` brings a frame to the relay."""

    def __init__(
        self,
        peer_id: str,
        options: PeerOptions,
        log: Log,
        lines: Lines,
        send: Callable[[msgspec.Struct], Awaitable[None]],
        *,
        is_initiator: bool,
    ) -> None:
        self.peer_id = peer_id
        self.is_initiator = is_initiator
        self.failure: NoConnection | None = None
        self.ever_open = False
        self.channel_gone = trio.Event()
        self._options = options
        self._log = log
        self._lines = lines
        self._send = send
        self._post, self._inbox = trio.open_memory_channel[Description | Candidate](INBOX_BOUND)
        self._pc: rtc.PeerConnection | None = None
        self._pumped = trio.Event()
        self._channel_opened = trio.Event()
        self._connected = False
        self._awaited = "answer" if is_initiator else "offer"
        self._remote_set = False
        self._early: list[CandidateInit | None] = []
        self._outcome: Outcome | None = None

    @property
    def channel_is_open(self) -> bool:
        """Whether the data channel is open now."""
        return self._pc is not None and self._pc.channel_is_open

    def take(self, frame: Description | Candidate) -> None:
        """Take a frame of the peer; never blocks."""
        try:
            self._post.send_nowait(frame)
        except trio.WouldBlock:
            self._problem(
                frame.type,
                "not_ready",
                f"The peer sends faster than its {frame.type}s can be used; one was dropped",
            )

    async def run(self) -> Outcome:
        """Live through the pairing; returns when it has failed or is done with. Closes its connection in any case."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._talk, nursery.cancel_scope)
            try:
                await self._negotiate(nursery)
            finally:
                await self._close()
                self.channel_gone.set()
        assert self._outcome is not None
        return self._outcome

    # ---- negotiation ----------------------------------------------------------------------------------------------

    async def _negotiate(self, nursery: trio.Nursery) -> None:
        await self._create(nursery)
        self._log.emit(peer.WebrtcStarted(self.is_initiator))
        if self.is_initiator:
            await self._offer(nursery)
        async for frame in self._inbox:
            try:
                await self._use(frame, nursery)
            except rtc.NegotiationFailed as failed:
                self._problem(frame.type, failed.code, failed.reason)

    async def _create(self, nursery: trio.Nursery) -> rtc.PeerConnection:
        """Build a new connection; an older one is closed first."""
        await self._close()
        self._pc = pc = await rtc.connect(self._options.ice_servers)
        self._remote_set = self._connected = False
        self._early.clear()
        self._awaited = "answer" if self.is_initiator else "offer"
        self._pumped = trio.Event()
        nursery.start_soon(self._watch_deadline, pc, nursery.cancel_scope)
        nursery.start_soon(self._pump, pc, self._pumped, nursery.cancel_scope)
        self._log.emit(peer.PcCreated(list(self._options.ice_servers)))
        return pc

    async def _offer(self, nursery: trio.Nursery) -> None:
        assert self._pc is not None
        try:
            await self._pc.create_channel(CHANNEL_LABEL)
            sdp = await self._pc.create_offer()
        except rtc.NegotiationFailed as failed:
            self._problem("offer", failed.code, failed.reason)
            self._fail("no_offer", failed.reason, nursery.cancel_scope)
            return
        self._log.emit(peer.OfferCreated(len(sdp), self._shown(sdp)))
        await self._send(Description("offer", sdp, self.peer_id))
        self._log.emit(peer.OfferSent(len(sdp), self._shown(sdp)))

    async def _use(self, frame: Description | Candidate, nursery: trio.Nursery) -> None:
        if isinstance(frame, Candidate):
            await self._use_candidate(frame.candidate)
        elif frame.type == "offer":
            await self._use_offer(frame.sdp, nursery)
        else:
            await self._use_answer(frame.sdp)

    async def _use_offer(self, sdp: str, nursery: trio.Nursery) -> None:
        self._log.emit(peer.OfferReceived(len(sdp), self._shown(sdp)))
        if self.is_initiator:
            raise rtc.NegotiationFailed("wrong_state", "Received offer, but this side is the initiator and sends it")
        pc = self._pc
        if pc is None or pc.used:  # a further offer starts afresh
            early = list(self._early)
            pc = await self._create(nursery)
            self._early = early
            self._log.emit(peer.WebrtcStarted(self.is_initiator))
        await pc.accept_offer(sdp)
        self._log.emit(peer.RemoteDescriptionSet("offer"))
        answer = await pc.create_answer()
        self._log.emit(peer.AnswerCreated(len(answer), self._shown(answer)))
        await self._send(Description("answer", answer, self.peer_id))
        self._log.emit(peer.AnswerSent(len(answer), self._shown(answer)))
        await self._exchanged(pc, sdp)

    async def _use_answer(self, sdp: str) -> None:
        self._log.emit(peer.AnswerReceived(len(sdp), self._shown(sdp)))
        if self._pc is None or not self.is_initiator:
            raise rtc.NegotiationFailed("wrong_state", "Received answer, but this side has sent no offer")
        await self._pc.accept_answer(sdp)
        await self._exchanged(self._pc, sdp)

    async def _exchanged(self, pc: rtc.PeerConnection, remote: str) -> None:
        """Both descriptions are set: go on to the connection, if the descriptions ask for one."""
        self._log.emit(peer.ExchangeComplete())
        self._awaited = "connection" if media_count(remote) else ""
        self._remote_set = True
        early, self._early = self._early, []
        for candidate in early:
            await self._add(pc, candidate)

    async def _use_candidate(self, candidate: CandidateInit | None) -> None:
        kind = candidate_type(candidate.candidate) if candidate else None
        ends = candidate is None or not candidate.candidate
        self._log.emit(peer.CandidateReceived(kind, ends))
        if self._pc is not None and self._remote_set:
            await self._add(self._pc, candidate)
        elif len(self._early) < HELD_CANDIDATES:
            self._early.append(candidate)
        else:
            raise rtc.NegotiationFailed(
                "bad_candidate", f"More than {HELD_CANDIDATES} candidates came before the description"
            )

    async def _add(self, pc: rtc.PeerConnection, candidate: CandidateInit | None) -> None:
        try:
            await pc.add_candidate(candidate)
        except rtc.NegotiationFailed as failed:
            self._problem("candidate", failed.code, failed.reason)

    # ---- what the connection tells --------------------------------------------------------------------------------

    async def _pump(self, pc: rtc.PeerConnection, pumped: trio.Event, scope: trio.CancelScope) -> None:
        """Log what happens to a connection, to the very end of it: also while everything around is cancelled."""
        with trio.CancelScope(shield=True):
            async for event in pc.events:
                self._heed(event, scope)
            pumped.set()

    def _heed(self, event: rtc.RtcEvent, scope: trio.CancelScope) -> None:
        match event:
            case rtc.StateChanged(kind, state):
                self._log.emit(_STATES[kind](state))
                if kind == "connection":
                    self._heed_connection(state, scope)
            case rtc.ChannelOpened(label):
                self.ever_open = True
                self.channel_gone = trio.Event()
                self._log.emit(peer.ChannelOpen(label))
                self._channel_opened.set()
            case rtc.ChannelClosed(label):
                self._log.emit(peer.ChannelClosed(label))
                self._channel_opened = trio.Event()
                if self._pc is not None:  # else it is this side that closes, perhaps only to start afresh
                    self.channel_gone.set()
                    if self._options.once:
                        self._end(Outcome.DONE, scope)
            case rtc.Received(data):
                self._log.emit(_message(data))

    def _heed_connection(self, state: str, scope: trio.CancelScope) -> None:
        if state == "connected":
            self._connected = True
        elif state == "failed":
            self._fail("connection_failed", f"No connection to {self.peer_id} came up: ICE or DTLS failed", scope)

    async def _watch_deadline(self, pc: rtc.PeerConnection, scope: trio.CancelScope) -> None:
        await trio.sleep(self._options.timeout)
        if pc is not self._pc or self._connected or not self._awaited:
            return
        reason = _LATE[self._awaited].format(seconds=self._options.timeout)
        self._problem(self._awaited, "timeout", reason)
        self._fail(f"no_{self._awaited}", reason, scope)

    # ---- the talk -------------------------------------------------------------------------------------------------

    async def _talk(self, scope: trio.CancelScope) -> None:
        """Send the lines of the input, each once the channel is open, until the input ends."""
        while True:
            await self._channel_opened.wait()
            line = await self._lines.next()
            if line is None:
                break
            if self._pc is not None and await self._pc.send(line):
                self._log.emit(peer.ChannelMessageSent(len(line.encode())))
            else:
                self._lines.unread(line)
                await trio.lowlevel.checkpoint()
        if self._options.once and self._pc is not None:
            await self._pc.finish()
            self._end(Outcome.DONE, scope)

    # ---- ends -----------------------------------------------------------------------------------------------------

    def _fail(self, code: str, reason: str, scope: trio.CancelScope) -> None:
        if not self.ever_open:
            self.failure = NoConnection(code, reason)
        self._end(Outcome.FAILED, scope)

    def _end(self, outcome: Outcome, scope: trio.CancelScope) -> None:
        self._outcome = self._outcome or outcome
        scope.cancel()

    async def _close(self) -> None:
        pc, self._pc = self._pc, None
        if pc is not None:
            self._log.emit(peer.Closing())
            await pc.close()
            with trio.CancelScope(shield=True):
                await self._pumped.wait()
            self._log.emit(peer.Closed())

    def _problem(self, kind: str, code: str, reason: str) -> None:
        self._log.emit(peer.NegotiationError(kind, code, reason))

    def _shown(self, sdp: str) -> str | UnsetType:
        return sdp if self._options.log_sdp else UNSET


def _message(data: str | bytes) -> peer.ChannelMessage:
    if isinstance(data, str):
        return peer.ChannelMessage(text=data)
    return peer.ChannelMessage(bytes=len(data), base64=base64.b64encode(data).decode())
