"""Nodes of each implementation of the directory, as the contract tests drive them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.relay.cluster.directory import Directory, Entry, Handler, Verdict
from sdpx.relay.core.limits import Limits

LEASE = 120.0  # no test waits for its end, so that no busy machine brings it about
SHORT_LEASE = 3.0  # of a node whose end is waited for
PATIENCE = 60.0
MakeDirectory = Callable[[Limits, float, Callable[[], str]], Directory]


@dataclass
class TestNode:
    """A node that records its entries and what else is reported to it."""

    __test__ = False

    directory: Directory
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    entries: list[Entry] = field(default_factory=list)
    reports: list[tuple[object, ...]] = field(default_factory=list)
    changed: RepeatedEvent = field(default_factory=RepeatedEvent)

    @property
    def handler(self) -> Handler:
        def note(kind: str) -> Callable[..., None]:
            def report(*values: object) -> None:
                self.reports.append((kind, *values))
                self.changed.set()

            return report

        def restored(verdict: Verdict) -> None:
            if verdict.is_new:
                self.directory.take_calls()  # as a node does
            note("restored")(verdict)

        def receive(entries: list[Entry]) -> None:
            self.entries += entries
            self.changed.set()

        return Handler(receive, note("joined"), note("degraded"), restored, note("node_lost"))

    async def next(self, *, with_data: bool = True) -> tuple[str, ...]:
        """Take the next entry: kind, client and the words of its data."""
        with trio.fail_after(PATIENCE):
            while not self.entries:
                await self.changed.wait()
        kind, client_id, data = self.entries.pop(0)
        return (kind, client_id, *(data.decode().split(" ") if with_data and data else ()))

    async def report(self, kind: str) -> tuple[object, ...]:
        """Wait for a report, and take all up to it."""
        with trio.fail_after(PATIENCE):
            while all(each[0] != kind for each in self.reports):
                await self.changed.wait()
        found = next(at for at, each in enumerate(self.reports) if each[0] == kind)
        report = self.reports[found]
        del self.reports[: found + 1]
        return report

    async def verdict(self) -> Verdict:
        _, verdict = await self.report("restored")
        assert isinstance(verdict, Verdict)
        return verdict

    async def directory_idle(self) -> None:
        """Wait until all calls are answered."""
        with trio.fail_after(PATIENCE):
            while not self.directory.is_idle:
                await trio.sleep(0.005)

    async def add(self, *client_ids: str) -> None:
        """Register clients."""
        for client_id in client_ids:
            self.directory.register(client_id, 1)
            assert await self.next() == ("registered", client_id, "1")


@dataclass
class TestCluster:
    """Nodes that share an engine."""

    __test__ = False

    make: MakeDirectory
    nursery: trio.Nursery
    names: Callable[[], str]

    async def node(self, lease: float = LEASE, limits: Limits | None = None) -> TestNode:
        node = TestNode(self.make(limits or Limits(), lease, self.names))
        self.start(node)
        await node.report("joined")
        return node

    def start(self, node: TestNode) -> None:
        """Run a node, also one whose scope was cancelled: to others that looks like a process that is stopped for a while."""

        async def run() -> None:
            with trio.CancelScope() as node.scope:
                await node.directory.run(node.handler)

        self.nursery.start_soon(run)


@asynccontextmanager
async def open_cluster(make: MakeDirectory) -> AsyncIterator[TestCluster]:
    numbers = count(1)
    async with trio.open_nursery() as nursery:
        yield TestCluster(make, nursery, lambda: f"n{next(numbers)}")
        nursery.cancel_scope.cancel()
