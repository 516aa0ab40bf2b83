"""Each node is restarted in turn while pairs exchange frames: no frame is lost, and no pairing ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from tests.cluster_soak.outcome import Outcome, Scale, active_pairs
from tests.cluster_soak.traffic import wait_until, wait_until_settled
from tests.harness.cluster import Node

SETTLE_SECONDS: Final = 20.0
TRAFFIC_SECONDS: Final = 1.0  # between two restarts


async def roll(nodes: list[Node], out: Outcome, settled: Callable[[], bool]) -> None:
    """Stop and start one node after the other, each when the clients have settled again."""
    slowest = 0.0
    for number, node in enumerate(nodes, 1):
        began = trio.current_time()
        status = await node.stop()
        slowest = max(slowest, trio.current_time() - began)
        out.require(status == 0, f"At restart {number} a node ended with status {status} on SIGTERM.")
        await node.start()
        await wait_until(settled, SETTLE_SECONDS)
        await trio.sleep(TRAFFIC_SECONDS)
    out.row("restarts", len(nodes))
    out.row("slowest stop of a node", f"{slowest:.1f} s")


async def rolling_restart(folder: Path, scale: Scale) -> Outcome:
    """Restart each node in turn behind a balancer, while pairs exchange frames."""
    out = Outcome(f"Rolling restart: {scale.nodes} nodes, {scale.pairs} active pairs, {scale.rounds} rounds")
    async with active_pairs(folder, scale) as (nodes, _, front, pairs):
        out.require(await wait_until_settled(pairs, 60), "Not all pairs were paired at first.")
        for pair in pairs:
            for client in pair.clients:
                client.outgoing.start_timing()
        await roll(nodes * scale.rounds, out, lambda: all(front.ready.values()) and all(pair.paired for pair in pairs))
        out.require(
            await wait_until_settled(pairs, SETTLE_SECONDS, go_on=False), "Not all pairs were settled at the end."
        )
    ended = [notice.reason for pair in pairs for client in pair.clients for notice in client.disconnects]
    lost = sum(len(client.lost_sessions) for pair in pairs for client in pair.clients)
    out.row("peer_disconnected", len(ended))
    out.row("sessions not resumed", lost)
    out.add_clients(pairs)
    out.add_nodes(nodes)
    out.require(not ended, f"{len(ended)} clients received peer_disconnected, with the reasons {sorted(set(ended))}.")
    out.require(not lost, f"{lost} sessions were not resumed.")
    return out
