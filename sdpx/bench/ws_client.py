"""A WebSocket client that costs little: a non-blocking socket, and just what a relay's frames need."""

import base64
import errno
import hashlib
import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

import msgspec

from sdpx.bench.payloads import client_frame
from sdpx.relay.websocket.fast_parser import PING, PONG, SHORT, TEXT, TWO_BYTES

READ_BYTES: Final = 256 * 1024
HEAD_BYTES: Final = 16 * 1024
CLOSE: Final = 0x88
NORMAL: Final = 1000
NO_CLOSE: Final = 1006
TICK_SECONDS: Final = 0.1
KEY: Final = base64.b64encode(os.urandom(16)).decode()  # one for all connections of a process
ACCEPT: Final = base64.b64encode(
    hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324  RFC 6455's choice
)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Target(msgspec.Struct, frozen=True):
    """Where the relay is: an address that needs no look-up, and what the request says."""

    host: str
    port: int
    name: str
    path: str

    @property
    def request(self) -> bytes:
        """Return the request for a WebSocket."""
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: {self.name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()


class Ended(msgspec.Struct, frozen=True):
    """How a connection ended: by a close code, by an HTTP status that `refused` it, or, with code 0, in another way."""

    code: int
    reason: str = ""
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".strip() if self.code else self.reason


class Loop:
    """Calls whoever's socket is ready."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def run(self, until: float, done: Callable[[], bool]) -> None:
        """Serve the sockets until then, or until it is done; that is asked after each round."""
        while not done() and (left := until - time.monotonic()) > 0:
            for key, events in self.selector.select(min(left, TICK_SECONDS)):
                key.data(events)


class Wire:
    """One connection. `on_text` gets each message, `on_end` is called once; neither while this is being made."""

    __slots__ = (
        "_buffer",
        "_code",
        "_events",
        "_flaw",
        "_has_closed",
        "_loop",
        "_out",
        "_reason",
        "_socket",
        "_take",
        "ended",
        "on_end",
        "on_text",
    )

    def __init__(
        self, loop: Loop, target: Target, on_text: Callable[[bytes], None], on_end: Callable[[Ended], None]
    ) -> None:
        self._loop = loop
        self.on_text = on_text
        self.on_end = on_end
        self.ended = False
        self._has_closed = False
        self._buffer = b""
        self._code, self._reason = NO_CLOSE, ""
        self._out = [target.request]
        self._take = self._take_head
        self._socket = socket.socket(socket.AF_INET6 if ":" in target.host else socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        flaw = self._socket.connect_ex((target.host, target.port))  # it is told of when the socket is first written to
        self._flaw = "" if flaw in {0, errno.EINPROGRESS} else os.strerror(flaw)
        self._events = READ | WRITE
        loop.selector.register(self._socket, self._events, self._ready)

    def post(self, frame: bytes) -> None:
        """Send this frame at the next `flush`, or when what came has been looked at."""
        self._out.append(frame)

    def flush(self) -> None:
        """Write what the socket takes; the rest follows when it takes more."""
        if not self._out or self.ended:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(Ended(0, self._flaw or error.strerror or "lost"))
            return
        self._out = [data[sent:]] if sent < len(data) else []
        self._want(READ | WRITE if self._out else READ)

    def leave(self) -> None:
        """Say that this client goes; it has gone when the relay has answered."""
        self._close(NORMAL.to_bytes(2))
        self.flush()

    def drop(self) -> None:
        """Close the socket, and say nothing to anybody."""
        if not self.ended:
            self.ended = True
            self._loop.selector.unregister(self._socket)
            self._socket.close()

    def _close(self, code: bytes) -> None:
        if not self._has_closed:
            self._has_closed = True
            self.post(client_frame(CLOSE, code))

    def _want(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.selector.modify(self._socket, events, self._ready)

    def _end(self, how: Ended) -> None:
        if not self.ended:
            self.drop()
            self.on_end(how)

    def _ready(self, events: int) -> None:
        if self.ended:
            return
        if events & WRITE:
            self.flush()
        if events & READ and not self.ended:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(Ended(0, error.strerror or "lost"))
            return
        if data:
            self._take(self._buffer + data if self._buffer else data)
            self.flush()
        elif self._take == self._take_head and self._buffer:
            head, _, body = self._buffer.partition(b"\r\n\r\n")
            self._end(_refusal(head.split(b" ", 2)[1:2], body))
        else:
            self._end(Ended(self._code, self._reason))

    def _take_head(self, data: bytes) -> None:
        head, blank, rest = data.partition(b"\r\n\r\n")
        self._buffer = data
        if not blank and len(data) < HEAD_BYTES:
            return
        status = head.split(b" ", 2)[1:2]
        if status == [b"101"] and ACCEPT in head:
            self._take = self._take_frames
            self._take_frames(rest)
        elif len(rest) >= _body_bytes(head):
            self._end(_refusal(status, rest))

    def _take_frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= 2 and not self.ended:  # noqa: PLR2004
            size, body = data[at + 1], at + 2
            if size > SHORT:
                body += 2 if size == TWO_BYTES else 8
                if body > end:
                    break
                size = int.from_bytes(data[at + 2 : body])
            if body + size > end:
                break
            first = data[at]
            if first == TEXT:
                self.on_text(data[body : body + size])
            else:
                self._take_other(first, data[body : body + size])
            at = body + size
        self._buffer = data[at:]

    def _take_other(self, first: int, payload: bytes) -> None:
        if first == PING:
            self.post(client_frame(PONG, payload))
        elif first == CLOSE:
            self._code = int.from_bytes(payload[:2]) or NO_CLOSE
            self._reason = payload[2:].decode(errors="replace")
            self._close(payload[:2])
        elif first != PONG:
            self._end(Ended(0, f"a frame that begins with 0x{first:02x}"))


def _body_bytes(head: bytes) -> int:
    """Return how many bytes of an answer follow its head."""
    found = re.search(rb"(?i)\r\ncontent-length: *(\d{1,9})", head)
    return int(found[1]) if found else 0


def _refusal(status: list[bytes], body: bytes) -> Ended:
    """Return what an answer that opens no WebSocket says; an answer without a status is no relay's."""
    if not status or not status[0].isdigit():
        return Ended(0, "the answer is not HTTP")
    try:
        code = msgspec.json.decode(body, type=dict[str, str]).get("code", "")
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = ""
    return Ended(int(status[0]), code, refused=True)
