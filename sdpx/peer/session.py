"""The peer's story at the relay: learn the ID, ask or wait, live through one pairing after another, until the relay is gone.

One task listens to the relay and never waits for anybody but a connection that is being closed; one asks for pairings; a
pairing lives in a task of its own and is ended by cancelling its scope, which closes its RTCPeerConnection.
"""

import sys
from typing import Final

import trio
from msgspec import UNSET

from sdpx import messages
from sdpx.errors import Ending, NoConnection, PairingRefused, RelayLost
from sdpx.events import peer
from sdpx.ids import is_name
from sdpx.log import Log
from sdpx.messages import Candidate, Description, ErrorFrame, Paired, PeerDisconnected, ServerMessage, Unpaired
from sdpx.peer.lines import Lines
from sdpx.peer.options import PeerOptions
from sdpx.peer.pairing import Outcome, Pairing
from sdpx.peer.signaling import Signaling

ANSWER_SECONDS: Final = 10.0
ABNORMAL: Final = 1006


class Session:
    """One connection to a relay, and the pairings that it brings."""

    def __init__(self, options: PeerOptions, relay: Signaling, lines: Lines, log: Log) -> None:
        self._options = options
        self._relay = relay
        self._lines = lines
        self._log = log
        self._pairing: Pairing | None = None
        self._pairing_scope = trio.CancelScope()
        self._pairing_over = trio.Event()
        self._free = trio.Event()
        self._free.set()
        self._asking = trio.CancelScope()
        self._answered = trio.Event()
        self._ending: Ending | None = None

    async def run(self) -> None:
        """Tell the story to its end; raises the `Ending` if it is not a good one."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lines.run)
            nursery.start_soon(self._ask, nursery.cancel_scope)
            await self._listen(nursery)
            await self._outlive_relay()
            self._finish(self._relay_lost(), nursery.cancel_scope)
        if self._ending is not None:
            raise self._ending

    # ---- asking ---------------------------------------------------------------------------------------------------

    async def _ask(self, scope: trio.CancelScope) -> None:
        """Ask for the pairing that `--pair` wants, or for each that a line of the input names."""
        if self._options.pair is not None:
            await self._request(self._options.pair, scope)
            return
        while (target := await self._next_target()) is not None:
            if is_name(target):
                await self._request(target, scope)
            elif target:
                reason = f"'{target[:64]}' is no ID; one is 1 to 64 of letters, digits and -_."
                self._log.emit(peer.InputRefused("bad_id", reason))

    async def _next_target(self) -> str | None:
        """Wait for a line while this peer is free: from the pairing on, lines are for the other peer."""
        while True:
            await self._free.wait()
            _prompt("ID of the peer to pair with (or wait to be asked): ")
            with trio.CancelScope() as self._asking:
                line = await self._lines.next()
                if self._free.is_set() or line is None:
                    return None if line is None else line.strip()
                self._lines.unread(line)

    async def _request(self, target: str, scope: trio.CancelScope) -> None:
        self._answered = trio.Event()
        self._log.emit(peer.PairRequested(target))
        await self._relay.send(messages.Request(target))
        with trio.move_on_after(ANSWER_SECONDS):
            await self._answered.wait()
            return
        reason = f"The relay did not answer the pairing request within {ANSWER_SECONDS:.0f} s"
        self._finish(RelayLost("relay_lost", reason), scope)

    # ---- listening ------------------------------------------------------------------------------------------------

    async def _listen(self, nursery: trio.Nursery) -> None:
        while (message := await self._relay.receive()) is not None:
            await self._heed(message, nursery)
        lost = self._relay.lost
        self._log.emit(peer.Disconnected(lost.code if lost else ABNORMAL, (lost and lost.reason) or ""))

    async def _heed(self, message: ServerMessage, nursery: trio.Nursery) -> None:
        match message:
            case Paired():
                await self._begin(message, nursery)
            case PeerDisconnected():
                await self._peer_gone(message, nursery.cancel_scope)
            case Unpaired(peer_id):  # of this side's own asking, as a rule for a pairing that is over already
                await self._peer_gone(PeerDisconnected(peer_id, "left"), nursery.cancel_scope)
            case ErrorFrame():
                self._server_error(message, nursery.cancel_scope)
            case Description() | Candidate():
                self._pass_on(message)
            case _:
                pass  # `pong` answers what nobody asked

    async def _begin(self, paired: Paired, nursery: trio.Nursery) -> None:
        await self._end_pairing()
        self._free = trio.Event()
        self._asking.cancel()
        self._answered.set()
        self._log.emit(peer.Paired(paired.peer_id, paired.is_initiator))
        self._pairing = Pairing(
            paired.peer_id,
            self._options,
            self._log,
            self._lines,
            self._relay.send,
            is_initiator=paired.is_initiator,
        )
        self._pairing_scope = trio.CancelScope()
        self._pairing_over = trio.Event()
        nursery.start_soon(self._live, self._pairing, self._pairing_scope, self._pairing_over, nursery.cancel_scope)

    async def _live(
        self, pairing: Pairing, own_scope: trio.CancelScope, over: trio.Event, scope: trio.CancelScope
    ) -> None:
        outcome = None
        try:
            with own_scope:
                outcome = await pairing.run()
        finally:
            over.set()
        if outcome is Outcome.DONE:
            self._finish(None, scope)
        elif outcome is Outcome.FAILED:
            await self._give_up(pairing, scope)

    async def _give_up(self, pairing: Pairing, scope: trio.CancelScope) -> None:
        """Leave a pairing that came to nothing: for good with `--pair`, else free for the next one."""
        self._pairing = None
        await self._relay.send(messages.UnpairRequest())
        if self._options.pair is not None and pairing.failure is not None:
            self._finish(pairing.failure, scope)
            return
        self._ready(pairing.peer_id, "failed")

    async def _peer_gone(self, gone: PeerDisconnected, scope: trio.CancelScope) -> None:
        pairing = self._pairing
        if pairing is None or pairing.peer_id != gone.peer_id:
            return  # crossed with this side's own unpair
        self._log.emit(peer.PeerDisconnected(gone.peer_id, gone.reason))
        if gone.reason == "shutdown" and pairing.channel_is_open:
            return  # the relay goes, not the peer: the channel lives on
        await self._end_pairing()
        if self._options.once and pairing.ever_open:
            self._finish(None, scope)
        elif self._options.once and self._options.pair is not None:
            reason = f"The peer {gone.peer_id} left before the data channel was open ({gone.reason})"
            self._finish(NoConnection("pairing_lost", reason), scope)
        else:
            self._ready(gone.peer_id, gone.reason)

    async def _end_pairing(self) -> None:
        if self._pairing is not None:
            self._pairing = None
            self._pairing_scope.cancel()
            await self._pairing_over.wait()

    def _ready(self, peer_id: str, reason: str) -> None:
        self._log.emit(peer.Ready(peer_id, reason))
        self._free.set()

    def _server_error(self, error: ErrorFrame, scope: trio.CancelScope) -> None:
        self._log.emit(peer.ServerError(error.code, error.target_id, error.in_reply_to, error.message))
        if error.in_reply_to != "pair_request" and error.target_id is UNSET:
            return
        self._answered.set()
        crossed = self._pairing is not None and self._pairing.peer_id == self._options.pair
        if (
            self._options.pair is not None and not crossed
        ):  # crossed: that very peer asked first, and the pairing stands
            reason = f"The relay refused the pairing with '{self._options.pair}': {error.message}"
            self._finish(PairingRefused(error.code, reason), scope)

    def _pass_on(self, frame: Description | Candidate) -> None:
        if self._pairing is not None:
            self._pairing.take(frame)
        elif frame.type != "candidate":
            reason = f"Received {frame.type} but PeerConnection not ready"
            self._log.emit(peer.NegotiationError(frame.type, "not_ready", reason))

    # ---- ends -----------------------------------------------------------------------------------------------------

    async def _outlive_relay(self) -> None:
        """With the relay gone, a data channel that is open lives on until it closes."""
        pairing = self._pairing
        if pairing is not None and pairing.channel_is_open:
            await pairing.channel_gone.wait()
            if self._options.once:  # then the end of the pairing decides how the program ends
                await self._pairing_over.wait()

    def _relay_lost(self) -> RelayLost:
        return RelayLost("relay_lost", f"The connection to the relay at {self._options.shown_url} was lost")

    def _finish(self, ending: Ending | None, scope: trio.CancelScope) -> None:
        if not scope.cancel_called:
            self._ending = ending
            scope.cancel()


def _prompt(text: str) -> None:
    if sys.stdin and sys.stderr and sys.stdin.isatty() and sys.stderr.isatty():
        print(text, end="", file=sys.stderr, flush=True)  # noqa: T201
