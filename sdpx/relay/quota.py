"""How much one client, and one address, may ask for. Pure: the time is an argument, in seconds of any steady clock.

- A token bucket lets a burst pass and then a steady rate. What finds it empty is refused.
- A client that goes on regardless loses patience, a second bucket of refusals, and is cut when that is empty too.
- A limit of 0 is no limit.
"""

from typing import Final

BURST_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 5.0


class TokenBucket:
    """`rate` tokens a second, `burst` at most; full at `now`."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then = now

    def take(self, now: float, count: int = 1) -> bool:
        """Take tokens if they are there."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True


class Quota:
    """The messages of one client: `rate` a second in the long run, five seconds' worth of them at once."""

    __slots__ = ("_messages", "_patience", "_unlimited", "exhausted")

    def __init__(self, rate: float, now: float) -> None:
        self._unlimited = rate == 0
        self._messages = TokenBucket(rate, rate * BURST_SECONDS, now)
        self._patience = TokenBucket(rate / 10, rate * PATIENCE_SECONDS, now)
        self.exhausted = False

    def allows(self, now: float, count: int = 1) -> bool:
        """Count messages that came; False if they are too many, and then perhaps `exhausted`."""
        if self._unlimited or self._messages.take(now, count):
            return True
        self.exhausted = not self._patience.take(now, count)
        return False


class Census:
    """How many connections there are, in all and from each address."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._all = 0
        self._of: dict[str, int] = {}

    @property
    def is_full(self) -> bool:
        """Whether there are too many in all."""
        return bool(self._limit) and self._all > self._limit

    def is_crowded(self, address: str) -> bool:
        """Tell whether there are too many from this address."""
        return bool(self._limit_per_address) and self._of.get(address, 0) > self._limit_per_address

    def enter(self, address: str) -> None:
        """Count a connection."""
        self._all += 1
        self._of[address] = self._of.get(address, 0) + 1

    def leave(self, address: str) -> None:
        """Count it no more."""
        self._all -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]
