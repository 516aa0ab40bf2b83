"""The candidates of one connection: those of this side, as they are gathered, and those of the peer, as they come.

The peer's candidates are added in their order, except names in .local, which are resolved beside it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from sdpx.events import webrtc
from sdpx.log import Log
from sdpx.peer.diagnostics.trace import ConnectionTrace
from sdpx.peer.negotiation.candidates import RemoteCandidates
from sdpx.peer.negotiation.sdp import candidate_endpoint, candidate_type, is_mdns, normalize_candidate
from sdpx.peer.webrtc.events import NegotiationFailed
from sdpx.protocol.messages import Candidate, CandidateInit

if TYPE_CHECKING:
    from sdpx.peer.webrtc.peer_connection import PeerConnection

RESOLVING_BOUND: Final = 32
MDNS_POLL_SECONDS: Final = 0.25


@dataclass(eq=False, repr=False)
class CandidateExchange:
    """Sends and receives the candidates of `pc`; `start_soon` starts a task that ends with the connection."""

    _pc: "PeerConnection"
    _trace: ConnectionTrace
    _log: Log
    _send: Callable[[msgspec.Struct, Callable[[], None]], Awaitable[None]]
    _start_soon: Callable[..., None]
    _remote: RemoteCandidates = field(default_factory=RemoteCandidates)
    _resolvers: trio.Semaphore = field(default_factory=partial(trio.Semaphore, RESOLVING_BOUND))
    gathered: trio.Event = field(default_factory=trio.Event)  # there will be no more candidates of this side

    # ---- of this side ---------------------------------------------------------------------------------------------

    async def send_all(self) -> None:
        """Send each candidate as it is gathered, and then their end."""
        async for candidate in self._pc.local_candidates:
            kind = candidate_type(candidate.candidate)
            self._trace.add_local(kind)
            await self._send_one(candidate, webrtc.CandidateSent(kind, end_of_candidates=False))
        self.note_gathered()
        await self._send_one(self._pc.local_end, webrtc.CandidateSent(None, end_of_candidates=True))

    async def _send_one(self, candidate: CandidateInit, sent: webrtc.CandidateSent) -> None:
        await self._send(Candidate(candidate, peer_id=self._trace.peer_id), partial(self._log.emit, sent))

    def note_gathered(self) -> None:
        """Note that this side has no more candidates."""
        self._trace.gathered = True
        self.gathered.set()

    # ---- of the peer ----------------------------------------------------------------------------------------------

    @property
    def early(self) -> list[CandidateInit | None]:
        """The candidates that wait for the peer's description."""
        return self._remote.early

    async def add_described(self, described: list[CandidateInit | None]) -> None:
        """Add the candidates of the peer's description, which is set now, and those that came before it."""
        for candidate in described:
            self._note(candidate)
        for candidate in self._remote.on_description(described, trio.current_time()):
            await self._add(candidate)

    async def take(self, candidate: CandidateInit | None) -> None:
        """Add a candidate that the peer trickled, or the end of candidates. Raises `NegotiationFailed`."""
        ends = candidate is None or not normalize_candidate(candidate.candidate)
        kind = candidate_type(candidate.candidate) if candidate else None
        self._log.emit(webrtc.CandidateReceived(kind, ends))
        self._note(candidate)
        try:
            ready = self._remote.add(candidate, trio.current_time())
        except ValueError as error:
            raise NegotiationFailed("bad_candidate", str(error)) from None
        for each in ready:
            await self._add(each)

    def _note(self, candidate: CandidateInit | None) -> None:
        if candidate is not None and (text := normalize_candidate(candidate.candidate)):
            self._trace.add_remote(candidate_type(text), candidate_endpoint(text)[0])

    async def _add(self, candidate: CandidateInit) -> None:
        if is_mdns(normalize_candidate(candidate.candidate)):
            await self._resolvers.acquire()
            self._remote.count_resolving(1)
            self._start_soon(self._resolve, candidate)
        else:
            await self._try(self._pc.add_candidate, candidate)

    async def _resolve(self, candidate: CandidateInit) -> None:
        try:
            await self._try(self._pc.add_candidate, candidate)
        finally:
            self._remote.count_resolving(-1)
            self._resolvers.release()

    async def _try(self, add: Callable[..., Awaitable[None]], *args: CandidateInit) -> None:
        """Log a candidate, or the end of candidates, that cannot be used."""
        try:
            await add(*args)
        except NegotiationFailed as failed:
            self._log.emit(webrtc.NegotiationError("candidate", failed.code, failed.reason))

    async def end(self) -> None:
        """Notify ICE of the end of candidates, once it may fail: without a pair left to check it then fails at once.

        With mDNS names alone it may not fail: they seldom resolve, but the peer's own checks can still come in.
        """
        await self.gathered.wait()
        while True:
            wait = self._remote.end_of_candidates_in(trio.current_time())
            count = self._trace.remote_candidates.total()
            only_mdns = 0 < count == self._trace.remote_mdns
            if wait == 0 and not only_mdns:
                break
            await trio.sleep(wait or MDNS_POLL_SECONDS)
        self._remote.mark_ended()
        await self._try(self._pc.end_candidates)
