"""The soak: a relay, thousands of short sessions, and the checks after them."""

import itertools
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from tests.harness.processes import RelayProcess, relay_process
from tests.soak.accounting import Figures
from tests.soak.connections import Address
from tests.soak.disconnects import DISCONNECTS, INCOMPLETE
from tests.soak.disturbances import DISTURBANCES
from tests.soak.session import Session
from tests.soak.watch import LogReader, ResourceUsage, idle_share, resource_usage, wait_until_released

MIB: Final = 1024 * 1024
NO_LIMITS: Final = ("--rate", "0", "--max-clients", "0", "--max-clients-per-ip", "0", "--unknown-target-rate", "0")
SHORT_DEADLINES: Final = ("--ping-interval", "1", "--idle-timeout", "3", "--handshake-timeout", "2")
WARM_UP_SHARE: Final = (
    5  # one in five sessions run before the memory is measured, so that the heap has reached its size
)
SETTLE_SECONDS: Final = 20.0  # until all sockets of the sessions have to be closed
STOP_SECONDS: Final = 15.0
IDLE_SHARE: Final = 0.05
WARM: Final = 500  # sessions of warm-up; after fewer only the peak is checked
GROWTH: Final = 16 * MIB  # of memory after the warm-up
PEAK_GROWTH: Final = 64 * MIB  # from the start, with 40 concurrent sessions; each further one may fill a send queue
SEND_QUEUE: Final = 1 * MIB
REPORT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Options:
    """Options of the soak; after `seconds`, unless 0, no further session is started."""

    sessions: int
    seconds: float
    at_once: int
    seed: str
    serve: tuple[str, ...]


@dataclass
class SoakResult:
    """The result of a soak."""

    figures: Figures = field(default_factory=Figures)
    faults: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    clients: int = 0
    start: ResourceUsage | None = None
    before: ResourceUsage | None = None
    after: ResourceUsage | None = None
    leaked_clients: int = 0
    seconds: float = 0.0
    idle: float = 0.0
    stop_ms: float | None = None
    wrong: list[str] = field(default_factory=list)

    def require(self, holds: bool, sentence: str) -> None:
        """Record a sentence for a check that fails."""
        if not holds:
            self.wrong.append(sentence)


class Soak:
    """One soak of one relay."""

    def __init__(self, options: Options, server: RelayProcess, log: LogReader) -> None:
        self._options = options
        self._server = server
        self._log = log
        self._address = Address(server.url, server.host, server.port)
        self._began = trio.current_time()
        self._spent = 0.0
        self._start = resource_usage(server)
        self.result = SoakResult(start=self._start)

    async def run(self) -> SoakResult:
        """Warm up, measure, run the other sessions, measure again, stop the relay, and check the result."""
        numbers = iter(range(1, self._options.sessions + 1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            await self._run_sessions(itertools.islice(numbers, self._warm_up))
            self.result.before = await self._settled_usage()
            await self._run_sessions(numbers)
            self.result.after = await self._settled_usage()
            nursery.cancel_scope.cancel()
        self.result.seconds = self._spent
        self.result.leaked_clients = self._log.leaked
        if self._alive:
            self.result.idle = await idle_share(self._server)
        await self._stop()
        self._check()
        return self.result

    async def _run_sessions(self, numbers: Iterator[int]) -> None:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(self._options.at_once):
                nursery.start_soon(self._work, numbers)
        self._spent += trio.current_time() - began

    async def _work(self, numbers: Iterator[int]) -> None:
        while self._alive and not self._is_late and (number := next(numbers, None)):
            session = Session(self._address, str(number), f"{self._options.seed}/{number}")
            self.result.figures.add(await session.run(DISTURBANCES, DISCONNECTS, INCOMPLETE))
            self.result.faults += session.faults
            self.result.clients += session.clients
            self.result.sessions += 1

    @property
    def _warm_up(self) -> int:
        """The number of sessions of the warm-up."""
        half, share = self._options.sessions // 2, self._options.sessions // WARM_UP_SHARE
        return max(share, min(half, self._options.at_once))

    @property
    def _alive(self) -> bool:
        return self._server.process.poll() is None

    @property
    def _is_late(self) -> bool:
        return bool(self._options.seconds) and trio.current_time() - self._began > self._options.seconds

    async def _report(self) -> None:
        while True:
            await trio.sleep(REPORT_SECONDS)
            self._log.read()
            figures = self.result.figures
            sys.stderr.write(
                f"{trio.current_time() - self._began:6.0f} s  {self.result.sessions} of {self._options.sessions} sessions, "
                f"{figures.sent} frames sent, {len(figures.violations)} violations"
                + (f", relay {self._server.memory / MIB:.1f} MiB\n" if self._alive else ", relay ended\n")
            )

    async def _settled_usage(self) -> ResourceUsage | None:
        if not self._alive:
            return None
        await wait_until_released(self._server, self._log, self._start.descriptors, SETTLE_SECONDS)
        return resource_usage(self._server) if self._alive else None

    async def _stop(self) -> None:
        """Send SIGTERM; without clients the relay exits at once with status 0."""
        self.result.require(self._alive, f"The relay exited during the soak with status {self._server.process.poll()}.")
        if not self._alive:
            return
        self._server.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            while self._alive:
                await trio.sleep(0.02)
        status = self._server.process.poll()
        self.result.require(status == 0, f"On SIGTERM the relay ended with status {status}, not 0.")
        self._log.read()
        self.result.require(self._log.last == "server_stopped", f"The log ends with {self._log.last!r}.")
        for line in self._server.events("server_stopped"):
            self.result.stop_ms = line["ms"]

    def _check(self) -> None:
        out, figures, log = self.result, self.result.figures, self._log
        out.wrong += figures.violations
        for count, what in (
            (figures.lost, "were lost"),
            (figures.duplicates, "were repeated"),
            (figures.reordered, "were reordered"),
            (figures.altered, "were altered or misdirected"),
            (figures.wrongly_notified, "were delivered and reported as undelivered"),
        ):
            out.require(not count, f"{count} frames {what}.")
        out.require(
            not out.leaked_clients,
            f"{out.leaked_clients} clients did not connect and disconnect exactly once: {list(log.connected)[:5]}.",
        )
        paired, unpaired = log.events["paired"], log.events["unpaired"]
        out.require(paired == unpaired, f"{paired} pairings began and {unpaired} ended.")
        out.require(not log.errors, f"The log has {len(log.errors)} errors, first {log.errors[:1]}.")
        out.require(not log.events["log_dropped"], "Lines of the log were dropped.")
        out.require(not self._server.stderr, f"There is something on stderr: {self._server.stderr[:1000]!r}.")
        out.require(out.idle <= IDLE_SHARE, f"The relay uses {out.idle:.0%} of a CPU while no client is connected.")
        slow = out.stop_ms is not None and out.stop_ms > 1000
        out.require(not slow, f"The relay took {out.stop_ms} ms to stop without clients: a resource was still open.")
        if out.before and out.after:
            self._check_resources(out.before, out.after)

    def _check_resources(self, before: ResourceUsage, after: ResourceUsage) -> None:
        out = self.result
        leaked = after.descriptors - self._start.descriptors
        out.require(leaked <= 0, f"{leaked} descriptors are left open.")
        out.require(after.threads <= before.threads, f"There are {after.threads} threads and were {before.threads}.")
        growth, peak = after.memory - before.memory, after.peak - self._start.memory
        allowed = PEAK_GROWTH + SEND_QUEUE * max(0, self._options.at_once - 40)
        warm = self._warm_up >= WARM
        out.require(not warm or growth <= GROWTH, f"The relay grew by {growth / MIB:.1f} MiB.")
        out.require(peak <= allowed, f"At its peak the relay had grown by {peak / MIB:.1f} MiB.")


async def soak(options: Options, folder: Path) -> SoakResult:
    """Run a relay, with its log in this folder, and all sessions."""
    with relay_process(folder, *NO_LIMITS, *SHORT_DEADLINES, *options.serve) as server:
        log = LogReader(folder / "log")
        try:
            return await Soak(options, server, log).run()
        finally:
            log.close()
