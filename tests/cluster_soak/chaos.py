"""Random faults of nodes and engine, also at once: afterwards all pairs exchange frames, and every frame is accounted for."""

import random
import signal
from collections import Counter
from pathlib import Path
from typing import Final

import trio

from tests.cluster_soak.outcome import Outcome, Scale, active_pairs
from tests.cluster_soak.traffic import wait_until_settled
from tests.harness.cluster import Node
from tests.harness.redis_server import RedisServer

QUIET_SECONDS: Final = 60.0


class _Faults:
    """The faults, each with the repair that follows it."""

    def __init__(self, nodes: list[Node], engine: RedisServer, rng: random.Random) -> None:
        self._nodes, self._engine, self._rng = nodes, engine, rng
        self._engine_lock, self._node_lock = (
            trio.Lock(),
            trio.Lock(),
        )  # one node and the engine may fail at the same time
        self.done: Counter[str] = Counter()

    async def one(self) -> None:
        """Run one random fault."""
        of_nodes = self.node_killed, self.node_restarted, self.node_suspended
        fault = self._rng.choice([*of_nodes, self.engine_killed, self.engine_suspended])
        async with self._engine_lock if "engine" in fault.__name__ else self._node_lock:
            self.done[fault.__name__.replace("_", " ")] += 1
            await fault()

    async def node_killed(self) -> None:
        node = self._rng.choice(self._nodes)
        node.kill()
        await self._start(node)

    async def node_restarted(self) -> None:
        node = self._rng.choice(self._nodes)
        await node.stop()
        await self._start(node)

    async def node_suspended(self) -> None:
        node = self._rng.choice(self._nodes)
        node.signal(signal.SIGSTOP)
        await trio.sleep(self._rng.uniform(0.2, 4))
        node.signal(signal.SIGCONT)

    async def engine_killed(self) -> None:
        self._engine.kill()
        await trio.sleep(self._rng.uniform(0, 4))
        await self._engine.start()

    async def engine_suspended(self) -> None:
        self._engine.suspend()
        await trio.sleep(self._rng.uniform(0.2, 4))
        self._engine.resume()

    async def _start(self, node: Node) -> None:
        """Start a node; it exits while there is no engine."""
        await trio.sleep(self._rng.uniform(0, 2))
        async with self._engine_lock:
            await node.start()


async def chaos(folder: Path, scale: Scale) -> Outcome:
    """Run random faults under active pairs behind a balancer."""
    out = Outcome(f"Chaos: {scale.nodes} nodes, {scale.pairs} active pairs, {scale.faults} faults, seed {scale.seed}")
    rng = random.Random(scale.seed)
    async with active_pairs(folder, scale) as (nodes, engine, _, pairs):
        await wait_until_settled(pairs, QUIET_SECONDS)
        faults = _Faults(nodes, engine, rng)
        async with trio.open_nursery() as running:
            for _ in range(scale.faults):
                running.start_soon(faults.one)
                await trio.sleep(rng.uniform(0, 5))
        began = trio.current_time()
        settled = await wait_until_settled(pairs, QUIET_SECONDS, go_on=False)
        out.row("all pairs settled after the last fault", f"{trio.current_time() - began:.1f} s")
        left = [
            f"{c.name}: peer {c.peer}, welcomed {c.welcomed}, pending {c.outgoing.pending}"
            for pair in pairs
            if not pair.settled
            for c in pair.clients
        ]
        out.require(settled, f"{len(left) // 2} pairs did not settle: {left[:6]}")
    out.row("faults", ", ".join(f"{name} {times}" for name, times in sorted(faults.done.items())))
    out.row("ends of pairings and sessions", sum(pair.notices for pair in pairs))
    out.add_clients(pairs)
    out.add_nodes(nodes)
    return out
