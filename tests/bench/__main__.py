"""`python -m tests.bench`: `sdpx serve` with each engine, plain and TLS, beside the original design's literal server.

`sdpx bench` measures each server repeatedly. The medians and their ratios are written to stdout as a table, with the date and
the machine; progress to stderr. Each server writes its log to a file. The exit status is 1 if a measurement failed.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import Final

import trio

from sdpx.bench.main import NO_LIMITS, bench
from sdpx.bench.options import BenchOptions
from sdpx.bench.report import Figures
from sdpx.options import AccessOptions
from tests.harness.processes import server_process
from tests.harness.tls import write_certificate

SERVE: Final = ("-m", "sdpx", "serve", "--port", "0", *NO_LIMITS)
LITERAL: Final = "the original design, literally"
# The command of each server; with TLS the certificate and its key are added.
SERVERS: Final[dict[str, tuple[str, ...]]] = {
    "`sdpx serve`": SERVE,
    "`sdpx serve --engine trio-websocket`": (*SERVE, "--engine", "trio-websocket"),
    LITERAL: ("-m", "tests.bench.literal_server"),
}
# The value of a column, from the figures with one message in flight in each pair and those with several.
COLUMNS: Final[dict[str, Callable[[Figures, Figures], float]]] = {
    "messages/s": lambda one, _: one["messages_per_s"],
    "p50 ms": lambda one, _: one["latency_ms"]["p50"],
    "p99 ms": lambda one, _: one["latency_ms"]["p99"],
    "CPU us/message": lambda one, _: one["relay_cpu_us_per_message"] or 0.0,
    "messages/s, {} in flight": lambda _, many: many["messages_per_s"],
    "connects/s": lambda one, _: one["connects_per_s"],
    "sessions/s": lambda one, _: one["sessions_per_s"],
}
Runs = dict[str, list[tuple[Figures, Figures]]]


async def measure(asked: argparse.Namespace, folder: Path) -> Runs:
    certificate = write_certificate(folder)
    secure = [name for name in SERVERS if not asked.no_tls]
    servers = SERVERS | {f"{name}, TLS": with_tls(name, certificate) for name in secure}
    runs: Runs = {name: [] for name in servers}
    for number in range(asked.runs):
        for name, done in runs.items():
            sys.stderr.write(f"Run {number + 1} of {asked.runs}: {name}\n")
            with server_process(folder, *servers[name]) as server:
                access = AccessOptions(cafile=str(folder / "ca.pem") if server.url.startswith("wss") else None)
                one = BenchOptions(
                    url=server.url, access=access, pairs=asked.pairs, payload=asked.payload, seconds=asked.seconds
                )
                many = replace(one, in_flight=asked.in_flight)
                done.append((await bench(one, server.process.pid), await bench(many, server.process.pid)))
    return runs


def with_tls(name: str, certificate: tuple[str, ...]) -> tuple[str, ...]:
    return (*SERVERS[name], *(certificate[1::2] if name == LITERAL else certificate))


def rendered(asked: argparse.Namespace, runs: Runs) -> str:
    """Return the medians as a table, each with its ratio to the literal server without TLS."""
    medians = {
        name: {column: statistics.median(starmap(read, done)) for column, read in COLUMNS.items()}
        for name, done in runs.items()
    }
    lines = [f"| | {' | '.join(COLUMNS).format(asked.in_flight)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name, row in medians.items():
        cells = [cell(value, medians[LITERAL][column]) for column, value in row.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    load = f"{asked.pairs} pairs, {asked.payload:,} bytes, medians of {asked.runs} runs"
    return "\n".join(
        [*lines, "", f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {load}, in brackets the ratio.", *busy(runs), ""]
    )


def cell(value: float, reference: float) -> str:
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return f"{shown} ({value / reference:.2f})" if reference else shown


def busy(runs: Runs) -> list[str]:
    """Return a note on the servers with which the load generator was the bottleneck."""
    limited = [name for name, done in runs.items() if any(one["notes"] or many["notes"] for one, many in done)]
    if not limited:
        return []
    return [f"The load generator was the bottleneck with {', '.join(limited)}; these can carry more."]


def machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each server; default %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of a phase; default %(default)s")
    parser.add_argument("--pairs", type=int, default=32, help="default %(default)s")
    parser.add_argument("--payload", type=int, default=4096, help="size of a message in bytes; default %(default)s")
    parser.add_argument("--in-flight", type=int, default=8, help="in the second half of a run; default %(default)s")
    parser.add_argument("--no-tls", action="store_true", help="measure without TLS only")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runs = trio.run(measure, asked, Path(folder))
    sys.stdout.write(rendered(asked, runs))
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    failed = [
        f"{name}: {each['error']['reason']}"
        for name, done in runs.items()
        for both in done
        for each in both
        if each["error"]
    ]
    sys.stderr.writelines(f"{sentence}\n" for sentence in failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
