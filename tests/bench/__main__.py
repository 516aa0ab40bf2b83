"""`python -m tests.bench`: `sdpx serve`, with the fast lane and without, beside the founding design's literal server.

`sdpx bench` loads each in turn, again and again; medians and their ratios go to stdout as a table, with the date and the
machine's shape, progress to stderr. Every server logs each relay to a file. The exit status is 1 if a run was not sound.
"""

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import Final

import trio

from sdpx.bench.main import NO_LIMITS, bench
from sdpx.bench.options import BenchOptions
from sdpx.bench.report import Figures

START_SECONDS: Final = 10.0
END_SECONDS: Final = 8.0
SERVE: Final = ("-m", "sdpx", "serve", *NO_LIMITS)
LITERAL: Final = "the founding design, literally"
SERVERS: Final[dict[str, Callable[[int], tuple[str, ...]]]] = {
    "`sdpx serve`": lambda port: (*SERVE, "--port", str(port)),
    "`sdpx serve --engine trio-websocket`": lambda port: (*SERVE, "--engine=trio-websocket", "--port", str(port)),
    LITERAL: lambda port: ("-m", "tests.bench.literal_server", str(port)),
}
# What a column takes from the figures with one message in flight in each pair, and from those with several.
COLUMNS: Final[dict[str, Callable[[Figures, Figures], float]]] = {
    "messages/s": lambda one, _: one.messages_per_s,
    "p50 ms": lambda one, _: one.latency_ms["p50"],
    "p99 ms": lambda one, _: one.latency_ms["p99"],
    "CPU us/message": lambda one, _: one.relay_cpu_us_per_message or 0.0,
    "messages/s, {} in flight": lambda _, many: many.messages_per_s,
    "connects/s": lambda one, _: one.connects_per_s,
    "sessions/s": lambda one, _: one.sessions_per_s,
}
Runs = dict[str, list[tuple[Figures, Figures]]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def server(name: str, folder: Path) -> AsyncIterator[tuple[str, int]]:
    """Run one of the servers; yields its URL and its process."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SDPX_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *SERVERS[name](port)], stdout=log, stderr=log, env=environment)
    try:
        await wait_for(port)
        yield f"ws://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(END_SECONDS)


async def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    with trio.fail_after(START_SECONDS):
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await trio.sleep(0.05)


async def measure(asked: argparse.Namespace, folder: Path) -> Runs:
    runs: Runs = {name: [] for name in SERVERS}
    for number in range(asked.runs):
        for name, done in runs.items():
            sys.stderr.write(f"Run {number + 1} of {asked.runs}: {name}\n")
            async with server(name, folder) as (url, pid):
                one = BenchOptions(url=url, pairs=asked.pairs, payload=asked.payload, seconds=asked.seconds)
                many = replace(one, in_flight=asked.in_flight)
                done.append((await bench(one, pid), await bench(many, pid)))
    return runs


def rendered(asked: argparse.Namespace, runs: Runs) -> str:
    """The medians as a table, each with its ratio to the literal server's."""
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


def cell(value: float, yardstick: float) -> str:
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    return f"{shown} ({value / yardstick:.2f})" if yardstick else shown


def busy(runs: Runs) -> list[str]:
    """Where the load generator set the pace: there the true ratio is larger."""
    held = [name for name, done in runs.items() if any(one.notes or many.notes for one, many in done)]
    if not held:
        return []
    return [f"The load generator was the bottleneck with {', '.join(held)}, which carries at least what is said here."]


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
    parser.add_argument("--runs", type=int, default=3, help="of each server; default %(default)s")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each phase of a run; default %(default)s")
    parser.add_argument("--pairs", type=int, default=32, help="default %(default)s")
    parser.add_argument("--payload", type=int, default=4096, help="bytes of a message; default %(default)s")
    parser.add_argument("--in-flight", type=int, default=8, help="in the second half of a run; default %(default)s")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runs = trio.run(measure, asked, Path(folder))
    sys.stdout.write(rendered(asked, runs))
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    unsound = [
        f"{name}: {each.error.reason}" for name, done in runs.items() for both in done for each in both if each.error
    ]
    sys.stderr.writelines(f"{sentence}\n" for sentence in unsound)
    return 1 if unsound else 0


if __name__ == "__main__":
    sys.exit(main())
