"""The general frame parser of the epoll engine: fragments, binary messages, control frames, violations. Pure."""

from codecs import getincrementaldecoder
from math import inf
from typing import Final

from sdpx.relay.websocket.fast_parser import TEXT
from sdpx.relay.websocket.validator import CONTROL, FIN, INVALID_UTF8, FrameValidator

_new_decoder: Final = getincrementaldecoder("utf-8")


class FrameParser(FrameValidator):
    """Parses the bytes of one connection from the beginning of a frame on."""

    _keeps_payloads = True

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        super().__init__(max_bytes, max_fragments)
        self._first = 0  # the first byte of the message that is incomplete
        self._message = bytearray()
        self._decoder = _new_decoder()
        self._parsed: list[tuple[int, bytes]] = []
        self.rest = b""

    def feed(self, data: bytes, max_frames: float = inf) -> list[tuple[int, bytes]]:
        """Return the frames that these bytes complete, `max_frames` at most, each as its first byte and its payload.

        The last fragment of a message stands for the whole message, and an earlier one has an empty payload. `rest` has the
        bytes behind `max_frames`, which are to be fed next.
        """
        self.rest = data[self.validate(data, max_frames) :]
        parsed, self._parsed = self._parsed, []
        return parsed

    @property
    def unfinished(self) -> int:
        """The size of an incomplete message: as on trio-websocket, where a byte of text may take four."""
        return 4 * (self.kept + self.partial)

    def _on_frame(self, first: int, payload: bytes) -> None:
        if first & CONTROL:
            self._parsed.append((first, payload))
            return
        is_last = bool(first & FIN)
        self._first = first | FIN if not self._fragments else self._first
        self._message += payload
        try:
            if self._first == TEXT:
                self._decoder.decode(payload, final=is_last)
        except UnicodeDecodeError:
            self.violation = INVALID_UTF8
            return
        self._parsed.append((self._first, bytes(self._message)) if is_last else (first, b""))
        if is_last:
            self._message.clear()
