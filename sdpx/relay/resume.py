"""Resumable sessions: their connections and timers (protocol: Resume). The rules are in `sdpx.relay.core.sessions`.

- A session whose connection is lost without a close frame stays in the pairing table for the resume window, suspended. Every
  other end of its connection ends the session.
- A frame is numbered, kept in the replay buffer and queued as the same bytes: memory holds it once.
- One task sends the acks and ends the sessions that are due: `run`.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

import trio
from msgspec.structs import replace

from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.protocol import codec, sequence
from sdpx.protocol.messages import DisconnectReason, YourId
from sdpx.relay.client import ClientSession
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.replay_buffer import BufferState, FrameVerdict
from sdpx.relay.core.sessions import Eviction, ResumeRequest, SessionStore
from sdpx.relay.core.stats import ResumeSnapshot
from sdpx.relay.websocket.close_reasons import (
    CONNECTION_LOST,
    GAP,
    HANDSHAKE_ABORTED,
    SLOW_CONSUMER,
    SUPERSEDED,
    TOO_FAST,
    CloseReason,
    is_connection_loss,
)
from sdpx.relay.websocket.connection import Connection
from sdpx.relay.websocket.fast_parser import text_frame

EXPIRED: Final = "The client did not resume in time"
EVICTED: Final = "The replay buffers were full"
STOPPING: Final = "The relay is stopping"


@dataclass(slots=True, eq=False, repr=False)
class ResumeManager:
    """The resumable ones among the `sessions` of a relay.

    `log` takes events. `end_suspended` removes a session that has no connection, for a reason and with a sentence for the log.
    `resumed_at` is that of `SuspensionDetector`.
    """

    _limits: Limits
    _sessions: Mapping[str, ClientSession]
    _log: Callable[[Event], None]
    _end_suspended: Callable[[ClientSession, DisconnectReason, str], None]
    _resumed_at: Callable[[float], float]
    _has_id_in_token: bool = False
    _windows_from: float = -inf
    _timer: trio.CancelScope = field(default_factory=trio.CancelScope)
    _stopping: bool = False
    store: SessionStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = SessionStore(self._limits, secrets.token_bytes, has_id_in_token=self._has_id_in_token)

    def snapshot(self) -> ResumeSnapshot:
        """Return the present values of the gauges, for the metrics."""
        store = self.store
        return ResumeSnapshot(store.suspended, store.suspended_bytes, store.total.bytes, store.totals)

    # ---- open and resume

    def find(self, request: ResumeRequest, bound_id: str | None) -> str | None:
        """Return the ID of the session that a request resumes; None without one, or if it differs from `bound_id`."""
        if request.token is None or (buffer := self.store.find(request.token, request.last)) is None:
            return None
        return buffer.client_id if bound_id in (None, buffer.client_id) else None

    def open(self, session: ClientSession) -> str:
        """Make a new session resumable; returns its token."""
        session.replay, token = self.store.open(session.client_id)
        return token

    def resume(self, session: ClientSession, connection: Connection, request: ResumeRequest, your_id: YourId) -> None:
        """Move a session to a new connection, with `your_id` and the unacknowledged frames first; close the old connection."""
        assert request.token is not None
        superseded, session.connection = session.connection, connection
        session.is_resumed = True
        state = self.store.resume(request.token, request.last)
        first = replace(your_id, resume_token=state.token, client_seq=state.client_seq)
        connection.queue.put_all([text_frame(codec.encode(first)), *state.frames])
        self._log(serve.ClientResumed(session.client_id, session.remote, len(state.frames)))
        if superseded is not None:
            superseded.end(SUPERSEDED)

    # ---- frames

    def accept(self, session: ClientSession, frame: bytes | None, now: float) -> bool:
        """Check the number of a client's frame; returns whether the frame is to be handled. Raises `Refusal`."""
        buffer, connection = session.replay, session.connection
        assert buffer is not None
        assert connection is not None
        try:
            verdict = self.store.check(buffer, frame, now)
        except Refusal:
            session.rate_limit.allows(now)
            raise
        if buffer.ack_due is not None:
            self._wake_at(buffer.ack_due)
        if verdict is FrameVerdict.GAP:
            connection.end(GAP)
        elif verdict is FrameVerdict.DUPLICATE and not session.rate_limit.allows(now) and session.rate_limit.exhausted:
            connection.end(TOO_FAST)
        return verdict is FrameVerdict.ACCEPT

    def post(self, session: ClientSession, body: bytes, end: bytes, sender: object, now: float) -> tuple[bool, int]:
        """Give a frame its number, keep it, and queue it if there is a connection.

        `body` and `end` are the two parts of its JSON text. Returns whether the frame was kept, and the number of frames in the
        send queue. A session whose replay buffer is full is ended.
        """
        buffer, connection = session.replay, session.connection
        assert buffer is not None
        data = text_frame(body, sequence.with_seq(end, buffer.sent + 1))
        if not buffer.append(data, sender):
            self._end([Eviction(buffer, "slow")], EVICTED)
            return False, 0
        return True, 0 if connection is None else connection.post(data, sender, now)

    # ---- sessions that move to another node, and from there

    def has_token(self, session: ClientSession, digest: bytes, last: int | None) -> bool:
        """Return whether the token with this digest resumes the session."""
        return session.replay is not None and self.store.find_digest(digest, last) is session.replay

    def freeze(self, session: ClientSession, close_reason: CloseReason) -> Connection | None:
        """Separate a session that is to move from its connection, which is returned."""
        assert session.replay is not None
        connection, session.connection = session.connection, None
        session.suspended_by = session.suspended_by or close_reason
        self.store.freeze(session.replay)
        return connection

    def take_out(self, session: ClientSession, sender_of: Callable[[object], tuple[str, str] | None]) -> BufferState:
        """End a frozen session here; returns its state."""
        assert session.replay is not None
        return self.store.take_out(session.replay, sender_of)

    def put_in(self, session: ClientSession, state: BufferState, sender: Callable[[str, str], object]) -> None:
        """Continue a session from another node, suspended for a new resume window."""
        session.replay = self.store.put_in(session.client_id, state, sender)
        session.is_resumed = True
        self.suspend(session, CONNECTION_LOST)

    # ---- ends

    def suspends(self, session: ClientSession, close_reason: CloseReason) -> bool:
        """Return whether a session outlives a connection that ends for this reason.

        A connection whose WebSocket never opened did not bring the client its first token.
        """
        has_token = session.is_resumed or close_reason != HANDSHAKE_ABORTED
        is_loss = is_connection_loss(close_reason)
        return bool(self._limits.resume_window) and is_loss and has_token and not self._stopping

    def suspend(self, session: ClientSession, close_reason: CloseReason) -> None:
        """Keep a session without a connection for the resume window."""
        assert session.replay is not None
        now = trio.current_time()
        session.connection, session.suspended_by = None, close_reason
        evicted = self.store.suspend(session.replay, close_reason.reason, now, session.address)
        self._wake_at(now + self._limits.resume_window)
        self._end(evicted, EVICTED)

    def evict(self) -> None:
        """End sessions until the replay buffers are within their bound."""
        self._end(self.store.over_budget(lambda client_id: self._sessions[client_id].address), EVICTED)

    def _end(self, evictions: Iterable[Eviction], text: str) -> None:
        for buffer, reason in evictions:
            session = self._sessions.get(buffer.client_id)
            if session is None or session.replay is not buffer:
                continue  # ended by an earlier one
            if session.connection is not None:
                session.connection.end(SLOW_CONSUMER)
            else:
                self._end_suspended(session, reason, text)

    def stop(self) -> None:
        """Suspend no session from now on."""
        self._stopping = True

    def end_all_suspended(self) -> None:
        """End every suspended session, because the relay stops."""
        for session in list(self._sessions.values()):
            if session.connection is None:
                self._end_suspended(session, "shutdown", STOPPING)

    # ---- timers

    async def run(self) -> None:
        """Send the acks that are due and end the sessions whose window is over, for ever."""
        while True:
            due = self.store.next_due
            with trio.CancelScope(deadline=inf if due is None else due) as self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            if (resumed_at := self._resumed_at(now)) > self._windows_from:
                self._windows_from = resumed_at
                self.store.restart_windows(resumed_at)
            for buffer, ack in self.store.acks(now):
                connection = self._sessions[buffer.client_id].connection
                if connection is not None:
                    connection.post(text_frame(codec.encode(ack)))
            self._end(self.store.expired(now), EXPIRED)

    def _wake_at(self, due: float) -> None:
        if due < self._timer.deadline:  # noqa: PLR1730  setting it is expensive and rarely necessary
            self._timer.deadline = due
