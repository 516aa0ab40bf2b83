"""The pairing that there is, from `paired` to `ready`: begun, lived in the room, and ended from inside or outside.

A pairing that is over at the relay while its data channel is open lives on as an orphan, until that closes.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio

from sdpx.errors import Ending
from sdpx.events import peer
from sdpx.ice_servers import choose
from sdpx.log import Log
from sdpx.peer.diagnostics.diagnosis import diagnose_departure
from sdpx.peer.diagnostics.expectation import Expectation
from sdpx.peer.diagnostics.trace import Phase
from sdpx.peer.input.sources import MessageSource
from sdpx.peer.options import PeerOptions
from sdpx.peer.outcome import PairOutcome
from sdpx.peer.signaling.client import Connected
from sdpx.peer.webrtc.runtime import WebRtcRuntime
from sdpx.protocol.messages import Candidate, ClientUnpairRequest, Description, Paired, PeerDisconnected

if TYPE_CHECKING:
    from sdpx.peer.pair_session import PairSession

SETTLE_SECONDS: Final = 1.0
RELAY_LOST: Final = "relay_lost"


class SessionCallbacks(Protocol):
    """Whom a pairing's end concerns."""

    @property
    def ends(self) -> bool:
        """Whether the program is ending already."""

    @property
    def has_relay(self) -> bool:
        """Whether the relay is there, or will be dialled again."""

    def reached(self, phase: Phase) -> None:
        """Hear how far the present connection is."""

    def want(self) -> None:
        """Ask for the pairing of `--pair` again."""

    def released(self, peer_id: str, reason: str) -> None:
        """Hear that a pairing is over, and a new one can begin."""

    def finish(self, ending: Ending | None) -> None:
        """End the program."""


class PairingManager:
    """One pairing after another; `feed` is what is to be sent, `host` whom their ends concern."""

    def __init__(
        self,
        options: PeerOptions,
        room: WebRtcRuntime,
        feed: MessageSource,
        expectation: Expectation,
        log: Log,
        host: SessionCallbacks,
    ) -> None:
        self._options = options
        self._room = room
        self._feed = feed
        self._expectation = expectation
        self._log = log
        self._host = host
        self._up: Connected | None = None
        self._waiting_since = 0.0  # for the next pairing: since the relay, the last one's end, or this side's asking
        self._pairing: PairSession | None = None
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    @property
    def present(self) -> "PairSession | None":
        """The pairing that there is."""
        return self._pairing

    @property
    def channel_is_open(self) -> bool:
        """Whether there is a peer to talk to."""
        return self._pairing is not None and self._pairing.channel_is_open

    # ---- what the relay says --------------------------------------------------------------------------------------

    def on_relay_connected(self, up: Connected) -> None:
        """Note the relay that the next pairings come from."""
        self._up, self._waiting_since = up, trio.current_time()

    def on_pair_requested(self) -> None:
        """Note that this side asks for a pairing now."""
        self._waiting_since = trio.current_time()

    def take(self, frame: Description | Candidate) -> None:
        """Pass on a frame of the peer."""
        if self._pairing is None and frame.type != "candidate":
            reason = f"Received {frame.type} but PeerConnection not ready"
            self._log.emit(peer.NegotiationError(frame.type, "not_ready", reason))
        elif self._pairing is not None and not self._pairing.detached:
            self._pairing.take(frame)

    def on_ice_servers(self, ice_servers: Any) -> None:
        """Use these for the pairings to come: the earlier ones' credentials are about to end."""
        if self._up is not None:
            self._up = replace(self._up, ice_servers=ice_servers)

    async def begin(self, paired: Paired) -> bool:
        """Begin a pairing; False if it was declined, an orphan's data channel being open."""
        assert self._up is not None
        if self._pairing is not None and self._is_taken(paired.peer_id):
            self._log.emit(peer.PairingDeclined(paired.peer_id, self._pairing.peer_id))
            await self._up.channel.send(ClientUnpairRequest())
            return False
        await self.end()
        pairing_class = await self._room.pair_session()
        self._log.emit(peer.Paired(paired.peer_id, paired.is_initiator))
        self._pairing = pairing_class(
            paired.peer_id,
            self._options,
            self._log,
            self._feed,
            self._up.channel.send,
            is_initiator=paired.is_initiator,
            servers=choose(self._options.ice_servers, self._up.ice_servers, no_stun=self._options.no_stun),
            before={"dial": self._up.seconds, "pairing": trio.current_time() - self._waiting_since},
            reach=self._host.reached,
        )
        self._scope, self._over = trio.CancelScope(), trio.Event()
        await self._room.run(partial(self._live, self._pairing, self._scope, self._over))
        return True

    def _is_taken(self, peer_id: str) -> bool:
        """Whether a talk goes on that the relay knows nothing of any more, with somebody else."""
        pairing = self._pairing
        return pairing is not None and pairing.detached and pairing.channel_is_open and pairing.peer_id != peer_id

    async def on_relay_lost(self) -> None:
        """Go on without a relay: a data channel that is open lives on, all else is over."""
        pairing, self._up = self._pairing, None
        if pairing is not None and pairing.channel_is_open:
            await self._detach(pairing, RELAY_LOST)
            return
        await self.end()
        self._host.want()
        if pairing is not None:
            self._host.released(pairing.peer_id, RELAY_LOST)

    async def on_peer_disconnected(self, gone: PeerDisconnected) -> None:
        """Go on after the peer has left, in the relay's words."""
        pairing = self._pairing
        if pairing is None or pairing.peer_id != gone.peer_id or pairing.detached:
            return  # crossed with this side's own unpair
        self._log.emit(peer.PeerDisconnected(gone.peer_id, gone.reason))
        # The relay goes, not the peer; or the peer's socket, and whether the peer lives its heartbeat tells.
        if pairing.channel_is_open and (gone.reason == "shutdown" or (gone.reason != "left" and pairing.has_heartbeat)):
            await self._detach(pairing, gone.reason)
            return
        with trio.move_on_after(SETTLE_SECONDS):
            await pairing.settle()  # an answer that came before this is not lost
            if self._options.once and pairing.channel_is_open:
                await pairing.channel_gone.wait()  # whoever closes it says so first; who was killed does not
        if not self._host.ends and self._pairing is pairing:
            killed = self._options.once and pairing.channel_is_open
            await self.end()
            self._left(pairing, gone.reason, killed=killed)

    # ---- what this side does --------------------------------------------------------------------------------------

    async def close_channel(self) -> None:
        """Close the data channel, once all that was sent is there."""
        if self._pairing is not None:
            await self._room.do(self._pairing.finish)

    async def leave(self) -> None:
        """Leave the present peer, once all that was sent is there."""
        pairing = self._pairing
        await self.close_channel()
        if pairing is not None and self._pairing is pairing:
            await self._unpair(pairing)
            await self.end()
            self._host.released(pairing.peer_id, "unpaired")

    async def end(self) -> None:
        """End the present pairing, if there is one, and wait until its connection is closed."""
        if self._pairing is not None:
            self._pairing = None
            self._scope.cancel()
            await self._over.wait()
            self._waiting_since = trio.current_time()

    # ---- a pairing's life -----------------------------------------------------------------------------------------

    async def _live(self, pairing: "PairSession", scope: trio.CancelScope, over: trio.Event) -> None:
        failed = False
        try:
            with scope:
                failed = await pairing.run() is PairOutcome.FAILED
        finally:
            over.set()
        if self._pairing is not pairing or scope.cancel_called:
            return  # ended from outside
        self._pairing, self._waiting_since = None, trio.current_time()
        if failed:
            await self._give_up(pairing)
        else:
            self._left(pairing, "closed")

    async def _give_up(self, pairing: "PairSession") -> None:
        """Leave a pairing that came to nothing: for good with `--pair` or `--expect`, else free for the next one."""
        await self._unpair(pairing)
        asks_again = pairing.detached and self._options.pair is not None and self._host.has_relay
        if asks_again and not self._expectation.is_unmet:
            self._host.want()
        elif pairing.failure is not None and self._needs(pairing):
            self._host.finish(pairing.failure.ending)
        self._host.released(pairing.peer_id, "failed")

    def _needs(self, pairing: "PairSession") -> bool:
        """Whether all is lost with this pairing."""
        once = self._options.once and pairing.ever_open
        return once or self._options.pair is not None or self._expectation.is_unmet

    async def _unpair(self, pairing: "PairSession") -> None:
        if self._up is not None and not pairing.detached:
            await self._up.channel.send(ClientUnpairRequest())

    async def _detach(self, pairing: "PairSession", reason: str) -> None:
        if not pairing.detached:
            pairing.detached = True
            await self._room.run(partial(self._watch_detached, pairing, self._over, reason))

    async def _watch_detached(self, pairing: "PairSession", over: trio.Event, reason: str) -> None:
        """Wait for an orphan's channel to close, which nobody else will tell of."""
        await pairing.channel_gone.wait()
        if self._pairing is pairing and not pairing.is_ending and not over.is_set():
            await self.end()
            self._left(pairing, reason)

    def _left(self, pairing: "PairSession", reason: str, *, killed: bool = False) -> None:
        """Go on after the other side ended a pairing, or both are done with it; `killed`: its channel was never closed."""
        unsent = self._options.once and pairing.ever_open and self._feed.has_unsent
        if killed or unsent or self._expectation.is_unmet or not pairing.ever_open:
            diagnosis = diagnose_departure(pairing.evidence, reason, unsent=unsent)
            self._log.emit(diagnosis.event(pairing.evidence, pairing.age, retrying=False))
            if self._needs(pairing):
                self._host.finish(diagnosis.ending)
        if self._options.once and pairing.ever_open:
            self._host.finish(None)
        self._host.released(pairing.peer_id, reason)
