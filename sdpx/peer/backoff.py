"""How long to wait before trying again. Pure: the dice are thrown outside.

Each wait is up to twice the one before, to a bound. Half of it is chance, so that a thousand peers of a relay that was
restarted do not all come at once.
"""

from dataclasses import dataclass

FACTOR = 2.0


@dataclass(slots=True)
class Backoff:
    """Waits that grow from `first` to `longest`, in seconds."""

    first: float
    longest: float
    attempts: int = 0

    def next(self, chance: float) -> float:
        """Return the next wait; `chance` is uniform in [0, 1)."""
        whole = min(self.longest, self.first * FACTOR ** min(self.attempts, 64))
        self.attempts += 1
        return whole * (0.5 + chance / 2)

    def reset(self) -> None:
        """Begin again: it worked."""
        self.attempts = 0
