"""Clients that asked for numbers: they outlive their sockets, and come back (PROTOCOL: Resume). The rules are in relay.resume.

- A `ResumableSession` is the client, a `SessionSocket` one socket of it. What an old socket still brings, or that it ends, is nothing to the
  member once it sits elsewhere.
- A socket that is lost without a close frame leaves the member in the lobby, for the window. All other ends are the client's.
- One task for all looks after the acks and the ends of windows that are due: `run`.
"""

import secrets
from collections.abc import Iterable
from math import inf
from typing import Final

import trio
from msgspec import UNSET

from sdpx.errors import Refusal
from sdpx.events import serve
from sdpx.protocol import messages
from sdpx.protocol.messages import DisconnectReason, YourId
from sdpx.relay.client import TOO_FAST, AcceptedUpgrade, ClientSession, RelayInterface
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.pairing import Deliver
from sdpx.relay.core.rate_limit import ClientRateLimit
from sdpx.relay.core.replay_buffer import FrameVerdict, ReplayBuffer, ReplayLimits
from sdpx.relay.core.sessions import Eviction, ResumeRequest, SessionStore
from sdpx.relay.core.stats import ResumeSnapshot
from sdpx.relay.websocket.handler import (
    ABNORMAL,
    HANDSHAKE_ABORTED,
    SLOW_CONSUMER,
    SUPERSEDED,
    ClientConnection,
    CloseReason,
    FrameSender,
    from_violation,
    is_connection_loss,
)
from sdpx.relay.websocket.validator import Violation

GAP: Final = Violation(1002, "There is a gap in your client_seq: a frame before this one did not come")
TOO_LATE: Final = "It did not come back"
TOO_MUCH: Final = "Too much was kept for it, or for too many"
STOPPING: Final = "The relay is stopping"


class ResumableSession(ClientSession):
    """A client with numbers. `socket` is None while it is held, and `lost_by` says then how the last one ended."""

    __slots__ = ("_returning", "lost_by", "stream")

    def __init__(
        self,
        returning: "ResumeManager",
        hall: RelayInterface,
        client_id: str,
        visitor: AcceptedUpgrade,
        quota: ClientRateLimit,
    ) -> None:
        super().__init__(hall, client_id, visitor, quota, trio.current_time())
        self._returning = returning
        self.stream = ReplayBuffer(client_id)
        self.lost_by: CloseReason | None = None

    def hear(self, text: str) -> None:
        """Be told something, if it is still here, be it only to come back."""
        if self._returning.has(self):
            self._hall.do([Deliver(self.client_id, text)])


class SessionSocket:
    """One socket of a member: the `ConnectionHandler` of that connection."""

    __slots__ = ("_hall", "_returning", "connection", "is_first", "lost", "member")
    connection: ClientConnection

    def __init__(
        self, returning: "ResumeManager", hall: RelayInterface, member: ResumableSession, *, is_first: bool
    ) -> None:
        self._returning = returning
        self._hall = hall
        self.member = member
        self.is_first = is_first
        self.lost: list[FrameSender] | None = (
            None  # once the member has left with this socket: who sent what it never got
        )

    @property
    def is_taken(self) -> bool:
        """Whether the member sits here."""
        return self.member.socket is self.connection

    @property
    def remote(self) -> str:
        """The socket's other end, as far as it is known."""
        return self.member.remote

    def sit(self, connection: ClientConnection, visitor: AcceptedUpgrade) -> None:
        """Enter, or come back, by this connection."""
        self.connection = connection
        self._returning.enter(self, visitor)

    def on_text(self, _data: bytes, _now: float) -> bool:
        """Take no message a short way: each has a number to be looked at."""
        return False

    def on_frame(self, frame: str | bytes, now: float) -> int:
        """Take a message."""
        return self._returning.take(self, frame, now) if self.is_taken else 0

    def on_non_message_frames(self, count: int, now: float) -> Violation | None:
        """Count frames that end no message."""
        return self.member.on_non_message_frames(count, now)

    def on_partial_message(self, size: int) -> None:
        """Note what is kept of a message that is not whole."""
        if self.is_taken:
            self.member.on_partial_message(size)

    def on_relayed(self, seconds: float) -> None:
        """Count how long a relayed frame took."""
        self.member.on_relayed(seconds)

    def on_disconnected(self, departure: CloseReason) -> None:
        """Let the member wait for its client, or leave."""
        if self.is_taken:
            self._returning.end(self, departure)

    def on_closed(self, fault: Exception | None) -> None:
        """Let go of this socket."""
        self._hall.over(self, fault)

    def leave(self) -> None:
        """Do what is left to do if the member left with this socket."""
        if self.lost is not None:
            assert self.connection.departure is not None
            self._hall.leave(self.member, self.connection.departure, self.lost)


class ResumeManager:
    """All members of a relay."""

    def __init__(self, hall: RelayInterface, limits: Limits) -> None:
        self._hall = hall
        self._window = limits.resume_window
        self._all_bytes = limits.max_queued_bytes
        bounds = ReplayLimits(
            limits.resume_window,
            limits.send_queue_frames,
            limits.send_queue_bytes,
            limits.max_queued_bytes,
            limits.held_clients,
        )
        self._resumables = SessionStore(bounds, secrets.token_bytes)
        self._members: dict[str, ResumableSession] = {}
        self._scope = trio.CancelScope()
        self._stopping = False

    def has(self, member: ResumableSession) -> bool:
        """Tell whether this member has not left."""
        return self._members.get(member.client_id) is member

    def present(self) -> ResumeSnapshot:
        """Return the numbers of now, for the metrics."""
        rules = self._resumables
        return ResumeSnapshot(rules.held, rules.max_queued_bytes, rules.bytes, rules.totals)

    # ---- coming, and coming back

    def find(self, request: ResumeRequest, bound_id: str | None) -> str | None:
        """Return the ID of the session that a request resumes, if its token is valid and the session may have that ID."""
        if request.token is None or (stream := self._resumables.find(request.token, request.last)) is None:
            return None
        return stream.client_id if bound_id in (None, stream.client_id) else None

    def reattach(self, visitor: AcceptedUpgrade) -> SessionSocket:
        """Return where somebody sits who returns."""
        assert visitor.client_id is not None
        return SessionSocket(self, self._hall, self._members[visitor.client_id], is_first=False)

    def create(self, client_id: str, visitor: AcceptedUpgrade, quota: ClientRateLimit) -> SessionSocket:
        """Return where somebody new sits who asked for numbers."""
        return SessionSocket(
            self, self._hall, ResumableSession(self, self._hall, client_id, visitor, quota), is_first=True
        )

    def enter(self, seat: SessionSocket, visitor: AcceptedUpgrade) -> None:
        """Let a member in, or back in: before the WebSocket opens, whose first frame says so."""
        member = seat.member
        if visitor.is_resumed:
            self._come_back(member, seat.connection, visitor)
            return
        member.socket = seat.connection
        member.stream, token = self._resumables.open(member.client_id)
        self._members[member.client_id] = member
        self._hall.enter(member, visitor, token)

    def _come_back(self, member: ResumableSession, connection: ClientConnection, visitor: AcceptedUpgrade) -> None:
        asked = visitor.upgrade.resume
        assert asked.token is not None
        old, member.socket = member.socket, connection  # from now on the old one brings nothing
        ice_servers, peer_id = self._hall.reattach_client(member, visitor)
        back = self._resumables.resume(asked.token, asked.last)
        first = YourId(
            member.client_id,
            back.token,
            ice_servers or UNSET,
            resumed=True,
            client_seq=back.client_seq,
            peer_id=peer_id,
        )
        connection.begin_with([messages.encode(first), *back.texts])
        self._hall.tell(serve.ClientResumed(member.client_id, member.remote, len(back.texts)))
        if old is not None:
            old.end(SUPERSEDED)

    # ---- frames

    def deliver(self, member: ResumableSession, effect: Deliver, sender: ClientSession | None, now: float) -> int:
        """Give a frame its number, keep it, and send it if there is a socket; returns how many wait for that."""
        if not effect.counts:
            return member.socket.post(effect.text, None, now) if member.socket is not None else 0
        relayed_by = sender if effect.event is not None else None
        text = self._resumables.post(member.stream, effect.unnumbered or effect.text, relayed_by)
        if text is None:
            self._let_go([Eviction(member.stream, "slow")], TOO_MUCH)
            return 0
        if effect.event is not None:
            self._hall.tell(effect.event)
        depth = member.socket.post(text, relayed_by, now) if member.socket is not None else 0
        if self._resumables.bytes > self._all_bytes:
            self._let_go(self._resumables.over_budget(), TOO_MUCH)
        return depth

    def take(self, seat: SessionSocket, frame: str | bytes, now: float) -> int:
        """Take a message of a member: once, whatever socket brings it."""
        member, stream = seat.member, seat.member.stream
        try:
            turn = self._resumables.take(stream, frame, now)
        except Refusal as refusal:
            member.quota.allows(now)
            return self._hall.refuse(member, refusal, now)
        if stream.ack_due is not None:
            self._wake(stream.ack_due)
        if turn is FrameVerdict.TAKE:
            return self._hall.take(member, frame, now)
        if turn is FrameVerdict.GAP:
            seat.connection.end(from_violation(GAP))
        elif turn is FrameVerdict.IDLE and not member.quota.allows(now) and member.quota.exhausted:
            seat.connection.end(from_violation(TOO_FAST))
        return 0

    # ---- ends

    def end(self, seat: SessionSocket, departure: CloseReason) -> None:
        """Hold a member whose socket was lost, or let it leave with its socket."""
        member = seat.member
        unread = seat.is_first and departure == HANDSHAKE_ABORTED  # its token, too: nobody could come back
        if self._window and is_connection_loss(departure) and not (unread or self._stopping):
            self._hold(member, departure)
            return
        said_goodbye = departure.reason == "closed" and departure.code != ABNORMAL
        all_written = not len(seat.connection.outbox)
        lost = self._part(member, departure.reason)
        seat.lost = [] if said_goodbye and all_written else lost

    def _hold(self, member: ResumableSession, departure: CloseReason) -> None:
        now = trio.current_time()
        member.socket, member.lost_by = None, departure
        self._hall.keep(member.client_id, 0)
        self._hall.tell(serve.ClientSuspended(member.client_id, departure.code, departure.text))
        evicted = self._resumables.lose(member.stream, departure.reason, now)
        self._wake(now + self._window)
        self._let_go(evicted, TOO_MUCH)

    def _part(self, member: ResumableSession, reason: DisconnectReason) -> list[FrameSender]:
        """Let a member leave the lobby; returns who sent what it has not confirmed."""
        del self._members[member.client_id]
        unconfirmed = self._resumables.forget(member.stream)
        self._hall.part(member, reason)
        return [sender for sender in unconfirmed if isinstance(sender, ClientSession)]

    def _let_go(self, gone: Iterable[Eviction], text: str) -> None:
        for stream, reason in gone:
            member = self._members.get(stream.client_id)
            if member is None or member.stream is not stream:
                continue  # one before it took it along
            if member.socket is not None:
                member.socket.end(SLOW_CONSUMER)
            else:
                self._send_away(member, reason, text)

    def _send_away(self, member: ResumableSession, reason: DisconnectReason, text: str) -> None:
        """Let a member leave that has no socket."""
        assert member.lost_by is not None
        lost = self._part(member, reason)
        self._hall.leave(member, CloseReason(reason, member.lost_by.code, text), lost)

    def stop(self) -> None:
        """Hold nobody from now on."""
        self._stopping = True

    def dismiss(self) -> None:
        """Let all leave that are held."""
        for member in list(self._members.values()):
            if member.socket is None:
                self._send_away(member, "shutdown", STOPPING)

    # ---- time

    async def run(self) -> None:
        """Send the acks that are due, and let those go whose window is over, for ever."""
        while True:
            due = self._resumables.next_due
            with trio.CancelScope(deadline=inf if due is None else due) as self._scope:
                await trio.sleep_forever()
            now = trio.current_time()
            for stream, text in self._resumables.acks(now):
                socket = self._members[stream.client_id].socket
                if socket is not None:
                    socket.post(text)
            self._let_go(self._resumables.expired(now), TOO_LATE)

    def _wake(self, due: float) -> None:
        if due < self._scope.deadline:  # noqa: PLR1730  to set it costs, and as a rule there is no need
            self._scope.deadline = due
