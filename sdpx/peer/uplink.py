"""The relay across lost sockets: the one place that dials, and dials again.

- The first dial decides: no relay, no program. From then on a connection that is lost is dialled again, with waits that grow
  and are half chance, for as long as the program runs; the user's `--no-reconnect`, or a relay that says that another try
  is in vain, ends that.
- It asks for the ID that it had. The relay may believe the old socket alive for a while and answer 409: an ID of the user's
  choice is asked for until it is free, one that the relay made is given up after a few tries.
- Whoever listens gets `Up`, then the relay's messages, then `Down`, in that order, and in the end `Over`.
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
from sdpx.messages import ServerMessage
from sdpx.peer.backoff import Backoff
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling import Signaling, dial

ABNORMAL: Final = 1006
TAKEN_OVER: Final = 4001
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
STABLE_SECONDS: Final = 10.0  # a connection that held so long was a good one: the waits begin anew
ID_TRIES: Final = 4
_IN_VAIN: Final = ("taken_over", "unauthorized", "forbidden", "bad_id", "bad_request", "not_found", "upgrade_required")


@dataclass(frozen=True, slots=True)
class Up:
    """The relay is there: this peer's ID, what the relay says of ICE servers, and how many seconds it took."""

    client_id: str
    ice_servers: Any
    seconds: float
    relay: Signaling


@dataclass(frozen=True, slots=True)
class Down:
    """The connection to the relay is gone, with all that the relay knew of this peer."""


@dataclass(frozen=True, slots=True)
class Over:
    """The relay will not be dialled any more, for this reason."""

    ending: Ending


News = Up | Down | Over | ServerMessage


class Uplink:
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
        self._relay: Signaling | None = None
        self._talking = trio.CancelScope()
        self._closed = trio.Event()
        self._post, self.news = trio.open_memory_channel[News](0)

    async def run(self) -> None:
        """Dial until it is over; the last of the news is `Over`."""
        ending = await self._connect()
        while await self._wait_to_dial(ending):
            ending = await self._connect()
        await self._post.send(Over(ending))

    async def close(self) -> None:
        """Write what was sent and close the connection, if there is one; whoever runs this is to be cancelled then."""
        if self._relay is not None:
            self._talking.cancel()
            await self._closed.wait()

    async def send(self, message: msgspec.Struct) -> None:
        """Send a message; while there is no relay it goes nowhere, and the news tell why."""
        if self._relay is not None:
            await self._relay.send(message)

    async def drop(self) -> None:
        """Give up the present connection: the relay does not answer on it."""
        if self._relay is not None:
            await self._relay.drop()

    async def _connect(self) -> Ending:
        """Live through one connection; returns why there was none, or why it was lost."""
        self._log.emit(peer.Connecting(self._options.shown_url))
        began = trio.current_time()
        try:
            async with dial(self._options.dial_url_for(self._wanted), self._options.shown_url, self._tls) as relay:
                with trio.CancelScope() as self._talking:  # not the task that writes: it is needed to close in order
                    await self._live(relay, trio.current_time() - began)
                    return await self._lost(relay)
            self._closed.set()
            await trio.sleep_forever()
        except* Ending as group:
            ending = _leaf(group)
        return ending

    async def _live(self, relay: Signaling, seconds: float) -> None:
        began = trio.current_time()
        self._log.emit(peer.Connected(self._options.shown_url))
        self._log.emit(peer.IdAssigned(relay.client_id))
        self._wanted, self._been_up, self._taken = relay.client_id, True, 0
        self._relay = relay
        await self._post.send(Up(relay.client_id, relay.ice_servers, seconds, relay))
        while (message := await relay.receive()) is not None:
            await self._post.send(message)
        self._relay = None
        if trio.current_time() - began > STABLE_SECONDS:
            self._backoff.reset()

    async def _lost(self, relay: Signaling) -> Ending:
        code, reason = (relay.lost.code, relay.lost.reason or "") if relay.lost else (ABNORMAL, "")
        self._log.emit(peer.Disconnected(code, reason))
        await self._post.send(Down())
        if code == TAKEN_OVER:
            return RelayLost("taken_over", "Another connection has taken this peer's place at the relay")
        return RelayLost("relay_lost", f"The connection to the relay at {self._options.shown_url} was lost")

    async def _wait_to_dial(self, ending: Ending) -> bool:
        """Wait for the time of the next try; False if there is to be none."""
        if not self._been_up or not self._options.reconnect or ending.code in _IN_VAIN:
            return False
        if ending.code == "id_taken":
            self._give_up_id()
        delay = self._backoff.next(self._chance())
        self._log.emit(peer.Reconnecting(self._backoff.attempts, round(delay * 1000, 1), ending.code, ending.reason))
        await trio.sleep(delay)
        return True

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
