"""The accounting of one direction of a pair: which numbered frames were sent, delivered, refused and lost. Pure.

The numbers continue over all pairings of the two clients. When a pairing ends, or the sender's session is lost, its sender
has been notified: pending frames need not arrive any more. Times are seconds of one clock for both clients.
"""

import math
from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass
class Figures:
    """The counters of one direction, or their sums."""

    sent: int = 0
    delivered: int = 0
    refused: int = 0  # reported by an `error`
    ended: int = 0  # not delivered because the pairing or the sender's session ended
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    altered: int = 0
    longest: float = 0.0  # from sending to delivery, in seconds
    milliseconds: Counter[int] = field(default_factory=Counter)

    def add(self, other: "Figures") -> None:
        """Add the figures of another direction."""
        longest = max(self.longest, other.longest)
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        self.longest = longest

    @property
    def faults(self) -> int:
        return self.lost + self.doubled + self.out_of_order + self.altered


class Direction:
    """The frames of one sender to one receiver."""

    def __init__(self) -> None:
        self._pending: dict[int, float] = {}
        self._ended: dict[int, float] = {}
        self._next = 1
        self._highest = 0
        self._since = math.inf
        self.longest_since = 0.0
        self._figures = Figures()

    @property
    def pending(self) -> int:
        """How many frames are neither delivered nor refused."""
        return len(self._pending) - self._figures.refused

    def send(self, now: float) -> int:
        """Return the number of the next frame."""
        number, self._next = self._next, self._next + 1
        self._pending[number] = now
        self._figures.sent += 1
        return number

    def receive(self, number: int, now: float) -> None:
        """Count a frame that arrived."""
        figures = self._figures
        sent = self._pending.pop(number, None)
        if sent is None:
            sent = self._ended.pop(number, None)
        if sent is None:
            if 0 < number < self._next:
                figures.doubled += 1
            else:
                figures.altered += 1
            return
        figures.delivered += 1
        figures.out_of_order += number < self._highest
        self._highest = max(self._highest, number)
        figures.longest = max(figures.longest, now - sent)
        if now >= self._since:
            self.longest_since = max(self.longest_since, now - max(sent, self._since))
        figures.milliseconds[int((now - sent) * 1000)] += 1

    def refuse(self) -> None:
        """Count an `error` for one of the frames: which one, it does not say."""
        self._figures.refused += 1

    def end_pairing(self) -> None:
        """Note that the sender knows of the end of the pairing."""
        self._ended |= self._pending
        self._pending.clear()
        self._figures.refused = 0

    def alter(self) -> None:
        """Count a frame without a number."""
        self._figures.altered += 1

    def figures(self) -> Figures:
        """Return the figures; pending frames are lost."""
        return Figures(**vars(self._figures) | {"lost": max(0, self.pending), "ended": len(self._ended)})

    def time_from(self, moment: float) -> None:
        """Measure in `longest_since` how long a delivery takes from this moment, or from the sending of a later frame."""
        self._since, self.longest_since = moment, 0.0

    def start_timing(self) -> None:
        """Forget the delays of earlier deliveries."""
        self._figures.longest = 0.0
        self._figures.milliseconds = Counter()
