"""The books of a measurement. Pure.

Every message has a number. What was sent and has not come is pending; what comes is checked against that; what is pending
at the end is lost. Latencies are counted by the microsecond, so that the books of several processes can be added up.
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


def count_one(counts: dict[Key, int], key: Key) -> None:
    """Count one more of this kind."""
    counts[key] = counts.get(key, 0) + 1


def _add_all(counts: dict[Key, int], others: dict[Key, int]) -> None:
    for key, number in others.items():
        counts[key] = counts.get(key, 0) + number


class Tally(msgspec.Struct):
    """What one process counted in one phase, or several of them together.

    `rate` is of `count` a second; `latencies` are microseconds, each with how often it was seen; `refused` is what the relay
    refused, by code, `cut` how connections ended that should not have; `busy` is the share of the time in which the busiest
    process was running or waiting for a core.
    """

    count: int = 0
    rate: float = 0.0
    busy: float = 0.0
    latencies: dict[int, int] = msgspec.field(default_factory=dict)
    faults: dict[str, int] = msgspec.field(default_factory=dict)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    cut: dict[str, int] = msgspec.field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Count what another process saw at the same time."""
        self.count += other.count
        self.rate += other.rate
        self.busy = max(self.busy, other.busy)
        _add_all(self.latencies, other.latencies)
        _add_all(self.faults, other.faults)
        _add_all(self.refused, other.refused)
        _add_all(self.cut, other.cut)


class Ledger:
    """The messages of one direction of one pair; times are seconds of any one clock."""

    __slots__ = ("_highest", "_next", "_pending", "_refused", "_tally")

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._pending: dict[int, float] = {}
        self._next = 0
        self._highest = -1
        self._refused = 0

    @property
    def waits(self) -> bool:
        """Whether something that was sent has neither come nor been refused."""
        return len(self._pending) > self._refused

    def sent(self, now: float) -> int:
        """Note a message, and return its number."""
        number = self._next
        self._next = number + 1
        self._pending[number] = now
        return number

    def came(self, number: int, now: float) -> None:
        """Note that the message with this number came, whole."""
        began = self._pending.pop(number, None)
        if began is None:
            count_one(self._tally.faults, REPEATED if 0 <= number < self._next else ALTERED)
            return
        self._tally.count += 1
        count_one(self._tally.latencies, int((now - began) * 1e6))
        if number < self._highest:
            count_one(self._tally.faults, REORDERED)
        else:
            self._highest = number

    def was_refused(self) -> None:
        """Note that one of those that are pending will not come, and that its sender was told."""
        self._refused += 1

    def close(self) -> None:
        """Count what has not come by now as lost."""
        lost = len(self._pending) - self._refused
        if lost > 0:
            self._tally.faults[LOST] = self._tally.faults.get(LOST, 0) + lost


def percentile(counted: Mapping[int, int], share: float) -> int:
    """Return the least value that is not below this share of all; 0 where there is none."""
    left = share * sum(counted.values())
    for value in sorted(counted):
        left -= counted[value]
        if left <= 0:
            return value
    return max(counted, default=0)
