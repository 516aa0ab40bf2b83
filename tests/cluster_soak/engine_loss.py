"""The engine is killed and restarted empty, suspended, and replaced: nodes keep running, and pairs on one node lose nothing."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from sdpx.relay.cluster.directory import FRAME_SECONDS
from tests.cluster_soak.outcome import Outcome, Scale, nodes_and_engine
from tests.cluster_soak.traffic import ActivePair, wait_until, wait_until_settled
from tests.harness.cluster import Node
from tests.harness.http_get import http_get
from tests.harness.redis_server import RedisServer, server_path
from tests.harness.resuming_client import ResumingClient

BACK_SECONDS: Final = 2.0
WATCH_SECONDS: Final = 2.5  # after the return of the engine
LONGEST_WAIT: Final = 20.0
POLL_SECONDS: Final = 0.05
EARLIEST: Final = 0.5  # part of a lease that is left, at least, when the engine is lost
LOCAL_PAUSE: Final = 1.0  # seconds that a frame between two clients of one node may take on a busy machine


class _Outages:
    """The measurement: pairs on one node each, pairs across nodes, and a watch on all pages."""

    def __init__(self, nodes: list[Node], engine: RedisServer, scale: Scale, out: Outcome) -> None:
        self.nodes, self.engine, self.scale, self.out = nodes, engine, scale, out
        ports = [node.port for node in nodes]
        sides = [(k % len(ports), (k // 2 + k) % len(ports)) for k in range(scale.pairs)]
        made = [ActivePair(k, [ports[a], ports[b]], scale.rate) for k, (a, b) in enumerate(sides)]
        self.local = [pair for pair, (a, b) in zip(made, sides, strict=True) if a == b]
        self.remote = [pair for pair, (a, b) in zip(made, sides, strict=True) if a != b]
        self.unhealthy = 0
        self.newcomers: Counter[str] = Counter()

    @property
    def pairs(self) -> list[ActivePair]:
        return self.local + self.remote

    async def watch_health(self) -> None:
        """Request `/healthz` of all nodes for ever, and count other answers than 200."""
        while True:
            for node in self.nodes:
                status, _ = await http_get(node.port, "/healthz", 2.0 * self.scale.slack)
                self.unhealthy += status != 200
            await trio.sleep(POLL_SECONDS)

    async def is_degraded(self, node: Node) -> bool:
        return "degraded" in (await http_get(node.port, "/readyz"))[1]

    async def run(
        self, name: str, stop: Callable[[], None], back: Callable[[], Awaitable[None]], seconds: float
    ) -> None:
        """Stop the engine for some time, and measure how long everything takes to be restored."""
        out = self.out
        out.require(await wait_until_settled(self.pairs, 30), f"{name}: not all pairs were settled before.")
        notices = [pair.notices for pair in self.local]
        ended = sum(pair.notices for pair in self.remote)
        stop()
        stopped = trio.current_time()
        await self._expect_degraded(name, seconds)
        await self._try_newcomer(name)
        await trio.sleep_until(stopped + seconds)
        await back()
        began = trio.current_time()
        directions = [client.outgoing for pair in self.remote for client in pair.clients]
        for direction in directions:
            direction.time_from(began)
        while any([await self.is_degraded(node) for node in self.nodes]) and trio.current_time() < began + LONGEST_WAIT:
            await trio.sleep(POLL_SECONDS)
        restored = trio.current_time() - began
        paired = await wait_until(lambda: all(pair.paired for pair in self.pairs), LONGEST_WAIT)
        whole = trio.current_time() - began
        await trio.sleep_until(began + WATCH_SECONDS)
        slowest = max([direction.longest_since for direction in directions], default=0.0)
        out.row(f"{name}: ready again after", f"{restored:.2f} s")
        out.row(f"{name}: all pairs paired after", f"{whole:.2f} s")
        out.row(f"{name}: a frame across nodes, from then on, at most", f"{slowest:.2f} s")
        out.row(f"{name}: pairings across nodes that ended", sum(pair.notices for pair in self.remote) - ended)
        out.require(paired, f"{name}: {sum(not pair.paired for pair in self.pairs)} pairs were not paired again.")
        latest = max(restored, whole, slowest)
        out.require(latest <= BACK_SECONDS * self.scale.slack, f"{name}: not all was restored before {latest:.2f} s.")
        goes_on = began + restored - stopped < self.scale.lease * EARLIEST + FRAME_SECONDS
        out.require(
            not goes_on or ended == sum(pair.notices for pair in self.remote),
            f"{name}: a pairing across nodes ended, though it was kept on both sides.",
        )
        disturbed = [pair.notices for pair in self.local] != notices
        out.require(not disturbed, f"{name}: a pair on one node was disturbed.")

    async def _expect_degraded(self, name: str, seconds: float) -> None:
        with trio.move_on_after(seconds) as scope:
            began = trio.current_time()
            for node in self.nodes:
                while not await self.is_degraded(node):
                    await trio.sleep(POLL_SECONDS)
            self.out.row(f"{name}: all nodes degraded after", f"{trio.current_time() - began:.2f} s")
        self.out.require(not scope.cancelled_caught, f"{name}: /readyz of a node did not say 'degraded'.")

    async def _try_newcomer(self, name: str) -> None:
        """A new client is refused while the engine cannot be reached: 503 before the WebSocket."""
        client = ResumingClient(self.nodes[0].port, f"new{random.random()}"[:20])
        patience = self.scale.slack
        with trio.move_on_after(patience):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.run)
                await wait_until(lambda: bool(client.refusals or client.welcomed), patience)
                nursery.cancel_scope.cancel()
        self.newcomers.update(client.refusals)
        refused = bool(client.refusals) and all(" 503 " in line for line in client.refusals)
        self.out.require(refused and not client.results, f"{name}: a new client was not refused with 503.")


async def engine_loss(folder: Path, scale: Scale) -> Outcome:
    """Kill, suspend and replace the engine under active pairs."""
    out = Outcome(f"Loss of the engine: {scale.nodes} nodes, {scale.pairs} active pairs")
    other = server_path("redis" if scale.engine == "valkey" else "valkey")
    async with nodes_and_engine(folder, scale) as (nodes, engine), trio.open_nursery() as nursery:
        outages = _Outages(nodes, engine, scale, out)
        nursery.start_soon(outages.watch_health)
        for pair in outages.pairs:
            nursery.start_soon(pair.run)
        await wait_until_settled(outages.pairs, 60)
        for pair in outages.pairs:
            for client in pair.clients:
                client.outgoing.start_timing()
        kinds: list[tuple[str, Callable[[], None], Callable[[], Awaitable[None]], float]] = [
            ("killed for 3 s", engine.kill, engine.start, 3.0),
            ("suspended for 3 leases", engine.suspend, _async(engine.resume), 3 * scale.lease),
            ("replaced", engine.kill, lambda: engine.start(other), 2.0),
            ("killed for 8 s", engine.kill, engine.start, 8.0),
        ]
        for kind in kinds[: scale.outages]:
            await outages.run(*kind)
        out.require(await wait_until_settled(outages.pairs, 30, go_on=False), "Not all pairs were settled at the end.")
        nursery.cancel_scope.cancel()
    local = Outcome("")
    local.add_clients(outages.local)
    out.rows += [(f"one node: {name}", value) for name, value in local.rows]
    out.wrong += [f"Pairs on one node: {sentence}" for sentence in local.wrong]
    pause = max((client.outgoing.figures().longest for pair in outages.local for client in pair.clients), default=0.0)
    out.require(pause <= LOCAL_PAUSE * scale.slack, f"A frame between clients of one node took {pause:.2f} s.")
    across = Outcome("")
    across.add_clients(outages.remote)
    out.rows += [(f"across nodes: {name}", value) for name, value in across.rows]
    out.wrong += [f"Pairs across nodes: {sentence}" for sentence in across.wrong]
    out.row("new clients refused", dict(outages.newcomers))
    out.row("/healthz other than 200", outages.unhealthy)
    out.require(not outages.unhealthy, f"/healthz failed {outages.unhealthy} times.")
    out.add_nodes(nodes)
    return out


def _async(function: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        function()
        await trio.lowlevel.checkpoint()

    return run
