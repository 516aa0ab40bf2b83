"""Rate limits of one client, and of one address. Time is an argument, in seconds of any steady clock.

- A token bucket lets a burst pass and then a steady rate. A message that finds it empty is refused.
- A second token bucket limits refusals; when it is empty too, the client is `exhausted` and the relay disconnects it.
- A pair request for an ID that is not connected is a guess, or a client waiting for its peer. Each client has three of them
  free, and one more every five seconds; beyond them its pair requests use the limit of its address. So guesses from an
  address are slowed, and another client of that address that knows its peer's ID, or looks for it now and then, is not
  affected.
- Failed authentication attempts are limited by address. An address without attempts left is refused before its next token is
  checked. A success costs nothing. Attempts that are under way at the same time may all fail: they count below zero.
- An address is an IPv4 address or an IPv6 /64, which one host may have for itself (RFC 6177).
- A limit of 0 is no limit.
"""

from collections.abc import Hashable, Iterator
from dataclasses import InitVar, dataclass, field
from ipaddress import IPv6Address, IPv6Network
from typing import Final, Generic, TypeVar

from sdpx.errors import Refusal
from sdpx.protocol import codec
from sdpx.protocol.messages import ClientMessage, PairRequest, type_of
from sdpx.relay.core.pairing import PairingTable

BURST_SECONDS: Final = 5.0
REFUSAL_SECONDS: Final = 5.0
FREE_MISSES: Final = 3.0
FREE_MISSES_PER_SECOND: Final = 0.2
ADDRESS_BURST: Final = 20.0
ADDRESSES_KEPT: Final = 4096


def network_of(host: str) -> str:
    """Return the address that a host counts as: `host` itself, or the /64 of an IPv6 address."""
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

    def tokens(self, now: float) -> float:
        """Return the number of tokens."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
        self._then = now
        return self._tokens

    def take(self, now: float, count: int = 1) -> bool:
        """Take `count` tokens, or none if there are fewer; returns whether they were taken."""
        tokens = self._tokens + (now - self._then) * self._rate  # as `tokens` does: this is the hot path
        self._then = now
        tokens = min(tokens, self._burst)
        if tokens < count:
            self._tokens = tokens
            return False
        self._tokens = tokens - count
        return True

    def force(self, now: float, least: float) -> None:
        """Take a token that may not be there; the number does not fall below `least`."""
        self._tokens = max(self.tokens(now) - 1, least)


class AddressLimit:
    """A token bucket for each address: `rate` tokens a second, `ADDRESS_BURST` at most; no limit if `rate` is 0.

    The latest `ADDRESSES_KEPT` addresses are remembered.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: dict[str, TokenBucket] = {}

    def has(self, address: str, now: float) -> bool:
        """Return whether an address has a token."""
        return not self._rate or self._tokens(address, now) >= 1

    def take(self, address: str, now: float) -> bool:
        """Take a token of an address; returns False if it has none."""
        return not self._rate or self._bucket(address, now).take(now)

    def force(self, address: str, now: float) -> None:
        """Take a token of an address, whether it has one or not."""
        self._bucket(address, now).force(now, least=-ADDRESS_BURST)

    def seconds_to_wait(self, address: str, now: float) -> float:
        """Return the seconds until an address has a token."""
        return max(0.0, (1 - self._tokens(address, now)) / self._rate) if self._rate else 0.0

    def _bucket(self, address: str, now: float) -> TokenBucket:
        """Return the bucket of an address for a change, which makes the address the last one to be forgotten."""
        bucket = self._buckets.pop(address, None) or TokenBucket(self._rate, ADDRESS_BURST, now)
        self._buckets[address] = bucket
        if len(self._buckets) > ADDRESSES_KEPT:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    def _tokens(self, address: str, now: float) -> float:
        bucket = self._buckets.get(address)
        return ADDRESS_BURST if bucket is None else bucket.tokens(now)


@dataclass(slots=True, eq=False, repr=False)
class ClientRateLimit:
    """The limit of one client: `rate` messages a second in the long run, five seconds' worth of them at once.

    Most clients never need the buckets for refusals and misses: a missing one is full.
    """

    _rate: float
    _now: InitVar[float]
    _unknown_targets: AddressLimit
    _address: str
    exhausted: bool = False
    unlimited: bool = field(init=False)
    _messages: TokenBucket | None = field(init=False)
    _refusals: TokenBucket | None = None
    _free_misses: TokenBucket | None = None

    def __post_init__(self, now: float) -> None:
        self.unlimited = self._rate == 0
        self._messages = None if self.unlimited else TokenBucket(self._rate, max(1, self._rate * BURST_SECONDS), now)

    def allows(self, now: float, count: int = 1) -> bool:
        """Count messages; returns False if they are too many, and sets `exhausted` if the refusals are too many as well."""
        if self._messages is None or self._messages.take(now, count):
            return True
        self._count_refusal(now, count)
        return False

    def allows_pair_request(self, now: float, *, is_visible: bool) -> bool:
        """Count a pair request, whose target is visible to the client or not; False if earlier ones missed too often."""
        is_free = self._free_misses is None or self._free_misses.tokens(now) >= 1
        allowed = is_free or self._unknown_targets.take(self._address, now)
        if not allowed:
            self._count_refusal(now, 1)
        if not is_visible:
            self.count_miss(now)
        return allowed

    def count_miss(self, now: float) -> None:
        """Count a pair request whose target is not visible."""
        if self._free_misses is None:
            self._free_misses = TokenBucket(FREE_MISSES_PER_SECOND, FREE_MISSES, now)
        self._free_misses.take(now)

    def _count_refusal(self, now: float, count: int) -> None:
        if self._refusals is None:
            self._refusals = TokenBucket(self._rate / 10, max(1, self._rate * REFUSAL_SECONDS), now)
        self.exhausted = not self.unlimited and not self._refusals.take(now, count)


def admit(
    frame: bytes | None, client_id: str, limit: ClientRateLimit, table: PairingTable, now: float
) -> ClientMessage:
    """Return the message in a frame, None being a binary frame. Raises `Refusal` for the first rule that it breaks.

    Every frame counts. A frame that is not a valid message is refused as such even if it is one too many. The limit of messages
    comes before the one of unknown targets, which does not count a request that is refused anyway.
    """
    allowed = limit.unlimited or limit.allows(now)
    if frame is None:
        raise codec.binary_refusal()
    message = codec.parse(frame)
    target_id = None
    if type(message) is PairRequest:
        target_id = message.target_id
        allowed = allowed and limit.allows_pair_request(now, is_visible=table.is_visible(client_id, target_id))
    if not allowed:
        reason = "You send too fast; slow down and send this message again"
        raise Refusal("rate_limited", reason, in_reply_to=type_of(message), target_id=target_id)
    return message


class ConnectionCounts:
    """The number of clients, in all and from each address."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self.total = 0
        self._by_address: dict[str, int] = {}

    @property
    def is_full(self) -> bool:
        """Whether the limit in all is reached."""
        return bool(self._limit) and self.total >= self._limit

    def is_crowded(self, address: str) -> bool:
        """Return whether the limit of this address is reached."""
        return bool(self._limit_per_address) and self._by_address.get(address, 0) >= self._limit_per_address

    def enter(self, address: str) -> None:
        """Count a client."""
        self.total += 1
        self._by_address[address] = self._by_address.get(address, 0) + 1

    def leave(self, address: str) -> None:
        """Note the end of a client."""
        self.total -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


T = TypeVar("T", bound=Hashable)


class EvictionQueue(Generic[T]):
    """Pending connections or suspended sessions, in the order in which they came, bounded in all and for each address.

    Past the limit of an address its oldest one is evicted: a client sends its request soon, so that the oldest ones are
    silent. Past the limit in all it is the oldest one of the address that has most: a flood evicts connections of other
    addresses only if it comes from about as many addresses itself.
    """

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._all: dict[T, str] = {}
        self._by_address: dict[str, dict[T, None]] = {}
        self._by_count: dict[int, dict[str, None]] = {}  # the addresses that have so many
        self._most = 0

    def __iter__(self) -> Iterator[T]:
        return iter(self._all)

    def enter(self, item: T, address: str) -> T | None:
        """Count an item; returns the one to evict for it, if any."""
        same_address = self._by_address.setdefault(address, {})
        same_address[item] = None
        self._all[item] = address
        self._recount(address, len(same_address) - 1, len(same_address))
        if self._limit_per_address and len(same_address) > self._limit_per_address:
            return next(iter(same_address))
        if not self._limit or len(self._all) <= self._limit:
            return None
        return next(iter(self._all if self._most == 1 else self._by_address[next(iter(self._by_count[self._most]))]))

    def leave(self, item: T) -> None:
        """Note the end of an item."""
        address = self._all.pop(item)
        same_address = self._by_address[address]
        del same_address[item]
        self._recount(address, len(same_address) + 1, len(same_address))
        if not same_address:
            del self._by_address[address]

    def _recount(self, address: str, before: int, after: int) -> None:
        """Note that an address has one item more, or one less."""
        if before:
            addresses = self._by_count[before]
            del addresses[address]
            if not addresses:
                del self._by_count[before]
                self._most = after if before == self._most else self._most
        if after:
            self._by_count.setdefault(after, {})[address] = None
            self._most = max(self._most, after)
