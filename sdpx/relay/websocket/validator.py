"""Validation of a client's WebSocket frames (RFC 6455, 5). Pure.

trio-websocket ends a protocol error without a close frame, measures messages in characters, and keeps empty fragments
without a bound. The validator reads no payload but that of a close frame, and accepts:

- reserved bits 0, since no extension is ever negotiated; a known opcode; masked; the shortest form of the length;
- control frames whole and of 125 bytes at most;
- a continuation only within a message, a new message only outside one;
- a message of `max_bytes` at most (close 1009), in `max_fragments` at most (1008);
- a close frame that is empty, or has a code that may be sent and a reason in UTF-8 (1002, 1007).

Bytes behind a close frame are ignored (5.5.1).

Each rule is checked as soon as the bytes that it needs are there: a header that is invalid after 2 bytes is refused after 2.
"""

from math import inf
from typing import Final

from msgspec import Struct

from sdpx.relay.websocket.fast_parser import MASKED, SHORT, TWO_BYTES
from sdpx.relay.websocket.mask import unmask

FIN: Final = 0x80
CONTROL: Final = 0x8  # the lowest opcode of a control frame
_RESERVED: Final = 0x70
_CONTINUATION: Final = 0x0
_CLOSE: Final = 0x8
_OPCODES: Final = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})
NO_CODE: Final = 1005  # RFC 6455, 7.4.1: the code of a close frame without one
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013})  # IANA's
_OWN_CLOSE_CODES: Final = range(3000, 5000)  # of libraries and applications


class Violation(Struct, frozen=True):
    """A broken rule: the close code for it (RFC 6455, 7.4.1) and a sentence for the client."""

    code: int
    text: str


INVALID_UTF8: Final = Violation(1007, "A text message is UTF-8")
# Clients mask their frames: it comes from a proxy, such as Caddy, that ends the connections that it forwards.
UNMASKED_CLOSE: Final = Violation(1002, "A client's close frame is masked")


def close_code(payload: bytes) -> int:
    """Return the code in a close frame's payload; 1005 if there is none."""
    return int.from_bytes(payload[:2]) or NO_CODE


def validate_close(payload: bytes) -> Violation | None:
    """Return the violation in the payload of a close frame (RFC 6455, 5.5.1 and 7.4), if any."""
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or (payload and code not in _CLOSE_CODES and code not in _OWN_CLOSE_CODES):
        return Violation(1002, "A close frame bears no code, or one that may be sent")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return Violation(1007, "The reason in a close frame is UTF-8")
    return None


class FrameValidator:
    """Validates the frames of one connection, in whatever chunks they arrive.

    `frames` counts complete frames, `extra_frames` those of them that end no message: control frames and fragments. `kept` is
    the bytes of the fragments of an incomplete message. `closed` is set with `close_code` once a close frame has come.
    """

    _keeps_payloads = False

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        self._max_bytes = max_bytes
        self._max_fragments = max_fragments
        self._header = bytearray()
        self._has_header = False  # as a whole
        self._payload = bytearray()  # masked; of a close frame, or of every frame for a subclass that keeps them
        self._payload_size = self.payload_left = 0
        self._message_bytes = 0
        self._fragments = 0
        self.frames = self.extra_frames = self.kept = 0
        self.closed = False
        self.close_code = NO_CODE
        self.violation: Violation | None = None

    def validate(self, data: bytes, max_frames: float = inf) -> int:
        """Validate the next bytes and return how many of them are valid.

        The result covers all of them, or those up to the end of `max_frames` frames; or, once there is a `violation`, those in
        front of the frame that broke a rule; or, once `closed` is set, those up to the end of the close frame.
        """
        position, last = 0, self.frames + max_frames
        while position < len(data) and not self.closed and self.frames < last:
            if self._has_header:
                step = min(self.payload_left, len(data) - position)
                if self._keeps_payloads or self._header[0] & 0x0F == _CLOSE:
                    self._payload += data[position : position + step]
                self.payload_left -= step
                position += step
            else:
                self._header.append(data[position])
                position += 1
                self.violation = self._check_header()
            if self._has_header and not self.payload_left:
                self._complete()
            if self.violation:
                return max(0, position - self.partial)
        return position

    @property
    def partial(self) -> int:
        """The bytes that have arrived of an incomplete frame."""
        return len(self._header) + self._payload_size - self.payload_left

    def _check_header(self) -> Violation | None:
        header = self._header
        if len(header) == 1:
            return self._check_opcode(header[0])
        violation = self._check_second(header[0], header[1]) if len(header) == 2 else None  # noqa: PLR2004
        return violation or self._finish_header()

    def _check_opcode(self, first: int) -> Violation | None:  # noqa: PLR0911  a table of rules
        opcode = first & 0x0F
        if first & _RESERVED:
            return Violation(1002, "Reserved bits are set, and no extension was negotiated")
        if opcode not in _OPCODES:
            return Violation(1002, f"There is no opcode {opcode}")
        if opcode >= CONTROL:
            return None if first & FIN else Violation(1002, "A control frame cannot be fragmented")
        if opcode == _CONTINUATION and not self._fragments:
            return Violation(1002, "A continuation came outside a message")
        if opcode != _CONTINUATION and self._fragments:
            return Violation(1002, "A new message came inside another")
        if self._fragments >= self._max_fragments:
            return Violation(1008, f"A message has {self._max_fragments} fragments at most")
        return None

    def _check_second(self, first: int, second: int) -> Violation | None:
        if not second & MASKED:
            return UNMASKED_CLOSE if first & 0x0F == _CLOSE else Violation(1002, "A client's frames are masked")
        if first & 0x0F >= CONTROL and second & 0x7F > SHORT:
            return Violation(1002, "A control frame has 125 bytes at most")
        return None

    def _finish_header(self) -> Violation | None:
        """Begin with the payload once length and mask are there."""
        header = self._header
        short = header[1] & 0x7F
        extra = 0 if short <= SHORT else 2 if short == TWO_BYTES else 8
        if len(header) < 2 + extra:
            return None
        length = int.from_bytes(header[2 : 2 + extra]) if extra else short
        if len(header) == 2 + extra and (violation := self._check_length(length, extra)):
            return violation
        if len(header) == 2 + extra + 4:
            self.payload_left = self._payload_size = length
            self._message_bytes += 0 if header[0] & 0x0F >= CONTROL else length
            self._has_header = True
        return None

    def _check_length(self, length: int, extra: int) -> Violation | None:
        if (extra == 2 and length <= SHORT) or (extra == 8 and length < 1 << 16):  # noqa: PLR2004
            return Violation(1002, "The length is not in its shortest form")
        if length >= 1 << 63:
            return Violation(1002, "The length has its highest bit set")
        if self._header[0] & 0x0F < CONTROL and self._message_bytes + length > self._max_bytes:
            return Violation(1009, f"A message has {self._max_bytes} bytes at most")
        return None

    def _complete(self) -> None:
        """Count a frame whose last byte has arrived."""
        first, payload = self._header[0], unmask(bytes(self._payload), bytes(self._header[-4:]))
        if first & 0x0F == _CLOSE:
            self.violation = validate_close(payload)
            if self.violation:
                return
            self.closed, self.close_code = True, close_code(payload)
        self._on_frame(first, payload)
        self.frames += 1
        if first & 0x0F >= CONTROL:
            self.extra_frames += 1
        elif first & FIN:
            self._message_bytes = self._fragments = self.kept = 0
        else:
            self._fragments += 1
            self.extra_frames += 1
            self.kept += self._payload_size
        self._header.clear()
        self._payload.clear()
        self._payload_size, self._has_header = 0, False

    def _on_frame(self, first: int, payload: bytes) -> None:
        """Take a valid frame: its first byte and, where it is kept, its payload, unmasked."""
