"""The general frame parser of the epoll engine: fragments, binary messages, control frames, violations. Pure.

`FrameValidator` checks the headers, as it does in front of trio-websocket; wsproto, which trio-websocket uses as well, joins
fragments and checks UTF-8.
"""

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from sdpx.relay.websocket.validator import FrameValidator, Violation


class CloseReceived(NamedTuple):
    """The client's close frame; the code is 1005 if it has none."""

    code: int
    reason: str


class PingReceived(NamedTuple):
    """A ping, to be answered with a pong with the same payload."""

    payload: bytes


ParserEvent = str | bytes | PingReceived | CloseReceived | Violation


class FrameParser:
    """Parses the bytes of one connection from the beginning of a frame on."""

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        self._validator = FrameValidator(max_bytes, max_fragments)
        self._connection = Connection(ConnectionType.SERVER)
        self._text_fragments: list[str] = []
        self._binary_fragments: list[bytes] = []

    @property
    def frames(self) -> int:
        """The number of complete frames."""
        return self._validator.frames

    @property
    def extra_frames(self) -> int:
        """The number of complete frames that end no message."""
        return self._validator.extra_frames

    @property
    def violation(self) -> Violation | None:
        """The rule that the client broke, if any."""
        return self._validator.violation

    @property
    def unfinished(self) -> int:
        """The bytes of memory that an incomplete message takes at most: four for each byte of text."""
        return 4 * (self._validator.kept + self._validator.partial)

    def validate(self, data: bytes, max_frames: float = inf) -> int:
        """Count and validate frames, `max_frames` at most; returns how many of the bytes are to be parsed."""
        return self._validator.feed(data, max_frames)

    def parse(self, data: bytes) -> Iterator[ParserEvent]:
        """Yield messages and pings, then a close frame or a violation, which is the last event."""
        self._connection.receive_data(data)
        for event in self._connection.events():
            yield from self._events(event)
        if self._validator.violation:
            yield self._validator.violation

    def _events(self, event: Event) -> Iterator[ParserEvent]:
        match event:
            case TextMessage(data=data, message_finished=finished):
                self._text_fragments.append(data)
                if finished:
                    yield "".join(self._text_fragments)
                    self._text_fragments.clear()
            case BytesMessage(data=data, message_finished=finished):
                self._binary_fragments.append(bytes(data))
                if finished:
                    yield b"".join(self._binary_fragments)
                    self._binary_fragments.clear()
            case Ping(payload=payload):
                yield PingReceived(bytes(payload))
            case CloseConnection(code=code, reason=reason):
                own = (
                    self._validator.closed and code == self._validator.close_code
                )  # or else an error that wsproto found
                yield CloseReceived(int(code), reason or "") if own else Violation(int(code), reason or "")
