"""Frames of the unusual kind: fragments, binary, close frames, and everything that is wrong. Pure.

The gate looks at headers first, and says what is wrong as it does in front of trio-websocket; behind it, wsproto puts
messages together and checks their UTF-8. It is trio-websocket's own engine, without its tasks.
"""

from collections.abc import Iterator
from typing import NamedTuple

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage

from sdpx.relay.websocket.validator import FrameValidator, Violation


class CloseReceived(NamedTuple):
    """The client's close frame; 1005 if it bore no code."""

    code: int
    reason: str


class PingReceived(NamedTuple):
    """A ping, to be answered with its payload."""

    payload: bytes


ParserEvent = str | bytes | PingReceived | CloseReceived | Violation


class FrameParser:
    """Reads on where the lane stopped, at the first byte of a frame."""

    def __init__(self, max_bytes: int, max_fragments: int) -> None:
        self._gate = FrameValidator(max_bytes, max_fragments)
        self._connection = Connection(ConnectionType.SERVER)
        self._texts: list[str] = []
        self._blobs: list[bytes] = []

    @property
    def frames(self) -> int:
        """How many frames have come whole."""
        return self._gate.frames

    @property
    def extra_frames(self) -> int:
        """How many of them ended no message."""
        return self._gate.extra_frames

    @property
    def violation(self) -> Violation | None:
        """The rule that was broken; what came before is still to be found."""
        return self._gate.violation

    @property
    def unfinished(self) -> int:
        """How many bytes of memory a message that is not whole takes, at most: text may take four for each that came."""
        return 4 * (self._gate.kept + self._gate.partial)

    def receive_data(self, data: bytes) -> None:
        """Take bytes; `events` tells what they bring."""
        in_order = self._gate.feed(data)
        self._connection.receive_data(data[:in_order])

    def events(self) -> Iterator[ParserEvent]:
        """Yield messages and pings, then perhaps the close or what is wrong, and nothing behind that."""
        for event in self._connection.events():
            yield from self._events(event)
        if self._gate.violation:
            yield self._gate.violation

    def _events(self, event: Event) -> Iterator[ParserEvent]:
        match event:
            case TextMessage(data=data, message_finished=finished):
                self._texts.append(data)
                if finished:
                    yield "".join(self._texts)
                    self._texts.clear()
            case BytesMessage(data=data, message_finished=finished):
                self._blobs.append(bytes(data))
                if finished:
                    yield b"".join(self._blobs)
                    self._blobs.clear()
            case Ping(payload=payload):
                yield PingReceived(bytes(payload))
            case CloseConnection(code=code, reason=reason):
                own = self._gate.closed and code == self._gate.close_code  # else it is what wsproto found wrong
                yield CloseReceived(int(code), reason or "") if own else Violation(int(code), reason or "")
