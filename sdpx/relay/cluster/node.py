"""The rules of a node in a cluster: its clients' pairings with clients of any node, and sessions on their way.

Pairings
- The engine alone makes a pairing; it has an ID, and all that comes for another one is ignored. A pairing is ended at once by
  the node of the client that ends it; the engine and the other node follow.
- A node asks the engine once to pair two of its own clients, and not at all to relay between them.
- The frames of a client that has a `pair_request` under way wait for the answer.

Frames between nodes
- The frames of each direction of a pairing have numbers, 1, 2, 3, ... A receiver takes each once, and in order: a frame that is
  ahead of others is kept. So frames on the way through the engine and frames that do not need it any more, since both clients
  are on one node now, cannot overtake each other.
- A frame that is given up while it waits is replaced by an empty one with its number, and its sender is notified.

Sessions that move, from node A to node B
1. The client comes to B with its token; B asks (`ask`). Or A is stopping, and no node has asked yet.
2. A closes the client's connection and freezes the session: from then on, entries for it wait in the engine.
3. `frozen` on A's own channel is behind all earlier entries for it. A takes the session out and writes its state (`park`).
4. B, or the node that asks later, gets `claimed`: the state, and behind it on its channel the entries that have waited.

While the engine cannot be reached
- The frames for other nodes wait, each for `FRAME_SECONDS`.
- The lease ends, by this node's own clock, a lease after the start of the last renewal that the engine has confirmed. From then
  on other nodes may have removed this one, or the engine may be lost to all of them, which this node cannot know. It keeps
  its pairings with clients of other nodes for `FRAME_SECONDS` more, as it keeps frames, and then ends them as lost.

After the engine has lost its data, or has removed the node, the node registers its clients again. A pairing with a client of
another node is confirmed once all nodes had the time to come back, and its frames wait until then. If the node was removed,
it ends these pairings at once.
"""

from typing import TYPE_CHECKING, cast

from sdpx.relay.cluster.directory import FRAME_SECONDS, Directory, Entry, OutgoingFrame, Verdict
from sdpx.relay.cluster.effects import (
    Answered,
    Asked,
    Claimed,
    Deliver,
    Ended,
    Frozen,
    IdLost,
    NodeEffect,
    Paired,
    PairRefused,
    RemoteSender,
    Unread,
)
from sdpx.relay.cluster.member import Link, Member, Payload, parse_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdpx.protocol.messages import DisconnectReason


class Node:
    """The clients of one node. Each method returns effects; calls go to the directory, in the order of the methods' calls.

    `touched` collects the IDs of clients whose `is_direct` may have changed; the caller empties it.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._last_request = 0
        self.members: dict[str, Member] = {}
        self.touched: set[str] = set()

    @property
    def remote_pairs(self) -> int:
        """The number of clients with a peer on another node."""
        return len(self._remote_links())

    def is_direct(self, member: Member) -> bool:
        """Return whether the client's frames are relayed directly: its peer, if any, is here, and nothing is under way."""
        link = member.link
        if link is None or member.request:
            return not member.request
        peer = self._local_peer(member)
        return peer is not None and not peer.is_frozen and member.waiting is None and peer.link.received == link.sent  # type: ignore[union-attr]

    def next_request(self) -> int:
        """Return the number of a new request."""
        self._last_request += 1
        return self._last_request

    # ---- for the relay

    def open(self, client_id: str) -> list[NodeEffect]:
        """Begin to serve a registered client; returns the effects of the entries that have come for it."""
        backlog, self.members[client_id].backlog = self.members[client_id].backlog, None
        return [effect for entry in backlog or () for effect in self.receive(entry)]

    def request_pair(self, member: Member, target_id: str) -> None:
        """Ask for a pairing."""
        member.request, member.target_id = self.next_request(), target_id
        self._directory.pair(member.client_id, target_id, member.request)
        self.touched.add(member.client_id)

    def unpair(self, member: Member, reason: str = "left") -> None:
        """End a client's pairing, because the client asks for it or the relay stops."""
        if member.link is not None:
            self._directory.unpair(member.client_id, member.link.pairing, reason)
            member.left.append(member.link.pairing)
            self._end_link(member)

    def remove(self, client_id: str, reason: str) -> None:
        """Remove a client that has left."""
        member = self.members.pop(client_id, None)
        if member is not None:
            self._end_link(member)
            self._directory.unregister(client_id, reason)

    def forward(self, member: Member, body: bytes, without_seq: bytes | None, now: float) -> list[NodeEffect] | None:
        """Send a frame to the client's peer; None if too many wait."""
        link, peer = member.link, self._local_peer(member)
        assert link is not None
        if peer is not None and not peer.is_frozen and member.waiting is None:
            link.sent += 1
            return self._accept(peer, link.sent, (body, without_seq), member.client_id)
        head = f"{link.pairing} {link.sent + 1} {len(body)} {member.client_id}"
        frame = OutgoingFrame(link.peer_id, member.client_id, head, body + (without_seq or b""), now)
        if not self._directory.reserve(frame):
            return None
        if member.waiting is not None:
            member.waiting.append(frame)
        else:
            self._directory.send(frame)
        link.sent += 1
        return []

    def freeze(self, member: Member, node: str = "", request: str = "") -> None:
        """Begin to move a session, to a node or to any."""
        member.is_frozen = True
        self._directory.freeze(member.client_id, node, request)
        if member.link is not None:
            self.touched.add(member.link.peer_id)

    def take_out(self, client_id: str) -> Member:
        """Forget a client whose session moves."""
        member = self.members.pop(client_id)
        if member.link is not None:
            self.touched.add(member.link.peer_id)
        return member

    def put_in(self, member: Member) -> None:
        """Add a client whose session has come here."""
        self.members[member.client_id] = member
        self.touched.add(member.client_id)
        if member.link is not None:
            self.touched.add(member.link.peer_id)

    # ---- entries of the channel

    def receive(self, entry: Entry) -> list[NodeEffect]:
        """Handle an entry."""
        kind, client_id, data = entry
        member = self.members.get(client_id)
        if member is not None and member.backlog is not None:
            member.backlog.append(entry)
            return []
        if kind == "frame":
            return self._on_frame(client_id, member, data)
        if kind == "claimed":
            head, _, session = data.partition(b"\n")
            request, waiting = map(int, head.split())
            return [Claimed(request, client_id, session, waiting)]
        words = data.decode().split(" ")
        if kind in ("registered", "taken", "unavailable", "denied", "busy", "asking"):
            if kind == "registered" and member is None:
                self.members[client_id] = member = Member(client_id)
                member.backlog = []
            return [Answered(int(words[0]), kind, client_id, *words[1:])]
        if kind == "asked":
            digest, last, asking_node, number = words
            return [Asked(client_id, digest, None if last == "-" else int(last), asking_node, number)]
        return [] if member is None and kind != "both_paired" else self._on_member_entry(kind, client_id, words)

    def _on_member_entry(self, kind: str, client_id: str, words: list[str]) -> list[NodeEffect]:
        if kind == "both_paired":
            return self._on_both_paired(client_id, *words)
        member = self.members[client_id]
        handlers: dict[str, Callable[..., list[NodeEffect]]] = {
            "paired": self._on_paired,
            "refused": self._on_refused,
            "ended": self._on_ended,
            "unread": self._on_unread,
            "confirmed": self._on_confirmed,
            "resent": self._on_resent,
            "frozen": lambda member, *_: [Frozen(client_id)] if member.is_frozen else [],
            "lost": lambda *_: [IdLost(client_id)],
        }
        return handlers[kind](member, *words)

    def _on_frame(self, client_id: str, member: Member | None, data: bytes) -> list[NodeEffect]:
        head, _, body = data.partition(b"\n")
        pairing, number, payload, sender_id = parse_frame(head.decode(), body)
        if member is not None and member.link is not None and member.link.pairing == pairing:
            return self._accept(member, number, payload, sender_id)
        if payload is not None:
            self._directory.notify(sender_id, pairing, client_id)
        return []

    def _accept(self, member: Member, number: int, payload: Payload, sender_id: str) -> list[NodeEffect]:
        assert member.link is not None
        sender = RemoteSender(sender_id, member.link.pairing)
        self.touched.add(sender_id)
        return [Deliver(member.client_id, sender, *each) for each in member.link.accept(number, payload)]

    def _on_paired(self, member: Member, request: str, pairing: str, peer_id: str) -> list[NodeEffect]:
        is_initiator = request != "0"
        if is_initiator and int(request) != member.request:  # given up while the engine could not be reached
            self._directory.unpair(member.client_id, pairing, "left")
            return []
        if is_initiator:
            member.request = 0
        member.link, member.waiting = Link(pairing, peer_id), None
        self.touched.add(member.client_id)
        return [Paired(member.client_id, peer_id, is_initiator)]

    def _on_both_paired(self, client_id: str, request: str, pairing: str, target_id: str) -> list[NodeEffect]:
        member, target = self.members.get(client_id), self.members.get(target_id)
        effects = [] if member is None else self._on_paired(member, request, pairing, target_id)
        if target is not None and (member is None or effects):
            entry = Entry("paired", target_id, f"0 {pairing} {client_id}".encode())
            effects += self.receive(entry)
        self.touched.add(client_id)
        return effects

    def _on_refused(self, member: Member, request: str, code: str) -> list[NodeEffect]:
        if int(request) != member.request:
            return []
        member.request = 0
        self.touched.add(member.client_id)
        return [PairRefused(member.client_id, member.target_id, code)]

    def _on_ended(self, member: Member, pairing: str, reason: str) -> list[NodeEffect]:
        if member.link is None or member.link.pairing != pairing:
            return []
        self._end_link(member)
        return [Ended(member.client_id, cast("DisconnectReason", reason))]

    def _on_unread(self, member: Member, pairing: str, receiver_id: str) -> list[NodeEffect]:
        is_present = member.link is not None and member.link.pairing == pairing
        if not is_present and pairing not in member.left:
            return []
        if not is_present:
            member.left.remove(pairing)
        return [Unread(member.client_id, receiver_id, is_present)]

    # ---- the engine is lost, and comes back

    def degraded(self) -> list[NodeEffect]:
        """Refuse all requests that are under way."""
        self._directory.drop_requests()
        effects: list[NodeEffect] = []
        for member in self.members.values():
            if member.request:
                effects += self._on_refused(member, str(member.request), "engine_unavailable")
        return effects

    def give_up(self, now: float) -> list[NodeEffect]:
        """Give up frames that have waited too long, and once the lease is over for as long, the pairings with other nodes."""
        is_lost = now >= self._directory.lease_end + FRAME_SECONDS
        lost = {link.pairing: member for member, link in self._remote_links()} if is_lost else {}

        def is_void(frame: OutgoingFrame) -> bool:
            return frame.since < now - FRAME_SECONDS or frame.pairing in lost

        voided = self._directory.void_frames(is_void)
        for member in self.members.values():
            if member.waiting:
                late = [frame for frame in member.waiting if frame.body and is_void(frame)]
                self._directory.release(late)
                member.waiting = [each._replace(body=b"") if is_void(each) else each for each in member.waiting]
                voided += late
        effects: list[NodeEffect] = [Unread(frame.sender_id, frame.receiver_id, is_peer=True) for frame in voided]
        for pairing, member in lost.items():
            self._directory.unpair(member.client_id, pairing, "node_lost")
            self._end_link(member)
            effects.append(Ended(member.client_id, "node_lost"))
        return effects

    def restored(self, verdict: Verdict) -> list[NodeEffect]:
        """Register all clients again, if the engine does not know them any more; if it lost its data, `confirm` follows."""
        if not verdict.is_new:
            return []
        calls, effects, clients = self._directory.take_calls(), [], []
        frames = [frame for call in calls for frame in call.frames or ()]
        for member in list(self.members.values()):
            effects += self._reconsider(
                member, [each for each in frames if each.sender_id == member.client_id], verdict
            )
            clients.append((member.client_id, member.pair))
        self._directory.restore(clients)
        for member in self.members.values():
            if member.is_frozen:
                self._directory.freeze(member.client_id)
        if not verdict.is_removed:
            self._directory.park_again([call for call in calls if call.script == "park"])
        return effects

    def _reconsider(self, member: Member, frames: list[OutgoingFrame], verdict: Verdict) -> list[NodeEffect]:
        """Decide on a pairing when the engine does not know it any more; `frames` have not reached the engine."""
        link, peer = member.link, self._local_peer(member)
        if link is None:
            return []
        self.touched.add(member.client_id)
        if peer is None and verdict.is_removed:
            self._end_link(member)
            return [Ended(member.client_id, "node_lost")]
        self._directory.release(member.waiting or ())
        frames = [*frames, *(member.waiting or ())]
        frames = [frame for frame in frames if frame.pairing == link.pairing]
        if peer is None:
            self._directory.hold(frames)
            member.waiting = frames
            return []
        assert peer.link is not None
        lost = max(0, link.sent - len(frames) - peer.link.received - len(peer.link.early))
        effects: list[NodeEffect] = [Unread(member.client_id, link.peer_id, is_peer=True)] * lost
        sender = RemoteSender(member.client_id, link.pairing)
        ready = peer.link.skip_to(link.sent - len(frames))
        for frame in frames:
            _, number, payload, _ = parse_frame(frame.head, frame.body)
            ready += peer.link.accept(number, payload)
        member.waiting = None
        return effects + [Deliver(link.peer_id, sender, *each) for each in ready]

    def confirm(self) -> None:
        """Confirm the pairings with clients of other nodes, now that all nodes had the time to come back."""
        for member in self.members.values():
            if member.link is not None and member.waiting is not None:
                link = member.link
                self._directory.confirm(member.client_id, link.pairing, link.peer_id, link.sent - len(member.waiting))

    def _on_confirmed(self, member: Member, pairing: str) -> list[NodeEffect]:
        if member.link is None or member.link.pairing != pairing:
            return []
        for frame in member.waiting or ():
            self._directory.send(frame)
        member.waiting = None
        self.touched.add(member.client_id)
        return []

    def _on_resent(self, member: Member, pairing: str, sent: str) -> list[NodeEffect]:
        link = member.link
        if link is None or link.pairing != pairing or link.received >= int(sent):
            return []
        for _ in range(int(sent) - link.received - len(link.early)):
            self._directory.notify(link.peer_id, pairing, member.client_id)
        sender = RemoteSender(link.peer_id, pairing)
        return [Deliver(member.client_id, sender, *each) for each in link.skip_to(int(sent))]

    # ---- shared

    def _remote_links(self) -> list[tuple[Member, Link]]:
        links = [(each, each.link) for each in self.members.values() if each.link is not None]
        return [(each, link) for each, link in links if self._local_peer(each) is None]

    def _local_peer(self, member: Member) -> Member | None:
        link = member.link
        peer = None if link is None else self.members.get(link.peer_id)
        return peer if link and peer and peer.link and peer.link.pairing == link.pairing else None

    def _end_link(self, member: Member) -> None:
        """End a pairing here; that of a peer on this node ends with it."""
        peer = self._local_peer(member)
        for each in (member, peer):
            if each is not None:
                self._directory.release(each.waiting or ())
                each.link = each.waiting = None
                self.touched.add(each.client_id)
