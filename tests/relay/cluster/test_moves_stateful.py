"""Moves and frames in every interleaving: two clients send to each other while they move between three nodes.

The engine in memory executes the calls of each node in order, and gives each node its entries in order; what other nodes do
in between is arbitrary, as with a real engine. A lost connection leaves a call that was executed without an answer: it is
made again.
"""

from random import Random
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sdpx.relay.cluster.memory import MemoryEngine
from tests.harness.examples import examples
from tests.relay.cluster.fake_node import PEERS, TOKEN, FakeNode

LEASE: Final = 1e9
nodes = st.integers(0, 2)
clients = st.sampled_from(sorted(PEERS))
steps = st.integers(1, 4)


class Moves(RuleBasedStateMachine):
    """Two clients of a cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = MemoryEngine(lambda: 0.0)
        self.nodes = [FakeNode(f"n{number}", self.engine, LEASE) for number in range(3)]
        self.sent: dict[str, list[bytes]] = {"a": [], "b": []}

    @initialize(homes=st.tuples(nodes, nodes))
    def pair(self, homes: tuple[int, int]) -> None:
        for client_id, home in zip("ab", homes, strict=True):
            self.nodes[home].directory.register(client_id, 1)
        self.settle()
        first = self.nodes[homes[0]]
        first.node.request_pair(first.node.members["a"], "b")
        self.settle()

    def home(self, client_id: str) -> FakeNode | None:
        """The node where the client is connected: it has the session, and has not frozen it."""
        for each in self.nodes:
            member = each.node.members.get(client_id)
            if member is not None and not member.is_frozen:
                return each
        return None

    @rule(client_id=clients, count=steps)
    def send(self, client_id: str, count: int) -> None:
        home = self.home(client_id)
        for _ in range(count if home is not None else 0):
            body = f"{client_id}{len(self.sent[client_id])}".encode()
            self.sent[client_id].append(body)
            assert home is not None
            home.send(client_id, body)

    @rule(client_id=clients, to=nodes)
    def ask(self, client_id: str, to: int) -> None:
        """The client comes to a node with its token."""
        if client_id not in self.nodes[to].node.members:
            self.nodes[to].directory.ask(client_id, TOKEN, None, self.nodes[to].node.next_request())

    @rule(client_id=clients, count=steps)
    def follow(self, client_id: str, count: int) -> None:
        """The peer comes to the client's node, which has not seen the session yet; the client goes on to send."""
        home = self.home(client_id)
        if home is not None:
            to = self.nodes.index(home)
            self.ask(PEERS[client_id], to)
            self.make_calls(to, 100)
            self.settle_others(to)
            self.send(client_id, count)
            self.take_entries(to, 100)
            self.send(client_id, count)

    @rule(client_id=clients)
    def drain(self, client_id: str) -> None:
        """The node of the client is stopping."""
        home = self.home(client_id)
        if home is not None:
            home.node.freeze(home.node.members[client_id])

    @rule(node=nodes, count=steps)
    def make_calls(self, node: int, count: int) -> None:
        self.nodes[node].directory.make_calls(count)

    @rule(node=nodes)
    def lose_answer(self, node: int) -> None:
        self.nodes[node].lose_answer()

    @rule(node=nodes, count=steps)
    def take_entries(self, node: int, count: int) -> None:
        self.nodes[node].directory.take_entries(self.nodes[node].handler, count)

    @rule(slow=nodes)
    def settle_others(self, slow: int) -> None:
        """All nodes but one do everything that they can."""
        self.settle(self.nodes[slow])

    @precondition(lambda self: any(self.sent.values()))
    @rule()
    def come_back(self) -> None:
        """Both clients come back somewhere, and everything arrives."""
        self.settle()
        for number, client_id in enumerate("ab"):
            if self.home(client_id) is None:
                self.ask(client_id, number)
        self.settle()
        for client_id, peer_id in PEERS.items():
            home = self.home(peer_id)
            assert home is not None
            assert home.received[peer_id] == self.sent[client_id]
            assert home.node.members[peer_id].link is not None
        homes = [self.home("a"), self.home("b")]
        if homes[0] is homes[1] and homes[0] is not None:
            assert all(homes[0].node.is_direct(each) for each in homes[0].node.members.values())

    def settle(self, slow: FakeNode | None = None) -> None:
        """Let every node, but perhaps a slow one, do everything that is under way, in some order."""
        order, others = Random(len(self.sent["a"])), [each for each in self.nodes if each is not slow]
        while any(not each.directory.is_idle or self.engine.channels[each.directory.node] for each in others):
            each = order.choice(others)
            if order.random() < 0.5:
                each.directory.make_calls(order.randint(1, 3))
            else:
                each.directory.take_entries(each.handler, order.randint(1, 3))

    @invariant()
    def frames_arrive_once_and_in_order(self) -> None:
        for client_id, peer_id in PEERS.items():
            for each in self.nodes:
                received = each.received.get(peer_id, [])
                assert received == self.sent[client_id][: len(received)]
            assert sum(peer_id in each.received for each in self.nodes) <= 1

    @invariant()
    def no_pairing_ends_and_no_frame_is_refused(self) -> None:
        assert [(each.ended, each.unread) for each in self.nodes] == [([], [])] * 3


TestMoves = Moves.TestCase
TestMoves.settings = examples(0.5, stateful_step_count=40)
