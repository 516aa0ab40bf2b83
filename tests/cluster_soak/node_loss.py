"""A node is killed, again and again: the peers of its clients are notified, and no other pair is disturbed."""

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Final

import trio

from tests.cluster_soak.outcome import Outcome, Scale, active_pairs
from tests.cluster_soak.traffic import ActivePair, wait_until, wait_until_settled
from tests.harness.balancer import Balancer
from tests.harness.cluster import Node

TOLD_SECONDS: Final = 2.0
LONGEST_WAIT: Final = 20.0


class _Losses:
    """The measurement: the notifications of the clients about each loss."""

    def __init__(self, pairs: list[ActivePair], front: Balancer, out: Outcome) -> None:
        self._pairs = pairs
        self._front = front
        self._out = out
        self.told: list[float] = []  # seconds until a peer was notified
        self.back: list[float] = []  # seconds until all pairs exchanged frames again
        self.reasons: Counter[str] = Counter()
        self.disturbed = 0

    async def lose(self, node: Node) -> None:
        """Kill a node, wait for what follows, and start it again."""
        out = self._out
        on_node = {
            client
            for pair in self._pairs
            for client in pair.clients
            if self._front.backend_of(client.local_port) == node.port
        }
        others = [pair for pair in self._pairs if not on_node & {*pair.clients}]
        peers = [
            (b if a in on_node else a)
            for a, b in (pair.clients for pair in self._pairs)
            if (a in on_node) != (b in on_node)
        ]
        before = {peer: len(peer.disconnects) for peer in peers}
        notices, resumed = [pair.notices for pair in others], [len(c.results) for pair in others for c in pair.clients]
        node.kill()
        killed = trio.current_time()
        told = await wait_until(lambda: all(len(peer.disconnects) > before[peer] for peer in peers), LONGEST_WAIT)
        out.require(told, f"{sum(len(p.disconnects) == before[p] for p in peers)} of {len(peers)} peers were not told.")
        for peer in peers:
            for notice in peer.disconnects[before[peer] : before[peer] + 1]:
                self.told.append(notice.time - killed)
                self.reasons[notice.reason] += 1
        again = await wait_until(lambda: all(pair.paired for pair in self._pairs), LONGEST_WAIT)
        out.require(again, f"{sum(not pair.paired for pair in self._pairs)} pairs were not paired again.")
        self.back.append(trio.current_time() - killed)
        self.disturbed += [pair.notices for pair in others] != notices
        self.disturbed += [len(c.results) for pair in others for c in pair.clients] != resumed
        await node.start()


async def node_loss(folder: Path, scale: Scale) -> Outcome:
    """Kill one node after the other behind a balancer, while pairs exchange frames."""
    out = Outcome(f"Loss of a node: {scale.nodes} nodes, {scale.pairs} active pairs, {scale.kills} times SIGKILL")
    async with active_pairs(folder, scale) as (nodes, _, front, pairs):
        losses = _Losses(pairs, front, out)
        for number in range(scale.kills):
            settled = await wait_until_settled(pairs, 60)
            out.require(settled, f"Not all pairs were settled before loss {number + 1}.")
            await losses.lose(nodes[number % len(nodes)])
        out.require(await wait_until_settled(pairs, 60, go_on=False), "Not all pairs were settled at the end.")
    out.row("peers notified", len(losses.told))
    out.row("reasons", dict(losses.reasons))
    out.row("notified after, longest", f"{max(losses.told, default=0):.2f} s")
    out.row("all pairs paired again after, median, longest", f"{median(losses.back):.2f}, {max(losses.back):.2f} s")
    out.row("losses in which other pairs were disturbed", losses.disturbed)
    out.add_clients(pairs)
    out.add_nodes(nodes)
    late = sum(seconds > TOLD_SECONDS * scale.slack for seconds in losses.told)
    out.require(not late, f"{late} peers were told later than {TOLD_SECONDS:g} s.")
    out.require(losses.reasons.keys() <= {"node_lost"}, f"Reasons other than node_lost: {dict(losses.reasons)}.")
    out.require(not losses.disturbed, f"Other pairs were disturbed {losses.disturbed} times.")
    return out
