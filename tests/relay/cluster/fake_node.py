"""A node of a cluster without a relay: its clients are lists, and its calls and entries happen when a test wants."""

from itertools import count
from typing import Final

from msgspec import Struct, msgpack

from sdpx.relay.cluster.directory import Entry, Handler
from sdpx.relay.cluster.effects import Answered, Asked, Claimed, Deliver, Ended, Frozen, NodeEffect, Paired, Unread
from sdpx.relay.cluster.member import Link, Member
from sdpx.relay.cluster.memory import MemoryDirectory, MemoryEngine
from sdpx.relay.cluster.node import Node
from sdpx.relay.core.limits import Limits

TOKEN: Final = "7041"  # every question names the right token
PEERS: Final = {"a": "b", "b": "a"}


class Moved(Struct):
    """The state that moves with the model's session."""

    link: Link | None
    received: list[bytes]


class FakeNode:
    """A node whose clients are lists of what they received."""

    def __init__(self, name: str, engine: MemoryEngine, lease: float) -> None:
        names = (f"{name}.{start}" for start in count(1))
        self.directory = MemoryDirectory(Limits(), engine, lease, lambda: next(names))
        self.node = Node(self.directory)
        self.engine = engine
        self.received: dict[str, list[bytes]] = {}
        self.ended: list[Ended] = []
        self.unread: list[Unread] = []
        self.handler = Handler(
            self.receive,
            joined=lambda *_: None,
            degraded=lambda _: self.run(self.node.degraded()),
            restored=lambda verdict: self.run(self.node.restored(verdict)),
            node_lost=lambda *_: None,
        )
        self.directory.enter(self.handler)

    def receive(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.run(self.node.receive(entry))

    def run(self, effects: list[NodeEffect]) -> None:  # noqa: C901
        for effect in effects:
            match effect:
                case Answered(_, "registered", client_id):
                    self.received[client_id] = []
                    self.run(self.node.open(client_id))
                case Deliver(client_id, _, body):
                    self.received[client_id].append(body)
                case Asked(client_id, digest, last, node, request):
                    member = self.node.members.get(client_id)
                    if member is None:
                        self.directory.refer(client_id, digest, last, node, request)
                    else:
                        self.node.freeze(member, node, request)
                case Frozen(client_id):
                    member = self.node.take_out(client_id)
                    state = msgpack.encode(Moved(member.link, self.received.pop(client_id)))
                    self.directory.park(client_id, TOKEN, state, "")
                case Claimed(_, client_id, session):
                    moved = msgpack.decode(session, type=Moved)
                    self.received[client_id] = moved.received
                    self.node.put_in(Member(client_id, moved.link))
                case Ended():
                    self.ended.append(effect)
                case Unread():
                    self.unread.append(effect)
                case Paired() | Answered():
                    pass

    def send(self, client_id: str, body: bytes) -> None:
        """Send a frame, directly if the relay would."""
        member = self.node.members[client_id]
        assert member.link is not None
        if self.node.is_direct(member):
            self.received[PEERS[client_id]].append(body)
        else:
            effects = self.node.forward(member, body, None, self.engine.clock())
            assert effects is not None
            self.run(effects)

    def lose_answer(self) -> None:
        """Make the next call, and lose the connection before its answer."""
        for call in list(self.directory._begin(1))[:1]:
            self.engine.execute(self.directory.node, call)
