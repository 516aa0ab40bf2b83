"""The relay: the rate limit and the pairing table decide about a frame, and the results go into send queues.

- `on_frame` is the one way of every client message. Between reading a frame and queueing it for its receiver there is no
  checkpoint: frames keep their order, and the effects of one decision are executed before the next one is made.
- Rules are in `sdpx.relay.core`; `sdpx.relay.effects` executes their effects, and `sdpx.relay.resume` has the connections and
  timers of resumable sessions.
"""

import os
import time
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import trio
from msgspec import UNSET

from sdpx.concurrency import RepeatedEvent
from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.ice_servers import RtcIceServer
from sdpx.ids import make_id
from sdpx.log import Log
from sdpx.protocol import codec
from sdpx.protocol.messages import ClientMessage, DisconnectReason, Frame, IceServers, YourId
from sdpx.relay import delivery
from sdpx.relay.auth.tokens import Grant
from sdpx.relay.auth.turn import IceServerIssuer
from sdpx.relay.client import AcceptedUpgrade, ClientSession
from sdpx.relay.cluster.effects import RemoteSender
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.overload import PartialMessageBudget, QueuedBytes
from sdpx.relay.core.pairing import Effect, PairingTable, PairPolicy, Send
from sdpx.relay.core.rate_limit import AddressLimit, ClientRateLimit, ConnectionCounts, admit
from sdpx.relay.core.sessions import ResumeRequest
from sdpx.relay.core.stats import RelaySnapshot, RelayStats
from sdpx.relay.effects import EffectExecutor
from sdpx.relay.resume import ResumeManager
from sdpx.relay.suspension import SuspensionDetector
from sdpx.relay.websocket.close_reasons import (
    DISCONNECTED,
    PARTIAL_MESSAGES,
    RATE_EXCEEDED,
    SHUTDOWN,
    TOO_FAST,
    CloseReason,
)
from sdpx.relay.websocket.connection import Connection, ConnectionHandler
from sdpx.relay.websocket.validator import Violation

if TYPE_CHECKING:
    from collections.abc import Callable


class Relay:
    """All clients of one relay.

    The `Acceptor` asks `find_session`, `has_client` and `counts` about an ID that a client wants; to open a WebSocket it calls
    `open_session`, makes a connection with `handler` and the session, and calls `connect`.
    """

    is_clustered: ClassVar[bool] = False

    def __init__(
        self,
        limits: Limits,
        log: Log,
        *,
        log_sdp: bool = False,
        ice: IceServerIssuer | None = None,
    ) -> None:
        self._limits = limits
        self.resume_window = limits.resume_window  # seconds for which a client that was cut off keeps its ID
        self._ice = ice or IceServerIssuer(time.time)
        self._log = log
        self._log_sdp = log_sdp
        self._relayed_head = "" if log_sdp else log.head_of(serve.Relayed)
        self._table = PairingTable(is_complete=not self.is_clustered)
        self._sessions: dict[str, ClientSession] = {}
        self._suspension = SuspensionDetector(self.log_event)
        resumed_at = self._suspension.resumed_at
        self._resume = ResumeManager(
            limits, self._sessions, self.log_event, self._end_suspended, resumed_at, self.is_clustered
        )
        self.queued = QueuedBytes()
        self._effects = EffectExecutor(
            limits.max_queued_bytes, self._sessions, self._resume, self.queued, self.log_event
        )
        self._execute = self._effects.execute
        self._unknown_targets = AddressLimit(limits.unknown_target_rate)
        self._partial_messages = PartialMessageBudget[str](limits.max_partial_bytes)
        self.batch: Callable[[], AbstractContextManager[None]] = nullcontext  # of the engine: writes follow at its end
        self.stats = RelayStats()
        self.counts = ConnectionCounts(limits.max_clients, limits.max_clients_per_ip)
        self.handler = ConnectionHandler(
            self.on_frame,
            self.on_non_message_frames,
            self.on_partial_message,
            self.stats.count_relay_time,
            self.on_disconnected,
            self.on_closed,
            resumed_at,
        )
        self._open = 0
        self._all_closed = RepeatedEvent()

    @property
    def clients(self) -> int:
        """The number of clients that have an ID."""
        return len(self._table)

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return self._table.pairs

    def describe_clients(self, count: int) -> list[dict[str, str | float | bool | None]]:
        """Return the first clients, for an administrator: ID, address, peer, seconds since the connection, suspended."""
        now = trio.current_time()
        return [
            {
                "id": each.client_id,
                "remote": each.remote,
                "peer": self._table.peer_of(each.client_id),
                "seconds": round(now - each.began, 1),
                "suspended": each.connection is None,
            }
            for each in islice(self._sessions.values(), count)
        ]

    def disconnect(self, client_id: str) -> bool:
        """End the session of a client for an administrator; False if there is none."""
        session = self._sessions.get(client_id)
        if session is None:
            return False
        if session.connection is not None:
            session.connection.end(DISCONNECTED)
        else:
            self._end_suspended(session, DISCONNECTED.reason, DISCONNECTED.text)
        return True

    def log_event(self, event: Event) -> None:
        """Count an event and log it."""
        self.stats.count(event)
        self._log.emit(event)

    @property
    def is_degraded(self) -> bool:
        """Whether new clients are refused because the cluster cannot be reached."""
        return False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the timers of resumable sessions, and notice suspensions of the process, for ever."""
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._suspension.run)
            nursery.start_soon(self._resume.run)

    async def drain(self) -> None:
        """Do the work between `stop` and the end of the connections: none without a cluster."""

    def stop(self) -> None:
        """End every session and connection because the relay stops."""
        self._execute(self._table.shut_down())
        self._resume.stop()
        for connection in self._effects.connections():
            connection.end(SHUTDOWN)
        self._resume.end_all_suspended()

    def send_ice_servers(self, client_id: str, ice_servers: list[RtcIceServer]) -> None:
        """Send a client new ICE servers."""
        self._execute([Send(client_id, IceServers([dict(server) for server in ice_servers]))])

    def snapshot(self) -> RelaySnapshot:
        """Return the present values of the gauges, for the metrics."""
        queued_frames = [len(connection.queue) for connection in self._effects.connections()]
        return RelaySnapshot(
            connections=self._open,
            clients=len(self._table),
            pairs=self._table.pairs,
            send_queue_frames=sum(queued_frames),
            send_queue_bytes=self.queued.bytes,
            send_queue_frames_max=max(queued_frames, default=0),
            log_lines_dropped=self._log.total_dropped,
            resume=self._resume.snapshot(),
        )

    # ---- connections, for the acceptor

    def connection_opened(self) -> None:
        """Count an accepted connection, which has no WebSocket yet."""
        self._open += 1

    def connection_closed(self) -> None:
        """Note the end of a connection."""
        self._open -= 1
        if not self._open:
            self._all_closed.set()

    async def wait_closed(self) -> None:
        """Wait until no client's connection is open."""
        while self._open:
            await self._all_closed.wait()

    async def fetch_session(self, _request: ResumeRequest, _bound_id: str | None) -> bool:
        """Bring the session that a request resumes to this relay; False if it cannot be reached now."""
        return True

    async def register(self, _client_id: str) -> str:
        """Reserve the ID of a new client in the cluster: `registered`, `taken` or `unavailable`."""
        return "registered"

    def unregister(self, client_id: str) -> None:
        """Free a reserved ID without a client."""

    def find_session(self, request: ResumeRequest, bound_id: str | None = None) -> str | None:
        """Return the ID of the session that a request resumes; None without one, or if it differs from `bound_id`."""
        return self._resume.find(request, bound_id)

    def has_client(self, client_id: str) -> bool:
        """Return whether a client has this ID."""
        return client_id in self._table

    def open_session(self, accepted: AcceptedUpgrade, now: float) -> ClientSession:
        """Return the session of a new client, or the one that is resumed; `connect` follows before any other task runs."""
        if accepted.is_resumed:
            assert accepted.client_id is not None
            return self._sessions[accepted.client_id]
        rate_limit = ClientRateLimit(self._limits.rate, now, self._unknown_targets, accepted.address)
        client_id = accepted.client_id or make_id(os.urandom)
        return ClientSession(client_id, accepted.remote, accepted.address, rate_limit, now)

    def connect(self, session: ClientSession, connection: Connection, accepted: AcceptedUpgrade, now: float) -> None:
        """Give a session its connection before the WebSocket opens; `your_id` is the first frame in its queue."""
        if accepted.is_resumed:
            self._reconnect(session, connection, accepted)
            return
        grant, resume = accepted.grant, accepted.upgrade.resume
        session.connection = connection
        joined = self._table.join(
            session.client_id,
            self._ice.issue(session.client_id, grant.ice_servers),
            _policy(grant),
            self._resume.open(session) if resume.numbered else UNSET,
            False if resume.numbered or resume.token is not None else UNSET,
        )
        self.counts.enter(session.address)
        self._sessions[session.client_id] = session
        self.log_event(serve.ClientConnected(session.client_id, session.remote))
        self._execute(joined, now)

    def _reconnect(self, session: ClientSession, connection: Connection, accepted: AcceptedUpgrade) -> None:
        self.counts.leave(session.address)
        self.counts.enter(accepted.address)
        session.address, session.remote = accepted.address, accepted.remote
        self._partial_messages.update(session.client_id, 0)
        self._table.set_policy(session.client_id, _policy(accepted.grant))
        ice_servers = self._ice.reissue(session.client_id, accepted.grant.ice_servers)
        peer_id = self._table.peer_of(session.client_id)
        your_id = YourId(
            session.client_id, ice_servers=UNSET if ice_servers is None else ice_servers, resumed=True, peer_id=peer_id
        )
        self._resume.resume(session, connection, accepted.upgrade.resume, your_id)

    # ---- callbacks of the engines (`ConnectionHandler`)

    def on_frame(self, session: ClientSession, frame: bytes | None, now: float) -> int:
        """Handle one message of a client; returns the number of frames in the fullest send queue that it was put into."""
        try:
            if session.replay is not None and not self._resume.accept(session, frame, now):
                return 0
            message = admit(frame, session.client_id, session.rate_limit, self._table, now)
            if type(message) is Frame:
                return self._forward(message, session, now)
            effects = self._handle(session, message, now)
        except Refusal as refusal:
            if session.rate_limit.exhausted:
                if session.connection is not None:
                    session.connection.end(TOO_FAST)
                return 0
            effects = self._table.refuse(session.client_id, refusal)
        return self._execute(effects, now)

    def _handle(self, session: ClientSession, message: ClientMessage, _now: float) -> list[Effect]:
        return self._table.handle(session.client_id, message)

    def _forward(self, frame: Frame, sender: ClientSession, now: float) -> int:
        """Send a frame to the sender's peer, and log it once the send queue or the replay buffer has accepted it."""
        receiver_id = self._table.route(sender.client_id, frame)
        if receiver_id is None:
            return self._execute(self._table.refuse_frame(sender.client_id, frame), now)
        receiver = self._sessions[receiver_id]
        accepted, depth = self._effects.forward(receiver, frame.body, frame.body_without_seq, sender, now)
        if accepted:
            self._log_relayed(frame, sender, receiver_id)
        self._effects.execute_pending()
        return depth

    def _log_relayed(self, frame: Frame, sender: ClientSession, receiver_id: str) -> None:
        """Count a relayed frame and log it; of the line only the size is new, as a rule."""
        kind = frame.type
        self.stats.relayed[kind] += 1
        self.stats.relayed_bytes += frame.size
        if self._relayed_head:
            last_kind, last_id, line = sender.last_relayed
            if kind != last_kind or receiver_id != last_id:
                line = self._relayed_head + serve.Relayed.rendered(kind, sender.client_id, receiver_id)
                sender.last_relayed = kind, receiver_id, line
            self._log.emit_rendered(line, frame.size)
        else:
            sdp = codec.sdp_of(frame) if self._log_sdp else UNSET
            self._log.emit(serve.Relayed(kind, sender.client_id, receiver_id, frame.size, sdp))

    def on_non_message_frames(self, session: ClientSession, count: int, now: float) -> Violation | None:
        """Count control frames and fragments as messages, which cost as much. Single ones over the rate are ignored."""
        session.rate_limit.allows(now, count)
        return RATE_EXCEEDED if session.rate_limit.exhausted else None

    def on_partial_message(self, session: ClientSession, size: int) -> None:
        """Count the bytes of a client's incomplete message, and disconnect the client with the most if all have too many."""
        largest = self._partial_messages.update(session.client_id, size, trio.current_time())
        if largest is not None and (connection := self._sessions[largest].connection) is not None:
            connection.end(PARTIAL_MESSAGES)

    def on_disconnected(self, session: ClientSession, connection: object, close_reason: CloseReason) -> None:
        """Suspend the session of a connection that ends, or remove its client; ignore a connection that was superseded."""
        if session.connection is not connection:
            return
        if session.replay is not None and self._resume.suspends(session, close_reason):
            self._partial_messages.update(session.client_id, 0)
            self.log_event(serve.ClientSuspended(session.client_id, close_reason.code, close_reason.text))
            self._resume.suspend(session, close_reason)
        else:
            self._remove(session, close_reason.reason)
            delivery.drop_read_frames(session, close_reason)

    def on_closed(self, session: ClientSession, connection: object, fault: Exception | None) -> None:
        """Release the client of a connection whose socket is closed."""
        try:
            self.release(session, connection)
        except Exception as own:  # noqa: BLE001  a fault in serving one client must not end the others
            fault = own
        if fault is not None:
            self.log_event(serve.InternalError(session.remote, repr((fault,))))
        self.connection_closed()

    # ---- ends

    def _remove(self, session: ClientSession, reason: DisconnectReason) -> None:
        """Remove a client from the pairing table; its peer is notified."""
        client_id = session.client_id
        session.last_peer = self._sessions.get(self._table.peer_of(client_id) or "")
        del self._sessions[client_id]
        if session.replay is not None:
            session.unacknowledged = self._resume.store.end(session.replay)
        self._ice.forget(client_id)
        self._partial_messages.update(client_id, 0)
        self.stats.count_eviction(reason)
        self._execute(self._table.leave(client_id, reason))

    def release(self, session: ClientSession, connection: object) -> None:
        """Finish the session of a removed client once its last connection is closed."""
        if session.connection is connection and session.connection is not None:
            assert session.connection.close_reason is not None
            self._finish(session, session.connection.close_reason)

    def _finish(self, session: ClientSession, close_reason: CloseReason) -> None:
        self.counts.leave(session.address)
        for sender in delivery.senders_to_notify(session):
            self._notify_undelivered(sender, session.client_id)
        ms = round((trio.current_time() - session.began) * 1000, 3)
        self.log_event(serve.ClientDisconnected(session.client_id, close_reason.code, close_reason.text, ms))
        session.release()

    def _notify_undelivered(self, sender: ClientSession | RemoteSender, receiver_id: str) -> None:
        if self._sessions.get(sender.client_id) is sender:
            self._execute([Send(sender.client_id, delivery.peer_unreachable(receiver_id))])

    def _end_suspended(self, session: ClientSession, reason: DisconnectReason, text: str) -> None:
        """Remove and finish a session that has no connection."""
        assert session.suspended_by is not None
        self._remove(session, reason)
        self._finish(session, CloseReason(reason, session.suspended_by.code, text))


def _policy(grant: Grant) -> PairPolicy | None:
    return None if grant.pair is None else grant.may_ask
