"""An HTTP request's head, parsed once by h11 within a bound on its size. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

import h11
from msgspec import Struct

from sdpx.ids import is_name
from sdpx.relay.core.rate_limit import network_of
from sdpx.relay.http.responses import HttpError

MAX_LINES: Final = 512  # of a head
MAX_PARAMETERS: Final = 128
USED_HEADERS: Final = frozenset(
    {
        *(b"accept", b"authorization", b"connection", b"content-length", b"forwarded", b"host", b"origin", b"upgrade"),
        *(b"sec-websocket-key", b"sec-websocket-protocol", b"sec-websocket-version", b"transfer-encoding"),
        b"x-forwarded-for",
    }
)
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_ABSOLUTE: Final = re.compile(r"(?:http|ws)s?://[^/?]*", re.IGNORECASE)
HEAD_TOO_LARGE: Final = HttpError(431, "bad_request", "The request head is too large")
TOO_MANY_PARAMETERS: Final = HttpError(400, "bad_request", f"A query has {MAX_PARAMETERS} parameters at most")


class Remote(Struct, frozen=True):
    """A client's address: as the log shows it, and as limits count it."""

    shown: str
    address: str

    @classmethod
    def of(cls, remote: str) -> "Remote":
        """Return the address of a client at `host:port`."""
        return cls(remote, network_of(host_of(remote)))


def host_of(remote: str) -> str:
    """Return the host of `host:port`, without brackets."""
    return remote.rpartition(":")[0].strip("[]")


@dataclass(frozen=True)
class HttpRequest:
    """A request's head, of whose headers only `USED_HEADERS` are kept. `trailing_data` are the bytes that arrived behind it."""

    method: bytes
    http_version: bytes
    path: str
    query: dict[str, list[str]]
    headers: Sequence[tuple[bytes, bytes]]
    trailing_data: bytes = b""

    @classmethod
    def of(cls, request: h11.Request, trailing_data: bytes = b"") -> "HttpRequest":
        """Return the request that h11 has parsed; of a target in absolute form only path and query count (RFC 9112, 3.2.2)."""
        target = _ABSOLUTE.sub("", request.target.decode("latin-1"))
        path, _, query = target.partition("?")
        parameters = parse_qs(query, keep_blank_values=True)
        headers = [header for header in request.headers if header[0] in USED_HEADERS]
        return cls(request.method, request.http_version, path or "/", parameters, headers, trailing_data)

    def values(self, name: bytes) -> list[str]:
        """Return the values of a header, one for each line; `name` is in lower case."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    def elements(self, name: bytes) -> list[str]:
        """Return the elements of a list header (RFC 9110, 5.6.1), however many lines it is spread over."""
        return [element.strip() for value in self.values(name) for element in value.split(",")]

    def has_element(self, name: bytes, element: str) -> bool:
        """Return whether a list header has an element, in any case; `element` is in lower case."""
        return element in (found.lower() for found in self.elements(name))

    @property
    def is_forwarded(self) -> bool:
        """Whether a proxy forwards the request: it has a header with the address of the proxy's client."""
        return any(key in (b"x-forwarded-for", b"forwarded") for key, _ in self.headers)

    @cached_property
    def asked_id(self) -> str | None:
        """The ID that the query asks for; None if it has none, or one that is not valid."""
        ids = self.query.get("id", [])
        return ids[0] if len(ids) == 1 and is_name(ids[0]) else None


class RequestParser:
    """Parses a request's head, of `max_bytes` and `MAX_LINES` at most, from the bytes of a connection."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._connection = h11.Connection(h11.SERVER, max_bytes)
        self._start = b""
        self._lines = 0
        self.bytes_received = 0

    def receive_data(self, data: bytes) -> HttpRequest | HttpError | None:
        """Take bytes, empty at the end of the stream; returns the request, or its refusal; None while it is incomplete."""
        self.bytes_received += len(data)
        if not self._start:
            start = data.lstrip(b"\r\n")  # empty lines in front of a request (RFC 9112, 2.2)
            if data and not start:
                return HEAD_TOO_LARGE if self.bytes_received > self._max_bytes else None
            data, self._start = start, start[:16]
        self._connection.receive_data(data)
        self._lines += data.count(b"\n")
        if self._lines > MAX_LINES and self._has_too_many_lines():
            return HEAD_TOO_LARGE
        try:
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            error.__traceback__ = None  # a frame in it refers to the error, and keeps this parser
            return not_http(error, self._start)
        if not isinstance(event, h11.Request):
            return None
        trailing_data, _ = self._connection.trailing_data
        head_bytes = self.bytes_received - len(trailing_data)  # h11 checks the bound only while the head is incomplete
        if head_bytes > self._max_bytes:
            return HEAD_TOO_LARGE
        has_too_many = event.target.count(b"&") >= MAX_PARAMETERS  # each takes as long as ten requests
        return TOO_MANY_PARAMETERS if has_too_many else HttpRequest.of(event, trailing_data)

    def _has_too_many_lines(self) -> bool:
        """Return whether the head has more than `MAX_LINES`: h11 needs 20 times as long for lines as for other bytes."""
        received, _ = self._connection.trailing_data
        return _BLANK_LINE.split(received, 1)[0].count(b"\n") > MAX_LINES


def not_http(error: h11.RemoteProtocolError, start: bytes) -> HttpError:
    """Return the answer to bytes that are not an HTTP/1.1 request; `start` is how they begin."""
    if start.startswith(b"\x16\x03"):
        return HttpError(400, "bad_request", "This port accepts plain ws://, not TLS (wss://)")
    if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return HEAD_TOO_LARGE
    reason = str(error).partition(":")[0]  # the rest quotes the client's line, which may be a credential
    return HttpError(400, "bad_request", f"Not a valid HTTP/1.1 request: {reason}")
