"""Sessions of a cluster: an ID is reserved in all of it, and a session is fetched from the node that has it, or moved away.

A session that comes from another node is a suspended one, which the waiting request then resumes like any other.
"""

from typing import Final

import trio
from msgspec import Struct, msgpack, structs

from sdpx.events import serve
from sdpx.relay.client import ClientSession
from sdpx.relay.cluster.directory import Directory
from sdpx.relay.cluster.effects import Answered, Asked, Claimed, RemoteSender
from sdpx.relay.cluster.member import Link, Member
from sdpx.relay.cluster.node import Node
from sdpx.relay.core.rate_limit import ClientRateLimit
from sdpx.relay.core.replay_buffer import BufferState
from sdpx.relay.core.sessions import ResumeRequest, digest_of, id_in_token
from sdpx.relay.relay import Relay
from sdpx.relay.websocket.close_reasons import SUPERSEDED, CloseReason

FETCH_SECONDS: Final = 5.0  # for a session to come from another node
ASK_SECONDS: Final = 0.25  # after which the cluster is asked again: the node that was asked may be lost


class MovedSession(Struct, array_like=True):
    """The state of a session that moves to another node."""

    buffer: BufferState
    link: Link | None
    left: list[str]


class Request:
    """A request to the cluster: its answer, or whether to wait on."""

    def __init__(self) -> None:
        self.answer = ""
        self.node = ""
        self.answered = trio.Event()

    def set(self, answer: str) -> None:
        """Answer the request."""
        self.answer = answer
        self.answered.set()


class MovingSessions(Relay):
    """The part of a node that reserves IDs and moves sessions; `ClusterRelay` is the whole."""

    is_clustered = True

    def __init__(self, directory: Directory, *relay: object, **options: object) -> None:
        super().__init__(*relay, **options)  # type: ignore[arg-type]
        self._directory = directory
        self._node = Node(directory)
        self._requests: dict[int, Request] = {}
        self._held: dict[str, list[tuple[bytes | None, float]]] = {}  # frames behind a pair_request

    # ---- new clients and their sessions

    async def register(self, client_id: str) -> str:
        """Reserve the ID of a new client: `registered`, `taken` or `unavailable`."""
        number, request = self._node.next_request(), Request()
        if self._directory.status != "joined":
            return "unavailable"
        self._requests[number] = request
        self._directory.register(client_id, number)
        try:
            await request.answered.wait()
        except trio.Cancelled:
            self._requests.pop(number, None)
            if request.answer == "registered":
                self.unregister(client_id)
            raise
        return request.answer

    def unregister(self, client_id: str) -> None:
        """Free a reserved ID without a client."""
        self._node.remove(client_id, "closed")

    async def fetch_session(self, request: ResumeRequest, bound_id: str | None) -> bool:
        """Bring the session that a request resumes to this node, if it is on another one; False if that is not possible now."""
        client_id = None if request.token is None else id_in_token(request.token)
        if client_id is None or bound_id not in (None, client_id) or self.find_session(request, bound_id) is not None:
            return True
        member = self._node.members.get(client_id)
        if member is not None and not member.is_frozen:
            return True  # it is here, and the token is not valid
        answer = ""
        with trio.move_on_after(FETCH_SECONDS):
            answer = await self._fetch(client_id, digest_of(request.token or "").hex(), request.last)
        if answer != "claimed":
            self.stats.cluster.moves["denied" if answer == "denied" else "failed"] += 1
        return answer in ("claimed", "denied")

    async def _fetch(self, client_id: str, digest: str, last: int | None) -> str:
        """Ask for a session until there is an answer: the node that has it may be lost meanwhile."""
        number, request = self._node.next_request(), Request()
        self._requests[number] = request
        try:
            while not request.answer and self._directory.status == "joined":
                self._directory.ask(client_id, digest, last, number, request.node)
                with trio.move_on_after(ASK_SECONDS):
                    await request.answered.wait()
        finally:
            self._requests.pop(number, None)
        return request.answer

    def find_session(self, request: ResumeRequest, bound_id: str | None = None) -> str | None:
        """Return the ID of the session that a request resumes; None without one, and for one that is about to move."""
        found = super().find_session(request, bound_id)
        return None if found is not None and self._node.members[found].is_frozen else found

    def _on_answered(self, answered: Answered) -> None:
        if answered.kind == "asking":
            if (request := self._requests.get(answered.request)) is not None:
                request.node = answered.node
            return
        request = self._requests.pop(answered.request, None)
        if request is not None:
            request.set(answered.kind)
        elif answered.kind == "registered":
            self.unregister(answered.client_id)

    # ---- sessions that move

    def _is_movable(self, session: ClientSession) -> bool:
        return session.replay is not None and bool(self._limits.resume_window)

    def _move_out(self, session: ClientSession, close_reason: CloseReason, node: str = "", request: str = "") -> None:
        """Begin to move a session to a node, or to any; its client comes back with its token."""
        member = self._node.members[session.client_id]
        if not member.is_frozen:
            connection = self._resume.freeze(session, close_reason)
            self._partial_messages.update(session.client_id, 0)
            self._held.pop(session.client_id, None)
            if connection is not None:
                connection.end(close_reason)
        self._node.freeze(member, node, request)

    def _on_asked(self, asked: Asked) -> None:
        session = self._sessions.get(asked.client_id)
        has_token = session is not None and self._resume.has_token(session, bytes.fromhex(asked.digest), asked.last)
        if session is not None and has_token and self._is_movable(session):
            self._move_out(session, SUPERSEDED, asked.node, asked.request)
        else:
            self._directory.refer(*structs.astuple(asked))

    def _on_frozen(self, client_id: str) -> None:
        """Write the state of a session that nothing comes for any more, and forget it."""
        session, member = self._sessions.pop(client_id), self._node.take_out(client_id)
        moved = MovedSession(self._resume.take_out(session, self._origin), member.link, [*member.left])
        digests = ",".join(digest.hex() for digest in moved.buffer.digests)
        self._directory.park(client_id, digests, msgpack.encode(moved), member.pair)
        self._table.move_out(client_id)
        self._ice.forget(client_id)
        self.counts.leave(session.address)
        session.moved_as = RemoteSender(client_id, member.last_pairing)
        session.release()
        self._count_move(client_id, "out", len(moved.buffer.frames))

    def _on_claimed(self, claimed: Claimed) -> None:
        """Add a session from another node, and answer the request that waits for it."""
        client_id, now = claimed.client_id, trio.current_time()
        moved = msgpack.decode(claimed.session, type=MovedSession)
        rate_limit = ClientRateLimit(self._limits.rate, now, self._unknown_targets, "")
        session = self._sessions[client_id] = ClientSession(client_id, "another node", "", rate_limit, now)
        self._table.move_in(client_id, None if moved.link is None else moved.link.peer_id)
        self._node.put_in(Member(client_id, moved.link, moved.left))
        self._ice.issue(client_id)
        self.counts.enter("")
        self._resume.put_in(session, moved.buffer, RemoteSender)
        self._count_move(client_id, "in", claimed.waiting)
        if (request := self._requests.pop(claimed.request, None)) is not None:
            request.set("claimed")

    def _count_move(self, client_id: str, result: str, frames: int) -> None:
        self.stats.cluster.moves[result] += 1
        self.log_event(serve.SessionMoved(client_id, result, frames))

    def _origin(self, sender: object) -> RemoteSender | None:
        """Return a sender of a relayed frame as other nodes know it."""
        if isinstance(sender, RemoteSender):
            return sender
        if not isinstance(sender, ClientSession):
            return None
        member = self._node.members.get(sender.client_id)
        if sender.moved_as is not None or member is None:
            return sender.moved_as
        return RemoteSender(sender.client_id, member.last_pairing) if member.last_pairing else None
