"""One pairing, from `paired` to its end: attempts at a connection, one after the other, and the talk over it.

Frames of the peer come through a bounded inbox and are taken one by one, in order, off the relay's reader. What ends an
attempt comes through the same inbox, so a connection is only ever built or given up by the one task that reads it.
Whatever ends the pairing, also its cancellation, closes its RTCPeerConnection.
"""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import trio

from sdpx.events import Event, peer
from sdpx.ice_servers import IceServer
from sdpx.log import Log
from sdpx.peer.attempt import Attempt, Tasks
from sdpx.peer.diagnostics.diagnosis import Diagnosis, diagnose, summarize
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase
from sdpx.peer.input.sources import MessageSource
from sdpx.peer.negotiation.heartbeat import Heartbeat, HeartbeatAction
from sdpx.peer.options import PeerOptions
from sdpx.peer.outcome import PairOutcome
from sdpx.peer.webrtc import peer_connection
from sdpx.protocol.messages import Candidate, Description

INBOX_BOUND: Final = 512
OWN_BOUND: Final = 64  # what this side itself puts into the inbox is never dropped: a few for each attempt
DTLS_SECONDS: Final = 10.0
CLOSING_SECONDS: Final = 0.05
RETURN_SECONDS: Final = 5.0  # in which whoever closed the only channel may open another, or offer afresh

_STATES: Final[dict[peer_connection.StateKind, Callable[[str], Event]]] = {
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


@dataclass(frozen=True, slots=True)
class _AttemptFailed:
    """An attempt came to nothing, or its connection is gone."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class _OfferTimeout:
    """No fresh offer came for a connection that is gone."""

    closed: int


_Item = Description | Candidate | _AttemptFailed | _OfferTimeout | trio.Event


class PairSession:
    """The negotiation and the talk with one peer.

    `send` brings a frame to the relay; `reach` hears of each phase, once a connection; `before` is what led here, in seconds
    for each phase. `detached`, once set, says that the pairing is over at the relay while the data channel lives on.
    """

    def __init__(
        self,
        peer_id: str,
        options: PeerOptions,
        log: Log,
        feed: MessageSource,
        send: Callable[[msgspec.Struct, Callable[[], None]], Awaitable[object]],
        *,
        is_initiator: bool,
        servers: tuple[IceServer, ...],
        before: dict[str, float],
        reach: Callable[[Phase], None],
    ) -> None:
        self.peer_id = peer_id
        self.is_initiator = is_initiator
        self.failure: Diagnosis | None = None
        self.detached = False
        self.ever_open = False
        self.channel_gone = trio.Event()
        self._options = options
        self._log = log
        self._feed = feed
        self._send = send
        self._servers = servers
        self._reach = reach
        self._began = trio.current_time()
        self._deadline = self._began + options.timeout
        self._evidence = ConnectionTrace(peer_id, is_initiator, options.timeout, before, relay_only=options.relay_only)
        self._post, self._inbox = trio.open_memory_channel[_Item](INBOX_BOUND + OWN_BOUND)
        self._attempt: Attempt | None = None
        self._attempts = 0
        self._tries = 0
        self._channel_opened = trio.Event()
        self._heart: Heartbeat | None = None
        self._outcome: PairOutcome | None = None
        self._scope = trio.CancelScope()

    @property
    def channel_is_open(self) -> bool:
        """Whether the data channel is open now."""
        return self._attempt is not None and self._attempt.pc.channels.is_open

    @property
    def has_heartbeat(self) -> bool:
        """Whether the peer's beats tell of its end, so that nobody else need to."""
        return self.channel_is_open and self._heart is not None

    @property
    def is_ending(self) -> bool:
        """Whether it is ending by itself, and `run` will say how."""
        return self._outcome is not None

    @property
    def evidence(self) -> ConnectionTrace:
        """What the present connection, or the last one, has shown of itself."""
        return self._evidence

    @property
    def age(self) -> float:
        """Seconds since the present connection, or the last one, was begun."""
        return trio.current_time() - self._began

    def take(self, frame: Description | Candidate) -> None:
        """Take a frame of the peer; never blocks."""
        if self._post.statistics().current_buffer_used < INBOX_BOUND:
            self._post.send_nowait(frame)
        else:
            reason = f"The peer sends faster than its {frame.type}s can be used; one was dropped"
            self._problem(frame.type, "not_ready", reason)

    async def settle(self) -> None:
        """Wait until all frames that were taken so far have been used."""
        used = trio.Event()
        await self._post.send(used)
        await used.wait()

    async def finish(self) -> None:
        """Close the data channel, if there is one, and wait until the peer has all that was sent."""
        if self._attempt is not None:
            await self._attempt.pc.channels.finish()

    async def run(self) -> PairOutcome:
        """Live through the pairing; returns when it has failed or is done with. Closes its connection in any case."""
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._talk)
            try:
                await self._negotiate(nursery)
            finally:
                await self._close()
                self.channel_gone.set()
        assert self._outcome is not None
        return self._outcome

    # ---- negotiation ----------------------------------------------------------------------------------------------

    async def _negotiate(self, nursery: trio.Nursery) -> None:
        await self._begin(nursery)
        async for item in self._inbox:
            match item:
                case trio.Event():
                    item.set()
                case _AttemptFailed(attempt):
                    await self._on_attempt_failed(attempt, nursery)
                case _OfferTimeout(closed):
                    if self._attempt is None and closed == self._attempts:
                        self._end(PairOutcome.FAILED)
                case _:
                    await self._use(item, nursery)

    async def _use(self, frame: Description | Candidate, nursery: trio.Nursery) -> None:
        try:
            if isinstance(frame, Candidate):
                if self._attempt is not None:
                    await self._attempt.take_candidate(frame.candidate)
            elif frame.type == "offer":
                await self._use_offer(frame, nursery)
            else:
                await self._use_answer(frame)
        except peer_connection.NegotiationFailed as failed:
            if frame.type != "candidate" and failed.code == "bad_sdp":
                self._evidence.description_flaw = failed.reason
            self._problem(frame.type, failed.code, failed.reason)

    async def _use_offer(self, offer: Description, nursery: trio.Nursery) -> None:
        self._log.emit(peer.OfferReceived(len(offer.sdp), self._shown(offer.sdp)))
        if self.is_initiator:
            raise peer_connection.NegotiationFailed(
                "wrong_state", "Received offer, but this side is the initiator and sends it"
            )
        attempt = self._attempt
        if attempt is not None and attempt.connected:  # the first connection took its time; this one has its own
            self._deadline = trio.current_time() + self._options.timeout
        if attempt is None or attempt.pc.used:  # a further offer starts afresh
            attempt = await self._begin(nursery)
        await attempt.answer(offer)

    async def _use_answer(self, answer: Description) -> None:
        self._log.emit(peer.AnswerReceived(len(answer.sdp), self._shown(answer.sdp)))
        if self._attempt is None or not self.is_initiator:
            raise peer_connection.NegotiationFailed("wrong_state", "Received answer, but this side has sent no offer")
        await self._attempt.accept(answer)

    def _on_exchanged(self, attempt: Attempt) -> None:
        if attempt is self._attempt:  # the frame of an attempt that was given up may leave later
            self._log.emit(peer.ExchangeComplete())
            self._reached(attempt, "exchange")

    # ---- attempts -------------------------------------------------------------------------------------------------

    async def _begin(self, nursery: trio.Nursery) -> Attempt:
        """Begin a connection: build it, and as initiator send the offer. An older one is closed first."""
        await self._close()
        if self._attempts:
            self._began = trio.current_time()
            options = self._options
            self._evidence = ConnectionTrace(
                self.peer_id, self.is_initiator, options.timeout, relay_only=options.relay_only
            )
        self._attempts += 1
        pc = await peer_connection.connect(self._servers, relay_only=self._options.relay_only)
        tasks = Tasks()
        try:
            await nursery.start(tasks.run)
        except BaseException:
            await pc.close()
            raise
        log_sdp = self._options.log_sdp
        attempt = Attempt(
            pc, self._evidence, self._began, self._log, self._post_frame, self._on_exchanged, tasks, log_sdp=log_sdp
        )
        self._attempt = attempt
        nursery.start_soon(self._consume_events, attempt)
        tasks.start_soon(self._watch_deadline, attempt, self._deadline)
        if self._options.relay_only:
            tasks.start_soon(self._watch_gathering, attempt)
        self._log.emit(peer.PcCreated([server.url for server in self._servers]))
        self._log.emit(peer.WebrtcStarted(self.is_initiator))
        if self.is_initiator:
            try:
                await attempt.offer()
            except peer_connection.NegotiationFailed as failed:
                self._evidence.description_flaw = failed.reason
                self._problem("offer", failed.code, failed.reason)
                self._lose(attempt)
        return attempt

    def _lose(self, attempt: Attempt) -> None:
        """Say that an attempt is over; the inbox's reader does the rest."""
        self._post.send_nowait(_AttemptFailed(attempt))

    async def _on_attempt_failed(self, attempt: Attempt, nursery: trio.Nursery) -> None:
        if attempt is not self._attempt:
            return  # given up meanwhile
        attempt.note_state()
        diagnosis = diagnose(self._evidence, self.age)
        was_up = self._evidence.succeeded
        if was_up:
            self._deadline = trio.current_time() + self._options.timeout
            self._tries = 0
        again = self._may_try_again(diagnosis, attempt)
        self._log.emit(diagnosis.event(self._evidence, self.age, retrying=again))
        self.failure = self.failure if self.failure is not None and not was_up else diagnosis
        if not again:
            self._end(PairOutcome.FAILED)
            return
        self._tries += 1
        if self.is_initiator:
            self._log.emit(peer.ConnectionRetry(self.peer_id, self._tries, self._options.retries))
            await self._begin(nursery)
        else:
            await self._close()
            nursery.start_soon(self._await_offer, self._attempts)

    def _may_try_again(self, diagnosis: Diagnosis, attempt: Attempt) -> bool:
        """Whether to build it again: as receiver only with an sdpx, which will offer afresh; of others nobody knows it."""
        if not (self.is_initiator or attempt.both_sdpx):
            return False
        if self.detached or not diagnosis.may_pass or self._tries >= self._options.retries:
            return False
        return trio.current_time() < self._deadline

    async def _await_offer(self, closed: int) -> None:
        await trio.sleep_until(self._deadline)
        self._post.send_nowait(_OfferTimeout(closed))

    async def _watch_deadline(self, attempt: Attempt, deadline: float) -> None:
        await trio.sleep_until(deadline)
        if attempt.connected or not attempt.wants_connection:
            return
        awaited = "connection" if attempt.exchanged else "answer" if self.is_initiator else "offer"
        self._problem(awaited, "timeout", _LATE[awaited].format(seconds=self._options.timeout))
        self._lose(attempt)

    async def _watch_gathering(self, attempt: Attempt) -> None:
        """Give up at once where only relayed candidates are allowed and no TURN server gave one: no path can come of it."""
        await attempt.gathered()
        if attempt.wants_connection and not attempt.evidence.local_candidates:
            self._lose(attempt)

    async def _watch_dtls(self, attempt: Attempt) -> None:
        await trio.sleep(DTLS_SECONDS)
        if not attempt.connected:
            self._evidence.dtls_error = f"the handshake did not end within {DTLS_SECONDS:g} s"
            self._lose(attempt)

    # ---- what the connection tells --------------------------------------------------------------------------------

    async def _consume_events(self, attempt: Attempt) -> None:
        """Heed what happens to a connection, to the very end of it: also while everything around is cancelled."""
        with trio.CancelScope(shield=True):
            async for event in attempt.pc.events:
                self._on_event(event, attempt)
            attempt.pumped.set()

    def _on_event(self, event: peer_connection.RtcEvent, attempt: Attempt) -> None:
        match event:
            case peer_connection.StateChanged(kind, state):
                self._log.emit(_STATES[kind](state))
                if kind == "connection":
                    self._on_connection_state(state, attempt)
                elif kind == "ice_connection":
                    self._on_ice_state(state, attempt)
            case peer_connection.ChannelOpened(label):
                self._on_channel_open(label, attempt)
            case peer_connection.ChannelClosed(label):
                self._on_channel_closed(label, attempt)
            case peer_connection.Received(data):
                self._hear()
                attempt.evidence.bytes_received += len(data.encode() if isinstance(data, str) else data)
                self._log.emit(_message(data))
                self._reached(attempt, "message")
            case peer_connection.Beat():
                self._hear()
            case peer_connection.ServerTold():
                attempt.note_server(event)

    def _on_ice_state(self, state: str, attempt: Attempt) -> None:
        if self._attempt is not attempt:
            return  # its closing is no news
        attempt.evidence.ice_state = state
        if state == "completed":
            self._reached(attempt, "ice")
            attempt.tasks.start_soon(self._watch_dtls, attempt)

    def _on_connection_state(self, state: str, attempt: Attempt) -> None:
        if state == "connected":
            attempt.connected = True
            attempt.note_state()
            self._reached(attempt, "connected")
        elif self._attempt is attempt:
            attempt.note_state()
            hung_up = "channel" in attempt.evidence.reached_at and not attempt.evidence.vanished
            if state == "failed" or (state == "closed" and not hung_up):  # a peer that hangs up leaves the pairing too
                self._lose(attempt)

    def _on_channel_open(self, label: str, attempt: Attempt) -> None:
        self.ever_open = True
        self.channel_gone = trio.Event()
        self._log.emit(peer.ChannelOpen(label))
        self._channel_opened.set()
        self._reached(attempt, "channel")
        if attempt.both_sdpx and self._heart is None and self._attempt is attempt:
            self._heart = Heartbeat(trio.current_time())
            attempt.tasks.start_soon(self._beat, attempt, self._heart)

    def _on_channel_closed(self, label: str, attempt: Attempt) -> None:
        self._log.emit(peer.ChannelClosed(label))
        self._channel_opened = trio.Event()
        if self._attempt is None:
            return  # it is this side that closes, perhaps only to start afresh
        self.channel_gone.set()
        attempt.note_state()
        if attempt.evidence.vanished:
            return  # nobody closed it: the connection's own end comes next
        if self._options.once:
            self._end(PairOutcome.DONE)
        elif self._options.expect == "message":  # had one come, the program would be over
            attempt.tasks.start_soon(self._watch_return)

    async def _watch_return(self) -> None:
        """Give up a connection whose channel was closed before what is expected came, unless there is soon another channel."""
        await trio.sleep(RETURN_SECONDS)
        if not self.channel_is_open and not self.is_ending:
            self.failure = diagnose(self._evidence, self.age)
            self._log.emit(self.failure.event(self._evidence, self.age, retrying=False))
            self._end(PairOutcome.FAILED)

    def _reached(self, attempt: Attempt, phase: Phase) -> None:
        if attempt.evidence.reach(phase, attempt.age):
            self._reach(phase)

    def _hear(self) -> None:
        if self._heart is not None:
            self._heart.heard(trio.current_time())

    async def _beat(self, attempt: Attempt, heart: Heartbeat) -> None:
        """Beat, and listen for the other's beats, while the connection is there."""
        while True:
            await trio.sleep_until(heart.next_check)
            action = heart.check(trio.current_time())
            if action is HeartbeatAction.SEND:
                await attempt.pc.channels.send_beat()
            elif action is HeartbeatAction.VANISHED:
                attempt.evidence.vanished = True
                attempt.evidence.last_heard = heart.last_heard - attempt.began
                self._lose(attempt)
                return

    # ---- the talk -------------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        """Send what is to be sent, each once the channel is open, until there is no more."""
        while True:
            await self._channel_opened.wait()
            item = await self._feed.next()
            if item is None:
                break
            attempt = self._attempt
            if attempt is not None and await attempt.pc.channels.send(item):
                size = len(item.encode() if isinstance(item, str) else item)
                attempt.evidence.bytes_sent += size
                self._log.emit(peer.ChannelMessageSent(size))
            else:
                self._feed.unread(item)
                await trio.sleep(CLOSING_SECONDS)  # the channel is being closed, and nobody knows how long that takes
        if self._options.once and self._attempt is not None:
            await self._attempt.pc.channels.finish()
            self._end(PairOutcome.DONE)

    # ---- ends -----------------------------------------------------------------------------------------------------

    def _end(self, outcome: PairOutcome) -> None:
        self._outcome = self._outcome or outcome
        self._scope.cancel()

    async def _close(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        self._heart = None
        try:
            attempt.note_state()
            if attempt.evidence.succeeded:
                self._log.emit(summarize(attempt.evidence))
            self._log.emit(peer.Closing())
        finally:  # the pump is shielded: it ends with its connection only
            attempt.tasks.cancel()
            await attempt.pc.close()
        with trio.CancelScope(shield=True):
            await attempt.pumped.wait()
        self._log.emit(peer.Closed())

    async def _post_frame(self, frame: msgspec.Struct, on_written: Callable[[], None]) -> None:
        if not self.detached:
            await self._send(frame, on_written)

    def _problem(self, kind: str, code: str, reason: str) -> None:
        self._log.emit(peer.NegotiationError(kind, code, reason))

    def _shown(self, sdp: str) -> str | msgspec.UnsetType:
        return sdp if self._options.log_sdp else msgspec.UNSET


def _message(data: str | bytes) -> peer.ChannelMessage:
    if isinstance(data, str):
        return peer.ChannelMessage(text=data)
    return peer.ChannelMessage(bytes=len(data), base64=base64.b64encode(data).decode())
