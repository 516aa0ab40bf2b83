"""Confirmation of messages between two sdpx peers, by receipts on the heartbeat channel. Pure.

A receipt is a JSON object with two counts of messages since the pairing began, over all of its connections: `received`, and
`written` to stdout. The sender keeps each message until it is written, sends no more than `WINDOW` bytes ahead, and, when a
connection was lost, sends again over the next one the messages that were not received. A heartbeat without counts is only a
sign of life.
"""

from collections import deque
from typing import NamedTuple

import msgspec

from sdpx.protocol.codec import UNREADABLE

OVERHEAD = 64  # bytes that a message counts for beside its own
WINDOW = 512 * 1024  # bytes; well below the receive window of SCTP, so that receipts in the other direction never wait


class Receipt(msgspec.Struct, frozen=True):
    """The messages of the other side that have been `received`, and `written`."""

    received: int = 0
    written: int = 0

    def encode(self) -> str:
        """Return the text of a heartbeat."""
        return msgspec.json.encode(self).decode()


def parse_receipt(data: str | bytes) -> Receipt | None:
    """Return the receipt in a heartbeat; None if it has no counts."""
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
    except UNREADABLE:
        return None
    return receipt if 0 <= receipt.written <= receipt.received else None


def byte_length(data: str | bytes) -> int:
    """Return the number of bytes of a message, of a text in UTF-8."""
    return len(data.encode() if isinstance(data, str) else data)


def size_of(data: str | bytes) -> int:
    """Return the number of bytes that a message counts for."""
    return byte_length(data) + OVERHEAD


class Message(NamedTuple):
    """A message to send, text or binary, over the channel with this label; None is the first one."""

    data: str | bytes
    channel: str | None = None


class Unconfirmed:
    """The messages sent that the other side has not confirmed, in order."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._confirmed = 0
        self._size = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def size(self) -> int:
        """The size of the messages."""
        return self._size - OVERHEAD * len(self._messages)

    @property
    def is_full(self) -> bool:
        """Whether no more may be sent before a receipt comes."""
        return self._size >= WINDOW

    def add(self, message: Message) -> None:
        """Add a message that is being sent."""
        self._messages.append(message)
        self._size += size_of(message.data)

    def take_back(self) -> None:
        """Remove the message added last, which was not sent."""
        self._size -= size_of(self._messages.pop().data)

    def confirm(self, receipt: Receipt) -> bool:
        """Remove the written messages; returns whether there was any. A count beyond what was sent is ignored."""
        count = min(receipt.written - self._confirmed, len(self._messages))
        for _ in range(count):
            self._size -= size_of(self._messages.popleft().data)
            self._confirmed += 1
        return count > 0

    def missing(self, receipt: Receipt) -> list[Message]:
        """Return the messages that have not been received, when the connection over which they were sent is closed."""
        return list(self._messages)[max(0, receipt.received - self._confirmed) :]
