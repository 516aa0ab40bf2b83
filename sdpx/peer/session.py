"""The peer's story at the relay: learn the ID, ask or wait, live through one pairing after another.

One task listens to the relay and never waits for anybody but a connection that is being closed; one asks for pairings; one
heeds the input; a pairing lives in a task of its own, in the room, and is ended by cancelling its scope, which closes its
RTCPeerConnection. A pairing that is over at the relay while its data channel is open lives on as an orphan, until that closes.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

from sdpx import messages
from sdpx.errors import Ending, PairingRefused, RelayLost, RelayUnreachable, Unmet
from sdpx.events import peer
from sdpx.ice_servers import choose
from sdpx.log import Log
from sdpx.messages import Candidate, Description, ErrorFrame, Paired, PeerDisconnected, ServerMessage, Unpaired
from sdpx.peer.asking import LOST, NO_REPLY, Asking
from sdpx.peer.commands import InputRefused
from sdpx.peer.driver import Driver
from sdpx.peer.evidence import Phase
from sdpx.peer.expectation import Expectation
from sdpx.peer.feed import Feed, LineFeed, Outgoing
from sdpx.peer.lines import Lines
from sdpx.peer.options import PeerOptions
from sdpx.peer.outcome import Outcome
from sdpx.peer.prompt import Prompt
from sdpx.peer.room import Room
from sdpx.peer.uplink import Down, News, Over, Up, Uplink
from sdpx.peer.verdict import judge, left

if TYPE_CHECKING:
    from sdpx.peer.pairing import Pairing

SETTLE_SECONDS: Final = 1.0
REJOIN_SECONDS: Final = 60.0  # when a relay is back, its other clients may take as long as their longest wait


class Session:
    """All that a peer does; `began` is when, in the seconds of Trio's clock."""

    def __init__(
        self, options: PeerOptions, uplink: Uplink, room: Room, lines: Lines, log: Log, asking: Asking, began: float
    ) -> None:
        self._options = options
        self._uplink = uplink
        self._room = room
        self._lines = lines
        self._log = log
        self._asking = asking
        self._began = began
        self._expectation = Expectation(options.expect)
        self._outgoing = Outgoing(self._expectation.wait)
        self._feed: Feed = self._outgoing if options.stdin == "json" else LineFeed(lines, self._expectation.wait)
        self._up: Up | None = None
        self._up_since = began
        self._up_again = trio.Event()
        self._over: Ending | None = None
        self._pairing: Pairing | None = None
        self._pairing_scope = trio.CancelScope()
        self._pairing_over = trio.Event()
        self._prompt = Prompt(lines, log)
        self._wanting = trio.Event()  # --pair's peer
        self._scope = trio.CancelScope()
        self._ending: Ending | None = None

    async def run(self) -> None:
        """Tell the story to its end; raises the `Ending` if it is not a good one."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery, self._scope = nursery, nursery.cancel_scope
                nursery.start_soon(self._lines.run)
                nursery.start_soon(self._heed_input)
                if self._options.pair is not None:
                    self._wanting.set()
                    nursery.start_soon(self._want, self._options.pair)
                if self._options.within is not None:
                    nursery.start_soon(self._watch_expectation, self._options.within)
                async for news in self._uplink.news:
                    await self._heed(news)
        finally:
            with trio.CancelScope(shield=True):  # its closing has deadlines of its own
                await self._end_pairing()
        if self._ending is not None:
            raise self._ending

    def check(self, cause: str) -> None:
        """Raise `Unmet` if what is expected has not come by now that `cause` ends the program."""
        if self._expectation.is_unmet:
            raise self._unmet(f"ended by {cause}")

    # ---- the input ------------------------------------------------------------------------------------------------

    async def _heed_input(self) -> None:
        """Do what a program says, or ask for each pairing that a line names: with `--pair` all lines are for the peer."""
        if self._options.stdin == "json":
            await Driver(self._lines, self._outgoing, self, self._log).run()
        elif self._options.pair is None:
            await self._prompt.run(self._request)

    @property
    def has_peer(self) -> bool:
        """Whether there is a pairing."""
        return self._pairing is not None

    @property
    def channel_is_open(self) -> bool:
        """Whether there is a peer to talk to."""
        return self._pairing is not None and self._pairing.channel_is_open

    async def pair(self, target: str) -> None:
        """Do the command: ask for a pairing and wait for the relay's answer."""
        if self._pairing is not None:
            reason = f'This peer is paired with {self._pairing.peer_id}; {{"unpair": true}} comes first'
            raise InputRefused("already_paired", reason)
        if self._up is None:
            raise InputRefused("no_relay", "The relay is not connected; wait for the next 'id_assigned'")
        await self._request(target)

    async def unpair(self) -> None:
        """Do the command: leave the present peer, once all that was sent is there."""
        pairing = self._pairing
        if pairing is not None:
            await self._room.do(pairing.finish)
        if pairing is not None and self._pairing is pairing:
            await self._unpair(pairing)
            await self._end_pairing()
            self._ready(pairing.peer_id, "unpaired")

    async def quit(self) -> None:
        """Do the command: end, once all that was sent is there."""
        if self._pairing is not None:
            await self._room.do(self._pairing.finish)
        self._finish(self._unmet('ended by {"close": true}') if self._expectation.is_unmet else None)

    # ---- asking ---------------------------------------------------------------------------------------------------

    async def _want(self, target: str) -> None:
        """Ask for the pairing that `--pair` wants, and again once it and its channel were lost with the relay."""
        patience = self._options.wait
        while True:
            await self._wanting.wait()
            await self._up_again.wait()
            refusal = await self._request(target, patience)
            patience = max(self._options.wait, REJOIN_SECONDS)
            if refusal is not None and refusal.code not in (LOST, NO_REPLY):
                self._finish(self._refused(refusal))

    async def _request(self, target: str, patience: float = 0.0) -> ErrorFrame | None:
        await self._room.pairing()  # whoever is asked answers at once, and must not wait for this side's imports
        refusal = await self._asking.ask(target, patience)
        if refusal is not None and refusal.code == NO_REPLY:
            if not self._options.reconnect:
                self._finish(RelayLost(LOST, refusal.message))
            await self._uplink.drop()
        return refusal

    def _refused(self, refusal: ErrorFrame) -> PairingRefused:
        reason = f"The relay refused the pairing with '{self._options.pair}': {refusal.message}"
        return PairingRefused(refusal.code, reason)

    # ---- listening ------------------------------------------------------------------------------------------------

    async def _heed(self, news: News) -> None:
        match news:
            case Up():
                self._up, self._up_since = news, trio.current_time()
                self._up_again.set()
                self._prompt.may_ask()
            case Down():
                await self._heed_loss()
            case Over(ending):
                self._over = ending
                if not self.channel_is_open:
                    self._finish(ending)
            case _:
                await self._heed_message(news)

    async def _heed_message(self, message: ServerMessage) -> None:
        match message:
            case Paired():
                await self._begin(message)
            case PeerDisconnected():
                await self._peer_gone(message)
            case Unpaired(peer_id):  # of this side's own asking, as a rule for a pairing that is over already
                await self._peer_gone(PeerDisconnected(peer_id, "left"))
            case ErrorFrame():
                self._log.emit(peer.ServerError(message.code, message.target_id, message.in_reply_to, message.message))
                if message.in_reply_to == "pair_request" or message.target_id is not UNSET:
                    self._asking.heed_refusal(message)
            case Description() | Candidate():
                self._pass_on(message)
            case _:
                pass  # `pong` answers what nobody asked

    def _pass_on(self, frame: Description | Candidate) -> None:
        if self._pairing is not None:
            self._pairing.take(frame)
        elif frame.type != "candidate":
            reason = f"Received {frame.type} but PeerConnection not ready"
            self._log.emit(peer.NegotiationError(frame.type, "not_ready", reason))

    async def _begin(self, paired: Paired) -> None:
        assert self._up is not None
        await self._end_pairing()
        pairing_class = await self._room.pairing()
        self._prompt.hold()
        self._log.emit(peer.Paired(paired.peer_id, paired.is_initiator))
        before = {"dial": self._up.seconds, "pairing": trio.current_time() - self._up_since}
        self._pairing = pairing_class(
            paired.peer_id,
            self._options,
            self._log,
            self._feed,
            self._up.relay.send,
            is_initiator=paired.is_initiator,
            servers=choose(self._options.ice_servers, self._up.ice_servers, no_stun=self._options.no_stun),
            before=before,
            reach=self._reached,
        )
        self._pairing_scope, self._pairing_over = trio.CancelScope(), trio.Event()
        await self._room.run(partial(self._live, self._pairing, self._pairing_scope, self._pairing_over))
        self._wanting = trio.Event()
        self._asking.heed_pairing(paired.peer_id)

    async def _heed_loss(self) -> None:
        """Go on without a relay: a data channel that is open lives on, all else is over."""
        self._up, self._up_again = None, trio.Event()
        pairing = self._pairing
        if pairing is not None and pairing.channel_is_open:
            self._orphan(pairing, LOST)
        else:
            await self._end_pairing()
            self._wanting.set()
            if pairing is not None:
                self._ready(pairing.peer_id, LOST)
        self._asking.heed_loss()

    async def _peer_gone(self, gone: PeerDisconnected) -> None:
        pairing = self._pairing
        if pairing is None or pairing.peer_id != gone.peer_id or pairing.orphaned:
            return  # crossed with this side's own unpair
        self._log.emit(peer.PeerDisconnected(gone.peer_id, gone.reason))
        # The relay goes, not the peer; or the peer's socket, and whether the peer lives its heartbeat tells.
        if pairing.channel_is_open and (gone.reason == "shutdown" or (gone.reason != "left" and pairing.has_heartbeat)):
            self._orphan(pairing, gone.reason)
            return
        with trio.move_on_after(SETTLE_SECONDS):
            await pairing.settle()  # an answer that came before this is not lost
            if self._options.once and pairing.channel_is_open:
                await pairing.channel_gone.wait()  # whoever closes it says so first; who was killed does not
        if not self._scope.cancel_called:
            killed = self._options.once and pairing.channel_is_open
            await self._end_pairing()
            self._left(pairing, gone.reason, killed=killed)

    # ---- a pairing's life -----------------------------------------------------------------------------------------

    async def _live(self, pairing: "Pairing", scope: trio.CancelScope, over: trio.Event) -> None:
        failed = False
        try:
            with scope:
                failed = await pairing.run() is Outcome.FAILED
        finally:
            over.set()
        if self._pairing is not pairing or scope.cancel_called:
            return  # ended from outside
        self._pairing = None
        self._outgoing.rest()
        if failed:
            await self._give_up(pairing)
        else:
            self._left(pairing, "closed")

    async def _give_up(self, pairing: "Pairing") -> None:
        """Leave a pairing that came to nothing: for good with `--pair` or `--expect`, else free for the next one."""
        if not pairing.orphaned:
            await self._unpair(pairing)
        if (
            pairing.orphaned
            and self._options.pair is not None
            and self._over is None
            and not self._expectation.is_unmet
        ):
            self._wanting.set()
        elif pairing.failure is not None and self._needs(pairing):
            self._finish(pairing.failure.ending)
            return
        self._ready(pairing.peer_id, "failed")

    def _needs(self, pairing: "Pairing") -> bool:
        """Whether all is lost with this pairing."""
        once = self._options.once and pairing.ever_open
        return once or self._options.pair is not None or self._expectation.is_unmet

    async def _unpair(self, pairing: "Pairing") -> None:
        if self._up is not None and not pairing.orphaned:
            await self._up.relay.send(messages.UnpairRequest())

    def _orphan(self, pairing: "Pairing", reason: str) -> None:
        if not pairing.orphaned:
            pairing.orphaned = True
            self._nursery.start_soon(self._bury, pairing, reason)

    async def _bury(self, pairing: "Pairing", reason: str) -> None:
        """Wait for an orphan's channel to close, which nobody else will tell of."""
        await pairing.channel_gone.wait()
        if self._pairing is pairing and not pairing.is_ending:
            await self._end_pairing()
            self._left(pairing, reason)

    async def _end_pairing(self) -> None:
        if self._pairing is not None:
            self._pairing = None
            self._pairing_scope.cancel()
            await self._pairing_over.wait()
            self._outgoing.rest()

    def _left(self, pairing: "Pairing", reason: str, *, killed: bool = False) -> None:
        """Go on after the other side ended a pairing, or both are done with it; `killed`: its channel was never closed."""
        if killed or self._expectation.is_unmet or not pairing.ever_open:
            verdict = left(pairing.evidence, reason)
            self._log.emit(verdict.event(pairing.evidence, pairing.age, retrying=False))
            if self._needs(pairing):
                self._finish(verdict.ending)
                return
        if self._options.once and pairing.ever_open:
            self._finish(None)
        self._ready(pairing.peer_id, reason)

    def _ready(self, peer_id: str, reason: str) -> None:
        if self._over is not None:
            self._finish(self._over)
        if not self._scope.cancel_called:
            self._log.emit(peer.Ready(peer_id, reason))
            self._prompt.release()

    # ---- ends -----------------------------------------------------------------------------------------------------

    def _reached(self, phase: Phase) -> None:
        if self._expectation.reach(phase) and not self._options.once:
            self._finish(None)

    async def _watch_expectation(self, within: float) -> None:
        await trio.sleep_until(self._began + within)
        if self._expectation.is_unmet:
            self._finish(self._why_unmet(within))

    def _why_unmet(self, within: float) -> Ending:
        """Return what did not come about in time, as exactly as can be told."""
        if self._pairing is not None and not self._pairing.evidence.succeeded:
            verdict = judge(self._pairing.evidence, self._pairing.age)
            self._log.emit(verdict.event(self._pairing.evidence, self._pairing.age, retrying=False))
            return verdict.ending
        if self._up is None and self._pairing is None:
            reason = f"The relay at {self._options.shown_url} could not be reached within {within:g} s"
            return RelayUnreachable("relay_unreachable", reason)
        if self._pairing is None and self._options.pair is not None and self._asking.last_refusal is not None:
            return self._refused(self._asking.last_refusal)
        return self._unmet(f"{within:g} s went by")

    def _unmet(self, cause: str) -> Unmet:
        return self._expectation.failure(cause, None if self._pairing is None else self._pairing.peer_id)

    def _finish(self, ending: Ending | None) -> None:
        if not self._scope.cancel_called:
            self._ending = ending
            self._scope.cancel()
