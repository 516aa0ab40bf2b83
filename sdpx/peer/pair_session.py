"""One pairing, from `paired` to its end: attempts at a connection, one after the other, and the messages sent over it.

Frames of the peer are queued in a bounded inbox and used one by one, in order, by the task that reads it. The end of an
attempt comes through the same inbox, so only that task builds and gives up connections. Whatever ends the pairing, its
cancellation included, closes its RTCPeerConnection.
"""

from collections.abc import Awaitable, Callable
from dataclasses import InitVar, dataclass, field
from typing import Final, Literal

import msgspec
import trio
from msgspec import Struct

from sdpx.events import peer, webrtc
from sdpx.ice_servers import IceServer
from sdpx.log import Log
from sdpx.peer import policy
from sdpx.peer.attempt import Attempt, parse_remote
from sdpx.peer.delivery import Delivery
from sdpx.peer.diagnostics.diagnosis import Diagnosis, diagnose, diagnose_doubt
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase
from sdpx.peer.input import MessageSource
from sdpx.peer.negotiation.addresses import is_loopback_url
from sdpx.peer.negotiation.heartbeat import SILENCE_SECONDS
from sdpx.peer.options import PeerOptions
from sdpx.peer.policy import PairingState, Step
from sdpx.peer.transfer.transport import ChannelUser
from sdpx.peer.webrtc.events import NegotiationFailed
from sdpx.peer.webrtc.runtime import WebRtcRuntime
from sdpx.protocol.messages import Candidate, CandidateInit, Description, Paired

INBOX_BOUND: Final = 512
OWN_BOUND: Final = 64  # room in the inbox for the items of this side, which are never dropped: a few for each attempt
GLARE_SECONDS: Final = 0.5  # for the answer to an offer that crossed one of the peer
POLL_SECONDS: Final = 0.1
RETURN_SECONDS: Final = 5.0  # for the side that closed the only channel to open another, or to offer afresh


class _Rollback(Struct, frozen=True):
    """The offer of `attempt` is given up for an `offer` of the peer, which crossed it, unless it has been answered."""

    attempt: Attempt
    offer: Description


# An attempt stands for its failure, an event is set when all items before it have been used.
_Item = Description | Candidate | Attempt | _Rollback | trio.Event


@dataclass(eq=False, repr=False)
class PairSession:
    """The negotiation and the data transfer with one peer.

    `send` passes a frame to the relay; `on_phase` is called with each phase that a connection reaches; `before` has the
    seconds of the phases before the pairing. `detached` is empty, or the reason why the relay no longer has the pairing.
    """

    _paired: Paired
    _options: PeerOptions
    _log: Log
    source: InitVar[MessageSource]
    _send: Callable[[msgspec.Struct, Callable[[], None]], Awaitable[object]]
    _runtime: WebRtcRuntime
    _servers: tuple[IceServer, ...]
    before: InitVar[dict[str, float]]
    _on_phase: Callable[[Phase], None]
    _transfer: ChannelUser | None = None
    detached: str = ""
    _began: float = field(default_factory=trio.current_time)
    _attempt: Attempt | None = None
    _attempts: int = 0
    _retries: int = 0
    _was_open: bool = False
    _failure: Diagnosis | None = None
    _result: Diagnosis | None = None
    _is_ending: bool = False
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)  # of the negotiation and the sending
    _tasks: trio.Nursery = field(init=False)  # those of the attempts, which end after it
    closed: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self, source: MessageSource, before: dict[str, float]) -> None:
        self.peer_id, self._is_initiator = self._paired.peer_id, self._paired.is_initiator
        self._deadline = self._began + self._options.timeout
        self.trace = self._new_trace(before)
        self._post, self._inbox = trio.open_memory_channel[_Item](INBOX_BOUND + OWN_BOUND)
        self.delivery = Delivery(source, self._log, lambda: self._attempt.transport if self._attempt else None)

    def _new_trace(self, before: dict[str, float]) -> ConnectionTrace:
        options = self._options
        return ConnectionTrace(self.peer_id, self._is_initiator, before, relay_only=options.relay_only)

    @property
    def channel_is_open(self) -> bool:
        """Whether the data channel is open now."""
        return self._attempt is not None and self._attempt.pc.channels.is_open

    @property
    def state(self) -> PairingState:
        """The state of the pairing."""
        return PairingState(self.trace, self._was_open, self.channel_is_open, detached=bool(self.detached))

    @property
    def age(self) -> float:
        """Seconds since the present connection, or the last one, was begun."""
        return trio.current_time() - self._began

    def receive(self, frame: Description | Candidate) -> None:
        """Queue a frame of the peer; never blocks."""
        if self._post.statistics().current_buffer_used < INBOX_BOUND:
            self._post.send_nowait(frame)
        else:
            reason = f"The peer sends faster than its {frame.type}s can be used; one was dropped"
            self._log.emit(webrtc.NegotiationError(frame.type, "not_ready", reason))

    async def frames_used(self) -> None:
        """Wait until all frames received so far have been used."""
        used = trio.Event()
        await self._post.send(used)
        await used.wait()

    async def close_channel(self) -> None:
        """Close the data channel, if there is one, once the peer has confirmed all that was sent.

        Given up when nothing changes for `--timeout`: then something is `in_doubt`, and the channel stays open.
        """
        await self.delivery.confirmed(lambda: self._is_ending or self.closed.is_set(), self._options.timeout)
        if self._attempt is not None and not any(self.delivery.in_doubt):
            await self._attempt.pc.channels.finish()

    def detach(self, reason: str) -> None:
        """Go on without the relay until the channel closes, or until a peer that is no sdpx is silent for `--timeout`."""
        self.detached = self.detached or reason
        if self._attempt is not None:
            self._attempt.start_heartbeat(max(self._options.timeout, SILENCE_SECONDS))

    async def responds(self) -> bool:
        """Whether the peer of a detached pairing, which is asked for a packet each second, sends one in `SILENCE_SECONDS`."""
        began = trio.current_time()
        with trio.move_on_after(SILENCE_SECONDS):
            while (attempt := self._attempt) is not None and attempt.pc.channels.is_open:
                if not 0 < attempt.pc.channels.last_packet <= began:  # 0: it is not known
                    return True
                await trio.sleep(POLL_SECONDS)
        return False

    async def close(self) -> None:
        """End the pairing and wait until its connection is closed."""
        self._scope.cancel()
        await self.closed.wait()

    async def run(self) -> Diagnosis | None:
        """Run the pairing to its end, and close its connection.

        Returns why it failed; None if the data channel was closed, or the pairing was.
        """
        try:
            async with trio.open_nursery() as self._tasks:
                try:
                    with self._scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._send_messages)
                            await self._negotiate()
                finally:
                    await self._close_attempt()
                    self._tasks.cancel_scope.cancel()
        finally:
            if any(self.delivery.in_doubt):
                self._log.emit(peer.MessagesUnconfirmed(self.peer_id, *self.delivery.in_doubt))
            self.closed.set()
        return self._result

    def _end(self, failure: Diagnosis | None) -> None:
        """End the pairing; only the first call counts."""
        if not self._is_ending:
            self._is_ending, self._result = True, failure
            self._scope.cancel()

    # ---- negotiation ----------------------------------------------------------------------------------------------

    async def _negotiate(self) -> None:
        await self._begin(offers=self._is_initiator)
        async for item in self._inbox:
            match item:
                case trio.Event():
                    item.set()
                case Attempt():
                    if item is self._attempt:
                        await self._on_attempt_failed(item)
                case _Rollback():
                    if item.attempt is self._attempt and item.attempt.pc.remote is None:
                        await self._use(item.offer, early=item.attempt.candidates.early)
                case _:
                    await self._use(item)

    async def _use(self, frame: Description | Candidate, early: list[CandidateInit | None] | None = None) -> None:
        """Use a frame of the peer; an offer that was held back comes with the candidates behind it."""
        try:
            if isinstance(frame, Candidate):
                if self._attempt is not None:
                    await self._attempt.candidates.take(frame.candidate)
            elif frame.type == "offer":
                await self._use_offer(frame, early)
            else:
                await self._use_answer(frame)
        except NegotiationFailed as failed:
            if frame.type != "candidate" and failed.code in ("bad_sdp", "data_rejected"):
                self.trace.description_flaw = failed.reason
            self._log.emit(webrtc.NegotiationError(frame.type, failed.code, failed.reason))
            if frame.type == "answer" and failed.code == "data_rejected" and self._attempt is not None:
                self.trace.data_rejected = True
                self._post.send_nowait(self._attempt)

    async def _use_offer(self, offer: Description, early: list[CandidateInit | None] | None) -> None:
        self._log.emit(webrtc.OfferReceived(len(offer.sdp), offer.sdp if self._options.log_sdp else msgspec.UNSET))
        remote = parse_remote(offer)
        attempt = self._attempt
        if attempt is None or not attempt.pc.continues(remote):
            crosses = self._is_initiator and attempt is not None and attempt.pc.remote is None
            if crosses and attempt is not None and early is None:
                self._tasks.start_soon(self._roll_back, offer, attempt)
                return
            if attempt is not None and attempt.connected:  # the time of that connection does not count for this one
                self._deadline = trio.current_time() + self._options.timeout
            if attempt is None or crosses or attempt.pc.remote is not None:  # of another session: for a new connection
                attempt = await self._begin(offers=False)
                for candidate in early or ():
                    await attempt.candidates.take(candidate)
        await attempt.answer(offer, remote)

    async def _use_answer(self, answer: Description) -> None:
        self._log.emit(webrtc.AnswerReceived(len(answer.sdp), answer.sdp if self._options.log_sdp else msgspec.UNSET))
        if self._attempt is None or not self._is_initiator:
            raise NegotiationFailed("wrong_state", "Received answer, but this side has sent no offer")
        await self._attempt.accept(answer, parse_remote(answer))

    async def _roll_back(self, offer: Description, attempt: Attempt) -> None:
        """Give up this side's offer, which crossed that of the peer, unless the peer answers it (RFC 8829, 4.1.10.2).

        One side of crossing offers has to give in; a peer that gives in itself answers at once.
        """
        await trio.sleep(GLARE_SECONDS)
        self._post.send_nowait(_Rollback(attempt, offer))

    # ---- attempts -------------------------------------------------------------------------------------------------

    async def _begin(self, *, offers: bool) -> Attempt:
        """Close the present connection, if any, and create another; `offers` says whether this side sends an offer."""
        await self._close_attempt()
        if self._attempts:
            self._began = trio.current_time()
            self.trace = self._new_trace({})
        self._attempts += 1
        options = self._options
        allow_loopback = is_loopback_url(options.url)
        pc = await self._runtime.connect(self._servers, relay_only=options.relay_only, allow_loopback=allow_loopback)
        known = (pc, self.trace, self._began, self._deadline, options, self._log, self._send_frame, self.delivery)
        attempt = Attempt(*known, self._on_attempt_phase, self._post.send_nowait, self._on_hung_up, self._transfer)
        try:
            await self._tasks.start(attempt.run_tasks)
        except BaseException:
            await pc.close()
            raise
        self._attempt = attempt
        self._tasks.start_soon(attempt.consume_events)
        self._log.emit(webrtc.PcCreated([server.url for server in self._servers]))
        self._log.emit(webrtc.WebrtcStarted(self._is_initiator))
        if offers:
            try:
                await attempt.offer()
            except NegotiationFailed as failed:
                self.trace.description_flaw = failed.reason
                self._log.emit(webrtc.NegotiationError("offer", failed.code, failed.reason))
                self._post.send_nowait(attempt)
        return attempt

    async def _on_attempt_failed(self, attempt: Attempt) -> None:
        attempt.note_state()
        diagnosis = diagnose(self.trace, self.age)
        now, options = trio.current_time(), self._options
        if self.trace.succeeded:
            self._deadline, self._retries, self._failure = now + options.timeout, 0, None
        step = policy.after_attempt(
            diagnosis,
            offers=self._is_initiator,
            awaits_offer=attempt.transport.both_sdpx,
            detached=bool(self.detached),
            retries_left=options.retries - self._retries,
            seconds_left=self._deadline - now,
        )
        self._log.emit(diagnosis.event(self.trace, self.age, retrying=step is not Step.FAIL))
        self._failure = self._failure or diagnosis
        self._retries += 1
        if step is Step.FAIL:
            self._end(self._failure)
        elif step is Step.RETRY:
            self._log.emit(webrtc.ConnectionRetry(self.peer_id, self._retries, options.retries))
            await self._begin(offers=self._is_initiator)
        else:
            await self._close_attempt()
            self._tasks.start_soon(self._await_offer, self._attempts)

    async def _await_offer(self, closed: int) -> None:
        """Give up if no new offer comes after the connection number `closed`."""
        await trio.sleep_until(self._deadline)
        if self._attempt is None and closed == self._attempts:
            self._end(self._failure)

    async def _close_attempt(self) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        try:
            await self.delivery.finish(attempt.transport)
        finally:
            self._attempt = None
            await attempt.close()

    async def _send_frame(self, frame: msgspec.Struct, on_written: Callable[[], None]) -> None:
        if not self.detached:
            await self._send(frame, on_written)

    # ---- events of the connection ---------------------------------------------------------------------------------

    def _on_attempt_phase(self, phase: Phase) -> None:
        self._was_open = self._was_open or phase == "channel"
        self._on_phase(phase)

    def _on_hung_up(self, attempt: Attempt, closed: Literal["channel", "connection"]) -> None:
        """Wait for a peer that has closed its last data channel, or the connection, to return; or end the pairing."""
        unmet = self._options.expect == "message"  # once that is met the program ends, unless with `--once`
        step = policy.after_channel_closed(self.state, once=self._options.once, unmet=unmet)
        if closed == "connection":
            if not unmet:  # otherwise a channel is awaited already
                attempt.start_soon(self._await_return, attempt, RETURN_SECONDS, None)
        elif step is Step.END:
            self._end(None)
        elif step is Step.AWAIT_CHANNEL:
            attempt.start_soon(self._await_return, attempt, RETURN_SECONDS, diagnose)
        else:
            attempt.start_soon(self._await_return, attempt, self._options.timeout, None)

    async def _await_return(
        self, attempt: Attempt, seconds: float, failure: Callable[[ConnectionTrace, float], Diagnosis] | None
    ) -> None:
        """End the pairing, with a `failure` if it is given, unless the other side opens a data channel or connects again."""
        await trio.sleep(seconds)
        if self._attempt is attempt and not attempt.pc.channels.is_open:
            self._end(None if failure is None else self.report(failure(self.trace, self.age)))

    def report(self, diagnosis: Diagnosis) -> Diagnosis:
        """Log a diagnosis after which no attempt follows, and return it."""
        self._log.emit(diagnosis.event(self.trace, self.age, retrying=False))
        return diagnosis

    # ---- messages -------------------------------------------------------------------------------------------------

    async def _send_messages(self) -> None:
        """Send all messages; with `--once` close the channel and end the pairing then."""
        await self.delivery.send_all()
        if self._options.once:
            await self.close_channel()
            doubt = self.delivery.in_doubt
            self._end(self.report(diagnose_doubt(self.trace, *doubt)) if any(doubt) else None)
