"""Overload: which clients the relay disconnects to keep its memory within bounds.

Three kinds of memory have a bound over all clients, and each bound has its own measure of blame:
- Send queues (`slowest_readers`): bytes times the time that the first frame has waited. Neither the size alone, which may have
  arrived just now, nor the time alone, which costs little where little is queued. The time since the last write would not
  do: a client that reads one frame after another, slowly, could keep a full queue for ever.
- Replay buffers (`largest_buffers`): bytes of all sessions of an address, then of each: many small ones of a flood do not make
  the larger one of another address the one to go.
- Partial messages (`PartialMessageBudget`): bytes times the time since the message began. One on its way takes moments.

Past a bound more is freed than necessary, down to `TARGET_SHARE` of it: looking at all clients for each frame would stall the
relay.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

TARGET_SHARE: Final = 0.75
LATE_SECONDS: Final = 2.0

T = TypeVar("T", bound=Hashable)


def slowest_readers(queues: Iterable[tuple[T, int, float]], total: int, limit: int, now: float) -> list[T]:
    """Return the clients to disconnect, given each one's queued bytes and the time at which the first of its frames came.

    `TARGET_SHARE` applies to clients with a frame that is `LATE_SECONDS` old; the others go only if they have to.
    """
    burdens = [(size * (now - since), size, now - since, client) for client, size, since in queues]
    evicted: list[T] = []
    for _, size, age, client in sorted(burdens, key=lambda each: each[:2], reverse=True):
        if total <= (limit * TARGET_SHARE if age > LATE_SECONDS else limit):
            break
        total -= size
        evicted.append(client)
    return evicted


def largest_buffers(buffers: Iterable[tuple[T, str, int]], total: int, limit: int) -> list[T]:
    """Return the sessions to end, given the address and the bytes in the replay buffer of each.

    None while the total is within the limit; else again and again the largest one of the address with most bytes.
    """
    evicted: list[T] = []
    if total <= limit:
        return evicted
    by_address = defaultdict[str, list[tuple[T, int]]](list)
    for session, address, size in sorted(buffers, key=lambda each: each[2]):
        by_address[address].append((session, size))
    sums = {address: sum(size for _, size in sessions) for address, sessions in by_address.items()}
    while total > limit * TARGET_SHARE:
        address = max(sums, key=sums.__getitem__)
        session, size = by_address[address].pop()
        evicted.append(session)
        sums[address] -= size
        total -= size
    return evicted


class QueuedBytes:
    """The bytes in all send queues, or all replay buffers, of a relay."""

    def __init__(self) -> None:
        self.bytes = 0


class PartialMessageBudget(Generic[T]):
    """The bytes that each client's incomplete message occupies, and since when."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: dict[T, tuple[int, float]] = {}
        self._total = 0

    def update(self, client: T, size: int, now: float = 0.0) -> T | None:
        """Set the bytes of one client; returns the client to disconnect if the total is over the limit.

        Bytes that are fewer than before belong to another message.
        """
        before, since = self._parts.pop(client, (0, now))
        self._total += size - before
        if size:
            self._parts[client] = size, since if size > before else now
        if self._total <= self._limit:
            return None
        burdens = {each: (size * (now - since), size) for each, (size, since) in self._parts.items()}
        return max(burdens, key=burdens.__getitem__)
