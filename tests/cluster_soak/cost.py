"""The cost of a relayed message between two nodes, beside the same on one node: CPU and delay."""

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from selectors import DefaultSelector
from typing import Final

import trio

from sdpx.bench.accounting import Tally, percentile
from sdpx.bench.pair import Pair
from sdpx.bench.ws_client import Target, upgrade_request
from tests.cluster_soak.outcome import Outcome, Scale, nodes_and_engine
from tests.harness.processes import cpu_seconds

PAYLOAD: Final = 4096
LOADS: Final = (2, 40)  # pairs with one message in flight: an idle relay, and a busy one
WARM_SECONDS: Final = 0.5
SETUP_SECONDS: Final = 20.0


def _exchange(
    ports: Sequence[int], pairs: int, seconds: float, cpu: Callable[[], list[float]]
) -> tuple[Tally, list[float]]:
    """Exchange messages between clients of the first and the second port; returns the counters and the CPU seconds used."""
    targets = [Target("127.0.0.1", port, upgrade_request("127.0.0.1")) for port in ports]
    selector, tally = DefaultSelector(), Tally()

    def serve(seconds: float, done: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while not done() and (now := time.monotonic()) < until:
            for key, events in selector.select(min(until - now, 0.1)):
                key.data(events)

    made = [Pair(selector, targets, PAYLOAD, tally) for _ in range(pairs)]
    serve(SETUP_SECONDS, lambda: all(pair.paired for pair in made) or tally.failures > 0)
    for pair in made:
        pair.start(1)
    serve(WARM_SECONDS, lambda: tally.failures > 0)
    tally.count = 0
    tally.latencies.clear()
    before, began = cpu(), time.monotonic()
    serve(seconds, lambda: tally.failures > 0)
    tally.rate = tally.count / (time.monotonic() - began)
    used = [after - each for after, each in zip(cpu(), before, strict=True)]
    for pair in made:
        pair.replies = 0
    serve(5, lambda: not any(pair.has_pending for pair in made))
    for pair in made:
        pair.abort()
    selector.close()
    return tally, used


async def message_cost(folder: Path, scale: Scale) -> Outcome:
    """Measure messages of 4 KiB on one node and between two."""
    out = Outcome(f"Cost of a relayed message of {PAYLOAD} bytes")
    async with nodes_and_engine(folder, scale) as (nodes, engine):
        first, second, *_ = nodes
        assert engine.process is not None
        pids = [first.process.process.pid, second.process.process.pid, engine.process.pid]
        for pairs in LOADS:
            for name, ports in (("one node", (first.port, first.port)), ("two nodes", (first.port, second.port))):
                measured = functools.partial(
                    _exchange, ports, pairs, scale.seconds, lambda: [cpu_seconds(p) for p in pids]
                )
                tally, used = await trio.to_thread.run_sync(measured)
                case = f"{name}, {pairs} pairs"
                count = max(1, tally.count)
                out.row(f"{case}: messages/s", f"{tally.rate:.0f}")
                ends = [percentile(tally.latencies, share) / 1000 for share in (0.5, 0.99)]
                out.row(f"{case}: delay p50, p99", f"{ends[0]:.2f}, {ends[1]:.2f} ms")
                share = [f"{each / count * 1e6:.0f}" for each in used]
                out.row(f"{case}: CPU a message: node 1, node 2, engine", f"{', '.join(share)} us")
                out.require(tally.count > 0, f"{case}: no message was relayed.")
                faults = tally.faults | tally.refused | tally.cut
                out.require(not faults, f"{case}: {dict(faults)}")
    out.add_nodes(nodes)
    return out
