"""One attempt at a connection: an RTCPeerConnection from its creation to its close, and what it sends and takes.

The offer or answer leaves with the host candidates; what the servers say follows as `candidate` frames, and then the end
of them. Without servers nothing follows, and the description itself says that they have ended. The peer's candidates go to
ICE in their order, but for names in .local: those resolve beside it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import msgspec
import trio
from msgspec import UNSET, UnsetType

from sdpx import __version__
from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.diagnostics.trace import ConnectionTrace, TurnRefusal
from sdpx.peer.negotiation.candidates import RemoteCandidates
from sdpx.peer.negotiation.sdp import (
    candidate_address,
    candidate_type,
    has_end_of_candidates,
    is_mdns,
    media_count,
    normalize_candidate,
)
from sdpx.peer.webrtc import peer_connection
from sdpx.protocol.messages import Candidate, CandidateInit, Description

AGENT: Final = f"sdpx/{__version__}"
CHANNEL_LABEL: Final = "chat"
RESOLVING_BOUND: Final = 32


class Tasks:
    """The tasks of one attempt. Once it is given up none is started any more: who wants one is about to be cancelled, too."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let them live until they are cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start one."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    def cancel(self) -> None:
        """Cancel them all."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()


class Attempt:
    """One RTCPeerConnection with a peer. `tasks` are its own, and are cancelled before it is closed."""

    def __init__(
        self,
        pc: peer_connection.PeerConnection,
        evidence: ConnectionTrace,
        began: float,
        log: Log,
        send: Callable[[msgspec.Struct, Callable[[], None]], Awaitable[None]],
        on_exchanged: Callable[["Attempt"], None],
        tasks: "Tasks",
        *,
        log_sdp: bool,
    ) -> None:
        self.pc = pc
        self.evidence = evidence
        self.began = began
        self.tasks = tasks
        self.pumped = trio.Event()
        self.exchanged = False  # both descriptions are set on this side
        self.wants_connection = True  # a description without media sections asks for none
        self.connected = False
        self.both_sdpx = False
        self._log = log
        self._send = send
        self._on_exchanged = on_exchanged
        self._log_sdp = log_sdp
        self._candidates = RemoteCandidates()
        self._resolvers = trio.Semaphore(RESOLVING_BOUND)
        self._gathered = trio.Event()
        self._peer_id = evidence.peer_id

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return trio.current_time() - self.began

    # ---- descriptions ---------------------------------------------------------------------------------------------

    async def offer(self) -> None:
        """Make the offer and send it. Raises `NegotiationFailed`."""
        await self.pc.channels.create(CHANNEL_LABEL)
        sdp = await self.pc.create_offer()
        self._log.emit(peer.OfferCreated(len(sdp), self._shown(sdp)))

        def on_written() -> None:
            self.evidence.description_sent = True
            self._log.emit(peer.OfferSent(len(sdp), self._shown(sdp)))

        await self._send(Description("offer", sdp, self._peer_id, AGENT), on_written)
        self._trickle(sdp)

    async def answer(self, offer: Description) -> None:
        """Take an offer, make the answer and send it. Raises `NegotiationFailed`."""
        found = await self.pc.accept_offer(offer.sdp)
        self._log.emit(peer.RemoteDescriptionSet("offer"))
        await self._open(offer, found)
        sdp = await self.pc.create_answer()
        self._log.emit(peer.AnswerCreated(len(sdp), self._shown(sdp)))
        self.exchanged = True

        def on_written() -> None:
            self.evidence.description_sent = True
            self._log.emit(peer.AnswerSent(len(sdp), self._shown(sdp)))
            self._on_exchanged(self)

        await self._send(Description("answer", sdp, self._peer_id, AGENT), on_written)
        self._trickle(sdp)

    async def accept(self, answer: Description) -> None:
        """Take the answer. Raises `NegotiationFailed`."""
        found = await self.pc.accept_answer(answer.sdp)
        self.exchanged = True
        self._on_exchanged(self)
        await self._open(answer, found)

    async def _open(self, remote: Description, found: list[CandidateInit | None]) -> None:
        """Use the candidates that came with the peer's description and before it, now that it is set."""
        self.wants_connection = media_count(remote.sdp) > 0
        self.both_sdpx = remote.agent is not UNSET and remote.agent.startswith("sdpx") and self.wants_connection
        self.evidence.description_received = True
        if self.both_sdpx:
            await self.pc.channels.create_heartbeat()
        for candidate in found:
            self._note_remote(candidate)
        for candidate in self._candidates.on_description(found, trio.current_time()):
            await self._add(candidate)
        self.tasks.start_soon(self._tell_end)

    # ---- candidates of the peer -----------------------------------------------------------------------------------

    async def take_candidate(self, candidate: CandidateInit | None) -> None:
        """Take a candidate that the peer trickled, or the end of them. Raises `NegotiationFailed`."""
        ends = candidate is None or not normalize_candidate(candidate.candidate)
        kind = candidate_type(candidate.candidate) if candidate else None
        self._log.emit(peer.CandidateReceived(kind, ends))
        self._note_remote(candidate)
        try:
            ready = self._candidates.add(candidate, trio.current_time())
        except ValueError as error:
            raise peer_connection.NegotiationFailed("bad_candidate", str(error)) from None
        for each in ready:
            await self._add(each)

    def _note_remote(self, candidate: CandidateInit | None) -> None:
        if candidate is not None and (text := normalize_candidate(candidate.candidate)):
            self.evidence.add_remote(candidate_type(text), candidate_address(text))

    async def _add(self, candidate: CandidateInit) -> None:
        if not is_mdns(normalize_candidate(candidate.candidate)):
            await self._add_now(candidate)
            return
        await self._resolvers.acquire()
        self._candidates.count_resolving(1)
        self.tasks.start_soon(self._resolve, candidate)

    async def _resolve(self, candidate: CandidateInit) -> None:
        try:
            await self._add_now(candidate)
        finally:
            self._candidates.count_resolving(-1)
            self._resolvers.release()

    async def _add_now(self, candidate: CandidateInit) -> None:
        try:
            await self.pc.add_candidate(candidate)
        except peer_connection.NegotiationFailed as failed:
            self._log.emit(peer.NegotiationError("candidate", failed.code, failed.reason))

    async def _tell_end(self) -> None:
        """Tell ICE of the end, once it may fail: it fails at once then if it has no pair left to check.

        With mDNS names alone it may not: they seldom resolve, but the peer's own checks can still come in.
        """
        await self._gathered.wait()
        while True:
            wait = self._candidates.end_of_candidates_in(trio.current_time())
            if wait == 0 and not self._only_mdns:
                break
            await trio.sleep(wait or 0.25)
        self._candidates.mark_ended()
        try:
            await self.pc.end_candidates()
        except peer_connection.NegotiationFailed as failed:
            self._log.emit(peer.NegotiationError("candidate", failed.code, failed.reason))

    @property
    def _only_mdns(self) -> bool:
        count = self.evidence.remote_candidates.total()
        return 0 < count == self.evidence.remote_mdns

    # ---- one's own candidates -------------------------------------------------------------------------------------

    def _trickle(self, sdp: str) -> None:
        for line in sdp.splitlines():
            if line.startswith("a=candidate:"):
                self.evidence.add_local(candidate_type(line))
        if media_count(sdp) and not has_end_of_candidates(sdp):
            self.tasks.start_soon(self.pc.gather)
            self.tasks.start_soon(self._send_candidates)
        else:
            self._note_gathered()

    async def _send_candidates(self) -> None:
        async for candidate in self.pc.local_candidates:
            kind = candidate_type(candidate.candidate)
            self.evidence.add_local(kind)
            sent = peer.CandidateSent(kind, end_of_candidates=False)
            await self._send(Candidate(candidate, peer_id=self._peer_id), partial(self._log.emit, sent))
        self._note_gathered()
        sent = peer.CandidateSent(None, end_of_candidates=True)
        await self._send(Candidate(None, peer_id=self._peer_id), partial(self._log.emit, sent))

    def _note_gathered(self) -> None:
        self.evidence.gathered = True
        self._gathered.set()

    async def gathered(self) -> None:
        """Wait until there will be no more candidates of this side."""
        await self._gathered.wait()

    # ---- evidence -------------------------------------------------------------------------------------------------

    def note_server(self, told: peer_connection.ServerTold) -> None:
        """Note what a STUN or TURN server said, and tell of one that was of no use."""
        if told.answered and told.code is None:
            return
        if told.code is not None:
            self.evidence.turn_refusals.append(TurnRefusal(told.server.url, told.code))
        elif not told.server.is_turn:
            self.evidence.silent_stun.append(told.server.url)
        words = told.reason if told.code is None else f"it said {told.code} {told.reason}".strip()
        self._log.emit(peer.IceServerFailed(told.server.url, told.code, words))

    def note_state(self) -> None:
        """Note what the connection itself knows, while it is still there."""
        pair = self.pc.selected_pair
        if pair is not None:
            self.evidence.local_type, self.evidence.remote_type = pair.local_type, pair.remote_type
        if "ice" not in self.evidence.reached_at:
            self.evidence.candidate_pairs = self.pc.pair_count
        if flaw := self.pc.dtls_error:
            self.evidence.dtls_error = flaw
            self.evidence.fingerprint_mismatch = self.pc.fingerprint_mismatch
        if self.pc.consent_expired and self.connected:
            self.evidence.vanished = True

    def _shown(self, sdp: str) -> str | UnsetType:
        return sdp if self._log_sdp else UNSET
