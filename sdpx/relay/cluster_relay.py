"""The relay as a node of a cluster: executes the decisions of `sdpx.relay.cluster.node`.

- A client whose frames are relayed directly is served as without a cluster. `ClientSession.indirect` is set while they are not:
  by a `pair_request` until the answer comes, and frames behind it are held as they came, unread; by a peer on another node
  for the whole pairing.
- Sessions that move are in `sdpx.relay.cluster_sessions`.
- On shutdown sessions with sequence numbers move; all other clients are disconnected as without a cluster.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

import trio
from msgspec import structs

from sdpx.concurrency import POLL_SECONDS, RepeatedEvent
from sdpx.events import serve
from sdpx.protocol.messages import ClientMessage, DisconnectReason, ErrorFrame, Frame, PairRequest, Unpair
from sdpx.relay import delivery
from sdpx.relay.client import AcceptedUpgrade, ClientSession
from sdpx.relay.cluster import effects as node_effects
from sdpx.relay.cluster.directory import Directory, Entry, Handler, Verdict
from sdpx.relay.cluster.effects import RemoteSender
from sdpx.relay.cluster_sessions import MovingSessions
from sdpx.relay.core.pairing import LOGGED_ID_LENGTH, Effect, Send
from sdpx.relay.core.stats import ClusterSnapshot, RelaySnapshot
from sdpx.relay.websocket.close_reasons import ID_LOST, RESTARTING, SHUTDOWN, TOO_FAST, CloseReason
from sdpx.relay.websocket.connection import Connection

CONFIRM_SECONDS: Final = 1.0  # for other nodes to come back to an engine that lost its data
MOVE_SECONDS: Final = 2.0  # for the last session to be out, after the drain timeout
SPREAD: Final = 0.9  # of the drain timeout, over which sessions move
TICK_SECONDS: Final = 0.25


@dataclass
class Leaving:
    """The end of a connection whose client's last frames are held: they are handled first."""

    connection: object
    close_reason: CloseReason
    is_closed: bool = False


class ClusterRelay(MovingSessions):
    """All clients of one node."""

    def __init__(self, directory: Directory, *relay: object, **options: object) -> None:
        super().__init__(directory, *relay, **options)
        self._held_bytes = Counter[str]()
        self._leaving: dict[str, Leaving] = {}
        self._degraded_since = 0.0
        self._confirm_at: float | None = None
        self._engine_changed = RepeatedEvent()  # it is lost, or has come back
        directory.engine_seconds = self.stats.cluster.count_engine_time

    @property
    def is_degraded(self) -> bool:
        """Whether the engine cannot be reached."""
        return self._directory.status == "degraded"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Enter the cluster, then report by `task_status`, and stay in it. Raises an `Ending` if it cannot enter."""

        def joined(node: str, nodes: int) -> None:
            self.log_event(serve.ClusterJoined(node, nodes))
            task_status.started()

        handler = Handler(self._receive, joined, self._degraded, self._restored, self._node_lost)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(super().run)
            nursery.start_soon(self._tick)
            await self._directory.run(handler)

    async def _tick(self) -> None:
        while True:
            while self._directory.status != "degraded" and self._confirm_at is None:
                await self._engine_changed.wait()
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            if self._confirm_at is not None and now >= self._confirm_at:
                self._confirm_at = None
                self._node.confirm()
            self._give_up(now)

    def snapshot(self) -> RelaySnapshot:
        """Return the present values of the gauges, for the metrics."""
        cluster = ClusterSnapshot(self._directory.nodes, self._node.remote_pairs)
        return structs.replace(super().snapshot(), cluster=cluster)

    def connect(self, session: ClientSession, connection: Connection, accepted: AcceptedUpgrade, now: float) -> None:
        """Give a session its connection before the WebSocket opens."""
        super().connect(session, connection, accepted, now)
        if not accepted.is_resumed:
            self._run(self._node.open(session.client_id))

    # ---- frames of clients

    def on_frame(self, session: ClientSession, frame: bytes | None, now: float) -> int:
        """Handle one message of a client, or hold it behind the client's `pair_request`."""
        if session.indirect is None or not session.indirect.request:
            return super().on_frame(session, frame, now)
        held = self._held.setdefault(session.client_id, [])
        self._held_bytes[session.client_id] += len(frame or b"")
        is_full = self._held_bytes[session.client_id] > self._limits.send_queue_bytes
        if session.connection is not None and (is_full or len(held) >= self._limits.send_queue_frames):
            session.connection.end(TOO_FAST)
        held.append((frame, now))
        return 0

    def _release(self, session: ClientSession) -> None:
        """Handle the frames that were held; those behind another `pair_request` are held again."""
        client_id, connection = session.client_id, session.connection
        leaving = self._leaving.pop(client_id, None)
        self._held_bytes.pop(client_id, None)
        for frame, now in self._held.pop(client_id, ()):
            if leaving is not None or (connection is not None and connection.close_reason is None):
                self.on_frame(session, frame, now)
        if leaving is not None and client_id in self._held:
            self._leaving[client_id] = leaving
        elif leaving is not None:
            super().on_disconnected(session, leaving.connection, leaving.close_reason)
            if leaving.is_closed:
                self.release(session, leaving.connection)

    def _handle(self, session: ClientSession, message: ClientMessage, now: float) -> list[Effect]:
        client_id = session.client_id
        member = self._node.members[client_id]
        if not isinstance(message, PairRequest):
            effects = super()._handle(session, message, now)
            if isinstance(message, Unpair):
                self._node.unpair(member)
                self._settle()
            return effects
        requested = serve.PairRequested(client_id, message.target_id[:LOGGED_ID_LENGTH])
        code = self._table.own_refusal(client_id, message.target_id)
        if code is None and self._directory.status != "joined":
            code = "engine_unavailable"
        if code is not None:
            return [requested, *self._table.refuse_pair(client_id, message.target_id, code)]
        self._node.request_pair(member, message.target_id)
        self._settle()
        return [requested]

    def _forward(self, frame: Frame, sender: ClientSession, now: float) -> int:
        """Send a frame to the sender's peer, directly or by way of the engine."""
        if sender.indirect is None:
            return super()._forward(frame, sender, now)
        client_id, kind = sender.client_id, frame.type
        receiver_id = self._table.route(client_id, frame)
        if receiver_id is None:
            return self._execute(self._table.refuse_frame(client_id, frame), now)
        effects = self._node.forward(sender.indirect, frame.body, frame.body_without_seq, now)
        if effects is None:
            error = ErrorFrame("peer_unreachable", f"Too many frames wait for '{receiver_id}'", in_reply_to=kind)
            refused = serve.RelayRefused(kind, client_id, receiver_id, "peer_unreachable")
            return self._execute([Send(client_id, error), refused], now)
        self._log_relayed(frame, sender, receiver_id)
        self.stats.cluster.frames_out += 1
        self._run(effects)
        return 0

    # ---- ends

    def on_disconnected(self, session: ClientSession, connection: object, close_reason: CloseReason) -> None:
        """Suspend the session of a connection that ends, or remove its client, once its frames are handled."""
        is_suspended = session.replay is not None and self._resume.suspends(session, close_reason)
        if session.connection is connection and session.client_id in self._held and not is_suspended:
            self._leaving[session.client_id] = Leaving(connection, close_reason)
        else:
            super().on_disconnected(session, connection, close_reason)

    def release(self, session: ClientSession, connection: object) -> None:
        """Finish the session of a removed client once its last connection is closed."""
        leaving = self._leaving.get(session.client_id)
        if leaving is not None and leaving.connection is connection:
            leaving.is_closed = True
        else:
            super().release(session, connection)

    def _remove(self, session: ClientSession, reason: DisconnectReason) -> None:
        """Remove a client here and from the cluster; its peer is notified."""
        member = self._node.members[session.client_id]
        pairing = member.link.pairing if member.link is not None else ""
        peer_id = self._table.peer_of(session.client_id)
        self._held.pop(session.client_id, None)
        self._held_bytes.pop(session.client_id, None)
        super()._remove(session, reason)
        if session.last_peer is None and peer_id is not None:
            session.last_peer = RemoteSender(peer_id, pairing)
        self._node.remove(session.client_id, reason)
        self._settle()

    def _notify_undelivered(self, sender: ClientSession | RemoteSender, receiver_id: str) -> None:
        origin = self._origin(sender)
        if isinstance(sender, ClientSession) and sender.moved_as is None:
            super()._notify_undelivered(sender, receiver_id)
        elif origin is not None:
            self._directory.notify(*origin, receiver_id)

    def stop(self) -> None:
        """Disconnect the clients whose sessions cannot move; `drain` moves the others."""
        if self._directory.status != "joined":
            super().stop()
            return
        for session in [each for each in self._sessions.values() if not self._is_movable(each)]:
            client_id = session.client_id
            self._execute(self._table.shut_down_one(client_id))
            self._node.unpair(self._node.members[client_id], "shutdown")
            self._settle()
            if session.connection is not None:
                session.connection.end(SHUTDOWN)

    async def drain(self) -> None:
        """Move the sessions away, spread over the drain timeout, and leave the cluster."""
        began, chance = trio.current_time(), SystemRandom()
        times = sorted((chance.uniform(0, self._limits.drain_timeout * SPREAD), each) for each in self._sessions)
        for after, client_id in times:
            await trio.sleep_until(began + after)
            session = self._sessions.get(client_id)
            if session is not None and not self._node.members[client_id].is_frozen:
                self._move_out(session, RESTARTING)
        with trio.move_on_after(MOVE_SECONDS):
            while self._sessions or not self._directory.is_idle:  # noqa: ASYNC110  seldom, and short
                await trio.sleep(POLL_SECONDS)
        super().stop()
        self._directory.leave()
        with trio.move_on_after(MOVE_SECONDS):
            while not self._directory.is_idle:  # noqa: ASYNC110  seldom, and short
                await trio.sleep(POLL_SECONDS)

    # ---- the cluster

    def _receive(self, entries: list[Entry]) -> None:
        with self.batch():
            for entry in entries:
                try:
                    self._run(self._node.receive(entry))
                except Exception as fault:  # noqa: BLE001  a fault in serving one client must not end the others
                    self.log_event(serve.InternalError(entry.client_id, repr((fault,))))

    def _degraded(self, reason: str) -> None:
        self._degraded_since = trio.current_time()
        self._engine_changed.set()
        self.log_event(serve.ClusterDegraded(reason))
        for request in self._requests.values():
            request.set("unavailable")
        self._requests.clear()
        self._run(self._node.degraded())

    def _give_up(self, now: float) -> None:
        effects = self._node.give_up(now)
        if lost := sum(isinstance(each, node_effects.Ended) for each in effects):
            self.log_event(serve.LeaseExpired(self._directory.node, lost))
        self._run(effects)

    def _restored(self, verdict: Verdict) -> None:
        now = trio.current_time()
        effects = self._node.restored(verdict)
        lost = sum(isinstance(each, node_effects.Ended) for each in effects)
        ms = round((now - self._degraded_since) * 1000, 3)
        self.log_event(serve.ClusterRestored(self._directory.node, ms, verdict.state, lost))
        if verdict.is_new and not verdict.is_removed:
            self._confirm_at = now + CONFIRM_SECONDS
            self._engine_changed.set()
        self._run(effects)

    def _node_lost(self, node: str, clients: int) -> None:
        self.log_event(serve.NodeLost(node, clients))

    def _run(self, effects: Iterable[node_effects.NodeEffect]) -> None:
        """Execute the effects of the node, and update the clients whose way of relaying they change."""
        for effect in effects:
            match effect:
                case node_effects.Deliver():
                    self._deliver(effect)
                case node_effects.Answered():
                    self._on_answered(effect)
                case node_effects.Asked():
                    self._on_asked(effect)
                case node_effects.Frozen(client_id):
                    self._on_frozen(client_id)
                case node_effects.Claimed():
                    self._on_claimed(effect)
                case node_effects.IdLost(client_id):
                    self._on_id_lost(client_id)
                case _:
                    self._execute(self._pairing_effects(effect))
        self._settle()

    def _pairing_effects(self, effect: node_effects.NodeEffect) -> list[Effect]:
        match effect:
            case node_effects.Paired(client_id, peer_id, is_initiator):
                return self._table.set_peer(client_id, peer_id, is_initiator=is_initiator)
            case node_effects.PairRefused(client_id, target_id, code):
                if code == "target_not_found":
                    self._sessions[client_id].rate_limit.count_miss(trio.current_time())
                return self._table.refuse_pair(client_id, target_id, code)
            case node_effects.Ended(client_id, reason):
                return self._table.end_by_peer(client_id, reason)
            case node_effects.Unread(client_id, receiver_id, is_peer):
                lost = ErrorFrame(
                    "peer_unreachable", f"A message did not reach the node of '{receiver_id}' in the cluster"
                )
                return [Send(client_id, lost if is_peer else delivery.peer_unreachable(receiver_id))]
        return []

    def _deliver(self, frame: node_effects.Deliver) -> None:
        """Queue a frame for its receiver that was not relayed directly: from another node, or behind such frames."""
        receiver, now = self._sessions.get(frame.client_id), trio.current_time()
        if receiver is None:
            return
        self.stats.cluster.frames_in += 1
        if receiver.replay is not None or receiver.connection is not None:
            self._effects.forward(receiver, frame.body, frame.body_without_seq, frame.sender, now)
        self._effects.execute_pending()

    def _on_id_lost(self, client_id: str) -> None:
        session = self._sessions.get(client_id)
        if session is None:
            self.unregister(client_id)
        elif session.connection is not None:
            session.connection.end(ID_LOST)
        else:
            self._end_suspended(session, "refused", ID_LOST.text)

    def _settle(self) -> None:
        """Set or clear `indirect` of the clients that may have changed, and handle the frames that were held for that."""
        touched = self._node.touched
        while touched:
            client_id = touched.pop()
            session, member = self._sessions.get(client_id), self._node.members.get(client_id)
            if session is not None and member is not None:
                session.indirect = None if self._node.is_direct(member) else member
                if not member.request and client_id in self._held:
                    self._release(session)
