"""One process of the load: told on stdin what to do, a JSON value a line, it tells on stdout what it saw.

The first line is the `Job`. Then each line is the name of a phase, answered with a `Report` of how far it is every now and
then, and with one that has the phase's `Tally` at its end.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from sdpx.bench.accounting import Tally, count_one
from sdpx.bench.pair import Pair
from sdpx.bench.ws_client import NORMAL, Ended, Loop, Target, Wire

SETUP_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 5.0
REPORT_SECONDS: Final = 0.5
STUCK: Final = f"not over {DRAIN_SECONDS:g} s after the end"
AT_ONCE: Final = 16  # pairs that meet at a time, so that no relay's backlog overflows
FAILURES: Final = 100  # after so many a phase ends: there is nothing to be learnt from more


class Job(msgspec.Struct, frozen=True):
    """What a process of the load is to do: `pairs` of clients, `in_flight` messages of `payload` bytes under way in each."""

    target: Target
    pairs: int
    payload: int
    in_flight: int
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """How many there were so far in a phase, and at its end all that was counted."""

    count: int
    tally: Tally | None = None


class Load:
    """The clients of one process, and the phases, one after the other."""

    def __init__(self, job: Job, report: Callable[[Report], None]) -> None:
        self._job = job
        self._report = report
        self._loop = Loop()
        self._pairs: list[Pair] = []
        self._tally = Tally()
        self._told = 0.0

    def run(self, phase: str) -> None:
        """Run a phase and report it."""
        phases = {"meet": self._meet, "relay": self._relay, "connect": self._connect, "session": self._sessions}
        self._tally = Tally() if phase != "relay" else self._tally
        phases[phase]()
        self._report(Report(self._tally.count, self._tally))

    # ---- the phases ---------------------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Connect all pairs, some at a time; once one has failed, no more."""
        settled = 0

        def settle(pair: Pair) -> None:
            nonlocal settled
            settled += 1
            self._tally.count += not pair.is_over
            begin()

        def begin() -> None:
            if len(self._pairs) < self._job.pairs and not self._gives_up(1):
                self._pairs.append(self._pair(settle, ignore, settle))

        for _ in range(AT_ONCE):
            begin()
        self._run(SETUP_SECONDS, lambda: settled >= len(self._pairs))

    def _relay(self) -> None:
        """Let all pairs talk, and wait for what is under way at the end."""
        self._tally.count = 0
        with self._measured():
            for pair in self._pairs:
                pair.start(self._job.in_flight, -1)
            self._run(self._job.seconds, lambda: self._gives_up(1) and not self._any_waits())
        for pair in self._pairs:
            pair.turns = 0
        self._run(DRAIN_SECONDS, lambda: not self._any_waits())
        for pair in self._pairs:
            pair.close()

    def _connect(self) -> None:
        """Connect, be greeted, leave, and again."""
        wires: set[Wire] = set()
        going = True

        def begin() -> None:
            wire = Wire(self._loop, self._job.target, lambda _: wire.leave(), lambda how: ended(wire, how))
            wires.add(wire)

        def ended(wire: Wire, how: Ended) -> None:
            wires.discard(wire)
            if how.code == NORMAL and not how.refused:
                self._tally.count += 1
            else:
                count_one(self._tally.refused if how.refused else self._tally.cut, str(how))
            if going and not self._gives_up(FAILURES):
                begin()

        for _ in range(min(self._job.pairs, AT_ONCE)):
            begin()
        with self._measured():
            self._run(self._job.seconds, lambda: not wires)
        going = False
        self._run(DRAIN_SECONDS, lambda: not wires)
        for wire in wires:
            count_one(self._tally.cut, STUCK)
            wire.drop()

    def _sessions(self) -> None:
        """Connect two, pair them, pass an offer and an answer, leave, and again."""
        inner = Tally()  # of the messages: their faults are kept, their number is not what is counted here
        pairs: set[Pair] = set()
        going = True

        def begin() -> None:
            pairs.add(self._pair(lambda pair: pair.start(1, 1), Pair.leave, over, inner))

        def over(pair: Pair) -> None:
            pairs.discard(pair)
            self._tally.count += pair.is_whole
            if going and not self._gives_up(FAILURES, inner):
                begin()

        for _ in range(min(self._job.pairs, AT_ONCE)):
            begin()
        with self._measured():
            self._run(self._job.seconds, lambda: not pairs)
        going = False
        self._run(DRAIN_SECONDS, lambda: not pairs)
        for pair in pairs:
            count_one(inner.cut, STUCK)
            pair.close()
        self._tally.faults, self._tally.refused, self._tally.cut = inner.faults, inner.refused, inner.cut

    # ---- what they have in common -------------------------------------------------------------------------------

    def _pair(
        self,
        on_ready: Callable[[Pair], None],
        on_done: Callable[[Pair], None],
        on_closed: Callable[[Pair], None],
        tally: Tally | None = None,
    ) -> Pair:
        return Pair(self._loop, self._job.target, self._job.payload, tally or self._tally, on_ready, on_done, on_closed)

    def _any_waits(self) -> bool:
        return any(pair.waits for pair in self._pairs)

    def _gives_up(self, failures: int, tally: Tally | None = None) -> bool:
        tally = tally or self._tally
        return sum(tally.refused.values()) + sum(tally.cut.values()) >= failures

    def _run(self, seconds: float, done: Callable[[], bool]) -> None:
        def look() -> bool:
            if (now := time.monotonic()) >= self._told + REPORT_SECONDS:
                self._told = now
                self._report(Report(self._tally.count))
            return done()

        self._loop.run(time.monotonic() + seconds, look)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Note how much was done a second in the block, and how busy this process was."""
        count, began, worked = self._tally.count, time.monotonic(), _worked()
        yield
        took = time.monotonic() - began
        self._tally.rate = (self._tally.count - count) / took
        self._tally.busy = (_worked() - worked) / took


def ignore(_: Pair) -> None:
    """Do nothing about it."""


def _worked() -> float:
    """Return for how many seconds this process has run; on Linux, also those that it waited for a core."""
    try:
        waited = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        waited = 0.0
    return time.process_time() + waited


def _say(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Do what stdin says, until it ends."""
    lines = iter(sys.stdin.readline, "")
    load = Load(msgspec.json.decode(next(lines), type=Job), _say)
    with suppress(BrokenPipeError):  # whoever wanted to know has gone
        for line in lines:
            load.run(line.strip())


if __name__ == "__main__":
    main()
