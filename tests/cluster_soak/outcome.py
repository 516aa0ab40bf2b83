"""The options and the outcome of a measurement."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import trio

from sdpx.bench.accounting import percentile
from tests.cluster_soak.accounting import Figures
from tests.cluster_soak.traffic import ActivePair, total
from tests.harness.balancer import Balancer, balancer
from tests.harness.cluster import Node, cluster
from tests.harness.redis_server import Kind, RedisServer, redis_server

NO_LIMITS: Final = ("--rate", "0", "--max-clients", "0", "--max-clients-per-ip", "0", "--unknown-target-rate", "0")
WIDTH: Final = 64


@dataclass(frozen=True)
class Scale:
    """The size of the measurements; `engine` is the server program."""

    pairs: int = 300
    rate: float = 0.5  # frames a second of each client
    rounds: int = 2
    kills: int = 20
    requests: int = 10_000
    seconds: float = 10.0
    drain: float = 5.0
    lease: float = 1.5
    outages: int = 4  # of those in engine_loss.py
    faults: int = 40  # of chaos.py
    seed: int = 1
    slack: float = 1.0  # factor of the times that are demanded, for a machine that has other work
    nodes: int = 3
    engine: Kind = "redis"
    serve: tuple[str, ...] = ()


QUICK: Final = Scale(faults=6, outages=2, pairs=20, rate=2.0, rounds=1, kills=2, requests=600, seconds=2.0, drain=1.0)


@dataclass
class Outcome:
    """The figures of one measurement, and a sentence for each demand that was missed."""

    name: str
    rows: list[tuple[str, object]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def row(self, name: str, value: object) -> None:
        self.rows.append((name, value))

    def require(self, holds: bool, sentence: str) -> None:
        """Record a sentence for a demand that is missed."""
        if not holds:
            self.wrong.append(sentence)

    def add_frames(self, figures: Figures) -> None:
        """Add the figures of relayed frames; none may be lost, doubled, out of order or altered."""
        for name in ("sent", "delivered", "refused", "ended", "lost", "doubled", "out_of_order", "altered"):
            self.row(f"frames {name.replace('_', ' ')}", getattr(figures, name))
        self.row("longest pause of a frame", f"{figures.longest:.2f} s")
        ends = ", ".join(f"{percentile(figures.milliseconds, share)}" for share in (0.5, 0.99))
        self.row("delay of a frame, p50, p99", f"{ends} ms")
        self.require(figures.delivered > 0, "No frame was delivered.")
        self.require(not figures.faults, f"{figures.faults} frames were lost, doubled, out of order or altered.")

    def add_clients(self, pairs: list[ActivePair]) -> None:
        """Add the frames, and what the clients learned of their sockets; a violation of the protocol misses a demand."""
        clients = [client for pair in pairs for client in pair.clients]
        self.add_frames(total(pairs))
        self.row("close codes received", _counts(sum((client.closes for client in clients), Counter())))
        self.row("upgrades refused", _counts(sum((client.refusals for client in clients), Counter())))
        self.row("errors received", _counts(sum((client.errors for client in clients), Counter())))
        self.row(
            "sessions, by result", _counts(Counter(each.name.lower() for client in clients for each in client.results))
        )
        gaps = sum(client.gaps for client in clients)
        self.require(not gaps, f"{gaps} times a frame did not continue the sequence of its session.")
        self.wrong += [violation for client in clients for violation in client.violations][:20]

    def add_nodes(self, nodes: list[Node]) -> None:
        """Add what the nodes logged: an error or a traceback misses a demand."""
        for number, node in enumerate(nodes, 1):
            self.require(not node.errors, f"Node {number} wrote to stderr: {node.errors[:500]!r}")
            found = [line["message"] for line in node.events("internal_error")]
            self.require(not found, f"Node {number} logged {len(found)} internal errors, first {found[:1]}")

    def render(self) -> str:
        """Return the figures as a table, and the missed demands."""
        table = "".join(f"{name:<{WIDTH}}{value}\n" for name, value in self.rows)
        return f"# {self.name}\n{table}" + "".join(f"MISSED: {sentence}\n" for sentence in self.wrong)


def _counts(counts: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{key} {times}" for key, times in sorted(counts.items())) or "none"


@asynccontextmanager
async def nodes_of(engine: RedisServer, folder: Path, scale: Scale, first_port: int = 0) -> AsyncIterator[list[Node]]:
    """Run the nodes of one cluster; the first one may reach the engine by a port of its own."""
    shared = ("--cluster", engine.url, "--cluster-lease", str(scale.lease))
    options = (*NO_LIMITS, "--log-level", "info", "--drain-timeout", str(scale.drain), *shared, *scale.serve)
    own = ("--cluster", f"redis://127.0.0.1:{first_port}") if first_port else ()
    async with cluster(folder, scale.nodes, *options, first_options=own) as nodes:
        yield nodes


@asynccontextmanager
async def nodes_and_engine(folder: Path, scale: Scale) -> AsyncIterator[tuple[list[Node], RedisServer]]:
    """Run the nodes of one cluster and their engine."""
    async with redis_server(folder, kind=scale.engine) as engine, nodes_of(engine, folder, scale) as nodes:
        yield nodes, engine


class ActivePairs(NamedTuple):
    """Nodes and their engine, and pairs that exchange frames through a balancer."""

    nodes: list[Node]
    engine: RedisServer
    front: Balancer
    pairs: list[ActivePair]


@asynccontextmanager
async def active_pairs(folder: Path, scale: Scale) -> AsyncIterator[ActivePairs]:
    """Let pairs exchange frames until the end of the block, through a balancer in front of all nodes."""
    async with (
        nodes_and_engine(folder, scale) as (nodes, engine),
        balancer([node.port for node in nodes]) as front,
        trio.open_nursery() as nursery,
    ):
        pairs = [ActivePair(number, [front.port] * 2, scale.rate) for number in range(scale.pairs)]
        for pair in pairs:
            nursery.start_soon(pair.run)
        yield ActivePairs(nodes, engine, front, pairs)
        nursery.cancel_scope.cancel()
