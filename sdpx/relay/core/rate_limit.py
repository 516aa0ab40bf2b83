"""How much one client, and one address, may ask for. Pure: the time is an argument, in seconds of any steady clock.

- A token bucket lets a burst pass and then a steady rate. What finds it empty is refused.
- A client that goes on regardless loses patience, a second bucket of refusals, and is cut when that is empty too.
- Who asks for IDs that are not here is guessing, or waiting for somebody. A client has three such misses free, and one more
  every five seconds; beyond them its requests draw on what its address may ask for. So guesses from an address are slowed,
  and a client beside them that knows its peer's ID, or looks for it now and then, never notices.
- An address is an IPv4 address or an IPv6 /64, which is what one host can have at will (RFC 6177).
- A limit of 0 is no limit.
"""

from collections.abc import Hashable, Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import Final, Generic, TypeVar

BURST_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 5.0
FREE_MISSES: Final = 3.0
FREE_MISSES_PER_SECOND: Final = 0.2
GUESSES_AT_ONCE: Final = 20.0
ADDRESSES_KEPT: Final = 4096


def network_of(host: str) -> str:
    """Return what is counted as one address: `host` itself, or the /64 of an IPv6 address."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))


class TokenBucket:
    """`rate` tokens a second, `burst` at most; full at `now`."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then = now

    def has(self, now: float, count: int = 1) -> bool:
        """Tell whether tokens are there."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        return self._tokens >= count

    def take(self, now: float, count: int = 1) -> bool:
        """Take tokens if they are there."""
        if not self.has(now, count):
            return False
        self._tokens -= count
        return True


class UnknownTargetLimit:
    """How many misses each address has left: `rate` a second, some at once. What it keeps is bounded."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left: dict[str, TokenBucket] = {}

    def draw(self, address: str, now: float) -> bool:
        """Take one from what the address has left; False if there is none."""
        if not self._rate:
            return True
        bucket = self._left.pop(address, None) or TokenBucket(self._rate, GUESSES_AT_ONCE, now)
        self._left[address] = bucket  # the last to have drawn is the last to be forgotten
        if len(self._left) > ADDRESSES_KEPT:
            del self._left[next(iter(self._left))]
        return bucket.take(now)


class ClientRateLimit:
    """What one client may ask for: `rate` messages a second in the long run, five seconds' worth of them at once."""

    __slots__ = ("_address", "_free_misses", "_guesses", "_messages", "_patience", "_rate", "exhausted", "unlimited")

    def __init__(self, rate: float, now: float, guesses: UnknownTargetLimit, address: str) -> None:
        self._rate = rate
        self._guesses = guesses
        self._address = address
        self.unlimited = rate == 0
        self._messages = None if self.unlimited else TokenBucket(rate, max(1, rate * BURST_SECONDS), now)
        # Most clients never need the others: a bucket that is not there is full.
        self._patience: TokenBucket | None = None
        self._free_misses: TokenBucket | None = None
        self.exhausted = False

    def allows(self, now: float, count: int = 1) -> bool:
        """Count messages that came; False if they are too many, and then perhaps `exhausted`."""
        if self._messages is None or self._messages.take(now, count):
            return True
        self._count_refusal(now, count)
        return False

    def takes(self, now: float) -> bool:
        """Count a message if it is not too many, and nothing else."""
        return self._messages is None or self._messages.take(now)

    def allows_pair_request(self, now: float) -> bool:
        """Count a request to be paired; False if it has to wait, since too many before it missed."""
        if self._free_misses is None or self._free_misses.has(now) or self._guesses.draw(self._address, now):
            return True
        self._count_refusal(now, 1)
        return False

    def _count_refusal(self, now: float, count: int) -> None:
        if self._patience is None:
            self._patience = TokenBucket(self._rate / 10, max(1, self._rate * PATIENCE_SECONDS), now)
        self.exhausted = not self.unlimited and not self._patience.take(now, count)

    def note_unknown_target(self, now: float) -> None:
        """Count a request for somebody who is not here."""
        if self._free_misses is None:
            self._free_misses = TokenBucket(FREE_MISSES_PER_SECOND, FREE_MISSES, now)
        self._free_misses.take(now)


class ConnectionCounts:
    """How many clients there are, in all and from each address."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._all = 0
        self._of: dict[str, int] = {}

    @property
    def is_full(self) -> bool:
        """Whether there can be no more in all."""
        return bool(self._limit) and self._all >= self._limit

    def is_crowded(self, address: str) -> bool:
        """Tell whether there can be no more from this address."""
        return bool(self._limit_per_address) and self._of.get(address, 0) >= self._limit_per_address

    def enter(self, address: str) -> None:
        """Count a client."""
        self._all += 1
        self._of[address] = self._of.get(address, 0) + 1

    def leave(self, address: str) -> None:
        """Count it no more."""
        self._all -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]


T = TypeVar("T", bound=Hashable)


class PartialMessageBudget(Generic[T]):
    """How many bytes each holds of what is unfinished; past the limit who holds most is to be let go."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of: dict[T, int] = {}
        self._all = 0

    def note(self, holder: T, size: int) -> T | None:
        """Set what one holds; returns who has to go, if there is too much in all."""
        self._all += size - self._of.pop(holder, 0)
        if size:
            self._of[holder] = size
        return max(self._of, key=self._of.__getitem__) if self._all > self._limit else None


class PendingHandshakes(Generic[T]):
    """Connections that are no clients yet, in the order in which they came.

    Past the limits the oldest makes room: who means it asks at once, so that the oldest are those that say nothing. A flood of
    them keeps nobody else out.
    """

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._all: dict[T, str] = {}
        self._of: dict[str, dict[T, None]] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    def enter(self, connection: T, address: str) -> T | None:
        """Count a connection; returns the one that has to make room for it, if one has."""
        neighbours = self._of.setdefault(address, {})
        neighbours[connection] = None
        self._all[connection] = address
        if self._limit_per_address and len(neighbours) > self._limit_per_address:
            return next(iter(neighbours))
        return next(iter(self._all)) if self._limit and len(self._all) > self._limit else None

    def leave(self, connection: T) -> None:
        """Count it no more."""
        address = self._all.pop(connection)
        del self._of[address][connection]
        if not self._of[address]:
            del self._of[address]
