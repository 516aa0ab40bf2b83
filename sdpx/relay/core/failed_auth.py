"""Failed attempts to come in, by address: some at once, then a steady rate. Pure: the time is an argument.

Who has used its attempts up is turned away before its next token is looked at. A success costs nothing. Attempts that are
under way side by side may all fail: they are counted below zero, and have to be waited for.
"""

from typing import Final

ATTEMPTS_AT_ONCE: Final = 20.0
ADDRESSES_KEPT: Final = 4096


class FailedAuthLimit:
    """How many failures each address has left: `rate` a second, 0 for no limit. What is kept is bounded."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._of: dict[str, tuple[float, float]] = {}  # what was left, and when

    def may_try(self, address: str, now: float) -> bool:
        """Tell whether the address has an attempt left."""
        return not self._rate or self._left(address, now) >= 1

    def failed(self, address: str, now: float) -> None:
        """Count a failure."""
        left = max(self._left(address, now) - 1, -ATTEMPTS_AT_ONCE)
        self._of.pop(address, None)
        self._of[address] = left, now  # the last to have failed is the last to be forgotten
        if len(self._of) > ADDRESSES_KEPT:
            del self._of[next(iter(self._of))]

    def seconds_to_wait(self, address: str, now: float) -> float:
        """Return in how many seconds the address has an attempt again."""
        return max(0.0, (1 - self._left(address, now)) / self._rate) if self._rate else 0.0

    def _left(self, address: str, now: float) -> float:
        left, then = self._of.get(address, (ATTEMPTS_AT_ONCE, now))
        return min(ATTEMPTS_AT_ONCE, left + (now - then) * self._rate)
