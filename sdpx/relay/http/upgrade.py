"""What a request is answered with: a WebSocket, or an HTTP status with a sentence. Pure.

- RFC 6455, 4.2.1: GET, HTTP/1.1, `Upgrade: websocket`, `Connection: Upgrade`, a key of 16 bytes, version 13.
- A refusal is an HTTP status with a JSON body `{"code", "message"}` (PROTOCOL: error codes), and closes the connection.
- A plain GET of `/` is answered 426: the person behind it learns here what this is.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from sdpx.protocol.messages import PROTOCOL
from sdpx.relay.core.sessions import NOTHING, ResumeRequest
from sdpx.relay.http.request import HttpRequest
from sdpx.relay.http.responses import HttpError, HttpResponse

KEY_BYTES: Final = 16
_LAST: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
BAD_RESUME: Final = HttpError(
    400, "bad_resume", "'resume' is one token, and 'last' beside it the highest seq that you have"
)
Pages = Mapping[str, Callable[[str], HttpResponse]]  # by path; what makes one is given the Accept header
SERVICE_DESCRIPTION: Final = (
    "This is sdpx, a signaling relay for WebRTC. Connect to this address with a WebSocket (ws:// or wss://); "
    "`sdpx peer --url` does, and so does `new WebSocket(url)` in a browser."
)


class Upgrade(Struct, frozen=True):
    """A valid request for a WebSocket: the ID that it asks for, if any, and what it asks for about resume."""

    client_id: str | None
    subprotocol: str | None
    key: str
    resume: ResumeRequest = NOTHING

    def head(self) -> bytes:
        """Return a request that says what was judged and no more: nobody has to judge the client's own words again."""
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


def parse_upgrade(request: HttpRequest, pages: Pages) -> Upgrade | HttpResponse | HttpError:
    """Decide about a request by its form; whether its ID is free is not looked at."""
    if request.http_version not in (b"1.0", b"1.1"):
        return HttpError(505, "bad_request", "This port speaks HTTP/1.1 and WebSocket over it, not HTTP/2")
    if not request.has_element(b"upgrade", "websocket"):
        return _plain(request, pages)
    return _flaw(request) or _upgrade(request)


def parse_plain_request(request: HttpRequest, pages: Pages) -> HttpResponse | HttpError:
    """Decide about a request at a port that has pages and nothing else."""
    path = request.path
    if request.method not in (b"GET", b"HEAD"):
        return _method_not_allowed()
    if path not in pages:
        return HttpError(404, "not_found", f"There is nothing at this path; there is {', '.join(pages)}")
    return pages[path](", ".join(request.elements(b"accept")))


def _plain(request: HttpRequest, pages: Pages) -> HttpResponse | HttpError:
    verdict = parse_plain_request(request, pages)
    if isinstance(verdict, HttpResponse) or verdict.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return verdict
    if request.path != "/":
        return HttpError(404, "not_found", f"There is nothing at this path. {SERVICE_DESCRIPTION}")
    upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade, close"))
    return HttpError(426, "upgrade_required", SERVICE_DESCRIPTION, upgrade)


def _method_not_allowed() -> HttpError:
    return HttpError(
        405, "method_not_allowed", f"Only GET is answered here. {SERVICE_DESCRIPTION}", (("Allow", "GET, HEAD"),)
    )


def _flaw(request: HttpRequest) -> HttpError | None:  # noqa: PLR0911  a table of rules
    """Return what is wrong with a request for a WebSocket, by RFC 6455, 4.2.1 and 4.4."""
    if request.method != b"GET":
        return _method_not_allowed()
    if request.http_version < b"1.1":
        return HttpError(400, "bad_request", "A WebSocket needs HTTP/1.1")
    if len(request.elements(b"upgrade")) > 1:
        return HttpError(400, "bad_request", "Ask for one upgrade at a time: 'Upgrade: websocket'")
    if not request.has_element(b"connection", "upgrade"):
        return HttpError(400, "bad_request", "A WebSocket needs the header 'Connection: Upgrade'")
    if request.elements(b"sec-websocket-version") != ["13"]:
        version = (
            ("Sec-WebSocket-Version", "13"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade, close"),
        )
        return HttpError(426, "upgrade_required", "Only WebSocket version 13 (RFC 6455) is spoken here", version)
    if not _is_key(request.elements(b"sec-websocket-key")):
        return HttpError(400, "bad_request", "A WebSocket needs one Sec-WebSocket-Key of 16 bytes in base64")
    if not all(value.isascii() for _, value in request.headers):
        return HttpError(400, "bad_request", "The headers of a request for a WebSocket are ASCII")
    if _has_body(request):
        return HttpError(400, "bad_request", "A request for a WebSocket has no body")
    return None


def _is_key(values: list[str]) -> bool:
    try:
        return len(values) == 1 and len(b64decode(values[0], validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _has_body(request: HttpRequest) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )


def parse_resume_request(query: Mapping[str, Sequence[str]]) -> ResumeRequest | HttpError:
    """Read `seq`, `resume` and `last` from a query; a token alone asks for what it was given with, numbers."""
    tokens, lasts = query.get("resume", []), query.get("last", [])
    numbered = "1" in query.get("seq", [])
    if not tokens:
        return ResumeRequest(numbered)
    if len(tokens) > 1 or len(lasts) > 1 or not all(map(_LAST.fullmatch, lasts)):
        return BAD_RESUME
    return ResumeRequest(numbered, tokens[0], int(lasts[0]) if lasts else None)


def _upgrade(request: HttpRequest) -> Upgrade | HttpError:
    if request.asked_id is None and "id" in request.query:
        return HttpError(400, "bad_id", "An 'id' is 1 to 64 of letters, digits and -_. and is given once")
    resume = parse_resume_request(request.query)
    if isinstance(resume, HttpError):
        return resume
    offered = PROTOCOL in request.elements(b"sec-websocket-protocol")
    [key] = request.elements(b"sec-websocket-key")
    return Upgrade(request.asked_id, PROTOCOL if offered else None, key, resume)
