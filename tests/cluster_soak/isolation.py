"""One node is cut off from the engine, suspended, or both: it ends its pairings with other nodes by itself."""

import signal
from pathlib import Path
from typing import Final

import trio

from sdpx.relay.cluster.directory import FRAME_SECONDS
from tests.cluster_soak.outcome import Outcome, Scale, nodes_of
from tests.cluster_soak.traffic import ActiveClient, ActivePair, wait_until, wait_until_settled
from tests.harness.breaking_proxy import BreakingProxy, breaking_proxy
from tests.harness.cluster import Node
from tests.harness.redis_server import redis_server

OTHERS_SECONDS: Final = 2.0  # within which the clients of the other nodes are notified
OWN_SECONDS: Final = 2.0  # after the lease and 5 s, or after a suspension that was longer
BACK_SECONDS: Final = 2.0
LONGEST_WAIT: Final = 30.0


class _Isolation:
    """The measurement: pairs on the first node, pairs of its clients with others, and pairs without it."""

    def __init__(self, nodes: list[Node], proxy: BreakingProxy, scale: Scale, out: Outcome) -> None:
        self._node, self._proxy, self._lease, self._slack, self._out = nodes[0], proxy, scale.lease, scale.slack, out
        first, *others = [node.port for node in nodes]
        sides = [(first, first), (first, others[0]), (others[0], first), (others[0], others[-1])]
        self.pairs = [ActivePair(number, sides[number % 4], scale.rate) for number in range(scale.pairs)]
        self._undisturbed = self.pairs[::4] + self.pairs[3::4]
        self._cut = self.pairs[1::4] + self.pairs[2::4]
        self._own = [pair.a for pair in self.pairs[1::4]] + [pair.b for pair in self.pairs[2::4]]
        self._others = [pair.b for pair in self.pairs[1::4]] + [pair.a for pair in self.pairs[2::4]]

    async def run(self, name: str, *, is_cut: bool, suspended: float) -> None:
        """Cut the node off, or suspend it for some time, or both; then everything is restored."""
        out = self._out
        out.require(await wait_until_settled(self.pairs, LONGEST_WAIT), f"{name}: not all pairs were settled before.")
        own, others = [len(each.disconnects) for each in self._own], [len(each.disconnects) for each in self._others]
        notices = [pair.notices for pair in self._undisturbed]
        began = trio.current_time()
        if is_cut:
            self._proxy.cut()
        if suspended:
            self._node.signal(signal.SIGSTOP)
        await self._expect(f"{name}: clients of other nodes", self._others, others, began, OTHERS_SECONDS * self._slack)
        own_seconds = OWN_SECONDS * self._slack
        bound = self._lease + FRAME_SECONDS + own_seconds
        if suspended:
            await trio.sleep_until(began + suspended)
            self._node.signal(signal.SIGCONT)
            began, bound = trio.current_time(), self._lease + own_seconds
        await self._expect(f"{name}: its own clients", self._own, own, began, bound)
        began = trio.current_time()
        if is_cut:
            self._proxy.mend()
        again = await wait_until(lambda: all(pair.paired for pair in self._cut), LONGEST_WAIT)
        back = trio.current_time() - began
        out.row(f"{name}: all paired again after", f"{back:.2f} s")
        out.require(
            again and back <= BACK_SECONDS * self._slack,
            f"{name}: not all were paired again within {BACK_SECONDS:g} s.",
        )
        once = [len(each.disconnects) for each in self._own + self._others] == [count + 1 for count in own + others]
        out.require(once, f"{name}: a client was not told exactly once.")
        disturbed = [pair.notices for pair in self._undisturbed] != notices
        out.require(not disturbed, f"{name}: a pair within the node, or without it, was disturbed.")

    async def _expect(
        self, what: str, clients: list[ActiveClient], before: list[int], began: float, bound: float
    ) -> None:
        """Require that each of the clients gets `peer_disconnected` (`node_lost`) in time."""
        out = self._out
        counted = list(zip(clients, before, strict=True))
        told = await wait_until(lambda: all(len(each.disconnects) > count for each, count in counted), LONGEST_WAIT)
        notices = [each.disconnects[count] for each, count in counted if len(each.disconnects) > count]
        latest = max((notice.time for notice in notices), default=began) - began
        out.row(f"{what}: told after, at most", f"{latest:.2f} s")
        out.require(
            told and latest <= bound, f"{what}: {len(notices)} of {len(clients)}, the last after {latest:.2f} s."
        )
        out.require({each.reason for each in notices} == {"node_lost"}, f"{what}: another reason than node_lost.")


async def isolation(folder: Path, scale: Scale) -> Outcome:
    """Cut one node off under active pairs."""
    out = Outcome(f"A node is cut off alone: {scale.nodes} nodes, {scale.pairs} active pairs")
    async with (
        redis_server(folder, kind=scale.engine) as engine,
        breaking_proxy(engine.port) as proxy,
        nodes_of(engine, folder, scale, proxy.port) as nodes,
        trio.open_nursery() as nursery,
    ):
        cases = _Isolation(nodes, proxy, scale, out)
        for pair in cases.pairs:
            nursery.start_soon(pair.run)
        kinds = (
            ("cut off", True, 0.0),
            ("suspended", False, 3 * scale.lease),
            ("suspended and cut off", True, scale.lease + FRAME_SECONDS + 1),
        )
        for name, is_cut, suspended in kinds[: scale.outages]:
            await cases.run(name, is_cut=is_cut, suspended=suspended)
        settled = await wait_until_settled(cases.pairs, LONGEST_WAIT, go_on=False)
        out.require(settled, "Not all pairs were settled at the end.")
        nursery.cancel_scope.cancel()
    out.add_clients(cases.pairs)
    out.add_nodes(nodes)
    return out
