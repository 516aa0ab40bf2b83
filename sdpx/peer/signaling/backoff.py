"""Exponential backoff with jitter. Pure: the caller supplies the randomness.

Half of each delay is random, so that the peers of a relay that was restarted do not all reconnect at the same moment.
"""

import math

from msgspec import Struct

FACTOR = 2.0


class Backoff(Struct):
    """Delays in seconds that grow from `first` to `longest`."""

    first: float
    longest: float
    attempts: int = 0
    immediate: int = 0  # how many of the attempts had no delay

    def next(self, chance: float, at_most: float = math.inf) -> float:
        """Return the next delay, no longer than `at_most`; `chance` is uniform in [0, 1)."""
        whole = min(self.longest, at_most, self.first * FACTOR ** min(self.attempts - self.immediate, 64))
        self.attempts += 1
        return whole * (0.5 + chance / 2)

    def next_immediate(self) -> float:
        """Count an attempt without a delay."""
        self.attempts += 1
        self.immediate += 1
        return 0.0

    def reset(self) -> None:
        """Start again with the first delay, after a success."""
        self.attempts = self.immediate = 0
