"""The messages of the load: offers and answers of realistic form, each with a number, cheap to generate and to check."""

import os
from typing import Any, Final

import msgspec

from sdpx.bench.accounting import ALTERED, UNMARKED, DeliveryTracker, Tally, increment
from sdpx.relay.websocket.fast_parser import MASKED, TEXT, frame_head
from sdpx.relay.websocket.mask import unmask

DIGITS: Final = 16
MASK: Final = os.urandom(4)  # one for all frames of a process: the work of the relay is the same
LINE: Final = b"a=candidate:1 1 udp 2130706431 192.168.1.10 54321 typ host\\r\\n"  # JSON-escaped


def client_frame(first: int, payload: bytes) -> bytes:
    """Return a masked frame that begins with the byte `first`."""
    return frame_head(first, len(payload), MASKED) + MASK + unmask(payload, MASK)


def text_frame(message: dict[str, Any]) -> bytes:
    """Return a masked text frame with this message."""
    return client_frame(TEXT, msgspec.json.encode(message))


class MessageStream:
    """One direction of a pair: generates messages at one end and checks them at the other.

    A relay may encode the same JSON differently. The encoding is learned from the first message with the right values; from
    then on bytes are compared, and only messages that differ are parsed.
    """

    def __init__(self, kind: str, size: int, tally: Tally) -> None:
        self._kind = kind
        self._tag = os.urandom(8).hex()
        self._tally = tally
        self.tracker = DeliveryTracker(tally)
        self._start = b'{"type":"%b","sdp":"%b' % (kind.encode(), self._tag.encode())
        lines, rest = divmod(max(0, size - len(self._start) - DIGITS - 2), len(LINE))
        filler = LINE * lines + b"x" * rest
        self._filler: str = msgspec.json.decode(b'"%b"' % filler, type=str)
        phase = (len(self._start) + DIGITS) % 4
        self._masked_end = unmask(filler + b'"}', MASK[phase:] + MASK[:phase])
        self._head = frame_head(TEXT, len(self._start) + DIGITS + len(self._masked_end), MASKED) + MASK
        self._expect(self._start, filler + b'","from_peer":true}')

    def next_frame(self, now: float) -> bytes:
        """Return the frame of the next message."""
        start = b"%b%016d" % (self._start, self.tracker.sent(now))
        return b"%b%b%b" % (self._head, unmask(start, MASK), self._masked_end)

    def receive(self, payload: bytes, now: float) -> None:
        """Check and count a received message."""
        if (
            len(payload) == self._expected_size
            and payload.startswith(self._expected_start)
            and payload.endswith(self._expected_end)
            and (digits := payload[self._digits_at : self._digits_end]).isdigit()
        ):
            self.tracker.received(int(digits), now)
        else:
            self._receive_parsed(payload, now)

    def _expect(self, start: bytes, end: bytes) -> None:
        """Set the bytes before and behind the number."""
        self._expected_start, self._expected_end = start, end
        self._digits_at, self._digits_end = len(start), len(start) + DIGITS
        self._expected_size = len(start) + DIGITS + len(end)

    def _receive_parsed(self, payload: bytes, now: float) -> None:
        try:
            message = msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            increment(self._tally.faults, ALTERED)
            return
        if message.pop("from_peer", None) is not True:
            increment(self._tally.faults, UNMARKED)
        digits = str(message.get("sdp"))[len(self._tag) :][:DIGITS]
        if not digits.isdecimal() or message != {"type": self._kind, "sdp": self._tag + digits + self._filler}:
            increment(self._tally.faults, ALTERED)
            return
        self.tracker.received(int(digits), now)
        start, number, end = payload.partition(f"{self._tag}{digits}".encode())
        if number and b"from_peer" in start + end:
            self._expect(start + self._tag.encode(), end)
