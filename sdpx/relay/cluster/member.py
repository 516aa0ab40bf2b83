"""A client of a node in a cluster, with its pairing and the frames on their way to it."""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

if TYPE_CHECKING:
    from sdpx.relay.cluster.directory import Entry, OutgoingFrame

REMEMBERED: Final = 16  # pairings that a client ended itself, for frames that turn out to be undelivered

# A frame's body, and the one without `seq` if it differs; None for an empty frame.
Payload = tuple[bytes, bytes | None] | None


class Link(Struct, gc=False):
    """A pairing as one of its clients has it; it moves with the session."""

    pairing: str
    peer_id: str
    sent: int = 0  # the number of the last frame sent by way of the engine
    received: int = 0
    early: dict[int, Payload] = field(default_factory=dict)  # frames ahead of others

    def accept(self, number: int, payload: Payload) -> list[tuple[bytes, bytes | None]]:
        """Take a frame; returns the frames that can be delivered now."""
        if number > self.received:
            self.early[number] = payload
        ready = []
        while self.received + 1 in self.early:
            self.received += 1
            if (next_payload := self.early.pop(self.received)) is not None:
                ready.append(next_payload)
        return ready

    def skip_to(self, number: int) -> list[tuple[bytes, bytes | None]]:
        """Give up the frames up to a number that have not come; returns the frames that can be delivered now."""
        ready: list[tuple[bytes, bytes | None]] = []
        for each in range(self.received + 1, number + 1):
            ready += self.accept(each, self.early.get(each))
        return ready


class Member:
    """A client of this node. `backlog` keeps the entries that come before its connection opens."""

    __slots__ = ("backlog", "client_id", "is_frozen", "left", "link", "request", "target_id", "waiting")

    def __init__(self, client_id: str, link: Link | None = None, left: Iterable[str] = ()) -> None:
        self.client_id = client_id
        self.link = link
        self.left = deque(left, REMEMBERED)  # the pairings that the client ended
        self.request = 0  # the number of its `pair_request` that is under way
        self.target_id = ""
        self.is_frozen = False
        self.waiting: list[OutgoingFrame] | None = None  # until the pairing is confirmed
        self.backlog: list[Entry] | None = None

    @property
    def pair(self) -> str:
        """The pairing and the peer as scripts/*.lua have them; empty without a pairing."""
        return f"{self.link.pairing} {self.link.peer_id}" if self.link is not None else ""

    @property
    def last_pairing(self) -> str:
        """The present pairing, else the last one that the client ended; empty if there is none."""
        return self.link.pairing if self.link is not None else self.left[-1] if self.left else ""


def parse_frame(head: str, body: bytes) -> tuple[str, int, Payload, str]:
    """Return the pairing of a frame, its number, its payload and the ID of its sender (see `OutgoingFrame`)."""
    pairing, number, length, sender_id = head.split(" ")
    size = int(length)
    return pairing, int(number), (body[:size], body[size:] or None) if body else None, sender_id
