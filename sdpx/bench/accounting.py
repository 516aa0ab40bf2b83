"""The counters of a measurement. Pure.

Latencies are counted in microseconds, so that the results of several processes can be added.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

LOST: Final = "lost"
REPEATED: Final = "repeated"
REORDERED: Final = "reordered"
ALTERED: Final = "altered"
UNMARKED: Final = "unmarked"
FAULTS: Final = (LOST, REPEATED, REORDERED, ALTERED, UNMARKED)


class Tally(msgspec.Struct):
    """The counters of one phase, of one process or the sum of several.

    `rate` is `count` per second; `latencies` maps microseconds to their frequency; `refused` counts refusals of the relay by
    code; `cut` counts unexpected ends of connections by cause; `busy` is the share of the time in which the busiest process
    was running or waiting for a core.
    """

    count: int = 0
    rate: float = 0.0
    busy: float = 0.0
    latencies: Counter[int] = msgspec.field(default_factory=Counter)
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    cut: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def failures(self) -> int:
        """The number of refusals and lost connections."""
        return self.refused.total() + self.cut.total()

    def add(self, other: "Tally") -> None:
        """Add the counters of another process in the same phase."""
        self.count += other.count
        self.rate += other.rate
        self.busy = max(self.busy, other.busy)
        self.latencies.update(other.latencies)
        self.faults.update(other.faults)
        self.refused.update(other.refused)
        self.cut.update(other.cut)


def decode_result(line: bytes) -> int | Tally:
    """Return a line of a load process: the progress of a phase, or its result."""
    return msgspec.json.decode(line, type=int | Tally, dec_hook=_counter)


def _counter(kind: Any, counts: dict[str, int]) -> Counter[Any]:
    (key,) = get_args(kind)
    return Counter({key(name): number for name, number in counts.items()})


def percentile(counted: Mapping[int, int], share: float) -> int:
    """Return the smallest value that is not below this share of all; 0 if there is none."""
    left = share * sum(counted.values())
    for value in sorted(counted):
        left -= counted[value]
        if left <= 0:
            return value
    return max(counted, default=0)
