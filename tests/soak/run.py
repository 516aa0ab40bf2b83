"""The soak: a relay, thousands of short sessions, and what has to hold when they are over."""

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
from tests.soak.account import Figures
from tests.soak.acts import ACTS
from tests.soak.endings import ENDINGS, STRAYS
from tests.soak.links import Address
from tests.soak.session import Session
from tests.soak.watch import LogReader, Look, gone, idle_share, look

MIB: Final = 1024 * 1024
NO_LIMITS: Final = ("--rate", "0", "--max-clients", "0", "--max-clients-per-ip", "0", "--unknown-target-rate", "0")
SHORT_DEADLINES: Final = ("--ping-interval", "1", "--idle-timeout", "3", "--handshake-timeout", "2")
WARM_UP_SHARE: Final = 5  # one in five sessions, until memory is measured that is to stay: a heap first finds its size
SETTLE_SECONDS: Final = 20.0  # until all that the sessions opened has to be gone
STOP_SECONDS: Final = 15.0
IDLE_SHARE: Final = 0.05
WARM: Final = 500  # sessions after which it has; after fewer only the bound of the peak counts
GROWTH: Final = 16 * MIB  # of memory, from then to the end
PEAK_GROWTH: Final = 64 * MIB  # from the start, with 40 sessions at once; for each further one an outbox may fill, too
OUTBOX: Final = 1 * MIB
REPORT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Options:
    """What was asked for; `seconds` is when no further session begins, 0 for never."""

    sessions: int
    seconds: float
    at_once: int
    seed: str
    serve: tuple[str, ...]


@dataclass
class PairOutcome:
    """All that was counted and seen."""

    figures: Figures = field(default_factory=Figures)
    faults: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    clients: int = 0
    start: Look | None = None
    before: Look | None = None
    after: Look | None = None
    leaked_clients: int = 0
    seconds: float = 0.0
    idle: float = 0.0
    stop_ms: float | None = None
    wrong: list[str] = field(default_factory=list)

    def require(self, holds: bool, sentence: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.wrong.append(sentence)


class Soak:
    """One run against one relay."""

    def __init__(self, options: Options, server: RelayProcess, log: LogReader) -> None:
        self._options = options
        self._server = server
        self._log = log
        self._address = Address(server.url, server.host, server.port)
        self._began = trio.current_time()
        self._spent = 0.0
        self._start = look(server)
        self.outcome = PairOutcome(start=self._start)

    async def run(self) -> PairOutcome:
        """Warm up, look, do the rest, look again, stop the relay, and judge."""
        numbers = iter(range(1, self._options.sessions + 1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report)
            await self._drive(itertools.islice(numbers, self._warm_up))
            self.outcome.before = await self._look_once_gone()
            await self._drive(numbers)
            self.outcome.after = await self._look_once_gone()
            nursery.cancel_scope.cancel()
        self.outcome.seconds = self._spent
        self.outcome.leaked_clients = self._log.leaked
        if self._alive:
            self.outcome.idle = await idle_share(self._server)
        await self._stop()
        self._parse_request()
        return self.outcome

    # ---- the sessions -------------------------------------------------------------------------------------------

    async def _drive(self, numbers: Iterator[int]) -> None:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(self._options.at_once):
                nursery.start_soon(self._work, numbers)
        self._spent += trio.current_time() - began

    async def _work(self, numbers: Iterator[int]) -> None:
        while self._alive and not self._is_late and (number := next(numbers, None)):
            session = Session(self._address, str(number), f"{self._options.seed}/{number}")
            self.outcome.figures.add(await session.run(ACTS, ENDINGS, STRAYS))
            self.outcome.faults += session.faults
            self.outcome.clients += session.clients
            self.outcome.sessions += 1

    @property
    def _warm_up(self) -> int:
        """How many sessions are to warm it up."""
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
            figures = self.outcome.figures
            sys.stderr.write(
                f"{trio.current_time() - self._began:6.0f} s  {self.outcome.sessions} of {self._options.sessions} sessions, "
                f"{figures.sent} frames sent, {len(figures.complaints)} complaints"
                + (f", relay {self._server.memory / MIB:.1f} MiB\n" if self._alive else ", relay ended\n")
            )

    # ---- the relay ----------------------------------------------------------------------------------------------

    async def _look_once_gone(self) -> Look | None:
        if not self._alive:
            return None
        await gone(self._server, self._log, self._start.descriptors, SETTLE_SECONDS)
        return look(self._server) if self._alive else None

    async def _stop(self) -> None:
        """SIGTERM: with nobody connected it ends at once, in order, with status 0."""
        self.outcome.require(self._alive, f"The relay ended in mid-soak, with status {self._server.process.poll()}.")
        if not self._alive:
            return
        self._server.process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            while self._alive:
                await trio.sleep(0.02)
        status = self._server.process.poll()
        self.outcome.require(status == 0, f"On SIGTERM the relay ended with status {status}, not 0.")
        self._log.read()
        self.outcome.require(self._log.last == "server_stopped", f"The log ends with {self._log.last!r}.")
        for line in self._server.events("server_stopped"):
            self.outcome.stop_ms = line["ms"]

    def _parse_request(self) -> None:
        out, figures, log = self.outcome, self.outcome.figures, self._log
        out.wrong += figures.complaints
        for count, what in (
            (figures.lost, "were lost"),
            (figures.duplicates, "came twice"),
            (figures.reordered, "came out of order"),
            (figures.altered, "came altered or to somebody else"),
            (figures.wrongly_told, "were delivered although their sender was told otherwise"),
        ):
            out.require(not count, f"{count} frames {what}.")
        out.require(not out.leaked_clients, f"{out.leaked_clients} clients came and did not go: {list(log.here)[:5]}.")
        paired, unpaired = log.events["paired"], log.events["unpaired"]
        out.require(paired == unpaired, f"{paired} pairings began and {unpaired} ended.")
        out.require(not log.errors, f"The log has {len(log.errors)} errors, first {log.errors[:1]}.")
        out.require(not log.events["log_dropped"], "Lines of the log were dropped.")
        out.require(not self._server.stderr, f"There is something on stderr: {self._server.stderr[:1000]!r}.")
        out.require(out.idle <= IDLE_SHARE, f"The relay takes {out.idle:.0%} of a CPU while nobody is there.")
        slow = out.stop_ms is not None and out.stop_ms > 1000
        out.require(not slow, f"The relay took {out.stop_ms} ms to stop with nobody there: something was still open.")
        if out.before and out.after:
            self._judge_looks(out.before, out.after)

    def _judge_looks(self, before: Look, after: Look) -> None:
        out = self.outcome
        leaked = after.descriptors - self._start.descriptors
        out.require(leaked <= 0, f"{leaked} descriptors are left open.")
        out.require(after.threads <= before.threads, f"There are {after.threads} threads and were {before.threads}.")
        growth, peak = after.memory - before.memory, after.peak - self._start.memory
        allowed = PEAK_GROWTH + OUTBOX * max(0, self._options.at_once - 40)
        warm = self._warm_up >= WARM
        out.require(not warm or growth <= GROWTH, f"The relay grew by {growth / MIB:.1f} MiB.")
        out.require(peak <= allowed, f"At its peak the relay had grown by {peak / MIB:.1f} MiB.")


async def soak(options: Options, folder: Path) -> PairOutcome:
    """Run a relay, with its log in this folder, and all sessions against it."""
    with relay_process(folder, *NO_LIMITS, *SHORT_DEADLINES, *options.serve) as server:
        log = LogReader(folder / "log")
        try:
            return await Soak(options, server, log).run()
        finally:
            log.close()
