"""The messages of the load: offers and answers of realistic form, each with a number, cheap to generate and to check."""

import os
from typing import Any, Final

import msgspec

from sdpx.bench.accounting import ALTERED, LOST, REORDERED, REPEATED, UNMARKED, Tally
from sdpx.relay.websocket.fast_parser import MASKED, TEXT, frame_head
from sdpx.relay.websocket.mask import unmask

DIGITS: Final = 16
MASK: Final = os.urandom(4)  # one for all frames of a process: the work of the relay is the same
LINE: Final = b"a=candidate:1 1 udp 2130706431 192.168.1.10 54321 typ host\\r\\n"  # JSON-escaped
_decoder: Final = msgspec.json.Decoder(dict[str, Any])


def client_frame(first: int, payload: bytes) -> bytes:
    """Return a masked frame that begins with the byte `first`."""
    return frame_head(first, len(payload), MASKED) + MASK + unmask(payload, MASK)


def decode_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one if the text is invalid."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


class MessageStream:
    """One direction of a pair: generates messages at one end and checks them at the other.

    Each message has a number. A message that was sent is pending until it is received or refused; one that is pending at the
    end is lost. Times are seconds of any one clock.

    A relay may encode the same JSON differently. The encoding is learned from the first message with the right values; from
    then on bytes are compared, and only messages that differ are parsed.
    """

    def __init__(self, kind: str, size: int, tally: Tally) -> None:
        self._kind = kind
        self._tag = os.urandom(8).hex()
        self._tally = tally
        self._pending: dict[int, float] = {}
        self._next = 0
        self._highest = -1
        self._refused = 0
        self._start = b'{"type":"%b","sdp":"%b' % (kind.encode(), self._tag.encode())
        lines, rest = divmod(max(0, size - len(self._start) - DIGITS - 2), len(LINE))
        filler = LINE * lines + b"x" * rest
        self._filler: str = msgspec.json.decode(b'"%b"' % filler, type=str)
        phase = (len(self._start) + DIGITS) % 4
        self._masked_end = unmask(filler + b'"}', MASK[phase:] + MASK[:phase])
        self._head = frame_head(TEXT, len(self._start) + DIGITS + len(self._masked_end), MASKED) + MASK
        self._expect(self._start, filler + b'","from_peer":true}')

    @property
    def has_pending(self) -> bool:
        """Whether a message is neither received nor refused yet."""
        return len(self._pending) > self._refused

    def next_frame(self, now: float) -> bytes:
        """Return the frame of the next message."""
        start = b"%b%016d" % (self._start, self._next)
        self._pending[self._next] = now
        self._next += 1
        return b"%b%b%b" % (self._head, unmask(start, MASK), self._masked_end)

    def receive(self, payload: bytes, now: float) -> None:
        """Check and count a received message."""
        if (
            len(payload) == self._expected_size
            and payload.startswith(self._expected_start)
            and payload.endswith(self._expected_end)
            and (digits := payload[self._digits_at : self._digits_end]).isdigit()
        ):
            self._count(int(digits), now)
        else:
            self._receive_parsed(payload, now)

    def refuse(self) -> None:
        """Count a pending message as refused: it will not arrive, and is not lost."""
        self._refused += 1

    def finish(self) -> None:
        """Count the messages that are still pending as lost."""
        if self.has_pending:
            self._tally.faults[LOST] += len(self._pending) - self._refused

    def _expect(self, start: bytes, end: bytes) -> None:
        """Set the bytes before and behind the number."""
        self._expected_start, self._expected_end = start, end
        self._digits_at, self._digits_end = len(start), len(start) + DIGITS
        self._expected_size = len(start) + DIGITS + len(end)

    def _receive_parsed(self, payload: bytes, now: float) -> None:
        message = decode_object(payload)
        if message and message.pop("from_peer", None) is not True:
            self._tally.faults[UNMARKED] += 1
        digits = str(message.get("sdp"))[len(self._tag) :][:DIGITS]
        if not digits.isdecimal() or message != {"type": self._kind, "sdp": self._tag + digits + self._filler}:
            self._tally.faults[ALTERED] += 1
            return
        self._count(int(digits), now)
        start, number, end = payload.partition(f"{self._tag}{digits}".encode())
        if number and b"from_peer" in start + end:
            self._expect(start + self._tag.encode(), end)

    def _count(self, number: int, now: float) -> None:
        """Count a message that arrived unaltered."""
        began = self._pending.pop(number, None)
        if began is None:
            self._tally.faults[REPEATED if 0 <= number < self._next else ALTERED] += 1
            return
        self._tally.count += 1
        self._tally.latencies[int((now - began) * 1e6)] += 1
        if number < self._highest:
            self._tally.faults[REORDERED] += 1
        else:
            self._highest = number
