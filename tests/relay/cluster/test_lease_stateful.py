"""Nodes that lose the engine, alone or together, for any time: then both sides agree, and all frames are accounted for."""

from collections.abc import Iterator
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.cluster_soak.accounting import Direction
from tests.harness.examples import examples
from tests.relay.cluster.fake_node import LEASE, PEERS, FakeNode, World

BEAT: Final = LEASE / 4
nodes = st.integers(0, 1)
clients = st.sampled_from(sorted(PEERS))


class Leases(RuleBasedStateMachine):
    """A pair across two nodes; frames are accounted for as a client can do it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.sent = {"a": Direction(), "b": Direction()}
        self.cut: set[int] = set()
        self.seen = {client_id: [0, 0, 0] for client_id in PEERS}

    @property
    def homes(self) -> Iterator[tuple[str, FakeNode]]:
        return zip("ab", self.world.nodes, strict=True)

    @rule(node=nodes)
    def cut_off(self, node: int) -> None:
        self.cut.add(node)

    @rule(node=nodes)
    def mend(self, node: int) -> None:
        self.cut.discard(node)

    @rule()
    def lose_engine(self) -> None:
        self.world.engine.is_reachable = False

    @rule(empty=st.booleans())
    def bring_engine_back(self, empty: bool) -> None:
        if empty and not self.world.engine.is_reachable:
            self.world.engine.wipe()
        self.world.engine.is_reachable = True

    @rule(beats=st.sampled_from([1, 1, 2, 4, 8, 16]))
    def pass_time(self, beats: int) -> None:
        for _ in range(beats):
            self.world.engine.cut_off = {self.world.nodes[each].directory.node for each in self.cut}
            self.world.pass_time(self.world.now + BEAT)
            self.account()

    @rule(node=nodes)
    def renew(self, node: int) -> None:
        """One node renews its lease, so that the leases end at different times."""
        self.world.now += BEAT / 2
        each = self.world.nodes[node]
        each.directory.beat(each.handler)

    @rule(
        cut=st.sets(nodes),
        is_lost=st.booleans(),
        beats=st.integers(1, 20),
        empty=st.booleans(),
        is_checked=st.booleans(),
    )
    def outage(self, cut: set[int], is_lost: bool, beats: int, empty: bool, is_checked: bool) -> None:
        """Nodes, or all by the loss of the engine, are cut off for a while."""
        self.cut = cut
        if is_lost:
            self.lose_engine()
        for client_id in PEERS:
            self.send(client_id, settles=False)
        self.pass_time(beats)
        self.cut = set()
        self.bring_engine_back(empty)
        if is_checked:
            self.come_back()

    @rule(client_id=clients, settles=st.booleans())
    def send(self, client_id: str, settles: bool) -> None:
        node = dict(self.homes)[client_id]
        if node.node.members[client_id].link is not None:
            number = self.sent[client_id].send(self.world.now)
            node.send(client_id, str(number).encode())
        if settles:
            self.world.settle()
        self.account()

    @rule()
    def request(self) -> None:
        """The first client asks for the pairing, if it has none and the relay would ask."""
        first = self.world.nodes[0]
        member = first.node.members["a"]
        if member.link is None and not member.request and first.directory.status == "joined":
            first.node.request_pair(member, "b")

    @rule()
    def come_back(self) -> None:
        """Everything is restored: both have the pairing or none has it, and every frame is accounted for."""
        self.cut.clear()
        self.world.engine.is_reachable = True
        self.pass_time(16)
        links = [node.node.members[client_id].link for client_id, node in self.homes]
        pairings = {link and link.pairing for link in links}
        assert len(pairings) == 1, links
        assert ("a" in self.world.engine.peer) == ("b" in self.world.engine.peer) == (links[0] is not None)
        assert self.world.nodes[0].node.is_direct(self.world.nodes[0].node.members["c"])
        for direction in self.sent.values():
            figures = direction.figures()
            assert (figures.faults, direction.pending if links[0] else 0) == (0, 0), figures
        assert all(each.directory.queued_bytes == 0 for each in self.world.nodes)

    def teardown(self) -> None:
        self.come_back()

    def account(self) -> None:
        """Count what has come to the clients since the last time."""
        for client_id, node in self.homes:
            seen, direction = self.seen[client_id], self.sent[client_id]
            unread = [each for each in node.unread if each.client_id == client_id]
            ended = [each for each in node.ended if each.client_id == client_id]
            for body in node.received[client_id][seen[0] :]:
                self.sent[PEERS[client_id]].receive(int(body), self.world.now)
            for each in unread[seen[1] :]:
                if each.is_peer:
                    direction.refuse()
            if len(ended) > seen[2]:
                direction.end_pairing()
            self.seen[client_id] = [len(node.received[client_id]), len(unread), len(ended)]


TestLeases = Leases.TestCase
TestLeases.settings = examples(1, stateful_step_count=15)
