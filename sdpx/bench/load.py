"""A load process: reads commands from stdin and writes results to stdout, one JSON value a line.

The first line is the `Job`. Each further line is the name of a phase; the process answers with a `Report` of its progress
every `REPORT_SECONDS`, and with one that has the `Tally` of the phase at its end.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sdpx.bench.accounting import Tally, increment
from sdpx.bench.pair import Pair
from sdpx.bench.ws_client import NORMAL, CloseInfo, Loop, Target, WsClient

SETUP_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 5.0
REPORT_SECONDS: Final = 0.5
STUCK: Final = f"not closed {DRAIN_SECONDS:g} s after the end"
CONCURRENT: Final = 16  # connections or pairs that are set up at once, within the backlog of any relay
MAX_FAILURES: Final = 100  # of a phase, which ends then


T = TypeVar("T", WsClient, Pair)


class Job(msgspec.Struct, frozen=True):
    """The work of a load process: `pairs` of clients, each with `in_flight` messages of `payload` bytes in flight."""

    target: Target
    pairs: int
    payload: int
    in_flight: int
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """The progress of a phase; at its end with all counters."""

    count: int
    tally: Tally | None = None


class Load:
    """The clients of one process, and the phases of the measurement."""

    def __init__(self, job: Job, report: Callable[[Report], None]) -> None:
        self._job = job
        self._report = report
        self._loop = Loop()
        self._pairs: list[Pair] = []
        self._tally = Tally()
        self._reported_at = 0.0

    def run(self, phase: str) -> None:
        """Run a phase and report its result."""
        phases = {"setup": self._setup, "relay": self._relay, "connect": self._connect, "session": self._sessions}
        self._tally = Tally() if phase != "relay" else self._tally
        phases[phase]()
        self._report(Report(self._tally.count, self._tally))

    def _setup(self) -> None:
        """Connect and pair all pairs; after a failure no more are started."""
        settled = 0

        def settle(pair: Pair) -> None:
            nonlocal settled
            settled += 1
            self._tally.count += not pair.closed
            begin()

        def begin() -> None:
            if len(self._pairs) < self._job.pairs and not self._tally.failures:
                self._pairs.append(self._pair(settle, lambda _: None, settle, self._tally))

        for _ in range(CONCURRENT):
            begin()
        self._run(SETUP_SECONDS, lambda: settled >= len(self._pairs))

    def _relay(self) -> None:
        """Exchange messages in all pairs, then wait for the pending ones."""
        self._tally.count = 0
        with self._measured():
            for pair in self._pairs:
                pair.start(self._job.in_flight, -1)
            self._run(self._job.seconds, lambda: self._tally.failures > 0 and not self._has_pending())
        for pair in self._pairs:
            pair.turns = 0
        self._run(DRAIN_SECONDS, lambda: not self._has_pending())
        for pair in self._pairs:
            pair.abort()

    def _connect(self) -> None:
        """Connect, receive the ID and disconnect, repeatedly."""

        def start(ended: Callable[[WsClient], None]) -> WsClient:
            def on_closed(info: CloseInfo) -> None:
                if info.code == NORMAL and not info.refused:
                    self._tally.count += 1
                else:
                    increment(self._tally.refused if info.refused else self._tally.cut, str(info))
                ended(client)

            client = WsClient(self._loop, self._job.target, lambda _: client.start_closing(), on_closed)
            return client

        self._repeat(start, self._tally)

    def _sessions(self) -> None:
        """Connect two clients, pair them, exchange an offer and an answer and disconnect, repeatedly."""
        messages = Tally()  # its failures count, its number of messages does not

        def start(ended: Callable[[Pair], None]) -> Pair:
            def on_closed(pair: Pair) -> None:
                self._tally.count += pair.completed
                ended(pair)

            return self._pair(lambda pair: pair.start(1, 1), Pair.start_closing, on_closed, messages)

        self._repeat(start, messages)
        self._tally.add_failures(messages)

    def _repeat(self, start: Callable[[Callable[[T], None]], T], tally: Tally) -> None:
        """Run activities, some at a time, for the duration of a phase: `start(ended)` begins one and returns it."""
        active: set[T] = set()
        running = True

        def begin() -> None:
            active.add(start(ended))

        def ended(activity: T) -> None:
            active.discard(activity)
            if running and tally.failures < MAX_FAILURES:
                begin()

        for _ in range(min(self._job.pairs, CONCURRENT)):
            begin()
        with self._measured():
            self._run(self._job.seconds, lambda: not active)
        running = False
        self._run(DRAIN_SECONDS, lambda: not active)
        for activity in active:
            increment(tally.cut, STUCK)
            activity.abort()

    def _pair(
        self,
        on_ready: Callable[[Pair], None],
        on_done: Callable[[Pair], None],
        on_closed: Callable[[Pair], None],
        tally: Tally,
    ) -> Pair:
        return Pair(self._loop, self._job.target, self._job.payload, tally, on_ready, on_done, on_closed)

    def _has_pending(self) -> bool:
        return any(pair.has_pending for pair in self._pairs)

    def _run(self, seconds: float, done: Callable[[], bool]) -> None:
        def check() -> bool:
            if (now := time.monotonic()) >= self._reported_at + REPORT_SECONDS:
                self._reported_at = now
                self._report(Report(self._tally.count))
            return done()

        self._loop.run(time.monotonic() + seconds, check)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Set the rate of the block, and the share of time in which this process was busy."""
        count, began, busy = self._tally.count, time.monotonic(), _busy_seconds()
        yield
        took = time.monotonic() - began
        self._tally.rate = (self._tally.count - count) / took
        self._tally.busy = (_busy_seconds() - busy) / took


def _busy_seconds() -> float:
    """Return the CPU time of this process; on Linux with the time for which it waited for a core."""
    try:
        waited = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        waited = 0.0
    return time.process_time() + waited


def _write(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run the phases that stdin names, until its end."""
    lines = iter(sys.stdin.readline, "")
    load = Load(msgspec.json.decode(next(lines), type=Job), _write)
    with suppress(BrokenPipeError):  # the measuring program has exited
        for line in lines:
            load.run(line.strip())


if __name__ == "__main__":
    main()
