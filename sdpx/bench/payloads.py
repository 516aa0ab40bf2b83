"""The messages of the load: offers and answers that look like real ones, each with a number, cheap to make and to check."""

import os
from typing import Any, Final

import msgspec

from sdpx.bench.accounting import ALTERED, UNMARKED, Ledger, Tally, count_one
from sdpx.relay.websocket.fast_parser import MASKED, SHORT, TEXT, TWO_BYTES
from sdpx.relay.websocket.mask import unmask

DIGITS: Final = 16
MASK: Final = os.urandom(4)  # one for all frames of a process: what a relay does with it is the same
LINE: Final = b"a=candidate:1 1 udp 2130706431 192.168.1.10 54321 typ host\\r\\n"  # as JSON has it


def client_frame(first: int, payload: bytes) -> bytes:
    """Return a client's frame that begins with the byte `first`."""
    return _head(first, len(payload)) + unmask(payload, MASK)


def _head(first: int, size: int) -> bytes:
    if size <= SHORT:
        return bytes((first, MASKED | size)) + MASK
    if size < 1 << 16:
        return bytes((first, MASKED | TWO_BYTES)) + size.to_bytes(2) + MASK
    return bytes((first, MASKED | 127)) + size.to_bytes(8) + MASK


def text_frame(message: dict[str, Any]) -> bytes:
    """Return a client's frame with this message."""
    return client_frame(TEXT, msgspec.json.encode(message))


class MessageStream:
    """One direction of a pair: makes its messages, and takes them at the other end.

    A relay may write the same JSON in another way. How it writes it is learnt from the first message that is right by value;
    from then on bytes are compared, and what differs is parsed.
    """

    __slots__ = (
        "_digits_at",
        "_digits_end",
        "_expected_end",
        "_expected_size",
        "_expected_start",
        "_filler",
        "_head",
        "_kind",
        "_masked_end",
        "_start",
        "_tag",
        "_tally",
        "ledger",
    )

    def __init__(self, kind: str, size: int, tally: Tally) -> None:
        self._kind = kind
        self._tag = os.urandom(8).hex()
        self._tally = tally
        self.ledger = Ledger(tally)
        self._start = b'{"type":"%b","sdp":"%b' % (kind.encode(), self._tag.encode())
        filler = _filling(size - len(self._start) - DIGITS - 2)
        self._filler: str = msgspec.json.decode(b'"%b"' % filler, type=str)
        phase = (len(self._start) + DIGITS) % 4
        self._masked_end = unmask(filler + b'"}', MASK[phase:] + MASK[:phase])
        self._head = _head(TEXT, len(self._start) + DIGITS + len(self._masked_end))
        self._expect(self._start, filler + b'","from_peer":true}')

    def make(self, now: float) -> bytes:
        """Return the frame of the next message."""
        start = b"%b%016d" % (self._start, self.ledger.sent(now))
        return b"%b%b%b" % (self._head, unmask(start, MASK), self._masked_end)

    def take(self, payload: bytes, now: float) -> None:
        """Check and count what came."""
        if (
            len(payload) == self._expected_size
            and payload.startswith(self._expected_start)
            and payload.endswith(self._expected_end)
            and (digits := payload[self._digits_at : self._digits_end]).isdigit()
        ):
            self.ledger.came(int(digits), now)
        else:
            self._take_by_value(payload, now)

    def _expect(self, start: bytes, end: bytes) -> None:
        """Note between which bytes the number stands."""
        self._expected_start, self._expected_end = start, end
        self._digits_at, self._digits_end = len(start), len(start) + DIGITS
        self._expected_size = len(start) + DIGITS + len(end)

    def _take_by_value(self, payload: bytes, now: float) -> None:
        try:
            message = msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            count_one(self._tally.faults, ALTERED)
            return
        if message.pop("from_peer", None) is not True:
            count_one(self._tally.faults, UNMARKED)
        digits = str(message.get("sdp"))[len(self._tag) :][:DIGITS]
        if not digits.isdecimal() or message != {"type": self._kind, "sdp": self._tag + digits + self._filler}:
            count_one(self._tally.faults, ALTERED)
            return
        self.ledger.came(int(digits), now)
        start, number, end = payload.partition(f"{self._tag}{digits}".encode())
        if number and b"from_peer" in start + end:
            self._expect(start + self._tag.encode(), end)


def _filling(size: int) -> bytes:
    """Return so many bytes of JSON text."""
    lines, rest = divmod(max(size, 0), len(LINE))
    return LINE * lines + b"x" * rest
