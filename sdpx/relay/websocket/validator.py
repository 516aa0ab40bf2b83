"""Validation of a client's WebSocket frames (RFC 6455, 5), before a library parses them. Pure.

wsproto and trio-websocket end a protocol error without a close frame, measure messages in characters, and keep empty
fragments without a bound. The validator reads no payload but that of a close frame, and accepts:

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

_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_CONTINUATION: Final = 0x0
_CLOSE: Final = 0x8
_OPCODES: Final = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})
_SHORT: Final = 125
_TWO_BYTES: Final = 126
NO_CODE: Final = 1005  # RFC 6455, 7.4.1: the code of a close frame without one
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013})  # IANA's
_OWN_CLOSE_CODES: Final = range(3000, 5000)  # of libraries and applications


class Violation(Struct, frozen=True):
    """A broken rule: the close code for it (RFC 6455, 7.4.1) and a sentence for the client."""

    code: int
    text: str


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
    """Validates the frames of one connection, in whatever chunks they arrive."""

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        self._max_bytes = max_bytes
        self._max_fragments = max_fragments
        self._header = bytearray()
        self._payload_left = 0
        self._message_bytes = 0
        self._fragments = 0
        self._close_payload = bytearray()
        self.closed = False
        self._payload_size = 0
        self.frames = 0
        self.extra_frames = 0
        self.kept = 0
        self.violation: Violation | None = None

    def feed(self, data: bytes, max_frames: float = inf) -> int:
        """Validate the next bytes and return how many of them are valid.

        The result covers all of them, or those up to the end of `max_frames` frames; or, once there is a `violation`, those in
        front of the frame that broke a rule; or, once a close frame has come and `closed` is set, those up to its end. `frames`
        counts complete frames, `extra_frames` those of them that end no message: control frames and fragments. `kept` is the
        bytes of the fragments of an incomplete message.
        """
        position, last = 0, self.frames + max_frames
        while position < len(data) and not self.closed and self.frames < last:
            if self._payload_left:
                step = min(self._payload_left, len(data) - position)
                self._keep_close_payload(data[position : position + step] if self._is_close() else b"")
                self._payload_left -= step
                position += step
                if not self._payload_left:
                    self._complete()
            else:
                self._header.append(data[position])
                position += 1
                self.violation = self._check_header()
            if self.violation:
                return max(0, position - len(self._header) - len(self._close_payload))
        return position

    @property
    def partial(self) -> int:
        """The bytes that have arrived of an incomplete frame."""
        return len(self._header) + self._payload_size - self._payload_left

    @property
    def close_code(self) -> int:
        """The code in the close frame; 1005 if it has none."""
        return close_code(bytes(self._close_payload))

    def _is_close(self) -> bool:
        return self._header[0] & 0x0F == _CLOSE

    def _keep_close_payload(self, data: bytes) -> None:
        """Keep the payload of a close frame, unmasked."""
        mask = self._header[-4:]
        behind = len(self._close_payload)
        self._close_payload += bytes(byte ^ mask[(behind + i) % 4] for i, byte in enumerate(data))

    def _check_header(self) -> Violation | None:
        header = self._header
        size = len(header)
        if size == 1:
            return self._check_opcode(header[0])
        if size == 2:  # noqa: PLR2004
            return self._check_second(header[0], header[1]) or self._finish_header()
        return self._finish_header()

    def _check_opcode(self, first: int) -> Violation | None:  # noqa: PLR0911  a table of rules
        opcode = first & 0x0F
        if first & _RESERVED:
            return Violation(1002, "Reserved bits are set, and no extension was negotiated")
        if opcode not in _OPCODES:
            return Violation(1002, f"There is no opcode {opcode}")
        if opcode >= _CLOSE:
            return None if first & _FIN else Violation(1002, "A control frame cannot be fragmented")
        if opcode == _CONTINUATION and not self._fragments:
            return Violation(1002, "A continuation came outside a message")
        if opcode != _CONTINUATION and self._fragments:
            return Violation(1002, "A new message came inside another")
        if self._fragments >= self._max_fragments:
            return Violation(1008, f"A message has {self._max_fragments} fragments at most")
        return None

    def _check_second(self, first: int, second: int) -> Violation | None:
        if not second & _MASKED:
            return UNMASKED_CLOSE if first & 0x0F == _CLOSE else Violation(1002, "A client's frames are masked")
        if first & 0x0F >= _CLOSE and second & 0x7F > _SHORT:
            return Violation(1002, "A control frame has 125 bytes at most")
        return None

    def _finish_header(self) -> Violation | None:
        """Begin with the payload once length and mask are there."""
        header = self._header
        short = header[1] & 0x7F
        extra = 0 if short <= _SHORT else 2 if short == _TWO_BYTES else 8
        if len(header) < 2 + extra:
            return None
        length = short
        if extra:
            length = int.from_bytes(header[2 : 2 + extra])
        if len(header) == 2 + extra and (violation := self._check_length(length, extra)):
            return violation
        if len(header) == 2 + extra + 4:
            self._payload_left = self._payload_size = length
            self._message_bytes += 0 if header[0] & 0x0F >= _CLOSE else length
            if not length:
                self._complete()
        return None

    def _check_length(self, length: int, extra: int) -> Violation | None:
        if (extra == 2 and length <= _SHORT) or (extra == 8 and length < 1 << 16):  # noqa: PLR2004
            return Violation(1002, "The length is not in its shortest form")
        if length >= 1 << 63:
            return Violation(1002, "The length has its highest bit set")
        if self._header[0] & 0x0F < _CLOSE and self._message_bytes + length > self._max_bytes:
            return Violation(1009, f"A message has {self._max_bytes} bytes at most")
        return None

    def _complete(self) -> None:
        """Count a frame whose last byte has arrived."""
        if self._is_close():
            self.violation = validate_close(bytes(self._close_payload))
            self.closed = self.violation is None
            if self.violation:
                return
        first, size = self._header[0], self._payload_size
        self._header.clear()
        self._payload_size = 0
        self.frames += 1
        if first & 0x0F >= _CLOSE:
            self.extra_frames += 1
        elif first & _FIN:
            self._message_bytes = self._fragments = self.kept = 0
        else:
            self._fragments += 1
            self.extra_frames += 1
            self.kept += size
