"""One attempt at a connection: an RTCPeerConnection from its creation to its close, what it sends, receives and waits for.

The offer or answer leaves with the host candidates; those that the servers give follow as `candidate` frames, and then the end
of candidates. Without servers nothing follows, and the description itself says that candidates have ended. The peer's
candidates are added in their order, except names in .local, which are resolved beside it.
"""

import base64
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio
from msgspec import UNSET

from sdpx import __version__
from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.diagnostics.diagnosis import summarize
from sdpx.peer.diagnostics.trace import ConnectionTrace, TurnRefusal
from sdpx.peer.negotiation.candidates import RemoteCandidates
from sdpx.peer.negotiation.confirmation import Receipt
from sdpx.peer.negotiation.description import BadDescription, Kind, RemoteDescription, parse_description
from sdpx.peer.negotiation.heartbeat import SILENCE_SECONDS, Heartbeat, HeartbeatAction
from sdpx.peer.negotiation.sdp import (
    candidate_address,
    candidate_type,
    has_end_of_candidates,
    is_mdns,
    media_count,
    normalize_candidate,
)
from sdpx.peer.options import PeerOptions
from sdpx.peer.webrtc.events import IceServerResult, NegotiationFailed
from sdpx.protocol.messages import Candidate, CandidateInit, Description

if TYPE_CHECKING:
    from sdpx.peer.webrtc.peer_connection import PeerConnection

AGENT: Final = f"sdpx/{__version__}"
RESOLVING_BOUND: Final = 32
DTLS_SECONDS: Final = 10.0
RECEIPT_SECONDS: Final = 0.02  # between two receipts
_DESCRIPTION_EVENTS: Final = {
    "offer": (peer.OfferCreated, peer.OfferSent),
    "answer": (peer.AnswerCreated, peer.AnswerSent),
}
_LATE: Final = {
    "offer": "No offer came from the peer within {seconds:g} s of the pairing",
    "answer": "No answer came from the peer within {seconds:g} s of the pairing",
    "connection": "The connection did not come up within {seconds:g} s of the pairing",
    "channel": "No data channel opened within {seconds:g} s of the pairing",
}


def parse_remote(frame: Description) -> RemoteDescription:
    """Return what the peer's description says. Raises `NegotiationFailed`."""
    try:
        return parse_description(frame.sdp, frame.type)
    except BadDescription as bad:
        code = "data_rejected" if bad.rejected else "bad_sdp"
        reason = f"The peer's {frame.type} is not a valid session description: {bad}"
        if bad.rejected:
            reason = f"The peer's {frame.type} cannot be used: {bad}"
        raise NegotiationFailed(code, reason) from None


class Attempt:
    """One RTCPeerConnection with a peer, and the tasks that belong to it.

    `send` queues a frame for the relay and calls back when it is written. `on_exchanged` is called when both descriptions are
    exchanged, `on_lost` when the attempt has failed, its `deadline` included, or its connection is lost. `receipt` returns the
    counts for a heartbeat.
    """

    def __init__(
        self,
        pc: "PeerConnection",
        trace: ConnectionTrace,
        began: float,
        deadline: float,
        options: PeerOptions,
        log: Log,
        send: Callable[[msgspec.Struct, Callable[[], None]], Awaitable[None]],
        on_exchanged: Callable[["Attempt"], None],
        on_lost: Callable[["Attempt"], None],
        receipt: Callable[[], Receipt],
    ) -> None:
        self.pc = pc
        self.trace = trace
        self.began = began
        self.events_consumed = trio.Event()
        self.exchanged = False  # both descriptions are set on this side
        self.wants_connection = True  # a description without media sections asks for none
        self.connected = False
        self.both_sdpx = False
        self.heartbeat: Heartbeat | None = None
        self.first_receipt: Receipt | None = None
        self.heartbeat_came = trio.Event()
        self.caught_up = trio.Event()  # what earlier connections have lost was sent again
        self.receipt_due = trio.Event()
        self._deadline = deadline
        self._options = options
        self._log = log
        self._send = send
        self._on_exchanged = on_exchanged
        self._on_lost = on_lost
        self._receipt = receipt
        self._nursery: trio.Nursery | None = None
        self._candidates = RemoteCandidates()
        self._resolvers = trio.Semaphore(RESOLVING_BOUND)
        self._gathered = trio.Event()
        self._peer_id = trace.peer_id

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
        self._log.emit(peer.RemoteDescriptionSet("offer"))
        if remote.inactive or remote.rejected:
            self._log.emit(peer.MediaDeclined(remote.inactive, remote.rejected))
        if is_first:
            if self._options.negotiated_id is not None and remote.sections:
                await self._create_channel()
            await self._open(offer, remote)
        else:
            await self._add_all(remote.candidates)
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
                self._on_exchanged(self)

        await self._send(Description(kind, sdp, self._peer_id, AGENT), on_written)
        if not is_first:
            return
        for line in sdp.splitlines():
            if line.startswith("a=candidate:"):
                self.trace.add_local(candidate_type(line))
        if media_count(sdp) and not has_end_of_candidates(sdp):
            self.start_soon(self.pc.gather)
            self.start_soon(self._send_candidates)
        else:
            self._note_gathered()

    async def accept(self, answer: Description, remote: RemoteDescription) -> None:
        """Set the answer. Raises `NegotiationFailed`."""
        await self.pc.accept_answer(remote)
        self.exchanged = True
        self._on_exchanged(self)
        await self._open(answer, remote)

    async def _open(self, frame: Description, remote: RemoteDescription) -> None:
        """Use the candidates that came in the peer's description and before it: it is set now."""
        self.wants_connection = bool(remote.sections)
        self.both_sdpx = isinstance(frame.agent, str) and frame.agent.startswith("sdpx") and self.wants_connection
        self.trace.description_received = True
        if self.both_sdpx:
            await self.pc.channels.create_heartbeat()
        await self._add_all(remote.candidates)
        self.start_soon(self._end_candidates)

    async def _add_all(self, described: list[CandidateInit | None]) -> None:
        for candidate in described:
            self._note_remote(candidate)
        for candidate in self._candidates.on_description(described, trio.current_time()):
            await self._add(candidate)

    # ---- candidates of the peer -----------------------------------------------------------------------------------

    def early_candidates(self) -> list[CandidateInit | None]:
        """Return the candidates that wait for the peer's description."""
        return self._candidates.early

    async def take_candidate(self, candidate: CandidateInit | None) -> None:
        """Add a candidate that the peer trickled, or the end of candidates. Raises `NegotiationFailed`."""
        ends = candidate is None or not normalize_candidate(candidate.candidate)
        kind = candidate_type(candidate.candidate) if candidate else None
        self._log.emit(peer.CandidateReceived(kind, ends))
        self._note_remote(candidate)
        try:
            ready = self._candidates.add(candidate, trio.current_time())
        except ValueError as error:
            raise NegotiationFailed("bad_candidate", str(error)) from None
        for each in ready:
            await self._add(each)

    def _note_remote(self, candidate: CandidateInit | None) -> None:
        if candidate is not None and (text := normalize_candidate(candidate.candidate)):
            self.trace.add_remote(candidate_type(text), candidate_address(text))

    async def _add(self, candidate: CandidateInit) -> None:
        if is_mdns(normalize_candidate(candidate.candidate)):
            await self._resolvers.acquire()
            self._candidates.count_resolving(1)
            self.start_soon(self._resolve, candidate)
        else:
            await self._try(self.pc.add_candidate, candidate)

    async def _resolve(self, candidate: CandidateInit) -> None:
        try:
            await self._try(self.pc.add_candidate, candidate)
        finally:
            self._candidates.count_resolving(-1)
            self._resolvers.release()

    async def _try(self, add: Callable[..., Awaitable[None]], *args: CandidateInit) -> None:
        """Log a candidate, or the end of candidates, that cannot be used."""
        try:
            await add(*args)
        except NegotiationFailed as failed:
            self._log.emit(peer.NegotiationError("candidate", failed.code, failed.reason))

    async def _end_candidates(self) -> None:
        """Tell ICE that candidates have ended, once it may fail: without a pair left to check it then fails at once.

        With mDNS names alone it may not fail: they seldom resolve, but the peer's own checks can still come in.
        """
        await self._gathered.wait()
        while True:
            wait = self._candidates.end_of_candidates_in(trio.current_time())
            count = self.trace.remote_candidates.total()
            only_mdns = 0 < count == self.trace.remote_mdns
            if wait == 0 and not only_mdns:
                break
            await trio.sleep(wait or 0.25)
        self._candidates.mark_ended()
        await self._try(self.pc.end_candidates)

    # ---- candidates of this side ----------------------------------------------------------------------------------

    async def _send_candidates(self) -> None:
        async for candidate in self.pc.local_candidates:
            kind = candidate_type(candidate.candidate)
            self.trace.add_local(kind)
            sent = peer.CandidateSent(kind, end_of_candidates=False)
            await self._send(Candidate(candidate, peer_id=self._peer_id), partial(self._log.emit, sent))
        self._note_gathered()
        sent = peer.CandidateSent(None, end_of_candidates=True)
        await self._send(Candidate(self.pc.local_end, peer_id=self._peer_id), partial(self._log.emit, sent))

    def _note_gathered(self) -> None:
        self.trace.gathered = True
        self._gathered.set()

    # ---- what ends it -----------------------------------------------------------------------------------------------

    async def _watch_deadline(self) -> None:
        await trio.sleep_until(self._deadline)
        if "channel" not in self.trace.reached_at and self.wants_connection:
            self.trace.lacks_channel = self.connected
            awaited = (
                "channel"
                if self.connected
                else "connection"
                if self.exchanged
                else "answer"
                if self.trace.is_initiator
                else "offer"
            )
            if self.exchanged or not self.trace.description_flaw:  # the one that came has been refused already
                reason = _LATE[awaited].format(seconds=self._options.timeout)
                self._log.emit(peer.NegotiationError(awaited, "timeout", reason))
            self._on_lost(self)

    async def _watch_gathering(self) -> None:
        """Give up if this side has no candidate: there can be no path."""
        await self._gathered.wait()
        if self.wants_connection and not self.trace.local_candidates:
            self._on_lost(self)

    async def watch_dtls(self) -> None:
        """Give up if the DTLS handshake, which begins now, takes too long."""
        await trio.sleep(DTLS_SECONDS)
        if not self.connected:
            self.trace.dtls_error = f"the handshake did not end within {DTLS_SECONDS:g} s"
            self._on_lost(self)

    def start_heartbeat(self, silence: float = SILENCE_SECONDS) -> None:
        """Send beats, and watch for `silence` of the peer, in seconds; once started, do nothing."""
        if self.heartbeat is None:
            self.heartbeat = Heartbeat(trio.current_time(), silence)
            self.start_soon(self._beat, self.heartbeat)

    async def _beat(self, heartbeat: Heartbeat) -> None:
        while True:
            with trio.move_on_at(heartbeat.next_check):
                await self.receipt_due.wait()
            if self.receipt_due.is_set():
                self.receipt_due = trio.Event()
                await self.send_receipt()
                await trio.sleep(RECEIPT_SECONDS)
                continue
            if self.pc.channels.last_packet > heartbeat.last_received:
                heartbeat.note_received(self.pc.channels.last_packet)
            action = heartbeat.check(trio.current_time())
            if action is HeartbeatAction.SEND:
                await self.send_receipt()
            elif action is HeartbeatAction.VANISHED:
                self.trace.vanished = True
                self.trace.last_received = heartbeat.last_received - self.began
                self._on_lost(self)
                return

    async def send_receipt(self) -> None:
        """Send a heartbeat with the present counts."""
        await self.pc.channels.send_beat(self._receipt())

    def note_alive(self) -> None:
        """Note that something came from the peer."""
        if self.heartbeat is not None:
            self.heartbeat.note_received(trio.current_time())

    def note_heartbeat(self, receipt: Receipt | None) -> None:
        """Note a heartbeat; the first one says whether the peer confirms messages, and what it has received before."""
        self.note_alive()
        if not self.heartbeat_came.is_set():
            self.first_receipt = receipt
            self.heartbeat_came.set()

    @property
    def confirms(self) -> bool:
        """Whether the peer confirms messages: an sdpx whose heartbeats have counts, or have not come yet."""
        return self.both_sdpx and (self.first_receipt is not None or not self.heartbeat_came.is_set())

    async def close(self) -> None:
        """Close the connection, and wait until its last event has been handled."""
        self.caught_up.set()
        try:
            self.note_state()
            if self.trace.succeeded:
                self._log.emit(summarize(self.trace))
            self._log.emit(peer.Closing())
        finally:  # the task that handles the events is shielded, and ends with the connection only
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
            await self.pc.close()
        with trio.CancelScope(shield=True):
            await self.events_consumed.wait()
        self._log.emit(peer.Closed())

    # ---- trace ------------------------------------------------------------------------------------------------------

    def note_message(self, data: str | bytes, label: str | None, on_written: Callable[[], None]) -> None:
        """Note a message of the peer; `on_written` is called when it is written to the log."""
        self.note_alive()
        self.trace.bytes_received += _size(data)
        channel = UNSET if label is None else label
        event = (
            peer.ChannelMessage(text=data, channel=channel)
            if isinstance(data, str)
            else peer.ChannelMessage(bytes=len(data), base64=base64.b64encode(data).decode(), channel=channel)
        )

        def release() -> None:
            self.pc.channels.release(data)
            on_written()

        self._log.deliver(event, release)

    def note_sent(self, data: str | bytes) -> None:
        """Note a message that was sent."""
        self.trace.bytes_sent += _size(data)
        self._log.emit(peer.ChannelMessageSent(_size(data)))

    def note_server(self, result: IceServerResult) -> None:
        """Note the result of a query to a STUN or TURN server, and log a failure."""
        if result.answered and result.code is None:
            return
        if result.code is not None:
            self.trace.turn_refusals.append(TurnRefusal(result.server.url, result.code))
        elif not result.server.is_turn:
            self.trace.silent_stun.append(result.server.url)
        reason = result.reason if result.code is None else f"it said {result.code} {result.reason}".strip()
        self._log.emit(peer.IceServerFailed(result.server.url, result.code, reason))

    def note_connected(self) -> None:
        """Note that the connection is established, and log the path that it takes."""
        self.connected = True
        self.note_state()
        if pair := self.pc.selected_pair:
            selected = (pair.local_type, pair.local_address, pair.remote_type, pair.remote_address)
            self._log.emit(peer.PathSelected(*selected))

    def note_state(self) -> None:
        """Note what the connection itself knows, while it exists."""
        pair = self.pc.selected_pair
        if pair is not None:
            self.trace.local_type, self.trace.remote_type = pair.local_type, pair.remote_type
        if "ice" not in self.trace.reached_at:
            self.trace.candidate_pairs = self.pc.pair_count
        if flaw := self.pc.dtls_error:
            self.trace.dtls_error = flaw
            self.trace.fingerprint_mismatch = self.pc.fingerprint_mismatch
        if self.pc.consent_expired and self.connected:
            self.trace.vanished = True


def _size(data: str | bytes) -> int:
    return len(data.encode() if isinstance(data, str) else data)
