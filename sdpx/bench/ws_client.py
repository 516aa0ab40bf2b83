"""A WebSocket client of low cost: a non-blocking socket, and the frames that a relay sends."""

import errno
import os
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import cache
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Final

import msgspec

from sdpx.bench.accounting import Tally
from sdpx.bench.payloads import client_frame, decode_object
from sdpx.client_tls import client_context, describe_tls_failure
from sdpx.relay.websocket.fast_parser import CLOSE, PING, PONG, SHORT, TEXT, TWO_BYTES

READ_BYTES: Final = 256 * 1024
HEAD_BYTES: Final = 16 * 1024
NORMAL: Final = 1000
ABNORMAL: Final = 1006
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="  # one for all connections: the example of RFC 6455, 1.3, and its answer
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Target(msgspec.Struct, frozen=True):
    """The relay: a numeric address, and the upgrade request. `tls_name` is the name in its certificate, if it has one."""

    host: str
    port: int
    request: str
    tls_name: str | None = None
    cafile: str | None = None
    insecure: bool = False


def upgrade_request(host: str, path: str = "/", authorization: str | None = None) -> str:
    """Return the request for a WebSocket at a relay with this `host`, and its port, in URLs."""
    credentials = "" if authorization is None else f"Authorization: {authorization}\r\n"
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{credentials}\r\n"
    )


_context = cache(client_context)


class WsClient:
    """One connection, `closed` at its end, and `completed` if that was a close handshake which `start_closing` began.

    `on_text` is called with each message. Any other end is counted in the tally, and `on_failed` is called. Neither is called
    during construction.
    """

    def __init__(
        self,
        selector: BaseSelector,
        target: Target,
        tally: Tally,
        on_text: Callable[[bytes], None],
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._selector = selector
        self._tally = tally
        self.on_text = on_text
        self._on_failed = on_failed
        self.closed = self.completed = False
        self._closing = self._close_sent = False
        self._close_code, self._close_reason = ABNORMAL, ""
        self._buffer = b""
        self._out = [target.request.encode()]
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
        self._events = EVENT_READ | EVENT_WRITE
        selector.register(self._socket, self._events, self._on_ready)

    def post(self, frame: bytes) -> None:
        """Send this frame at the next `flush`, or after the received data has been handled."""
        self._out.append(frame)

    def flush(self) -> None:
        """Write as much as the socket accepts; the rest follows when it is writable."""
        if not self._out or self.closed:
            return
        data = b"".join(self._out)
        try:
            sent = self._socket.send(data)
        except WOULD_BLOCK:
            sent = 0
        except OSError as error:
            self._fail_with(error)
            return
        self._out = [data[sent:]] if sent < len(data) else []
        self._set_events(EVENT_READ | EVENT_WRITE if self._out else EVENT_READ)

    def start_closing(self) -> None:
        """Send a close frame; the connection is closed when the relay has answered."""
        self._closing = True
        self._post_close(NORMAL.to_bytes(2))
        self.flush()

    def abort(self) -> None:
        """Close the socket; `on_failed` is not called."""
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._socket)
            self._socket.close()

    def _fail(self, counts: Counter[str], cause: str) -> None:
        counts[cause] += 1
        self.abort()
        self._on_failed()

    def _fail_with(self, error: OSError) -> None:
        cause = self._connect_error or describe_tls_failure(error) or error.strerror or "lost"
        self._fail(self._tally.cut, cause)

    def _post_close(self, code: bytes) -> None:
        if not self._close_sent:
            self._close_sent = True
            self.post(client_frame(CLOSE, code))

    def _set_events(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._selector.modify(self._socket, events, self._on_ready)

    def _on_ready(self, events: int) -> None:
        if self._handshake is not None:
            try:
                self._handshake()
            except WOULD_BLOCK as wait:
                self._set_events(EVENT_WRITE if isinstance(wait, ssl.SSLWantWriteError) else EVENT_READ)
                return
            except OSError as error:
                self._fail_with(error)
                return
            self._handshake = None
            events = EVENT_READ | EVENT_WRITE
        if events & EVENT_WRITE:
            self.flush()
        if events & EVENT_READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES)  # at most one record of TLS: nothing stays behind in its buffer
        except WOULD_BLOCK:
            return
        except OSError as error:
            self._fail_with(error)
            return
        if data:
            self._receive(self._buffer + data if self._buffer else data)
            self.flush()
        elif self._receive == self._receive_head and self._buffer:
            self._end_refused()
        elif self._closing and self._close_code == NORMAL:
            self.completed = True
            self.abort()
        else:
            self._fail(self._tally.cut, f"{self._close_code} {self._close_reason}".rstrip())

    def _receive_head(self, data: bytes) -> None:
        self._buffer = data
        head, blank, body = data.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 101 ") and blank and ACCEPT in head:
            self._receive = self._receive_frames
            self._receive_frames(body)
        elif blank or len(data) >= HEAD_BYTES:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d{1,9})", head)
            if length is None or len(body) >= int(length[1]):
                self._end_refused()

    def _end_refused(self) -> None:
        """End the connection after a response that does not open a WebSocket."""
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        status = head.split(b" ", 2)[1:2]
        if status and status[0].isdigit():
            self._fail(self._tally.refused, f"{int(status[0])} {decode_object(body).get('code', '')}".rstrip())
        else:
            self._fail(self._tally.cut, "the answer is not HTTP")

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
            self._fail(self._tally.cut, f"a frame that begins with 0x{first:02x}")
