"""Overload: which clients the relay disconnects to keep its memory within bounds.

Three kinds of memory have a bound over all clients, and each bound has its own measure of blame:
- Send queues (`slowest_readers`): bytes times the time since the socket last accepted any. Neither the size alone, which may
  have arrived just now, nor the time alone, which costs little where little is queued.
- Replay buffers (`largest_buffers`): bytes.
- Partial messages (`PartialMessageBudget`): bytes.

Past a bound more is freed than necessary, down to `TARGET_SHARE` of it: looking at all clients for each frame would stall the
relay.
"""

from collections.abc import Hashable, Iterable
from typing import Final, Generic, TypeVar

TARGET_SHARE: Final = 0.75
STALLED_SECONDS: Final = 2.0

T = TypeVar("T", bound=Hashable)


def slowest_readers(queues: Iterable[tuple[T, int, float]], total: int, limit: int, now: float) -> list[T]:
    """Return the clients to disconnect, given each one's queued bytes and the time of its last progress.

    `TARGET_SHARE` applies to clients that have been stalled for `STALLED_SECONDS`; the others go only if they have to.
    """
    burdens = [(size * (now - since), size, now - since, client) for client, size, since in queues]
    evicted: list[T] = []
    for _, size, stalled, client in sorted(burdens, key=lambda each: each[:2], reverse=True):
        if total <= (limit * TARGET_SHARE if stalled > STALLED_SECONDS else limit):
            break
        total -= size
        evicted.append(client)
    return evicted


def largest_buffers(buffers: Iterable[tuple[T, int]], total: int, limit: int) -> list[T]:
    """Return the sessions to end, given the bytes in the replay buffer of each; none while the total is within the limit."""
    evicted: list[T] = []
    if total > limit:
        for session, size in sorted(buffers, key=lambda each: each[1], reverse=True):
            if total <= limit * TARGET_SHARE:
                break
            total -= size
            evicted.append(session)
    return evicted


class QueuedBytes:
    """The bytes in all send queues, or all replay buffers, of a relay."""

    def __init__(self) -> None:
        self.bytes = 0


class PartialMessageBudget(Generic[T]):
    """The bytes that each client's incomplete message occupies."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sizes: dict[T, int] = {}
        self._total = 0

    def update(self, client: T, size: int) -> T | None:
        """Set the bytes of one client; returns the client to disconnect if the total is over the limit."""
        self._total += size - self._sizes.pop(client, 0)
        if size:
            self._sizes[client] = size
        return max(self._sizes, key=self._sizes.__getitem__) if self._total > self._limit else None
