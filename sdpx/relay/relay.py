"""The relay: lets clients in, asks the lobby, and does what it says.

Between a frame that a client's reader took and the outboxes that it ends in there is no checkpoint: so frames keep their
order, and what the lobby decides is done before anybody else can ask it.
"""

import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import h11
import trio
from msgspec import UNSET

from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.ids import make_id
from sdpx.log import Log
from sdpx.protocol import messages
from sdpx.protocol.messages import ClientMessage, DisconnectReason, PairRequest
from sdpx.relay.acceptor import AcceptedUpgrade, Acceptor
from sdpx.relay.auth.authenticator import Authenticator
from sdpx.relay.auth.ice_issuer import IceServerIssuer
from sdpx.relay.auth.turn import IceServer
from sdpx.relay.client import ClientSession, ClosedSocket
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.pairing import Deliver, Effect, PairingTable, Record
from sdpx.relay.core.rate_limit import ClientRateLimit, ConnectionCounts, PartialMessageBudget, UnknownTargetLimit
from sdpx.relay.core.stats import RelaySnapshot, RelayStats
from sdpx.relay.http.endpoints import pages_of
from sdpx.relay.http.responses import HttpError, HttpResponse
from sdpx.relay.http.simple_upgrade import parse_simple_upgrade
from sdpx.relay.http.upgrade import Pages, Upgrade, ensure_id_free, parse_plain_request, parse_upgrade
from sdpx.relay.listeners import remote_of
from sdpx.relay.pending import RequestReader
from sdpx.relay.resume import ResumableSession, ResumeManager, SessionSocket
from sdpx.relay.websocket.connection import EpollConnection
from sdpx.relay.websocket.epoll_engine import Poller
from sdpx.relay.websocket.handler import (
    ABNORMAL,
    SLOW_CONSUMER,
    ClientConnection,
    CloseReason,
    FrameSender,
    from_violation,
)
from sdpx.relay.websocket.send_queue import QueuedBytes
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.trio_websocket_engine import TrioWebSocketConnection
from sdpx.relay.websocket.validating_stream import ValidatingStream
from sdpx.relay.websocket.validator import Violation

HANDED_OVER: Final = object()  # a connection that has no task, or not this one
CUT: Final = CloseReason("closed", ABNORMAL, "The connection was cut")
ROOM: Final = 0.75  # of what all may let wait, once it was too much
WHILE_SECONDS: Final = 2.0
UNFINISHED: Final = Violation(1008, "The relay keeps too much that is unfinished, and most of it is yours")


class Relay:
    """All clients of one relay, and the lobby that they meet in.

    `own_metrics` says that the numbers have a port of their own (`handle_metrics`), and are not shown to clients. With a
    `watch` connections over a `SocketStream` take the fast lane; without, and all others, trio-websocket serves them.
    """

    def __init__(
        self,
        limits: Limits,
        log: Log,
        *,
        log_sdp: bool = False,
        own_metrics: bool = False,
        watch: Poller | None = None,
        gate: Authenticator | None = None,
        ice: IceServerIssuer | None = None,
    ) -> None:
        self._limits = limits
        self._ice = ice or IceServerIssuer(time.time)
        self._watch = watch
        self._log = log
        self._log_sdp = log_sdp
        self._lobby = PairingTable(log_sdp=log_sdp)
        self._guests: dict[str, ClientSession] = {}
        self._returning = ResumeManager(self, limits)
        self._todo: deque[tuple[Effect, ClientSession | None, float]] = deque()
        self._doing = False
        self._held = QueuedBytes()
        self._guesses = UnknownTargetLimit(limits.unknown_target_rate)
        self._unfinished = PartialMessageBudget[str](limits.max_partial_bytes)
        self.numbers = RelayStats()
        self._stopping = False
        self._census = ConnectionCounts(limits.max_clients, limits.max_clients_per_ip)
        pages = pages_of(self.numbers, self._present, lambda: not self._stopping)
        shown = {path: page for path, page in pages.items() if path != "/metrics" or not own_metrics}
        plain = parse_simple_upgrade if watch is not None else None
        self._door = Acceptor(
            limits, self._census, partial(_parse_request, shown), self.tell, plain, gate, self._settle
        )
        self._side_door = Acceptor(limits, self._census, partial(_parse_metrics_request, pages), self.tell)
        self._doorstep: RequestReader | None = None
        if watch is not None:
            calls = self._serve_on_epoll, self._serve_in_task, self._failed, self._connection_closed
            self._doorstep = RequestReader(self._door, watch, *calls)
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

    async def run(self) -> None:
        """Do what is due without anybody asking for it: for clients that may come back."""
        await self._returning.run()

    def greet(self, links: Iterable[SocketStream]) -> None:
        """Take new connections. They get a task only if they need one. Only with a `watch`; raises only what `links` does."""
        assert self._watch is not None
        assert self._doorstep is not None
        with self._watch.batch():
            for link in links:
                self._open += 1
                self._doorstep.greet(link)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection from its first byte on; never raises, whatever the client does.

        It may return before the last one: a client on the fast lane needs no task.
        """
        self._open += 1
        await self._handle(stream)

    async def _handle(self, stream: trio.abc.Stream, begun: bytes = b"") -> None:
        lives_on = False
        try:
            lives_on = await self._guard(stream, partial(self._serve, begun=begun))
        finally:
            if not lives_on:
                self._connection_closed()

    def _connection_closed(self) -> None:
        self._open -= 1
        if not self._open:
            self._all_gone.set()
            self._all_gone = trio.Event()

    async def handle_metrics(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to the port of the numbers; never raises either."""
        await self._guard(stream, self._side_door.accept_upgrade)

    async def _guard(
        self, stream: trio.abc.Stream, serve_it: Callable[[trio.abc.Stream, str], Awaitable[object]]
    ) -> bool:
        """Serve a connection and close it, unless it lives on without this task; returns whether it does."""
        remote = remote_of(stream)
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(stream)
                if await serve_it(stream, remote) is HANDED_OVER:
                    stack.pop_all()
                    return True
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away in mid-sentence
        except* Exception as group:  # noqa: BLE001  a fault in serving one client is not the others' business
            self.tell(serve.InternalError(remote, repr(group.exceptions)))
        return False

    def stop(self) -> None:
        """Tell every client that the relay stops, and end its connection once it has read that."""
        self._stopping = True
        self._door.stop()
        self.do(self._lobby.shut_down())
        self._returning.stop()
        for connection in self._sockets():
            connection.end(CloseReason("shutdown", 1001, "The relay is stopping; connect again soon"))
        self._returning.dismiss()

    async def wait_closed(self) -> None:
        """Wait until no client's connection is open."""
        while self._open:
            await self._all_gone.wait()

    def _settle(self, upgrade: Upgrade) -> Upgrade | HttpError:
        return self._returning.find(upgrade) or ensure_id_free(upgrade, self._lobby.__contains__)

    async def _serve(self, stream: trio.abc.Stream, remote: str, begun: bytes) -> object:
        visitor = await self._door.accept_upgrade(stream, remote, begun)
        if visitor is None:
            return None
        if self._watch is not None and isinstance(stream, SocketStream):
            self._serve_on_epoll(stream, visitor)
            return HANDED_OVER
        await self._welcome(stream, visitor)
        return None

    def _serve_in_task(self, link: SocketStream, begun: bytes) -> None:
        assert self._watch is not None
        self._watch.start_soon(self._handle, link, begun)

    def _failed(self, link: SocketStream, fault: Exception) -> None:
        link.close()
        self.tell(serve.InternalError(link.remote, repr((fault,))))
        self._connection_closed()

    def _serve_on_epoll(self, link: SocketStream, visitor: AcceptedUpgrade) -> None:
        """Serve a client, from now until `on_closed`, without a task."""
        assert self._watch is not None
        host = self._host(visitor)
        connection = EpollConnection(link, visitor.behind, self._watch, self._limits, host, self._held)
        host.sit(connection, visitor)
        connection.start(visitor.upgrade)

    async def _welcome(self, stream: trio.abc.Stream, visitor: AcceptedUpgrade) -> None:
        host = self._host(visitor)
        tap = ValidatingStream(stream, visitor.upgrade.head(), visitor.behind, self._limits, host)
        connection = TrioWebSocketConnection(tap, self._limits, host, self._held)
        try:
            host.sit(connection, visitor)
            await connection.run(visitor.upgrade)
        finally:
            connection.end(CUT)
            host.leave()

    def _host(self, visitor: AcceptedUpgrade) -> ClientSession | SessionSocket:
        upgrade = visitor.upgrade
        if upgrade.returns:
            return self._returning.reattach(visitor)
        client_id = upgrade.client_id or make_id(os.urandom)
        now = trio.current_time()
        quota = ClientRateLimit(self._limits.rate, now, self._guesses, visitor.address)
        if upgrade.asked.numbered:
            return self._returning.create(client_id, visitor, quota)
        return ClientSession(self, client_id, visitor, quota, now)

    def enter(self, guest: ClientSession, upgrade: Upgrade, resume_token: str | None = None) -> None:
        """Let a client in before its WebSocket opens: nobody else can take the name meanwhile."""
        grant, asked = upgrade.grant, upgrade.asked
        joined = self._lobby.join(
            guest.client_id,
            self._ice.tell(guest.client_id, grant.ice_servers),
            grant if grant.pair is not None else None,
            resume_token or UNSET,
            False if asked.numbered or asked.token is not None else UNSET,
        )
        self._census.enter(guest.address)
        self._guests[guest.client_id] = guest
        self.tell(serve.ClientConnected(guest.client_id, guest.remote))
        self.do(joined)

    def reattach_client(self, guest: ClientSession, visitor: AcceptedUpgrade) -> tuple[list[IceServer], str | None]:
        """Let a client come back, perhaps from elsewhere; returns its ICE servers and its peer."""
        grant = visitor.upgrade.grant
        self._census.leave(guest.address)
        self._census.enter(visitor.address)
        guest.address, guest.remote = visitor.address, visitor.remote
        self.keep(guest.client_id, 0)
        self._lobby.renew(guest.client_id, grant if grant.pair is not None else None)
        return self._ice.reissue(guest.client_id, grant.ice_servers), self._lobby.peer_of(guest.client_id)

    def leave(self, guest: ClientSession, departure: CloseReason, lost: Iterable[FrameSender]) -> None:
        """Let a client go that has no connection any more."""
        self._census.leave(guest.address)
        guest.notify_undelivered(lost)
        ms = round((trio.current_time() - guest.began) * 1000, 3)
        self.tell(serve.ClientDisconnected(guest.client_id, departure.code, departure.text, ms))

    def over(self, leaver: ClosedSocket, fault: Exception | None) -> None:
        """Let a client go whose connection had no task."""
        try:
            leaver.leave()
        except Exception as own:  # noqa: BLE001  a fault in serving one client is not the others' business
            fault = own
        if fault is not None:
            self.tell(serve.InternalError(leaver.remote, repr((fault,))))
        self._connection_closed()

    def take(self, guest: ClientSession, frame: str | bytes, now: float) -> int:
        """Take a message of a client; returns how many wait in the fullest outbox that it put something into."""
        try:
            effects = self._lobby.take(guest.client_id, self._message_in(guest.client_id, frame, guest.quota, now))
        except Refusal as refusal:
            return self.refuse(guest, refusal, now)
        return self.do(effects, guest, now)

    def relay_fast(self, guest: ClientSession, data: bytes, now: float) -> bool:
        """Take an offer, answer or candidate as nearly all are, and do at once what `take` would lead to.

        Returns False if there is anything else about it; nothing has been done then.
        """
        glance = None if self._log_sdp else messages.try_fast_parse(data)
        if glance is None:
            return False
        peer_id = self._lobby.peer_of(guest.client_id)
        if peer_id is None or (glance.peer_id is not UNSET and glance.peer_id != peer_id):
            return False
        connection = self._guests[peer_id].connection
        if connection is None or not (guest.quota.unlimited or guest.quota.takes(now)):
            return False
        self._doing = True  # what this leads to, as when the socket has gone, is done behind it
        try:
            if connection.relay(data, guest, now):
                self._note_relayed(guest, peer_id, glance.type, len(data))
        finally:
            self._doing = False
        if self._todo or self._held.bytes > self._limits.max_queued_bytes:
            self.do(())
        return True

    def _note_relayed(self, guest: ClientSession, peer_id: str, kind: str, size: int) -> None:
        """Count and log a relayed frame."""
        numbers = self.numbers
        numbers.relayed[kind] += 1
        numbers.relayed_bytes += size
        self._log.emit(serve.Relayed(kind, guest.client_id, peer_id, size))

    def refuse(self, guest: ClientSession, refusal: Refusal, now: float) -> int:
        """Answer a message that could not be taken, or let the client go that sends too much."""
        if guest.quota.exhausted:
            guest.disconnect_rate_limited()
            return 0
        return self.do(self._lobby.refuse(guest.client_id, refusal), guest, now)

    def _message_in(self, client_id: str, frame: str | bytes, quota: ClientRateLimit, now: float) -> ClientMessage:
        allowed = quota.unlimited or quota.allows(now)
        if isinstance(frame, bytes):
            raise messages.binary_refused()
        message = messages.parse(frame)
        if not allowed or (type(message) is PairRequest and not self._may_ask(client_id, message, quota, now)):
            raise messages.rate_limited(message)
        return message

    def _may_ask(self, client_id: str, message: PairRequest, quota: ClientRateLimit, now: float) -> bool:
        """Tell whether a request to be paired may be looked at: guesses at IDs are slowed."""
        allowed = quota.allows_pair_request(now)
        if not self._lobby.shows(client_id, message.target_id):
            quota.note_unknown_target(now)
        return allowed

    def renew_ice_servers(self) -> None:
        """Send new credentials to some of those whose old ones are about to end."""
        for client_id, ice_servers in self._ice.due():
            self.do([Deliver(client_id, messages.encode(messages.IceServers(ice_servers)))])

    def keep(self, client_id: str, size: int) -> None:
        """Note what is kept of a client's unfinished message; who makes most be kept goes when it is too much."""
        too_much = self._unfinished.note(client_id, size)
        if too_much is not None and (socket := self._guests[too_much].socket) is not None:
            socket.end(from_violation(UNFINISHED))

    def part(self, guest: ClientSession, reason: DisconnectReason) -> None:
        """Let a client leave the lobby, and its peer hear of it."""
        client_id = guest.client_id
        guest.told = self._guests.get(self._lobby.peer_of(client_id) or "")
        del self._guests[client_id]
        self._ice.forget(client_id)
        self._unfinished.note(client_id, 0)
        self.numbers.departed(reason)
        self.do(self._lobby.leave(client_id, reason))

    def do(self, effects: Sequence[Effect], sender: ClientSession | None = None, now: float = 0.0) -> int:
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
                depth = self._do_one(effect, sender, now)
                if depth > deepest:  # noqa: PLR1730  `max` is a call
                    deepest = depth
            while self._todo:
                deepest = max(deepest, self._do_one(*self._todo.popleft()))
        finally:
            self._doing = False
        if self._held.bytes > self._limits.max_queued_bytes:
            self._evict_slowest()
        return deepest

    def _do_one(self, effect: Effect, sender: ClientSession | None, now: float) -> int:
        if isinstance(effect, Record):
            self.tell(effect.event)
            return 0
        guest = self._guests.get(effect.client_id)
        if guest is None:
            return 0  # an effect before this one let it go
        connection = guest.connection
        if connection is None:
            assert isinstance(guest, ResumableSession)
            return self._returning.deliver(guest, effect, sender, now)
        event = effect.event
        if event is None:
            return connection.post(effect.text, None, now)
        depth = connection.post(effect.text, sender, now)
        if depth:
            self.numbers.note(event)
            self._log.emit(event)
        return depth

    def _evict_slowest(self) -> None:
        """Keep what waits for all clients bounded: who lets most wait for longest goes.

        Neither the size alone, which may have come just now, nor the time alone, which costs little where little waits. Of
        those that have not read for a while more go than have to: to look at all clients for each frame would be a way to
        stall the relay.
        """
        now, limit = trio.current_time(), self._limits.max_queued_bytes

        def burden(client: ClientConnection) -> tuple[float, int]:
            return client.outbox.bytes * (now - client.outbox.last_progress), client.outbox.bytes

        for client in sorted(self._sockets(), key=burden, reverse=True):
            enough = limit * ROOM if now - client.outbox.last_progress > WHILE_SECONDS else limit
            if self._held.bytes <= enough:
                return
            client.end(SLOW_CONSUMER)

    def _sockets(self) -> list[ClientConnection]:
        """Return the connections of all clients that have one."""
        return [guest.socket for guest in self._guests.values() if guest.socket is not None]

    def _present(self) -> RelaySnapshot:
        waiting = [len(connection.outbox) for connection in self._sockets()]
        return RelaySnapshot(
            connections=self._open,
            clients=len(self._lobby),
            pairs=self._lobby.pairs,
            send_queue_frames=sum(waiting),
            send_queue_bytes=self._held.bytes,
            outbox_frames_max=max(waiting, default=0),
            log_lines_dropped=self._log.total_dropped,
            away=self._returning.present(),
        )


def _parse_request(pages: Pages, request: h11.Request | Upgrade) -> Upgrade | HttpResponse | HttpError:
    return request if isinstance(request, Upgrade) else parse_upgrade(request, pages)


def _parse_metrics_request(pages: Pages, request: h11.Request | Upgrade) -> HttpResponse | HttpError:
    assert isinstance(request, h11.Request)  # nothing is plain at that port
    return parse_plain_request(request, pages)
