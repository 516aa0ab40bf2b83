"""A WebSocket client of low cost: a non-blocking socket, and the frames that a relay sends."""

import base64
import errno
import hashlib
import os
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from functools import cache
from typing import Final

import msgspec

from sdpx.bench.payloads import client_frame
from sdpx.client_tls import client_context, describe_tls_failure
from sdpx.relay.websocket.fast_parser import CLOSE, PING, PONG, SHORT, TEXT, TWO_BYTES

READ_BYTES: Final = 256 * 1024
HEAD_BYTES: Final = 16 * 1024
NORMAL: Final = 1000
ABNORMAL: Final = 1006
TICK_SECONDS: Final = 0.1
KEY: Final = base64.b64encode(os.urandom(16)).decode()  # one for all connections of a process
ACCEPT: Final = base64.b64encode(
    hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324  RFC 6455, 4.2.2
)
READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Target(msgspec.Struct, frozen=True):
    """The relay: a numeric address, and what the request contains. `tls_name` is the name in its certificate, if it has one."""

    host: str
    port: int
    name: str
    path: str
    tls_name: str | None = None
    cafile: str | None = None
    insecure: bool = False

    @property
    def request(self) -> bytes:
        """Return the upgrade request."""
        return (
            f"GET {self.path} HTTP/1.1\r\nHost: {self.name}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()


class CloseInfo(msgspec.Struct, frozen=True):
    """The end of a connection: a close code, an HTTP status that `refused` it, or code 0 for another cause."""

    code: int
    reason: str = ""
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".strip() if self.code else self.reason


class Loop:
    """Calls the handler of each socket that is ready."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def run(self, until: float, done: Callable[[], bool]) -> None:
        """Serve the sockets until that time, or until `done`, which is checked after each round."""
        while not done() and (left := until - time.monotonic()) > 0:
            for key, events in self.selector.select(min(left, TICK_SECONDS)):
                key.data(events)


_context = cache(client_context)


class WsClient:
    """One connection. `on_text` is called with each message, `on_closed` once; neither during construction."""

    def __init__(
        self, loop: Loop, target: Target, on_text: Callable[[bytes], None], on_closed: Callable[[CloseInfo], None]
    ) -> None:
        self._loop = loop
        self.on_text = on_text
        self.on_closed = on_closed
        self.closed = False
        self._close_sent = False
        self._buffer = b""
        self._close_code, self._close_reason = ABNORMAL, ""
        self._out = [target.request]
        self._receive = self._receive_head
        self._socket = socket.socket(socket.AF_INET6 if ":" in target.host else socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handshake: Callable[[], None] | None = None  # of TLS, until it is complete
        if target.tls_name is not None:
            context = _context(target.cafile, insecure=target.insecure)
            secured = context.wrap_socket(self._socket, do_handshake_on_connect=False, server_hostname=target.tls_name)
            self._socket, self._handshake = secured, secured.do_handshake
        error = self._socket.connect_ex((target.host, target.port))  # reported when the socket is first written to
        self._connect_error = "" if error in {0, errno.EINPROGRESS, errno.EAGAIN} else os.strerror(error)
        self._events = READ | WRITE
        loop.selector.register(self._socket, self._events, self._on_ready)

    def post(self, frame: bytes) -> None:
        """Send this frame at the next `flush`, or after the received data has been handled."""
        self._out.append(frame)

    def flush(self) -> None:
        """Write what the socket accepts; the rest follows when it is writable."""
        if not self._out or self.closed:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        try:
            sent = self._socket.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError as error:
            self._close(self._failure(error))
            return
        self._out = [data[sent:]] if sent < len(data) else []
        self._set_events(READ | WRITE if self._out else READ)

    def start_closing(self) -> None:
        """Send a close frame; the connection is closed when the relay has answered."""
        self._post_close(NORMAL.to_bytes(2))
        self.flush()

    def abort(self) -> None:
        """Close the socket; `on_closed` is not called."""
        if not self.closed:
            self.closed = True
            self._loop.selector.unregister(self._socket)
            self._socket.close()

    def _post_close(self, code: bytes) -> None:
        if not self._close_sent:
            self._close_sent = True
            self.post(client_frame(CLOSE, code))

    def _set_events(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._loop.selector.modify(self._socket, events, self._on_ready)

    def _close(self, info: CloseInfo) -> None:
        if not self.closed:
            self.abort()
            self.on_closed(info)

    def _failure(self, error: OSError) -> CloseInfo:
        return CloseInfo(0, self._connect_error or describe_tls_failure(error) or error.strerror or "lost")

    def _on_ready(self, events: int) -> None:
        if self._handshake is not None:
            try:
                self._handshake()
            except WOULD_BLOCK as wait:
                self._set_events(WRITE if isinstance(wait, ssl.SSLWantWriteError) else READ)
                return
            except OSError as error:
                self._close(self._failure(error))
                return
            self._handshake = None
            events = READ | WRITE
        if events & WRITE:
            self.flush()
        if events & READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)  # at most one record of TLS: nothing stays behind in its buffer
        except WOULD_BLOCK:
            return
        except OSError as error:
            self._close(self._failure(error))
            return
        if data:
            self._receive(self._buffer + data if self._buffer else data)
            self.flush()
        elif self._receive == self._receive_head and self._buffer:
            head, _, body = self._buffer.partition(b"\r\n\r\n")
            self._close(_refusal(head.split(b" ", 2)[1:2], body))
        else:
            self._close(CloseInfo(self._close_code, self._close_reason))

    def _receive_head(self, data: bytes) -> None:
        head, blank, rest = data.partition(b"\r\n\r\n")
        self._buffer = data
        if not blank and len(data) < HEAD_BYTES:
            return
        status = head.split(b" ", 2)[1:2]
        if status == [b"101"] and ACCEPT in head:
            self._receive = self._receive_frames
            self._receive_frames(rest)
        elif len(rest) >= _content_length(head):
            self._close(_refusal(status, rest))

    def _receive_frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= 2 and not self.closed:  # noqa: PLR2004
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
                self._receive_control(first, data[body : body + size])
            at = body + size
        self._buffer = data[at:]

    def _receive_control(self, first: int, payload: bytes) -> None:
        if first == PING:
            self.post(client_frame(PONG, payload))
        elif first == CLOSE:
            self._close_code = int.from_bytes(payload[:2]) or ABNORMAL
            self._close_reason = payload[2:].decode(errors="replace")
            self._post_close(payload[:2])
        elif first != PONG:
            self._close(CloseInfo(0, f"a frame that begins with 0x{first:02x}"))


def _content_length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d{1,9})", head)
    return int(found[1]) if found else 0


def _refusal(status: list[bytes], body: bytes) -> CloseInfo:
    """Return the meaning of a response that does not open a WebSocket."""
    if not status or not status[0].isdigit():
        return CloseInfo(0, "the answer is not HTTP")
    try:
        code = msgspec.json.decode(body, type=dict[str, str]).get("code", "")
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = ""
    return CloseInfo(int(status[0]), code, refused=True)
