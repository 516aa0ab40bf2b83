"""How long to wait before trying again. Pure: the dice are thrown outside.

Each wait is up to twice the one before, to a bound. Half of it is chance, so that a thousand peers of a relay that was
restarted do not all come at once.
"""

import math
from dataclasses import dataclass

FACTOR = 2.0


@dataclass(slots=True)
class Backoff:
    """Waits that grow from `first` to `longest`, in seconds."""

    first: float
    longest: float
    attempts: int = 0
    free: int = 0  # of these, how many waited for nothing

    def next(self, chance: float, at_most: float = math.inf) -> float:
        """Return the next wait, no longer than `at_most`; `chance` is uniform in [0, 1)."""
        whole = min(self.longest, at_most, self.first * FACTOR ** min(self.attempts - self.free, 64))
        self.attempts += 1
        return whole * (0.5 + chance / 2)

    def at_once(self) -> float:
        """Count a try that waits for nothing."""
        self.attempts += 1
        self.free += 1
        return 0.0

    def reset(self) -> None:
        """Begin again: it worked."""
        self.attempts = self.free = 0
