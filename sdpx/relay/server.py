"""The relay: lets clients in, asks the lobby, and does what it says.

Between a frame that a client's reader took and the outboxes that it ends in there is no checkpoint: so frames keep their
order, and what the lobby decides is done before anybody else can ask it.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import h11
import trio

from sdpx import messages
from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.ids import make_id
from sdpx.lobby import Deliver, Effect, Lobby
from sdpx.log import Log
from sdpx.messages import ClientMessage, PairRequest
from sdpx.relay.connection import SLOW, Connection, Departure
from sdpx.relay.door import Door, Visitor, address_of
from sdpx.relay.frames import Violation
from sdpx.relay.handshake import Pages, Upgrade, judge, judge_plain
from sdpx.relay.limits import Limits
from sdpx.relay.listeners import remote_of
from sdpx.relay.numbers import Numbers, Present
from sdpx.relay.outbox import Held
from sdpx.relay.pages import pages_of
from sdpx.relay.quota import Census, Guesses, Quota
from sdpx.relay.responses import Answer, Page
from sdpx.relay.tap import Tap

TOO_FAST: Final = Violation(1008, "You sent too much, too fast, for too long")


class Relay:
    """All clients of one relay, and the lobby that they meet in.

    `own_metrics` says that the numbers have a port of their own (`handle_scraper`), and are not shown to clients.
    """

    def __init__(self, limits: Limits, log: Log, *, log_sdp: bool = False, own_metrics: bool = False) -> None:
        self._limits = limits
        self._log = log
        self._lobby = Lobby(log_sdp=log_sdp)
        self._connections: dict[str, Connection] = {}
        self._held = Held()
        self._guesses = Guesses(limits.guess_rate)
        self._numbers = Numbers()
        self._stopping = False
        self._census = Census(limits.max_clients, limits.max_clients_per_ip)
        pages = pages_of(self._numbers, self._present, lambda: not self._stopping)
        shown = {path: page for path, page in pages.items() if path != "/metrics" or not own_metrics}
        self._door = Door(limits, self._census, partial(self._judge, shown), self.tell)
        self._side_door = Door(limits, self._census, partial(judge_plain, pages=pages), self.tell)
        self._open = 0
        self._all_gone = trio.Event()

    @property
    def clients(self) -> int:
        """How many clients have an ID now."""
        return len(self._lobby)

    def tell(self, event: Event) -> None:
        """Count an event and log it."""
        self._numbers.note(event)
        self._log.emit(event)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection from its first byte to its last; never raises, whatever the client does."""
        self._open += 1
        try:
            await self._guard(stream, self._serve)
        finally:
            self._open -= 1
            if not self._open:
                self._all_gone.set()
                self._all_gone = trio.Event()

    async def handle_scraper(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to the port of the numbers; never raises either."""
        await self._guard(stream, self._side_door.admit)

    async def _guard(
        self, stream: trio.abc.Stream, serve_it: Callable[[trio.abc.Stream, str], Awaitable[object]]
    ) -> None:
        remote = remote_of(stream)
        try:
            async with stream:
                await serve_it(stream, remote)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away in mid-sentence
        except* Exception as group:  # noqa: BLE001  a fault in serving one client is not the others' business
            self.tell(serve.ConnectionFailed(remote, repr(group.exceptions)))

    def stop(self) -> None:
        """Tell every client that the relay stops, and end its connection once it has read that."""
        self._stopping = True
        self._door.stop()
        self._do(self._lobby.shut_down())
        for connection in list(self._connections.values()):
            connection.end(Departure("shutdown", 1001, "The relay is stopping; connect again soon"))

    async def all_gone(self) -> None:
        """Wait until no client's connection is open."""
        while self._open:
            await self._all_gone.wait()

    def _judge(self, pages: Pages, request: h11.Request) -> Upgrade | Page | Answer:
        return judge(request, pages, self._lobby.__contains__)

    async def _serve(self, stream: trio.abc.Stream, remote: str) -> None:
        visitor = await self._door.admit(stream, remote)
        if visitor is not None:
            await self._welcome(stream, visitor)

    async def _welcome(self, stream: trio.abc.Stream, visitor: Visitor) -> None:
        client_id = visitor.upgrade.client_id or make_id(secrets.randbelow)
        address = address_of(visitor.remote)
        connection = self._connect(stream, visitor, client_id)
        began = trio.current_time()
        joined = self._lobby.join(client_id)  # before the WebSocket opens: nobody else can take the name meanwhile
        self._census.enter(address)
        self._connections[client_id] = connection
        self.tell(serve.ClientConnected(client_id, visitor.remote))
        self._do(joined)
        try:
            await connection.run(visitor.upgrade.subprotocol)
        finally:
            self._census.leave(address)
            connection.end(Departure("closed", 1006, "The connection was cut"))
            departure = connection.departure
            assert departure is not None
            ms = round((trio.current_time() - began) * 1000, 3)
            self.tell(serve.ClientDisconnected(client_id, departure.code, departure.text, ms))

    def _connect(self, stream: trio.abc.Stream, visitor: Visitor, client_id: str) -> Connection:
        quota = Quota(self._limits.rate, trio.current_time(), self._guesses, address_of(visitor.remote))
        head = visitor.head
        return Connection(
            Tap(stream, head.text, head.behind, self._limits, lambda count: _too_many(quota, count)),
            self._limits,
            on_frame=lambda frame: self._take(client_id, frame, quota),
            on_end=lambda departure: self._part(client_id, departure),
            on_relayed=self._numbers.relay_took,
            held=self._held,
        )

    def _take(self, client_id: str, frame: str | bytes, quota: Quota) -> int:
        """Take a frame; returns how many wait in the fullest outbox that it put one into."""
        now = trio.current_time()
        try:
            effects = self._lobby.take(client_id, self._message_in(frame, quota, now))
        except Refusal as refusal:
            if quota.exhausted:
                self._connections[client_id].end(Departure("refused", TOO_FAST.code, TOO_FAST.text))
                return 0
            effects = self._lobby.refuse(client_id, refusal)
        return self._do(effects, now)

    def _message_in(self, frame: str | bytes, quota: Quota, now: float) -> ClientMessage:
        allowed = quota.allows(now)
        if isinstance(frame, bytes):
            raise messages.binary_refused()
        message = messages.parse(frame)
        if not allowed or not self._may_ask(message, quota, now):
            raise messages.rate_limited(message)
        return message

    def _may_ask(self, message: ClientMessage, quota: Quota, now: float) -> bool:
        """Tell whether a request to be paired may be looked at: guesses at IDs are slowed."""
        if not isinstance(message, PairRequest):
            return True
        allowed = quota.allows_asking(now)
        if message.target_id not in self._lobby:
            quota.missed(now)
        return allowed

    def _part(self, client_id: str, departure: Departure) -> None:
        del self._connections[client_id]
        self._numbers.departed(departure.reason)
        self._do(self._lobby.leave(client_id, departure.reason))

    def _do(self, effects: Sequence[Effect], now: float | None = None) -> int:
        """Do what the lobby decided; `now` is when the frame came that it decided about."""
        deepest = 0
        for effect in effects:
            if not isinstance(effect, Deliver):
                self.tell(effect.event)
                continue
            connection = self._connections.get(effect.client_id)  # gone: an effect before this one let it go
            if connection is not None and connection.post(effect.text, None if effect.event is None else now):
                deepest = max(deepest, len(connection.outbox))
                if effect.event is not None:
                    self.tell(effect.event)
        self._let_the_fullest_go()
        return deepest

    def _let_the_fullest_go(self) -> None:
        """Keep what waits for all clients bounded."""
        while self._held.bytes > self._limits.held_bytes:
            max(self._connections.values(), key=lambda each: each.outbox.bytes).end(SLOW)

    def _present(self) -> Present:
        outboxes = [connection.outbox for connection in self._connections.values()]
        return Present(
            connections=self._open,
            clients=len(self._lobby),
            pairs=self._lobby.pairs,
            outbox_frames=sum(map(len, outboxes)),
            outbox_bytes=self._held.bytes,
            outbox_frames_max=max(map(len, outboxes), default=0),
            log_lines_dropped=self._log.dropped_in_all,
        )


def _too_many(quota: Quota, control_frames: int) -> Violation | None:
    """Count control frames as messages: they cost as much. One over the rate is let pass, a flood is not."""
    quota.allows(trio.current_time(), control_frames)
    return TOO_FAST if quota.exhausted else None
