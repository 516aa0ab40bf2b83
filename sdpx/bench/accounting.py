"""Accounting of a measurement: which messages arrived, and how long they took. Pure.

Each message has a number. A message that was sent is pending until it is received; what is pending at the end is lost.
Latencies are counted in microseconds, so that the results of several processes can be added.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

LOST: Final = "lost"
REPEATED: Final = "repeated"
REORDERED: Final = "reordered"
ALTERED: Final = "altered"
UNMARKED: Final = "unmarked"
FAULTS: Final = (LOST, REPEATED, REORDERED, ALTERED, UNMARKED)

Key = TypeVar("Key", int, str)


def increment(counts: dict[Key, int], key: Key, by: int = 1) -> None:
    """Add to a counter."""
    counts[key] = counts.get(key, 0) + by


class Tally(msgspec.Struct):
    """The counters of one phase, of one process or the sum of several.

    `rate` is `count` per second; `latencies` maps microseconds to their frequency; `refused` counts refusals of the relay by
    code; `cut` counts unexpected ends of connections by cause; `busy` is the share of the time in which the busiest process
    was running or waiting for a core.
    """

    count: int = 0
    rate: float = 0.0
    busy: float = 0.0
    latencies: dict[int, int] = msgspec.field(default_factory=dict)
    faults: dict[str, int] = msgspec.field(default_factory=dict)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    cut: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def failures(self) -> int:
        """The number of refusals and lost connections."""
        return sum(self.refused.values()) + sum(self.cut.values())

    def add(self, other: "Tally") -> None:
        """Add the counters of another process in the same phase."""
        self.count += other.count
        self.rate += other.rate
        self.busy = max(self.busy, other.busy)
        for latency, number in other.latencies.items():
            increment(self.latencies, latency, number)
        self.add_failures(other)

    def add_failures(self, other: "Tally") -> None:
        """Add faults, refusals and lost connections."""
        for own, added in ((self.faults, other.faults), (self.refused, other.refused), (self.cut, other.cut)):
            for name, number in added.items():
                increment(own, name, number)


class DeliveryTracker:
    """The messages of one direction of one pair. Times are seconds of any one clock."""

    __slots__ = ("_highest", "_next", "_pending", "_refused", "_tally")

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._pending: dict[int, float] = {}
        self._next = 0
        self._highest = -1
        self._refused = 0

    @property
    def has_pending(self) -> bool:
        """Whether a message is neither received nor refused yet."""
        return len(self._pending) > self._refused

    def sent(self, now: float) -> int:
        """Register a message and return its number."""
        number = self._next
        self._next = number + 1
        self._pending[number] = now
        return number

    def received(self, number: int, now: float) -> None:
        """Count a message that arrived unaltered."""
        began = self._pending.pop(number, None)
        if began is None:
            increment(self._tally.faults, REPEATED if 0 <= number < self._next else ALTERED)
            return
        self._tally.count += 1
        increment(self._tally.latencies, int((now - began) * 1e6))
        if number < self._highest:
            increment(self._tally.faults, REORDERED)
        else:
            self._highest = number

    def refused(self) -> None:
        """Count a pending message as refused: it will not arrive, and is not lost."""
        self._refused += 1

    def finish(self) -> None:
        """Count the messages that are still pending as lost."""
        if self.has_pending:
            increment(self._tally.faults, LOST, len(self._pending) - self._refused)


def percentile(counted: Mapping[int, int], share: float) -> int:
    """Return the smallest value that is not below this share of all; 0 if there is none."""
    left = share * sum(counted.values())
    for value in sorted(counted):
        left -= counted[value]
        if left <= 0:
            return value
    return max(counted, default=0)
