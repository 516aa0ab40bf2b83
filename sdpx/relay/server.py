"""The relay: lets clients in, asks the lobby, and does what it says.

Between a frame that a client's reader took and the outboxes that it ends in there is no checkpoint: so frames keep their
order, and what the lobby decides is done before anybody else can ask it.
"""

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import h11
import trio

from sdpx import messages
from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.ice_servers import IceServer
from sdpx.ids import make_id
from sdpx.lobby import Deliver, Effect, Lobby
from sdpx.log import Log
from sdpx.messages import ClientMessage, PairRequest
from sdpx.relay.connection import Connection
from sdpx.relay.door import Door, Visitor
from sdpx.relay.frames import Violation
from sdpx.relay.handshake import Pages, Upgrade, judge, judge_plain, unless_taken
from sdpx.relay.host import ABNORMAL, SLOW, Client, Departure, Host, refused
from sdpx.relay.lane.connection import LaneConnection
from sdpx.relay.lane.upgrade import plain_upgrade
from sdpx.relay.lane.watch import Watch
from sdpx.relay.limits import Limits
from sdpx.relay.link import Link
from sdpx.relay.listeners import remote_of
from sdpx.relay.numbers import Numbers, Present
from sdpx.relay.outbox import Held
from sdpx.relay.pages import pages_of
from sdpx.relay.quota import Census, Guesses, Ledger, Quota
from sdpx.relay.responses import Answer, Page
from sdpx.relay.tap import Tap

TOO_FAST: Final = Violation(1008, "You sent too much, too fast, for too long")
ROOM: Final = 0.75  # of what all may let wait, once it was too much
WHILE_SECONDS: Final = 2.0
UNFINISHED: Final = Violation(1008, "The relay keeps too much that is unfinished, and most of it is yours")


class Relay:
    """All clients of one relay, and the lobby that they meet in.

    `own_metrics` says that the numbers have a port of their own (`handle_scraper`), and are not shown to clients. With a
    `watch` connections over a `Link` take the fast lane; without, and all others, trio-websocket serves them.
    """

    def __init__(
        self,
        limits: Limits,
        log: Log,
        *,
        log_sdp: bool = False,
        own_metrics: bool = False,
        watch: Watch | None = None,
        ice_servers: Sequence[IceServer] = (),
    ) -> None:
        self._limits = limits
        self._watch = watch
        self._log = log
        self._lobby = Lobby(log_sdp=log_sdp, ice_servers=[server.dictionary() for server in ice_servers])
        self._connections: dict[str, Client] = {}
        self._todo: deque[tuple[Effect, Client | None, float]] = deque()
        self._doing = False
        self._held = Held()
        self._guesses = Guesses(limits.guess_rate)
        self._unfinished = Ledger[str](limits.unfinished_bytes)
        self.numbers = Numbers()
        self._stopping = False
        self._census = Census(limits.max_clients, limits.max_clients_per_ip)
        pages = pages_of(self.numbers, self._present, lambda: not self._stopping)
        shown = {path: page for path, page in pages.items() if path != "/metrics" or not own_metrics}
        plain = plain_upgrade if watch is not None else None
        self._door = Door(limits, self._census, partial(self._judge, shown), self.tell, plain)
        self._side_door = Door(limits, self._census, partial(_judge_scraper, pages), self.tell)
        self._open = 0
        self._all_gone = trio.Event()

    @property
    def clients(self) -> int:
        """How many clients have an ID now."""
        return len(self._lobby)

    def tell(self, event: Event) -> None:
        """Count an event and log it."""
        self.numbers.note(event)
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
        self.do(self._lobby.shut_down())
        for connection in list(self._connections.values()):
            connection.end(Departure("shutdown", 1001, "The relay is stopping; connect again soon"))

    async def all_gone(self) -> None:
        """Wait until no client's connection is open."""
        while self._open:
            await self._all_gone.wait()

    def _judge(self, pages: Pages, request: h11.Request | Upgrade) -> Upgrade | Page | Answer:
        if isinstance(request, Upgrade):
            return unless_taken(request, self._lobby.__contains__)
        return judge(request, pages, self._lobby.__contains__)

    async def _serve(self, stream: trio.abc.Stream, remote: str) -> None:
        visitor = await self._door.admit(stream, remote)
        if visitor is not None:
            await self._welcome(stream, visitor)

    async def _welcome(self, stream: trio.abc.Stream, visitor: Visitor) -> None:
        client_id = visitor.upgrade.client_id or make_id(secrets.randbelow)
        address = visitor.address
        quota = Quota(self._limits.rate, trio.current_time(), self._guesses, address)
        guest = _Guest(self, client_id, quota)
        connection = self._connection(stream, visitor, guest)
        joined = self._lobby.join(client_id)  # before the WebSocket opens: nobody else can take the name meanwhile
        self._census.enter(address)
        self._connections[client_id] = connection
        began = trio.current_time()
        try:
            self.tell(serve.ClientConnected(client_id, visitor.remote))
            self.do(joined)
            await connection.run(visitor.upgrade)
        finally:
            self._census.leave(address)
            connection.end(Departure("closed", ABNORMAL, "The connection was cut"))
            departure = connection.departure
            assert departure is not None
            guest.apologize(connection.lost)
            ms = round((trio.current_time() - began) * 1000, 3)
            self.tell(serve.ClientDisconnected(client_id, departure.code, departure.text, ms))

    def _connection(self, stream: trio.abc.Stream, visitor: Visitor, host: Host) -> Client:
        behind = visitor.behind
        if self._watch is not None and isinstance(stream, Link):
            return LaneConnection(stream, behind, self._watch, self._limits, host, self._held)
        tap = Tap(stream, visitor.upgrade.head(), behind, self._limits, host)
        return Connection(tap, self._limits, host, self._held)

    def take(self, client_id: str, quota: Quota, frame: str | bytes, now: float) -> int:
        """Take a message of a client; returns how many wait in the fullest outbox that it put something into."""
        try:
            effects = self._lobby.take(client_id, self._message_in(frame, quota, now))
        except Refusal as refusal:
            if quota.exhausted:
                self.let_go(client_id, refused(TOO_FAST))
                return 0
            effects = self._lobby.refuse(client_id, refusal)
        return self.do(effects, self._connections[client_id], now)

    def _message_in(self, frame: str | bytes, quota: Quota, now: float) -> ClientMessage:
        allowed = quota.allows(now)
        if isinstance(frame, bytes):
            raise messages.binary_refused()
        message = messages.parse(frame)
        if not allowed or (isinstance(message, PairRequest) and not self._may_ask(message, quota, now)):
            raise messages.rate_limited(message)
        return message

    def _may_ask(self, message: PairRequest, quota: Quota, now: float) -> bool:
        """Tell whether a request to be paired may be looked at: guesses at IDs are slowed."""
        allowed = quota.allows_asking(now)
        if message.target_id not in self._lobby:
            quota.missed(now)
        return allowed

    def keep(self, client_id: str, size: int) -> None:
        """Note what is kept of a client's unfinished message; who makes most be kept goes when it is too much."""
        too_much = self._unfinished.note(client_id, size)
        if too_much is not None:
            self.let_go(too_much, refused(UNFINISHED))

    def let_go(self, client_id: str, departure: Departure) -> None:
        """End a client's connection."""
        self._connections[client_id].end(departure)

    def part(self, client_id: str, departure: Departure) -> Client | None:
        """Let a client leave the lobby; returns its peer's connection, which has been told."""
        peer = self._connections.get(self._lobby.peer_of(client_id) or "")
        del self._connections[client_id]
        self._unfinished.note(client_id, 0)
        self.numbers.departed(departure.reason)
        self.do(self._lobby.leave(client_id, departure.reason))
        return peer

    def do(self, effects: Sequence[Effect], sender: Client | None = None, now: float = 0.0) -> int:
        """Do what the lobby decided about a frame that came from `sender` at `now`.

        What one effect leads to, as when a full outbox ends its client, is done behind all that was decided before. Returns
        how many frames wait in the fullest outbox that was reached.
        """
        if self._doing:
            self._todo += [(effect, sender, now) for effect in effects]
            return 0
        self._doing = True
        deepest = 0
        try:
            for effect in effects:
                deepest = max(deepest, self._do_one(effect, sender, now))
            while self._todo:
                deepest = max(deepest, self._do_one(*self._todo.popleft()))
        finally:
            self._doing = False
        if self._held.bytes > self._limits.held_bytes:
            self._let_the_slowest_go()
        return deepest

    def _do_one(self, effect: Effect, sender: Client | None, now: float) -> int:
        if isinstance(effect, Deliver):
            return self._deliver(effect, sender, now)
        self.tell(effect.event)
        return 0

    def _deliver(self, effect: Deliver, sender: Client | None, now: float) -> int:
        connection = self._connections.get(effect.client_id)  # gone: an effect before this one let it go
        if connection is None or not connection.post(effect.text, sender if effect.event else None, now):
            return 0
        if effect.event is not None:
            self.tell(effect.event)
        return len(connection.outbox)

    def _let_the_slowest_go(self) -> None:
        """Keep what waits for all clients bounded: who lets most wait for longest goes.

        Neither the size alone, which may have come just now, nor the time alone, which costs little where little waits. Of
        those that have not read for a while more go than have to: to look at all clients for each frame would be a way to
        stall the relay.
        """
        now, limit = trio.current_time(), self._limits.held_bytes

        def burden(client: Client) -> tuple[float, int]:
            return client.outbox.bytes * (now - client.outbox.stalled_since), client.outbox.bytes

        for client in sorted(self._connections.values(), key=burden, reverse=True):
            enough = limit * ROOM if now - client.outbox.stalled_since > WHILE_SECONDS else limit
            if self._held.bytes <= enough:
                return
            client.end(SLOW)

    def _present(self) -> Present:
        waiting = [len(connection.outbox) for connection in self._connections.values()]
        return Present(
            connections=self._open,
            clients=len(self._lobby),
            pairs=self._lobby.pairs,
            outbox_frames=sum(waiting),
            outbox_bytes=self._held.bytes,
            outbox_frames_max=max(waiting, default=0),
            log_lines_dropped=self._log.dropped_in_all,
        )


def _judge_scraper(pages: Pages, request: h11.Request | Upgrade) -> Page | Answer:
    assert isinstance(request, h11.Request)  # nothing is plain at that port
    return judge_plain(request, pages)


class _Guest:
    """The relay as one client's connection sees it (`Host`)."""

    def __init__(self, relay: Relay, client_id: str, quota: Quota) -> None:
        self._relay = relay
        self._client_id = client_id
        self._quota = quota
        self._told: Client | None = None
        self.on_frame = partial(relay.take, client_id, quota)

    def on_extra(self, count: int, now: float) -> Violation | None:
        """Count frames that end no message as messages: they cost as much. One over the rate is let pass, a flood is not."""
        self._quota.allows(now, count)
        return TOO_FAST if self._quota.exhausted else None

    def on_unfinished(self, size: int) -> None:
        """Note what is kept of a message that is not whole."""
        self._relay.keep(self._client_id, size)

    def on_relayed(self, seconds: float) -> None:
        """Count how long a relayed frame took."""
        self._relay.numbers.relay_took(seconds)

    def on_end(self, departure: Departure) -> None:
        """Let the client leave the lobby."""
        self._told = self._relay.part(self._client_id, departure)

    def apologize(self, lost: list[Client]) -> None:
        """Tell each sender of what was lost, unless it was paired with this client to the end and knows."""
        for sender in dict.fromkeys(lost):
            if sender is not self._told and sender.departure is None:
                sender.post(messages.encode(messages.error_frame(messages.unread(self._client_id))))
