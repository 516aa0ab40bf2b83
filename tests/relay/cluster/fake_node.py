"""A node of a cluster without a relay: its clients are lists, and its calls and entries happen when a test wants."""

from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Final, Literal

from msgspec import Struct, msgpack

from sdpx.relay.cluster.directory import Entry, Handler, Verdict
from sdpx.relay.cluster.effects import Answered, Asked, Claimed, Deliver, Ended, Frozen, NodeEffect, Paired, Unread
from sdpx.relay.cluster.member import Link, Member
from sdpx.relay.cluster.memory import MemoryDirectory, MemoryEngine
from sdpx.relay.cluster.node import Node
from sdpx.relay.cluster_relay import CONFIRM_SECONDS
from sdpx.relay.core.limits import Limits

TOKEN: Final = "7041"  # every question names the right token
LEASE: Final = 2.0
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
        self.confirm_at = inf
        self.handler = Handler(
            self.receive,
            joined=lambda *_: None,
            degraded=lambda _: self.run(self.node.degraded()),
            restored=self.restored,
            node_lost=lambda *_: None,
        )
        self.directory.enter(self.handler)

    def restored(self, verdict: Verdict) -> None:
        if verdict.is_new and not verdict.is_removed:
            self.confirm_at = self.engine.clock() + CONFIRM_SECONDS
        self.run(self.node.restored(verdict))

    def tick(self) -> None:
        """Do what the relay does regularly while something waits for the engine."""
        now = self.engine.clock()
        if now >= self.confirm_at:
            self.confirm_at = inf
            self.node.confirm()
        if self.directory.status == "degraded":
            self.run(self.node.give_up(now))

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


@dataclass
class World:
    """Two nodes, with a on the first and b on the second, paired; c and d are a pair on the first."""

    now: float = 0.0
    engine: MemoryEngine = field(init=False)
    nodes: list[FakeNode] = field(init=False)

    def __post_init__(self) -> None:
        self.engine = MemoryEngine(lambda: self.now)
        self.nodes = [FakeNode(name, self.engine, LEASE) for name in "mn"]
        for number, client_id in enumerate("abcd"):
            self.nodes[client_id == "b"].directory.register(client_id, number)
        self.settle()
        for client_id, target_id in ("ab", "cd"):
            self.nodes[0].node.request_pair(self.nodes[0].node.members[client_id], target_id)
            self.settle()

    def settle(self) -> None:
        """Make all calls of all nodes that reach the engine, and handle all entries."""
        for _ in range(5):
            for each in self.nodes:
                if self.engine.is_reachable_by(each.directory.node):
                    each.directory.make_calls()
                    each.directory.take_entries(each.handler)

    def beat(self) -> None:
        """Let each node renew its lease, as far as it can, and do what follows."""
        for each in self.nodes:
            each.directory.beat(each.handler)
        self.settle()

    def pass_time(self, until: float) -> None:
        """Let time pass, in which nodes renew their leases and see what they have to give up."""
        while self.now < until:
            self.now += LEASE / 4
            self.beat()
            for each in self.nodes:
                each.tick()
            self.settle()

    def lose_engine(self, *, nodes: Literal["all", "first"]) -> None:
        """Cut all nodes off from the engine, or the first one alone."""
        if nodes == "all":
            self.engine.is_reachable = False
        else:
            self.engine.cut_off.add(self.nodes[0].directory.node)
        self.beat()

    def bring_back(self) -> None:
        """Let all nodes reach the engine."""
        self.engine.is_reachable = True
        self.engine.cut_off.clear()

    def ended(self) -> list[list[Ended]]:
        return [each.ended for each in self.nodes]
