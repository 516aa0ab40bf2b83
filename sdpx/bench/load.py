"""A load process: reads commands from stdin and writes results to stdout, one JSON value a line.

The first line is the `Job`. Each further line is the name of a phase; the process answers with the number of its progress
every `REPORT_SECONDS`, and with the `Tally` of the phase at its end.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from selectors import DefaultSelector
from typing import Final

import msgspec

from sdpx.bench.accounting import Tally
from sdpx.bench.pair import Pair
from sdpx.bench.ws_client import Target, WsClient

SETUP_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 5.0
REPORT_SECONDS: Final = 0.5
TICK_SECONDS: Final = 0.1
STUCK: Final = f"not closed {DRAIN_SECONDS:g} s after the end"
CONCURRENT: Final = 16  # connections or pairs that are set up at once, within the backlog of any relay
MAX_FAILURES: Final = 100  # of a phase, which ends then


class Job(msgspec.Struct, frozen=True):
    """The work of a load process: `pairs` of clients, each with `in_flight` messages of `payload` bytes in flight."""

    target: Target
    pairs: int
    payload: int
    in_flight: int
    seconds: float


class Load:
    """The clients of one process, and the phases of the measurement."""

    def __init__(self, job: Job, report: Callable[[int | Tally], None]) -> None:
        self._job = job
        self._report = report
        self._selector = DefaultSelector()
        self._targets = (job.target, job.target)
        self._pairs: list[Pair] = []
        self._tally = Tally()
        self._reported_at = 0.0

    def run(self, phase: str) -> None:
        """Run a phase and report its result."""
        phases = {"setup": self._setup, "relay": self._relay, "connect": self._connect, "session": self._sessions}
        self._tally = Tally() if phase != "relay" else self._tally
        phases[phase]()
        self._report(self._tally)

    def _setup(self) -> None:
        """Connect and pair all pairs, some at a time; after a failure no more are started."""
        unpaired: list[Pair] = []

        def check() -> bool:
            unpaired[:] = [pair for pair in unpaired if not pair.paired and not pair.closed]
            while len(unpaired) < CONCURRENT and len(self._pairs) < self._job.pairs and not self._tally.failures:
                pair = Pair(self._selector, self._targets, self._job.payload, self._tally)
                self._pairs.append(pair)
                unpaired.append(pair)
            self._tally.count = len(self._pairs) - len(unpaired)
            return not unpaired

        self._run(SETUP_SECONDS, check)

    def _relay(self) -> None:
        """Exchange messages in all pairs, then wait for the pending ones."""
        self._tally.count = 0
        with self._measured():
            for pair in self._pairs:
                pair.start(self._job.in_flight)
            self._run(self._job.seconds, lambda: self._tally.failures > 0 and not self._has_pending())
        for pair in self._pairs:
            pair.replies = 0
        self._run(DRAIN_SECONDS, lambda: not self._has_pending())
        for pair in self._pairs:
            pair.abort()

    def _connect(self) -> None:
        """Connect, receive the ID and disconnect, repeatedly."""

        def start() -> WsClient:
            client = WsClient(self._selector, self._job.target, self._tally, lambda _: client.start_closing())
            return client

        self._repeat(start)

    def _sessions(self) -> None:
        """Connect two clients, pair them, exchange an offer and an answer and disconnect, repeatedly."""
        tally = self._tally
        messages = Tally(faults=tally.faults, refused=tally.refused, cut=tally.cut)  # their number is not counted

        self._repeat(lambda: Pair(self._selector, self._targets, self._job.payload, messages, once=True))

    def _repeat(self, start: Callable[[], WsClient | Pair]) -> None:
        """Run connections, some at a time, for the duration of a phase: `start` begins one, which is over once it is closed."""
        active: list[WsClient | Pair] = []

        def check() -> bool:
            self._tally.count += sum(each.completed for each in active if each.closed)
            active[:] = [each for each in active if not each.closed]
            while len(active) < min(self._job.pairs, CONCURRENT) and self._tally.failures < MAX_FAILURES:
                active.append(start())
            return not active

        with self._measured():
            self._run(self._job.seconds, check)
        self._run(DRAIN_SECONDS, lambda: all(each.closed for each in active))
        for each in active:
            if not each.closed:
                self._tally.cut[STUCK] += 1
                each.abort()

    def _has_pending(self) -> bool:
        return any(pair.has_pending for pair in self._pairs)

    def _run(self, seconds: float, done: Callable[[], bool]) -> None:
        """Serve the sockets for a time, or until `done`, which is checked after each round; reports the progress."""
        until = time.monotonic() + seconds
        while not done() and (now := time.monotonic()) < until:
            if now >= self._reported_at + REPORT_SECONDS:
                self._reported_at = now
                self._report(self._tally.count)
            for key, events in self._selector.select(min(until - now, TICK_SECONDS)):
                key.data(events)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Set the rate of the block, and the share of time in which this process was busy."""
        count, began, busy = self._tally.count, time.monotonic(), busy_seconds()
        yield
        took = time.monotonic() - began
        self._tally.rate = (self._tally.count - count) / took
        self._tally.busy = (busy_seconds() - busy) / took


def busy_seconds() -> float:
    """Return the CPU time of this process; on Linux with the time for which it waited for a core."""
    try:
        waited = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        waited = 0.0
    return time.process_time() + waited


def write_line(value: object) -> None:
    """Write a JSON value as a line of stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run the phases that stdin names, until its end."""
    lines = iter(sys.stdin.readline, "")
    load = Load(msgspec.json.decode(next(lines), type=Job), write_line)
    with suppress(BrokenPipeError):  # the measuring program has exited
        for line in lines:
            load.run(line.strip())


if __name__ == "__main__":
    main()
