"""The parser of simple frames (RFC 6455, 5.2), and the building of frames. Pure.

A simple frame is an unfragmented text within the size limit, a close, a ping or a pong; masked, without reserved bits, with the
shortest form of a length below 64 KiB. The first frame of another kind ends the parsing: it is left to `FrameParser`, with all
bytes behind it. Each header is checked as soon as its deciding byte is there: the first, the second or the fourth.
"""

from collections.abc import Iterator
from math import inf
from struct import Struct
from typing import Final

from sdpx.relay.websocket.mask import unmask

TEXT: Final = 0x81  # FIN and the opcode
BINARY: Final = 0x82
CLOSE: Final = 0x88
PING: Final = 0x89
PONG: Final = 0x8A
CONTROL: Final = frozenset({CLOSE, PING, PONG})
SIMPLE: Final = CONTROL | {TEXT}
MASKED: Final = 0x80
SHORT: Final = 125
TWO_BYTES: Final = 126

SMALLEST: Final = 6  # bytes of a masked frame
SHORT_TEXT: Final = TEXT << 8 | MASKED
LONG_TEXT: Final = SHORT_TEXT | TWO_BYTES
_start: Final = Struct(">HH").unpack_from  # two bytes of header, and the two behind them


class FastParser:
    """Parses the bytes of one connection into simple frames."""

    __slots__ = ("_have", "_max_bytes", "_need", "_parts", "rest", "unparsed")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []  # of an incomplete frame: joined once, when enough of it has arrived
        self._have = 0
        self._need = 0
        self.unparsed = self.rest = b""

    @property
    def partial(self) -> int:
        """The bytes that are kept of an incomplete frame."""
        return self._have if self._parts else 0

    def feed(self, data: bytes, max_frames: float = inf) -> Iterator[tuple[int, bytes]]:
        """Yield each complete frame: its first byte, which is one of `SIMPLE`, and its payload, unmasked.

        `rest` has the bytes behind `max_frames`, which are to be fed next. Once a frame of another kind begins, `unparsed` has
        the bytes from there on, and no more may be fed.
        """
        self.rest = b""
        if self._parts:
            data = self._joined(data)
        at, end, most = 0, len(data), self._max_bytes
        while max_frames and end - at >= SMALLEST:  # complete texts, as nearly all are; all others are checked below
            kind, size = _start(data, at)
            if kind == LONG_TEXT:
                body, is_simple = at + 8, SHORT < size <= most
            else:
                body, size = at + 6, kind - SHORT_TEXT
                is_simple = 0 <= size <= SHORT
            if not is_simple or body + size > end:
                break
            yield TEXT, unmask(data[body : body + size], data[body - 4 : body])
            at = body + size
            max_frames -= 1
        while at < end:
            if not max_frames:
                self.rest = data[at:]
                return
            first, second = data[at], data[at + 1] if end - at > 1 else MASKED
            size, head = second & 0x7F, 6
            if size == TWO_BYTES and first == TEXT:
                size, head = int.from_bytes(data[at + 2 : at + 4]) if end - at >= 4 else TWO_BYTES, 8  # noqa: PLR2004
                is_simple = SHORT < size <= most
            else:
                is_simple = first in SIMPLE and size <= SHORT
            if not is_simple or second < MASKED:
                self.unparsed = data[at:]
                return
            body = at + head
            if body + size > end:
                self._keep(data[at:], head + size)
                return
            yield first, unmask(data[body : body + size], data[body - 4 : body])
            at = body + size
            max_frames -= 1

    def _joined(self, data: bytes) -> bytes:
        """Return what has arrived of a frame, or nothing as long as it is not enough to go on."""
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return b""
        data = b"".join(self._parts)
        self._parts = []
        return data

    def _keep(self, start: bytes, whole: int) -> None:
        """Keep the start of a frame until more of its header, or all of the frame, is there."""
        self._parts, self._have = [start], len(start)
        known = len(start) > 3 or (len(start) > 1 and start[1] & 0x7F != TWO_BYTES)  # noqa: PLR2004
        self._need = whole if known else len(start) + 1


def single_text(data: bytes, max_bytes: int) -> bytes | None:
    """Return the payload, unmasked, if the bytes are exactly one simple text frame, as nearly always; else None."""
    size = len(data) - 8
    if SHORT < size <= max_bytes:
        return unmask(data[8:], data[4:8]) if _start(data) == (LONG_TEXT, size) else None
    size += 2
    if 0 <= size <= SHORT and _start(data)[0] == SHORT_TEXT | size:
        return unmask(data[6:], data[2:6])
    return None


def is_single_control_frame(data: bytes) -> bool:
    """Return whether the bytes are exactly one simple control frame; its payload begins at offset 6."""
    return len(data) >= SMALLEST and data[0] in CONTROL and data[1] == MASKED | len(data) - SMALLEST <= MASKED | SHORT


_SHORT_HEADS: Final = tuple(bytes((TEXT, size)) for size in range(TWO_BYTES))
_long_head: Final = Struct(">BBH").pack


def text_frame(body: bytes, end: bytes = b"") -> bytes:
    """Return a server's text frame, whose payload is given in two parts."""
    size = len(body) + len(end)
    if size <= SHORT:
        return b"".join((_SHORT_HEADS[size], body, end))
    if size < 1 << 16:
        return b"".join((_long_head(TEXT, TWO_BYTES, size), body, end))
    return frame(TEXT, body + end)


def payload_of(data: bytes) -> bytes:
    """Return the payload of a server's frame."""
    size = data[1]
    return data[2 if size <= SHORT else 4 if size == TWO_BYTES else 10 :]


def frame(first: int, payload: bytes) -> bytes:
    """Return a server's frame that begins with the byte `first`."""
    return frame_head(first, len(payload)) + payload


def frame_head(first: int, size: int, masked: int = 0) -> bytes:
    """Return the header of a frame with a payload of `size` bytes, up to the mask; `masked` is `MASKED` for a client's."""
    if size <= SHORT:
        return bytes((first, masked | size))
    if size < 1 << 16:
        return bytes((first, masked | TWO_BYTES, size >> 8, size & 0xFF))
    return bytes((first, masked | 127)) + size.to_bytes(8)
