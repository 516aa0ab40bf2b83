"""`python -m tests.bench.data`: the data channel of sdpx beside node-datachannel and aiortc by itself.

The stacks are measured in turn, several times; medians and their ratios are written to stdout as a table, with the date and the
machine; progress to stderr. The exit status is 1 if a ratio misses its bound.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import trio

from sdpx.bench.data import OWN, measure_pair
from sdpx.bench.data_report import DataJob, figures
from sdpx.bench.report import Figures
from tests.bench import paths
from tests.harness.programs import PACKAGES
from tests.interop.stacks import missing

SDPX, NDC, STOCK = "sdpx", "node-datachannel", "aiortc on trio-asyncio"
NODE: Final = (shutil.which("node") or "node", str(Path(__file__).with_name("data_peer.mjs")), str(PACKAGES))


class Route(NamedTuple):
    """A network path: milliseconds and percent in each direction; without a delay both ends are in this namespace."""

    name: str
    delay_ms: float = 0.0
    loss_percent: float = 0.0


LOOPBACK: Final = Route("loopback")
CLEAN: Final = Route("50 ms round trip", 25.0)
LOSSY: Final = Route("50 ms round trip, 1 % loss", 25.0, 1.0)
STACKS: Final = {LOOPBACK: (SDPX, NDC, STOCK), CLEAN: (SDPX, NDC), LOSSY: (SDPX, NDC)}


class Demand(NamedTuple):
    """A ratio that is asked for: of a figure, to that of another stack, on a path; `least` says which way it is better."""

    name: str
    path: Route
    other: str
    figure: Callable[[Figures], float]
    bound: float
    least: bool = True


def speed(result: Figures) -> float:
    return float(result["megabytes_per_s"])


def cpu(result: Figures) -> float:
    """Return the CPU seconds for a GB, of both ends."""
    return sum(value or 0.0 for value in result["cpu_s_per_gb"].values())


DEMANDS: Final = (
    Demand("64 KiB messages, loopback, MB/s", LOOPBACK, NDC, speed, 0.5),
    Demand("CPU seconds per GB, both ends", LOOPBACK, NDC, cpu, 1.6, least=False),
    Demand("loopback, MB/s", LOOPBACK, STOCK, speed, 10.0),
    Demand("clean 50 ms round trip, MB/s", CLEAN, NDC, speed, 2.0),
    Demand("1 % loss at 50 ms, MB/s", LOSSY, NDC, speed, 0.9),
)
Runs = dict[tuple[Route, str], list[Figures]]


async def measure(stack: str, job: DataJob, prefixes: paths.Prefixes) -> Figures:
    program: Sequence[str] = NODE if stack == NDC else OWN
    sender, receiver = ((*prefix, *program) for prefix in prefixes)
    return figures(job, *await measure_pair(job, sender, receiver))


def measure_all(asked: argparse.Namespace, folder: Path) -> Runs:
    problem = paths.missing()
    if problem:
        sys.stderr.write(f"The paths with a delay are left out: {problem}\n")
    runs: Runs = {}
    for number in range(asked.runs):
        for path, stacks in STACKS.items():
            if path.delay_ms and problem:
                continue
            for stack in stacks:
                sys.stderr.write(f"Run {number + 1} of {asked.runs}: {path.name}, {stack}\n")
                seconds = asked.seconds * (4 if path.loss_percent else 1)  # a run of 16 s has some 35 losses
                job = DataJob(sends=True, seconds=seconds, stock=stack == STOCK)
                with (
                    paths.path(folder, path.delay_ms, path.loss_percent, number)
                    if path.delay_ms
                    else nullcontext(((), ()))
                ) as prefixes:
                    runs.setdefault((path, stack), []).append(trio.run(measure, stack, job, prefixes))
    return runs


def median(results: list[Figures], figure: Callable[[Figures], float]) -> float:
    return statistics.median(map(figure, results))


def rendered(runs: Runs) -> tuple[str, bool]:
    """Return the tables, and whether each demand is met."""
    lines = [
        "| path | stack | MB/s (lowest to highest) | CPU s/GB, both ends | memory MB | sent again |",
        "| --- " * 6 + "|",
    ]
    for (path, stack), results in runs.items():
        speeds = sorted(map(speed, results))
        memory = "/".join(str(max(each["memory_mb"][end] for each in results)) for end in ("sender", "receiver"))
        again = "" if stack != SDPX else str(int(median(results, lambda each: each["retransmissions"])))
        figure = f"{statistics.median(speeds):.2f} ({speeds[0]:.2f} to {speeds[-1]:.2f})"
        lines.append(f"| {path.name} | {stack} | {figure} | {median(results, cpu):.1f} | {memory} | {again} |")
    lines += ["", "| | to | asked | ratio |", "| --- " * 4 + "|"]
    met = True
    for demand in DEMANDS:
        keys = (demand.path, SDPX), (demand.path, demand.other)
        if not all(key in runs for key in keys):
            lines.append(f"| {demand.name} | {demand.other} | | not measured |")
            continue
        own, other = (median(runs[key], demand.figure) for key in keys)
        ratio = own / other if other else float("inf")
        met = met and (ratio >= demand.bound if demand.least else ratio <= demand.bound)
        sign = ">=" if demand.least else "<="
        lines.append(f"| {demand.name} | {demand.other} | {sign} {demand.bound:g} | {ratio:.2f} |")
    return "\n".join(lines), met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each stack on each path")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run; four times that with loss")
    asked = parser.parse_args()
    if problem := missing("node-datachannel"):
        raise SystemExit(problem)
    with tempfile.TemporaryDirectory() as folder:
        runs = measure_all(asked, Path(folder))
    text, met = rendered(runs)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    sys.stdout.write(f"{datetime.now(UTC):%Y-%m-%d}, {machine}; medians of {asked.runs} runs\n\n{text}\n")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
