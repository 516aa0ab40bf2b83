"""One attempt at a connection: an RTCPeerConnection from its creation to its close, with its frames, events and deadlines.

The offer or answer leaves with the host candidates; those that the servers give follow as `candidate` frames, and then the end
of candidates. Without servers nothing follows, and the description itself says that candidates have ended.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import trio
from msgspec import UNSET

from sdpx import __version__
from sdpx.events import Event, webrtc
from sdpx.log import Log
from sdpx.peer.candidate_exchange import CandidateExchange
from sdpx.peer.delivery import Delivery
from sdpx.peer.diagnostics.diagnosis import summarize
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase, TurnRefusal
from sdpx.peer.message_transport import MessageTransport
from sdpx.peer.negotiation.description import BadDescription, Kind, RemoteDescription, parse_description
from sdpx.peer.negotiation.heartbeat import SILENCE_SECONDS
from sdpx.peer.negotiation.sdp import candidate_type, has_end_of_candidates, media_count
from sdpx.peer.options import PeerOptions
from sdpx.peer.webrtc import events
from sdpx.peer.webrtc.events import IceServerResult, NegotiationFailed
from sdpx.protocol.messages import Description

if TYPE_CHECKING:
    from sdpx.peer.transfer.transport import ChannelUser
    from sdpx.peer.webrtc.peer_connection import PeerConnection

AGENT: Final = f"sdpx/{__version__}"
DTLS_SECONDS: Final = 10.0
_DESCRIPTION_EVENTS: Final = {
    "offer": (webrtc.OfferCreated, webrtc.OfferSent),
    "answer": (webrtc.AnswerCreated, webrtc.AnswerSent),
}
_LATE: Final = {
    "offer": "No offer came from the peer within {seconds:g} s of the pairing",
    "answer": "No answer came from the peer within {seconds:g} s of the pairing",
    "connection": "The connection did not come up within {seconds:g} s of the pairing",
    "channel": "No data channel opened within {seconds:g} s of the pairing",
}


def parse_remote(frame: Description) -> RemoteDescription:
    """Return the peer's description, parsed. Raises `NegotiationFailed`."""
    try:
        return parse_description(frame.sdp, frame.type)
    except BadDescription as bad:
        code = "data_rejected" if bad.rejected else "bad_sdp"
        reason = f"The peer's {frame.type} is not a valid session description: {bad}"
        if bad.rejected:
            reason = f"The peer's {frame.type} cannot be used: {bad}"
        raise NegotiationFailed(code, reason) from None


@dataclass(eq=False, repr=False)
class Attempt:
    """One RTCPeerConnection with a peer, and the tasks that belong to it.

    `send` queues a frame for the relay and calls back when it is written. `on_phase` is called with each phase that the
    connection reaches, `on_lost` when the attempt has failed, its `deadline` included, or its connection is lost, and
    `on_hung_up` when the peer has closed the last data channel, or the connection. A `transfer` uses the connection's data
    channel in place of messages.
    """

    pc: "PeerConnection"
    trace: ConnectionTrace
    began: float
    _deadline: float
    _options: PeerOptions
    _log: Log
    _send: Callable[[msgspec.Struct, Callable[[], None]], Awaitable[None]]
    _delivery: Delivery
    _on_phase: Callable[[Phase], None]
    _on_lost: Callable[["Attempt"], None]
    _on_hung_up: Callable[["Attempt", Literal["channel", "connection"]], None]
    _transfer: "ChannelUser | None" = None
    exchanged: bool = False  # both descriptions are set on this side
    wants_connection: bool = True  # a description without media sections asks for none
    connected: bool = False
    _is_closing: bool = False
    _nursery: trio.Nursery | None = None
    _events_consumed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        transfer = self._transfer
        receipt = transfer.receipt if transfer is not None and transfer.replaces_messages else self._delivery.receipt
        self.transport = MessageTransport(self.pc, self.trace, self._log, receipt)
        self._agent = AGENT if transfer is None else f"{AGENT} ({transfer.mode})"
        self.candidates = CandidateExchange(self.pc, self.trace, self._log, self._send, self.start_soon)
        self._peer_id = self.trace.peer_id

    @property
    def age(self) -> float:
        """Seconds since the attempt began."""
        return trio.current_time() - self.began

    async def run_tasks(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of the attempt until it is closed."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._watch_deadline)
            nursery.start_soon(self._watch_gathering)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task; not once the tasks are cancelled: the caller is about to be cancelled, too."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    # ---- descriptions ---------------------------------------------------------------------------------------------

    async def offer(self) -> None:
        """Create an offer and send it. Raises `NegotiationFailed`."""
        await self._create_channel()
        await self._send_description("offer", await self.pc.create_offer())

    async def _create_channel(self) -> None:
        await self.pc.channels.create(self._options.channel, self._options.negotiated_id)

    async def answer(self, offer: Description, remote: RemoteDescription) -> None:
        """Set the offer, create an answer and send it. Raises `NegotiationFailed`.

        A further offer, which continues the present connection, changes it: it may restart ICE, and add media.
        """
        is_first = self.pc.remote is None
        await self.pc.accept_offer(remote)
        self._log.emit(webrtc.RemoteDescriptionSet("offer"))
        if remote.inactive or remote.rejected:
            self._log.emit(webrtc.MediaDeclined(remote.inactive, remote.rejected))
        if is_first:
            if self._options.negotiated_id is not None and remote.sections:
                await self._create_channel()
            await self._open(offer, remote)
        else:
            await self.candidates.add_described(remote.candidates)
        answer = await self.pc.create_answer()
        self.exchanged = True
        await self._send_description("answer", answer, is_first=is_first)

    async def _send_description(self, kind: Kind, sdp: str, *, is_first: bool = True) -> None:
        created, sent = _DESCRIPTION_EVENTS[kind]
        shown = sdp if self._options.log_sdp else UNSET
        self._log.emit(created(len(sdp), shown))

        def on_written() -> None:
            self.trace.description_sent = True
            self._log.emit(sent(len(sdp), shown))
            if kind == "answer":
                self._on_exchanged()

        await self._send(Description(kind, sdp, self._peer_id, self._agent), on_written)
        if not is_first:
            return
        for line in sdp.splitlines():
            if line.startswith("a=candidate:"):
                self.trace.add_local(candidate_type(line))
        if media_count(sdp) and not has_end_of_candidates(sdp):
            self.start_soon(self.pc.gather)
            self.start_soon(self.candidates.send_all)
        else:
            self.candidates.note_gathered()

    async def accept(self, answer: Description, remote: RemoteDescription) -> None:
        """Set the answer. Raises `NegotiationFailed`."""
        await self.pc.accept_answer(remote)
        self.exchanged = True
        self._on_exchanged()
        await self._open(answer, remote)

    def _on_exchanged(self) -> None:
        if not self._is_closing:  # the frame of an attempt that was given up may leave later
            self._log.emit(webrtc.ExchangeComplete())
            self._reached("exchange")

    async def _open(self, frame: Description, remote: RemoteDescription) -> None:
        """Use the candidates that came in the peer's description and before it: it is set now."""
        self.wants_connection = bool(remote.sections)
        agent = frame.agent if isinstance(frame.agent, str) else ""
        self.transport.both_sdpx = agent.startswith("sdpx") and self.wants_connection
        self.trace.description_received = True
        if self.transport.both_sdpx:
            await self.pc.channels.create_heartbeat()
        if self._transfer is not None:
            is_initiator = self.trace.is_initiator
            self._transfer.attach(self.pc, agent, self._peer_id, self.start_soon, is_initiator=is_initiator)
        await self.candidates.add_described(remote.candidates)
        self.start_soon(self.candidates.end)

    # ---- events of the connection ---------------------------------------------------------------------------------

    async def consume_events(self) -> None:
        """Handle the events of the connection to its very end, also while everything around is cancelled."""
        with trio.CancelScope(shield=True):
            async for event in self.pc.events:
                self._on_event(event)
            self._events_consumed.set()

    def _on_event(self, event: events.RtcEvent) -> None:
        match event:
            case Event():
                self._log.emit(event)
                self._on_logged_event(event)
            case events.MessageReceived():
                self._delivery.on_received(event, self.transport)
                self._reached("message")
            case events.HeartbeatReceived(receipt):
                self.transport.note_heartbeat(receipt)
                if receipt is not None:
                    self._delivery.on_receipt(receipt)
            case events.Overrun():
                self.trace.overrun = True
                self._on_lost(self)
            case events.IceServerResult():
                self.note_server(event)

    def _on_logged_event(self, event: Event) -> None:
        match event:
            case webrtc.ConnectionState(state):
                self._on_connection_state(state)
            case webrtc.IceConnectionState(state) if not self._is_closing:
                self.trace.ice_state = state
                if state == "completed":
                    self._reached("ice")
                    self.start_soon(self._watch_dtls)
            case webrtc.ChannelOpen():
                self._on_channel_open()
            case webrtc.ChannelClosed():
                self._on_channel_closed()

    def _on_channel_open(self) -> None:
        if "channel" not in self.trace.reached_at:
            self.start_soon(self._delivery.catch_up, self.transport)
        self._delivery.on_channel_open()
        self._reached("channel")
        if self.transport.both_sdpx and not self._is_closing:
            self.start_heartbeat()

    def _on_channel_closed(self) -> None:
        is_last = not self.pc.channels.is_open  # otherwise the next one takes its place
        self._delivery.on_channel_closed(is_last=is_last)
        if is_last and not self._is_closing:
            self.note_state()
            self._on_hung_up(self, "channel")

    def _on_connection_state(self, state: str) -> None:
        if state == "connected":
            self._note_connected()
        elif not self._is_closing:
            self.note_state()
            hung_up = "channel" in self.trace.reached_at and not self.trace.vanished
            if state == "failed" or (state == "closed" and not hung_up):
                self._on_lost(self)
            elif state == "closed":
                self._on_hung_up(self, "connection")

    def _reached(self, phase: Phase) -> None:
        if self.trace.reach(phase, self.age):
            self._on_phase(phase)

    # ---- its end ----------------------------------------------------------------------------------------------------

    async def _watch_deadline(self) -> None:
        await trio.sleep_until(self._deadline)
        if "channel" not in self.trace.reached_at and self.wants_connection:
            self.trace.lacks_channel = self.connected
            awaited = "answer" if self.trace.is_initiator else "offer"
            if self.exchanged:
                awaited = "channel" if self.connected else "connection"
            if self.exchanged or not self.trace.description_flaw:  # the one that came has been refused already
                reason = _LATE[awaited].format(seconds=self._options.timeout)
                self._log.emit(webrtc.NegotiationError(awaited, "timeout", reason))
            self._on_lost(self)

    async def _watch_gathering(self) -> None:
        """Give up if this side has no candidate: there can be no path."""
        await self.candidates.gathered.wait()
        if self.wants_connection and not self.trace.local_candidates:
            self._on_lost(self)

    async def _watch_dtls(self) -> None:
        """Give up if the DTLS handshake, which begins now, takes too long."""
        await trio.sleep(DTLS_SECONDS)
        if not self.connected:
            self.trace.dtls_error = f"the handshake did not end within {DTLS_SECONDS:g} s"
            self._on_lost(self)

    def start_heartbeat(self, silence: float = SILENCE_SECONDS) -> None:
        """Send beats, and watch for `silence` of the peer, in seconds; once started, do nothing."""
        if not self.transport.has_heartbeat:
            self.transport.start_heartbeat(silence)
            self.start_soon(self._watch_heartbeat)

    async def _watch_heartbeat(self) -> None:
        last_received = await self.transport.run_heartbeat()
        self.trace.vanished = True
        self.trace.last_received = last_received - self.began
        self._on_lost(self)

    async def close(self) -> None:
        """Close the connection, and wait until its last event has been handled."""
        self._is_closing = True
        self.transport.caught_up.set()
        try:
            self.note_state()
            if self.trace.succeeded:
                self._log.emit(summarize(self.trace))
            self._log.emit(webrtc.Closing())
        finally:  # the task that handles the events is shielded, and ends with the connection only
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
            await self.pc.close()
        with trio.CancelScope(shield=True):
            await self._events_consumed.wait()
        self._log.emit(webrtc.Closed())

    # ---- trace ------------------------------------------------------------------------------------------------------

    def note_server(self, result: IceServerResult) -> None:
        """Note the result of a query to a STUN or TURN server, and log a failure."""
        if result.answered and result.code is None:
            return
        if result.code is not None:
            self.trace.turn_refusals.append(TurnRefusal(result.server.url, result.code))
        elif not result.server.is_turn:
            self.trace.silent_stun.append(result.server.url)
        reason = result.reason if result.code is None else f"it answered {result.code} {result.reason}".strip()
        self._log.emit(webrtc.IceServerFailed(result.server.url, result.code, reason))

    def _note_connected(self) -> None:
        self.connected = True
        self.note_state()
        if pair := self.pc.selected_pair:
            self._log.emit(pair)
        self._reached("connected")

    def note_state(self) -> None:
        """Note the state of the connection, while it exists."""
        pair = self.pc.selected_pair
        if pair is not None:
            self.trace.local_candidate, self.trace.remote_candidate = pair.local_candidate, pair.remote_candidate
        if "ice" not in self.trace.reached_at:
            self.trace.candidate_pairs = self.pc.pair_count
        if flaw := self.pc.dtls_error:
            self.trace.dtls_error = flaw
            self.trace.fingerprint_mismatch = self.pc.fingerprint_mismatch
        if self.pc.consent_expired and self.connected:
            self.trace.vanished = True
