"""The peer's story at the relay: learn the ID, ask or wait, live through one pairing after another.

One task listens to the relay and never waits for anybody but a connection that is being closed; one asks for pairings; one
heeds the input; a pairing lives in a task of its own, in the room.
"""

from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

from sdpx.errors import Ending, ExpectationFailed, PairingRefused, RelayLost, RelayUnreachable
from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.diagnostics.diagnosis import diagnose
from sdpx.peer.diagnostics.expectation import Expectation
from sdpx.peer.diagnostics.trace import Phase
from sdpx.peer.input.command_runner import CommandRunner
from sdpx.peer.input.commands import InputRejected
from sdpx.peer.input.lines import Lines
from sdpx.peer.input.prompt import Prompt
from sdpx.peer.input.sources import LineSource, MessageQueue, MessageSource
from sdpx.peer.options import PeerOptions
from sdpx.peer.pair_requester import LOST, NO_REPLY, PairRequester
from sdpx.peer.pairing_manager import PairingManager
from sdpx.peer.signaling.client import Connected, Disconnected, SignalingClient, SignalingEvent, Stopped
from sdpx.peer.webrtc.runtime import WebRtcRuntime
from sdpx.protocol.messages import (
    Candidate,
    Description,
    ErrorFrame,
    IceServers,
    Paired,
    PeerDisconnected,
    ServerMessage,
    Unpaired,
)

if TYPE_CHECKING:
    from sdpx.peer.pair_session import PairSession

REJOIN_SECONDS: Final = 60.0  # when a relay is back, its other clients may take as long as their longest wait


class Session:
    """All that a peer does; `began` is when, in the seconds of Trio's clock."""

    def __init__(
        self,
        options: PeerOptions,
        uplink: SignalingClient,
        room: WebRtcRuntime,
        lines: Lines,
        log: Log,
        asking: PairRequester,
        began: float,
    ) -> None:
        self._options = options
        self._uplink = uplink
        self._room = room
        self._lines = lines
        self._log = log
        self._asking = asking
        self._began = began
        self._expectation = Expectation(options.expect)
        self._outgoing = MessageQueue(self._expectation.wait)
        feed: MessageSource = self._outgoing if options.stdin == "json" else LineSource(lines, self._expectation.wait)
        self._pairings = PairingManager(options, room, feed, self._expectation, log, self)
        self._up_again = trio.Event()
        self._was_paired = False
        self._last: PairSession | None = None
        self._over: Ending | None = None
        self._prompt = Prompt(lines, log)
        self._wanting = trio.Event()  # --pair's peer
        self._scope = trio.CancelScope()
        self._ending: Ending | None = None

    async def run(self) -> None:
        """Tell the story to its end; raises the `Ending` if it is not a good one."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._lines.run)
                nursery.start_soon(self._handle_input)
                if self._options.pair is not None:
                    self._wanting.set()
                    nursery.start_soon(self._want, self._options.pair)
                if self._options.within is not None:
                    nursery.start_soon(self._watch_expectation, self._options.within)
                async for news in self._uplink.events:
                    await self._on_event(news)
        finally:
            self._last = self._pairings.present  # what it came to is told once it is over
            with trio.CancelScope(shield=True):  # its closing has deadlines of its own
                await self._pairings.end()
        if self._ending is not None:
            raise self._ending

    def check(self, cause: str) -> None:
        """Raise `ExpectationFailed` if what is expected has not come by now that `cause` ends the program."""
        if self._expectation.is_unmet:
            raise self._unmet(f"ended by {cause}")

    # ---- the input ------------------------------------------------------------------------------------------------

    async def _handle_input(self) -> None:
        """Do what a program says, or ask for each pairing that a line names: with `--pair` all lines are for the peer."""
        if self._options.stdin == "json":
            await CommandRunner(self._lines, self._outgoing, self, self._log).run()
        elif self._options.pair is None:
            await self._prompt.run(self._request)

    @property
    def has_peer(self) -> bool:
        """Whether there is a pairing."""
        return self._pairings.present is not None

    @property
    def has_addressee(self) -> bool:
        """Whether it is known whom a message is for: the present peer, one that is asked for, or the first one of all."""
        return self.has_peer or not self._was_paired or self._wanting.is_set()

    @property
    def channel_is_open(self) -> bool:
        """Whether there is a peer to talk to."""
        return self._pairings.channel_is_open

    async def pair(self, target: str) -> None:
        """Do the command: ask for a pairing and wait for the relay's answer."""
        if self._pairings.present is not None:
            reason = f'This peer is paired with {self._pairings.present.peer_id}; {{"unpair": true}} comes first'
            raise InputRejected("already_paired", reason)
        if not self._is_up:
            raise InputRejected("no_relay", "The relay is not connected; wait for the next 'id_assigned'")
        await self._request(target)

    async def unpair(self) -> None:
        """Do the command: leave the present peer, once all that was sent is there."""
        await self._pairings.leave()

    async def quit(self) -> None:
        """Do the command: end, once all that was sent is there."""
        self._last = self._pairings.present
        await self._pairings.close_channel()
        self.finish(self._unmet('ended by {"close": true}') if self._expectation.is_unmet else None)

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
                self.finish(self._refused(refusal))

    async def _request(self, target: str, patience: float = 0.0) -> ErrorFrame | None:
        self._pairings.on_pair_requested()
        await self._room.pair_session()  # whoever is asked answers at once, and must not wait for this side's imports
        refusal = await self._asking.ask(target, patience)
        if refusal is not None and refusal.code == NO_REPLY:
            if not self._options.reconnect:
                self.finish(RelayLost(LOST, refusal.message))
            await self._uplink.drop()
        return refusal

    def _refused(self, refusal: ErrorFrame) -> PairingRefused:
        reason = f"The relay refused the pairing with '{self._options.pair}': {refusal.message}"
        return PairingRefused(refusal.code, reason)

    # ---- listening ------------------------------------------------------------------------------------------------

    async def _on_event(self, news: SignalingEvent) -> None:
        match news:
            case Connected():
                self._pairings.on_relay_connected(news)
                self._up_again.set()
                self._prompt.may_ask()
            case Disconnected():
                self._up_again = trio.Event()
                await self._pairings.on_relay_lost()
                self._asking.on_relay_lost()
            case Stopped(ending):
                self._over = ending
                if not self.channel_is_open:
                    self.finish(ending)
            case _:
                await self._on_message(news)

    async def _on_message(self, message: ServerMessage) -> None:
        match message:
            case Paired():
                await self._begin(message)
            case PeerDisconnected():
                await self._pairings.on_peer_disconnected(message)
            case Unpaired(peer_id):  # of this side's own asking, as a rule for a pairing that is over already
                await self._pairings.on_peer_disconnected(PeerDisconnected(peer_id, "left"))
            case ErrorFrame():
                self._log.emit(peer.ServerError(message.code, message.target_id, message.in_reply_to, message.message))
                if message.in_reply_to == "pair_request" or message.target_id is not UNSET:
                    self._asking.on_refused(message)
            case Description() | Candidate():
                self._pairings.take(message)
            case IceServers(ice_servers):
                self._pairings.on_ice_servers(ice_servers)
            case _:
                pass  # `pong` answers what nobody asked

    async def _begin(self, paired: Paired) -> None:
        self._prompt.hold()
        if await self._pairings.begin(paired):
            self._was_paired = True
            self._wanting = trio.Event()
            self._asking.on_paired(paired.peer_id)

    # ---- ends -----------------------------------------------------------------------------------------------------

    @property
    def ends(self) -> bool:
        """Whether the program is ending already."""
        return self._scope.cancel_called

    @property
    def has_relay(self) -> bool:
        """Whether the relay is there, or will be dialled again."""
        return self._over is None

    @property
    def _is_up(self) -> bool:
        return self._up_again.is_set()

    def want(self) -> None:
        """Ask for the pairing of `--pair` again."""
        self._wanting.set()

    def reached(self, phase: Phase) -> None:
        """End the program if this is what was expected."""
        if self._expectation.reach(phase) and not self._options.once:
            self.finish(None)

    def released(self, peer_id: str, reason: str) -> None:
        """Go on after a pairing, with the next one if there can be one."""
        self._outgoing.rest()
        if self._over is not None:
            self.finish(self._over)
        if not self.ends:
            self._log.emit(peer.Ready(peer_id, reason))
            self._prompt.release()

    def finish(self, ending: Ending | None) -> None:
        """End the program, for this reason if it is no good one; only the first counts."""
        if not self.ends:
            self._ending = ending
            self._scope.cancel()

    async def _watch_expectation(self, within: float) -> None:
        await trio.sleep_until(self._began + within)
        if self._expectation.is_unmet:
            self.finish(self._expectation_failure(within))

    def _expectation_failure(self, within: float) -> Ending:
        """Return what did not come about in time, as exactly as can be told."""
        pairing = self._pairings.present
        if pairing is not None and not pairing.evidence.succeeded:
            diagnosis = diagnose(pairing.evidence, pairing.age)
            self._log.emit(diagnosis.event(pairing.evidence, pairing.age, retrying=False))
            return diagnosis.ending
        if pairing is None and self._uplink.connected_since is None:
            reason = f"The relay at {self._options.shown_url} could not be reached within {within:g} s"
            return RelayUnreachable("relay_unreachable", reason)
        if pairing is None and self._options.pair is not None and self._asking.last_refusal is not None:
            return self._refused(self._asking.last_refusal)
        return self._unmet(f"{within:g} s went by")

    def _unmet(self, cause: str) -> ExpectationFailed:
        pairing = self._pairings.present or self._last
        return self._expectation.failure(cause, None if pairing is None else pairing.evidence)
