"""The relay: lets clients in, asks the lobby, and does what it says.

Between a frame that a client's reader took and the outboxes that it ends in there is no checkpoint: so frames keep their
order, and what the lobby decides is done before anybody else can ask it.
"""

import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import trio
from msgspec import UNSET

from sdpx.concurrency import RepeatedEvent
from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.ice_servers import RtcIceServer
from sdpx.ids import make_id
from sdpx.log import Log
from sdpx.protocol import messages
from sdpx.protocol.messages import ClientMessage, DisconnectReason, PairRequest
from sdpx.relay.auth.turn import IceServerIssuer
from sdpx.relay.client import AcceptedUpgrade, ClientSession, ClosedSocket
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.pairing import Deliver, Effect, PairingTable, Record
from sdpx.relay.core.rate_limit import ClientRateLimit, ConnectionCounts, PartialMessageBudget, UnknownTargetLimit
from sdpx.relay.core.sessions import ResumeRequest
from sdpx.relay.core.stats import RelaySnapshot, RelayStats
from sdpx.relay.resume import ResumableSession, ResumeManager, SessionSocket
from sdpx.relay.websocket.handler import (
    SLOW_CONSUMER,
    ClientConnection,
    CloseReason,
    FrameSender,
    from_violation,
)
from sdpx.relay.websocket.send_queue import QueuedBytes
from sdpx.relay.websocket.validator import Violation

ROOM: Final = 0.75  # of what all may let wait, once it was too much
WHILE_SECONDS: Final = 2.0
UNFINISHED: Final = Violation(1008, "The relay keeps too much that is unfinished, and most of it is yours")


class Relay:
    """All clients of one relay, and the lobby that they meet in.

    The `Acceptor` brings the clients: it asks `find_session`, `has_client` and `counts` about an ID that a client wants, and opens
    the WebSocket of the client for whom it has called `open_session`.
    """

    def __init__(
        self,
        limits: Limits,
        log: Log,
        *,
        log_sdp: bool = False,
        ice: IceServerIssuer | None = None,
    ) -> None:
        self._limits = limits
        self._ice = ice or IceServerIssuer(time.time)
        self._log = log
        self._log_sdp = log_sdp
        self._lobby = PairingTable(log_sdp=log_sdp)
        self._guests: dict[str, ClientSession] = {}
        self._returning = ResumeManager(self, limits)
        self._todo: deque[tuple[Effect, ClientSession | None, float]] = deque()
        self._doing = False
        self.queued = QueuedBytes()
        self._guesses = UnknownTargetLimit(limits.unknown_target_rate)
        self._unfinished = PartialMessageBudget[str](limits.max_partial_bytes)
        self.numbers = RelayStats()
        self.counts = ConnectionCounts(limits.max_clients, limits.max_clients_per_ip)
        self._open = 0
        self._all_closed = RepeatedEvent()

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

    def stop(self) -> None:
        """Tell every client that the relay stops, and end its connection once it has read that."""
        self.do(self._lobby.shut_down())
        self._returning.stop()
        for connection in self._sockets():
            connection.end(CloseReason("shutdown", 1001, "The relay is stopping; connect again soon"))
        self._returning.dismiss()

    # ---- connections, for the acceptor

    def connection_opened(self) -> None:
        """Count an accepted connection, which has no WebSocket yet."""
        self._open += 1

    def connection_closed(self) -> None:
        """Count it no more."""
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    async def wait_closed(self) -> None:
        """Wait until no client's connection is open."""
        while self._open:
            await self._all_closed.wait()

    def find_session(self, request: ResumeRequest, bound_id: str | None = None) -> str | None:
        """Return the ID of the session that a request resumes; None if there is none, or another than the one with `bound_id`."""
        return self._returning.find(request, bound_id)

    def has_client(self, client_id: str) -> bool:
        """Tell whether a client has this ID."""
        return client_id in self._lobby

    def open_session(self, accepted: AcceptedUpgrade) -> ClientSession | SessionSocket:
        """Return the handler for the connection of a new client, or of one that resumes its session."""
        if accepted.is_resumed:
            return self._returning.reattach(accepted)
        client_id = accepted.client_id or make_id(os.urandom)
        now = trio.current_time()
        quota = ClientRateLimit(self._limits.rate, now, self._guesses, accepted.address)
        if accepted.upgrade.resume.numbered:
            return self._returning.create(client_id, accepted, quota)
        return ClientSession(self, client_id, accepted, quota, now)

    def enter(self, guest: ClientSession, visitor: AcceptedUpgrade, resume_token: str | None = None) -> None:
        """Let a client in before its WebSocket opens: nobody else can take the name meanwhile."""
        grant, asked = visitor.grant, visitor.upgrade.resume
        joined = self._lobby.join(
            guest.client_id,
            self._ice.issue(guest.client_id, grant.ice_servers),
            grant if grant.pair is not None else None,
            resume_token or UNSET,
            False if asked.numbered or asked.token is not None else UNSET,
        )
        self.counts.enter(guest.address)
        self._guests[guest.client_id] = guest
        self.tell(serve.ClientConnected(guest.client_id, guest.remote))
        self.do(joined)

    def reattach_client(self, guest: ClientSession, visitor: AcceptedUpgrade) -> tuple[list[RtcIceServer], str | None]:
        """Let a client come back, perhaps from elsewhere; returns its ICE servers and its peer."""
        grant = visitor.grant
        self.counts.leave(guest.address)
        self.counts.enter(visitor.address)
        guest.address, guest.remote = visitor.address, visitor.remote
        self.keep(guest.client_id, 0)
        self._lobby.renew(guest.client_id, grant if grant.pair is not None else None)
        return self._ice.reissue(guest.client_id, grant.ice_servers), self._lobby.peer_of(guest.client_id)

    def leave(self, guest: ClientSession, departure: CloseReason, lost: Iterable[FrameSender]) -> None:
        """Let a client go that has no connection any more."""
        self.counts.leave(guest.address)
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
        self.connection_closed()

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
        if self._todo or self.queued.bytes > self._limits.max_queued_bytes:
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

    def send_ice_servers(self, client_id: str, ice_servers: list[RtcIceServer]) -> None:
        """Send a client new ICE servers."""
        self.do([Deliver(client_id, messages.encode(messages.IceServers([dict(server) for server in ice_servers])))])

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
        if self.queued.bytes > self._limits.max_queued_bytes:
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
            if self.queued.bytes <= enough:
                return
            client.end(SLOW_CONSUMER)

    def _sockets(self) -> list[ClientConnection]:
        """Return the connections of all clients that have one."""
        return [guest.socket for guest in self._guests.values() if guest.socket is not None]

    def snapshot(self) -> RelaySnapshot:
        """Return the gauges of now, for the metrics."""
        waiting = [len(connection.outbox) for connection in self._sockets()]
        return RelaySnapshot(
            connections=self._open,
            clients=len(self._lobby),
            pairs=self._lobby.pairs,
            send_queue_frames=sum(waiting),
            send_queue_bytes=self.queued.bytes,
            outbox_frames_max=max(waiting, default=0),
            log_lines_dropped=self._log.total_dropped,
            away=self._returning.present(),
        )
