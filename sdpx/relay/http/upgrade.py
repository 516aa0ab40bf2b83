"""Parses the request for a WebSocket (RFC 6455, 4.2.1): an `Upgrade`, a page, or an HTTP error that names the fault. Pure.

- `parse_simple_upgrade` recognises the request that nearly all client libraries send, by regular expressions.
- `parse_upgrade` parses every request, and gives the same `Upgrade` for a simple one.
- A plain GET of `/` that asks for no page is answered 426 with a description of this service.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from typing import Final

from msgspec import Struct

from sdpx.protocol.messages import PROTOCOL
from sdpx.relay.core.sessions import NO_RESUME, ResumeRequest
from sdpx.relay.http.request import HttpRequest
from sdpx.relay.http.responses import HttpError, HttpResponse

KEY_BYTES: Final = 16
MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
SERVICE_DESCRIPTION: Final = (
    "This is sdpx, a signaling relay for WebRTC. Connect to this address with a WebSocket (ws:// or wss://); "
    "`sdpx peer --url` does, and so does `new WebSocket(url)` in a browser."
)
BAD_RESUME: Final = HttpError(
    400, "bad_resume", "'resume' must be a single token, with 'last', the highest seq received, beside it"
)
METHOD_NOT_ALLOWED: Final = HttpError(
    405, "method_not_allowed", f"Only GET is supported. {SERVICE_DESCRIPTION}", (("Allow", "GET, HEAD"),)
)
BAD_VERSION: Final = HttpError(
    426,
    "upgrade_required",
    "Only WebSocket version 13 (RFC 6455) is supported",
    (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"), ("Connection", "Upgrade, close")),
)

# The simple request: GET, HTTP/1.1, printable ASCII, no query but `id`, each header once, no body, no subprotocol.
_SIMPLE_BYTES: Final = 4096
_SIMPLE_HEAD: Final = re.compile(
    rb"GET /[!-\"$->@-~]*(?:\?id=([A-Za-z0-9._-]{1,64}))? HTTP/1\.1\r\n((?:[A-Za-z0-9-]+: [ -~]*\r\n)+)\r\n"
)
_SIMPLE_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_NOT_SIMPLE: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"sec-websocket-protocol", b"expect", b"te", b"trailer"}
)
_LAST: Final = re.compile(r"[0-9]{1,18}", re.ASCII)

Page = Callable[[HttpRequest], HttpResponse | HttpError | None]  # None: there is no page for this request
Pages = Mapping[str, Page]  # by path


class Upgrade(Struct, frozen=True):
    """A valid request for a WebSocket: the ID that it asks for, if any, and its parameters of session resumption."""

    client_id: str | None
    subprotocol: str | None
    key: str
    resume: ResumeRequest = NO_RESUME

    def head(self) -> bytes:
        """Return an equivalent request without any of the client's own text, for a library to parse again."""
        lines = [
            "GET / HTTP/1.1",
            "Host: relay",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {self.key}",
            "Sec-WebSocket-Version: 13",
        ]
        if self.subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {self.subprotocol}")
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")

    def response(self) -> bytes:
        """Return the response that opens the WebSocket (RFC 6455, 4.2.2)."""
        accept = b64encode(sha1(self.key.encode() + MAGIC, usedforsecurity=False).digest())
        protocol = b"Sec-WebSocket-Protocol: %b\r\n" % self.subprotocol.encode() if self.subprotocol else b""
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, protocol)
        )


def parse_simple_upgrade(head: bytes) -> Upgrade | None:
    """Return the upgrade that a whole, simple request asks for; None for every other one, valid or not.

    An extension that is offered is never accepted (RFC 6455, 9.1), so a request that offers one is simple, too.
    """
    match = _SIMPLE_HEAD.fullmatch(head) if len(head) <= _SIMPLE_BYTES else None
    if match is None:
        return None
    lines = match[2].removesuffix(b"\r\n").split(b"\r\n")
    headers = {name.lower(): value for name, value in [line.split(b": ", 1) for line in lines]}
    key = headers.get(b"sec-websocket-key", b"")
    is_simple = (
        len(headers) == len(lines)
        and _NOT_SIMPLE.isdisjoint(headers)
        and headers.get(b"upgrade", b"").lower() == b"websocket"
        and headers.get(b"connection", b"").lower() in (b"upgrade", b"keep-alive, upgrade")
        and headers.get(b"sec-websocket-version") == b"13"
        and b"host" in headers
        and _SIMPLE_KEY.fullmatch(key) is not None
    )
    return Upgrade(match[1].decode() if match[1] else None, None, key.decode()) if is_simple else None


def parse_upgrade(request: HttpRequest, pages: Pages) -> Upgrade | HttpResponse | HttpError:
    """Return the upgrade or the page that a request asks for, or the error that refuses it."""
    if request.http_version not in (b"1.0", b"1.1"):
        return HttpError(505, "bad_request", "This port supports HTTP/1.1 and WebSocket over it, not HTTP/2")
    if not request.has_element(b"upgrade", "websocket"):
        return _page(request, pages)
    if error := _validate(request):
        return error
    if request.asked_id is None and "id" in request.query:
        return HttpError(400, "bad_id", "'id' must be given once, as 1 to 64 letters, digits, '-', '_' or '.'")
    resume = parse_resume_request(request.query)
    if isinstance(resume, HttpError):
        return resume
    offered = PROTOCOL in request.elements(b"sec-websocket-protocol")
    [key] = request.elements(b"sec-websocket-key")
    return Upgrade(request.asked_id, PROTOCOL if offered else None, key, resume)


def parse_plain_request(request: HttpRequest, pages: Pages) -> HttpResponse | HttpError:
    """Return the page that a request asks for at a port that has nothing else."""
    if request.method not in (b"GET", b"HEAD"):
        return METHOD_NOT_ALLOWED
    page = pages[request.path](request) if request.path in pages else None
    return page or HttpError(404, "not_found", f"Nothing is served at this path; available: {', '.join(pages)}")


def parse_resume_request(query: Mapping[str, Sequence[str]]) -> ResumeRequest | HttpError:
    """Read `seq`, `resume` and `last` from a query; a token implies sequence numbers, which it was given with."""
    tokens, lasts = query.get("resume", []), query.get("last", [])
    numbered = "1" in query.get("seq", [])
    if not tokens:
        return ResumeRequest(numbered)
    if len(tokens) > 1 or len(lasts) > 1 or not all(map(_LAST.fullmatch, lasts)):
        return BAD_RESUME
    return ResumeRequest(numbered, tokens[0], int(lasts[0]) if lasts else None)


def _page(request: HttpRequest, pages: Pages) -> HttpResponse | HttpError:
    """Answer a request that asks for no WebSocket at a port that opens them."""
    answer = parse_plain_request(request, pages)
    if isinstance(answer, HttpResponse) or answer.code != "not_found":
        return answer
    if request.path != "/":
        return HttpError(404, "not_found", f"Nothing is served at this path. {SERVICE_DESCRIPTION}")
    upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade, close"))
    return HttpError(426, "upgrade_required", SERVICE_DESCRIPTION, upgrade)


def _validate(request: HttpRequest) -> HttpError | None:
    """Return the first rule of RFC 6455, 4.2.1 and 4.4, that a request for a WebSocket breaks."""
    rules = (
        (request.method == b"GET", METHOD_NOT_ALLOWED),
        (request.http_version >= b"1.1", "A WebSocket needs HTTP/1.1"),
        (len(request.elements(b"upgrade")) == 1, "Ask for one upgrade at a time: 'Upgrade: websocket'"),
        (request.has_element(b"connection", "upgrade"), "A WebSocket needs the header 'Connection: Upgrade'"),
        (request.elements(b"sec-websocket-version") == ["13"], BAD_VERSION),
        (_has_valid_key(request), "A WebSocket needs one Sec-WebSocket-Key of 16 bytes in base64"),
        (not _has_body(request), "A WebSocket request must not have a body"),
    )
    broken = next((error for is_met, error in rules if not is_met), None)
    return HttpError(400, "bad_request", broken) if isinstance(broken, str) else broken


def _has_valid_key(request: HttpRequest) -> bool:
    values = request.elements(b"sec-websocket-key")
    try:
        return len(values) == 1 and len(b64decode(values[0], validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _has_body(request: HttpRequest) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )
