"""A run of `sdpx peer`: connect to the relay, request or await a pairing, and run one pairing after another.

One task handles the events of the relay, and waits for nothing but a connection that is being closed; one requests the pairing
of `--pair`; one reads the input. Each pairing has a task of its own, in the WebRTC runtime. `policy` decides the next step.
"""

from collections.abc import Awaitable, Callable
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Final

import trio
from msgspec import UNSET

from sdpx.concurrency import wait_while_changing
from sdpx.errors import Ending
from sdpx.events import peer, webrtc
from sdpx.ice_servers import IceServer, choose
from sdpx.log import Log
from sdpx.peer import policy
from sdpx.peer.commands import InputRejected
from sdpx.peer.diagnostics.diagnosis import diagnose, diagnose_doubt
from sdpx.peer.diagnostics.expectation import Expectation
from sdpx.peer.diagnostics.trace import Phase
from sdpx.peer.input import Lines, LineSource, MessageQueue, MessageSource, Prompt
from sdpx.peer.options import PeerOptions
from sdpx.peer.pair_requester import PairRequester
from sdpx.peer.pair_session import PairSession
from sdpx.peer.policy import AskAgain, Departed, Detach, Failed, Finish, Ready, SessionState
from sdpx.peer.qr_code import print_link
from sdpx.peer.signaling.client import Connected, Disconnected, SignalingClient, SignalingEvent, Stopped
from sdpx.peer.transfer.transport import ChannelUser
from sdpx.peer.webrtc.runtime import WebRtcRuntime
from sdpx.protocol.messages import (
    Candidate,
    Description,
    ErrorFrame,
    IceServers,
    Paired,
    PeerDisconnected,
    ServerMessage,
    Unpair,
    Unpaired,
)
from sdpx.urls import page_link

REJOIN_SECONDS: Final = 60.0  # when a relay is back, its other clients may take as long as their longest wait
DEPARTURE_SECONDS: Final = 1.0  # for the frames that came before a departure, and for the close of the channel


@dataclass(eq=False, repr=False)
class Session:
    """A run of a peer. With `--stdin json` it sends the messages of `queue`, else `lines`.

    `chance` is for the waits between requests, uniform in [0, 1). A `transfer` uses data channels, too; where it
    replaces messages, the program ends by `quit`.
    """

    _options: PeerOptions
    _signaling: SignalingClient
    _runtime: WebRtcRuntime
    _lines: Lines
    _log: Log
    chance: InitVar[Callable[[], float]]
    _transfer: ChannelUser | None = None
    _began: float = field(default_factory=trio.current_time)
    _relay: Connected | None = None
    _relay_connected: trio.Event = field(default_factory=trio.Event)
    _servers: tuple[IceServer, ...] = ()
    _stopped: Ending | None = None
    _pairing_wanted: trio.Event = field(default_factory=trio.Event)  # that of --pair
    _pairing: PairSession | None = None
    _last: PairSession | None = None  # the present pairing, or the one before
    _idle_since: float = 0.0  # since the relay connection, the end of a pairing, or a request of this side
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _ending: Ending | None = None
    _doubt: Ending | None = None  # of the first pairing that left messages unconfirmed

    def __post_init__(self, chance: Callable[[], float]) -> None:
        self._requester = PairRequester(self._signaling, self._log, chance)
        self._expectation = Expectation(self._options.expect)
        self._expectation_met = trio.Event()
        if not self._expectation.is_unmet:
            self._expectation_met.set()
        self.queue = MessageQueue(self._expectation_met.wait, self._lines.reject)
        is_queue = self._options.stdin == "json"
        self._source: MessageSource = self.queue if is_queue else LineSource(self._lines, self._expectation_met.wait)
        self._prompt = Prompt(self._lines, self._log)

    async def run(self, run_commands: Callable[[], Awaitable[None]] | None = None) -> None:
        """Run to the end of the program, with the task that executes the commands of `--stdin json`.

        Raises the `Ending` if the program has failed.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                has_messages = self._transfer is None or not self._transfer.replaces_messages
                if has_messages:
                    nursery.start_soon(self._lines.run)
                if run_commands is not None:
                    nursery.start_soon(run_commands)
                elif self._options.pair is None and has_messages:  # with --pair all lines are messages
                    nursery.start_soon(self._prompt.run, self._request)
                if self._options.pair is not None:
                    self._pairing_wanted.set()
                    nursery.start_soon(self._keep_requesting, self._options.pair)
                if self._options.within is not None:
                    nursery.start_soon(self._watch_expectation, self._options.within)
                async for event in self._signaling.events:
                    await self._on_event(event)
        finally:
            with trio.CancelScope(shield=True):  # closing has deadlines of its own
                await self._end_pairing()
            if count := self._source.unsent:
                self._source.reject("not_sent", f"Messages of the input were not sent: {count}", count)
        await wait_while_changing(lambda: self._log.undelivered, self._log.progress.wait, self._options.timeout)
        self.check()

    def check(self, cause: str = "") -> None:
        """Raise the `Ending` of a program that has failed, after `run`, also where `cause` ended that."""
        if self._ending is None and cause:
            self._ending = self._expectation_failure(f"ended by {cause}")
        if ending := self._ending or policy.after_run(self._doubt, self._lines.rejected):
            raise ending

    # ---- commands of the input --------------------------------------------------------------------------------------

    @property
    def has_peer(self) -> bool:
        """Whether there is a pairing."""
        return self._pairing is not None

    @property
    def has_addressee(self) -> bool:
        """Whether a message has a receiver: the present peer, the one being requested, or the first one of all."""
        return self.has_peer or self._last is None or self._pairing_wanted.is_set()

    @property
    def awaits_channel(self) -> bool:
        """Whether a data channel is open, or there is a pairing for one or the request of `--pair`."""
        return self.has_peer or self._pairing_wanted.is_set()

    @property
    def channel_is_open(self) -> bool:
        """Whether a message is sent without waiting."""
        return self._pairing is not None and self._pairing.channel_is_open

    async def pair(self, target: str) -> None:
        """Request a pairing and wait for the relay's answer. Raises `InputRejected` if that is not possible now."""
        if self._pairing is not None:
            reason = f'This peer is paired with {self._pairing.peer_id}; {{"unpair": true}} comes first'
            raise InputRejected("already_paired", reason)
        if self._relay is None:
            raise InputRejected("no_relay", "The relay is not connected; wait for the next 'id_assigned'")
        await self._request(target)

    async def unpair(self) -> None:
        """Leave the present peer, once it has all that was sent."""
        pairing = self._pairing
        if pairing is not None:
            await self._runtime.run_and_wait(pairing.close_channel)
            if self._pairing is pairing:
                await self._leave_at_relay(pairing)
                await self._end_pairing()
                self._apply(policy.after_pairing(self._state, pairing.state, policy.Unpaired()), pairing)

    async def flush(self) -> None:
        """Wait until an open channel has taken all messages that were read, as long as it takes any within `--timeout`."""

        def left() -> tuple[int] | None:
            sent = self._pairing.trace.bytes_sent if self._pairing else 0
            return (sent,) if self.channel_is_open and self._source.unsent else None

        await wait_while_changing(left, self.queue.change, self._options.timeout)

    async def quit(self, cause: str = '{"close": true}') -> None:
        """End the program, once the present peer has confirmed all that was sent."""
        if self._pairing is not None:
            await self._runtime.run_and_wait(self._pairing.close_channel)
        self._finish(self._expectation_failure(f"ended by {cause}"))

    # ---- requests -------------------------------------------------------------------------------------------------

    async def _keep_requesting(self, target: str) -> None:
        """Request the pairing of `--pair`, and again when the policy says so."""
        wait = self._options.wait
        while True:
            await self._pairing_wanted.wait()
            await self._relay_connected.wait()
            await self._request(target, wait, required=True)
            wait = max(self._options.wait, REJOIN_SECONDS)

    async def _request(self, target: str, wait: float = 0.0, *, required: bool = False) -> None:
        self._idle_since = trio.current_time()
        await self._runtime.loaded()  # the other peer answers at once, and must not wait for this side's imports
        refusal = await self._requester.request(target, wait)
        if refusal is None:
            return
        reconnect = self._options.reconnect
        step = policy.after_refusal(refusal, target=target, required=required, reconnect=reconnect)
        if step is not None:
            self._finish(step.ending)
        if refusal.code == policy.NO_REPLY:
            await self._signaling.drop()

    # ---- events of the relay --------------------------------------------------------------------------------------

    async def _on_event(self, event: SignalingEvent) -> None:
        match event:
            case Connected():
                self._relay, self._idle_since = event, trio.current_time()
                self._choose_servers(event.ice_servers)
                self._relay_connected.set()
                self._prompt.start()
                if self._options.qr:
                    print_link(page_link(self._options.url, event.client_id))
                if self._transfer is not None and self._transfer.announce is not None:
                    self._transfer.announce(event.client_id)
            case Disconnected():
                self._relay, self._relay_connected = None, trio.Event()
                await self._on_relay_lost()
                self._requester.on_relay_lost()
            case Stopped(ending):
                self._stopped = ending
                if not self.channel_is_open:
                    self._finish(ending)
            case _:
                await self._on_message(event)

    async def _on_message(self, message: ServerMessage) -> None:
        match message:
            case Paired():
                await self._on_paired(message)
            case PeerDisconnected():
                await self._on_peer_disconnected(message.peer_id, message.reason)
            case Unpaired(peer_id):  # the answer to this side's request: its pairing is over already, as a rule
                await self._on_peer_disconnected(peer_id, "left")
            case ErrorFrame():
                self._log.emit(peer.ServerError(message.code, message.target_id, message.in_reply_to, message.message))
                if message.in_reply_to == "pair_request" or message.target_id is not UNSET:
                    self._requester.on_refused(message)
            case Description() | Candidate():
                self._on_frame(message)
            case IceServers(ice_servers):  # for later pairings: the credentials of the earlier ones expire soon
                self._choose_servers(ice_servers)
            case _:
                pass  # `pong`

    def _choose_servers(self, offered: object) -> None:
        """Choose the ICE servers of the next pairings; log which entries of the relay's list are ignored."""
        self._servers = choose(
            self._options.ice_servers,
            None if offered is UNSET else offered,
            no_stun=self._options.no_stun,
            ignored=lambda reason: self._log.emit(peer.IceServerIgnored(reason)),
        )

    async def _on_paired(self, paired: Paired) -> None:
        assert self._relay is not None
        relay, present = self._relay, self._pairing
        self._prompt.pause()
        same_peer = present is not None and present.peer_id == paired.peer_id
        if present is not None and policy.declines(present.state, same_peer=same_peer) and await present.responds():
            self._log.emit(peer.PairingDeclined(paired.peer_id, present.peer_id))
            await relay.channel.send(Unpair())
            return
        await self._end_pairing()
        await self._runtime.loaded()
        self._log.emit(peer.Paired(paired.peer_id, paired.is_initiator))
        before = {"dial": relay.seconds, "pairing": trio.current_time() - self._idle_since}
        parts = (self._options, self._log, self._source, relay.channel.send, self._runtime, self._servers, before)
        self._pairing = self._last = PairSession(paired, *parts, self._on_phase, self._transfer)
        await self._runtime.run(partial(self._run_pairing, self._pairing))
        self._pairing_wanted = trio.Event()
        self._requester.on_paired(paired.peer_id)

    def _on_frame(self, frame: Description | Candidate) -> None:
        if self._pairing is None and frame.type != "candidate":
            reason = f"Received {frame.type} but PeerConnection not ready"
            self._log.emit(webrtc.NegotiationError(frame.type, "not_ready", reason))
        elif self._pairing is not None and not self._pairing.detached:
            self._pairing.receive(frame)

    async def _on_relay_lost(self) -> None:
        pairing = self._pairing
        step = policy.after_relay_lost(self._state, None if pairing is None else pairing.state)
        if isinstance(step, Detach):
            assert pairing is not None
            pairing.detach(policy.RELAY_LOST)
        else:
            await self._end_pairing()
            self._apply(step, pairing)

    async def _on_peer_disconnected(self, peer_id: str, reason: str) -> None:
        pairing = self._pairing
        if pairing is None or pairing.peer_id != peer_id or pairing.detached:
            return  # it crossed this side's own `unpair`
        self._log.emit(peer.PeerDisconnected(peer_id, reason))
        if policy.after_peer_disconnected(pairing.state, reason) is not None:
            pairing.detach(reason)
            return
        with trio.move_on_after(DEPARTURE_SECONDS):
            await pairing.frames_used()  # an answer that came before is not lost
            if self._options.once and pairing.channel_is_open:
                await pairing.closed.wait()  # a peer that leaves closes its channel first; a killed one does not
        if self._pairing is pairing and not self._scope.cancel_called:
            killed = self._options.once and pairing.channel_is_open
            await self._end_pairing()
            self._on_departed(pairing, reason, killed=killed)

    # ---- pairings -------------------------------------------------------------------------------------------------

    async def _run_pairing(self, pairing: PairSession) -> None:
        failure = await pairing.run()
        if self._pairing is not pairing:
            return  # ended by this side, which carries out the next step
        self._pairing = None
        self._note_ended(pairing)
        if failure is None:
            if not self._options.once:  # the end of the program ends the pairing
                await self._leave_at_relay(pairing)
            self._on_departed(pairing, pairing.detached or "closed")
        else:
            await self._leave_at_relay(pairing)
            self._apply(policy.after_pairing(self._state, pairing.state, Failed(failure)), pairing)

    async def _leave_at_relay(self, pairing: PairSession) -> None:
        if self._relay is not None and not pairing.detached:
            await self._relay.channel.send(Unpair())

    async def _end_pairing(self) -> None:
        """End the present pairing, if there is one, and wait until its connection is closed."""
        pairing, self._pairing = self._pairing, None
        if pairing is not None:
            await pairing.close()
            self._note_ended(pairing)

    def _note_ended(self, pairing: PairSession) -> None:
        self._idle_since = trio.current_time()
        if any(pairing.delivery.in_doubt):
            self._doubt = self._doubt or diagnose_doubt(pairing.trace, *pairing.delivery.in_doubt).ending

    def _on_departed(self, pairing: PairSession, reason: str, *, killed: bool = False) -> None:
        end = Departed(reason, bool(self._source.unsent or any(pairing.delivery.in_doubt)), killed)
        self._apply(policy.after_pairing(self._state, pairing.state, end), pairing)

    def _on_phase(self, phase: Phase) -> None:
        if self._expectation.reach(phase):
            self._expectation_met.set()
            if not self._options.once:
                self._finish(None)

    # ---- next steps ------------------------------------------------------------------------------------------------

    @property
    def _state(self) -> SessionState:
        options, transfer, unmet = self._options, self._transfer, self._expectation.is_unmet
        once = options.once or (transfer is not None and transfer.is_plain)
        unfinished = transfer is not None and transfer.is_unfinished
        return SessionState(options.pair is not None, once, unmet, self._stopped, unfinished)

    def _apply(self, step: Finish | AskAgain | Ready, pairing: PairSession | None) -> None:
        """Carry out the step after the end of a pairing, or of the relay connection without a pairing."""
        if step.diagnosis is not None and pairing is not None:
            pairing.report(step.diagnosis)
        if isinstance(step, Finish):
            self._finish(step.ending)
            return
        if isinstance(step, AskAgain):
            self._pairing_wanted.set()
        if pairing is not None and not self._scope.cancel_called:
            self._log.emit(peer.Ready(pairing.peer_id, step.reason))
            self._prompt.resume()

    def _finish(self, ending: Ending | None) -> None:
        """End the program, with an error or successfully (None); only the first call counts."""
        if not self._scope.cancel_called:
            self._ending = ending
            self._scope.cancel()

    async def _watch_expectation(self, within: float) -> None:
        await trio.sleep_until(self._began + within)
        if self._expectation.is_unmet:
            self._finish(self._late_expectation(within))

    def _late_expectation(self, within: float) -> Ending | None:
        """Return why the expectation was not met in time, as exactly as is known."""
        pairing = self._pairing
        if pairing is not None and not pairing.trace.succeeded:
            return pairing.report(diagnose(pairing.trace, pairing.age)).ending
        ending = None
        if pairing is None:
            connected = self._signaling.connected_since is not None
            target, refusal, url = self._options.pair, self._requester.last_refusal, self._options.shown_url
            ending = policy.before_any_pairing(within, url=url, connected=connected, target=target, refusal=refusal)
        return ending or self._expectation_failure(f"{within:g} s went by")

    def _expectation_failure(self, cause: str) -> Ending | None:
        return self._expectation.failure(cause, None if self._last is None else self._last.trace)
