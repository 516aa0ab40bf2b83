"""The relay across lost sockets: the one place that dials, and dials again.

- The first dial decides: no relay, no program. From then on a connection that is lost is dialled again, with waits that grow
  and are half chance, for as long as the program runs; the user's `--no-reconnect`, or a relay that says that another try
  is in vain, ends that.
- It asks to be let come back (PROTOCOL: Resume), but with `--no-reconnect`. The first try after a loss is then at once, and
  whoever listens hears nothing of it, if the relay has kept this peer's place. It hears `Disconnected` when the relay has not, or is
  not reached for `HOLD_SECONDS`.
- It asks for the ID that it had. The relay may believe the old socket alive for a while and answer 409: an ID of the user's
  choice is asked for until it is free, one that the relay made is given up after a few tries.
- Whoever listens gets `Connected`, then the relay's messages, then `Disconnected`, in that order, and in the end `Stopped`.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import trio

from sdpx.errors import Ending, RelayLost
from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.connection import CLOSE_SECONDS, SignalingConnection, dial
from sdpx.peer.signaling.reliable_channel import ProtocolViolation, ReliableChannel
from sdpx.peer.signaling.resume import ResumeResult, ResumeState
from sdpx.protocol.messages import IceServers, ServerMessage

ABNORMAL: Final = 1006
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
SUPERSEDED: Final = 4001
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
LONGEST_WAIT_TO_RETURN: Final = 5.0
HOLD_SECONDS: Final = 30.0  # what a relay holds a place for, as a rule: who comes later comes anew
VIOLATION: Final = 1002
STABLE_SECONDS: Final = 10.0  # a connection that held so long was a good one: the waits begin anew
ID_TRIES: Final = 4
_IN_VAIN: Final = ("taken_over", "unauthorized", "forbidden", "bad_id", "bad_request", "not_found", "upgrade_required")


@dataclass(frozen=True, slots=True)
class Connected:
    """The relay is there: this peer's ID, what the relay says of ICE servers, and how many seconds it took."""

    client_id: str
    ice_servers: Any
    seconds: float
    relay: ReliableChannel


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The relay is gone, with all that the relay knew of this peer."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The relay will not be dialled any more, for this reason."""

    ending: Ending


SignalingEvent = Connected | Disconnected | Stopped | ServerMessage


class SignalingClient:
    """The relay of `options`, over `tls` where its URL says so, with `chance` for its waits: uniform in [0, 1)."""

    def __init__(self, options: PeerOptions, tls: ssl.SSLContext | None, log: Log, chance: Callable[[], float]) -> None:
        self._options = options
        self._tls = tls
        self._log = log
        self._chance = chance
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self._wanted = options.client_id
        self._been_up = False
        self._taken = 0
        self._rules = ResumeState()
        self._stay: ReliableChannel | None = None
        self._lost_at = 0.0
        self._hold = trio.CancelScope()
        self._relay: SignalingConnection | None = None
        self._back = trio.Event()
        self._up_since: float | None = None
        self._talking = trio.CancelScope()
        self._closed = trio.Event()
        self._post, self.news = trio.open_memory_channel[SignalingEvent](0)

    @property
    def up_since(self) -> float | None:
        """When the present connection to the relay came up; None while there is none."""
        return self._up_since

    async def run(self) -> None:
        """Dial until it is over; the last of the news is `Stopped`."""
        async with trio.open_nursery() as nursery:
            ending = await self._connect(nursery)
            while await self._wait_to_dial(ending):
                ending = await self._connect(nursery)
            self._hold.cancel()
            await self._tell_loss()
            await self._post.send(Stopped(ending))

    async def close(self) -> None:
        """Write what was sent and close the connection; whoever runs this is to be cancelled then.

        A relay that is being dialled to come back is waited for a moment: else it keeps the place of one who will not come.
        """
        with trio.move_on_after(CLOSE_SECONDS):
            while self._relay is None and self._stay is not None:
                await self._back.wait()
            if self._stay is not None:
                await self._stay.flush()
        if self._relay is not None:
            self._talking.cancel()
            await self._closed.wait()

    async def send(self, message: msgspec.Struct, on_written: Callable[[], None] | None = None) -> bool:
        """Send a message (see `ReliableChannel.send`); False without a relay: an event says why."""
        return self._stay is not None and await self._stay.send(message, on_written)

    async def drop(self) -> None:
        """Give up the present connection: the relay does not answer on it."""
        if self._relay is not None:
            await self._relay.drop()

    # ---- one connection -------------------------------------------------------------------------------------------

    async def _connect(self, nursery: trio.Nursery) -> Ending:
        """Live through one connection; returns why there was none, or why it was lost."""
        self._log.emit(peer.Connecting(self._options.shown_url))
        began, progress = trio.current_time(), self._rules.progress
        asks = self._rules.query() if self._options.reconnect else []
        url = self._options.dial_url_for(self._wanted, asks)
        try:
            async with dial(url, self._options.shown_url, self._tls) as relay:
                with trio.CancelScope() as self._talking:  # not the task that writes: it is needed to close in order
                    self._log.emit(peer.Connected(self._options.shown_url))
                    self._relay, self._up_since = relay, trio.current_time()
                    if (stay := await self._welcome(relay, self._up_since - began)) is not None:
                        await self._live(relay, stay)
                    if self._rules.progress > progress or trio.current_time() - self._up_since > STABLE_SECONDS:
                        self._backoff.reset()
                    self._relay = self._up_since = None
                    return await self._lost(relay, nursery)
            self._closed.set()
            await trio.sleep_forever()
        except* Ending as group:
            ending = _leaf(group)
        return ending

    async def _welcome(self, relay: SignalingConnection, seconds: float) -> ReliableChannel | None:
        """Heed the greeting; None if nothing can come of this connection, which is closed then."""
        greeting = relay.greeting
        result = self._rules.welcome(greeting)
        self._hold.cancel()
        self._been_up, self._taken = True, 0
        if result is ResumeResult.RESUMED and self._stay is not None:
            await self._go_on(relay, self._stay)
            return self._stay
        await self._tell_loss()
        if result in (ResumeResult.RESUMED, ResumeResult.BROKEN):  # it comes too late, or contradicts itself
            self._rules.forget()
            await relay.close(VIOLATION if result is ResumeResult.BROKEN else NORMAL)
            return None
        self._log.emit(peer.IdAssigned(greeting.id))
        self._wanted = greeting.id
        self._stay = ReliableChannel(self._rules)
        relay.write_from(self._stay)
        await self._post.send(Connected(greeting.id, greeting.ice_servers, seconds, self._stay))
        return self._stay

    async def _go_on(self, relay: SignalingConnection, stay: ReliableChannel) -> None:
        away = round((trio.current_time() - self._lost_at) * 1000, 1)
        self._log.emit(peer.RelayResumed(relay.greeting.id, away, self._rules.unconfirmed))
        stay.resume()
        relay.write_from(stay)
        self._back.set()
        if isinstance(relay.greeting.ice_servers, list):
            await self._post.send(IceServers(relay.greeting.ice_servers))

    async def _live(self, relay: SignalingConnection, stay: ReliableChannel) -> None:
        while (text := await relay.receive()) is not None:
            heard = stay.receive(text)
            if heard is ProtocolViolation.GAP:
                await relay.drop()
            elif heard is ProtocolViolation.UNTRUE:
                self._rules.forget()
                await relay.close(VIOLATION)
            elif heard is not None:
                await self._post.send(heard)

    async def _lost(self, relay: SignalingConnection, nursery: trio.Nursery) -> Ending:
        code, reason = (relay.lost.code, relay.lost.reason or "") if relay.lost else (ABNORMAL, "")
        self._log.emit(peer.Disconnected(code, reason))
        self._lost_at, self._back = trio.current_time(), trio.Event()
        stay = self._stay
        if stay is not None and not stay.is_over and self._rules.may_return and code != SUPERSEDED:
            stay.suspend()
            self._hold = trio.CancelScope()
            nursery.start_soon(self._give_up, self._hold)
        else:
            await self._tell_loss()
        if code == SUPERSEDED:
            return RelayLost("taken_over", "Another connection has taken this peer's place at the relay")
        if code == GOING_AWAY:
            return RelayLost("relay_lost", f"The relay at {self._options.shown_url} is stopping")
        return RelayLost("relay_lost", f"The connection to the relay at {self._options.shown_url} was lost")

    # ---- between two connections ----------------------------------------------------------------------------------

    async def _give_up(self, hold: trio.CancelScope) -> None:
        """Do not believe any more that the relay keeps this peer's place."""
        with hold:
            await trio.sleep(HOLD_SECONDS)
        if not hold.cancelled_caught:
            await self._tell_loss()

    async def _tell_loss(self) -> None:
        stay, self._stay = self._stay, None
        if stay is not None:
            stay.end()
            self._back.set()
            await self._post.send(Disconnected())

    async def _wait_to_dial(self, ending: Ending) -> bool:
        """Wait for the time of the next try; False if there is to be none."""
        if not self._been_up or not self._options.reconnect or ending.code in _IN_VAIN:
            return False
        if ending.code == "id_taken":
            self._give_up_id()
        delay = self._next_wait()
        self._log.emit(peer.Reconnecting(self._backoff.attempts, round(delay * 1000, 1), ending.code, ending.reason))
        await trio.sleep(delay)
        return True

    def _next_wait(self) -> float:
        """Return the wait; there is none before the first try to come back."""
        if self._stay is None:
            return self._backoff.next(self._chance())
        if self._backoff.attempts == 0:
            return self._backoff.at_once()
        return self._backoff.next(self._chance(), LONGEST_WAIT_TO_RETURN)

    def _give_up_id(self) -> None:
        """Ask for any ID, once the one that the relay had made was refused often enough."""
        self._taken += 1
        if self._taken >= ID_TRIES and not self._options.names_itself:
            self._wanted = None


def _leaf(group: BaseExceptionGroup[Ending]) -> Ending:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Ending)
    return error
