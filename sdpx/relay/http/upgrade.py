"""What a request is answered with: a WebSocket, or an HTTP status with a sentence. Pure.

- RFC 6455, 4.2.1: GET, HTTP/1.1, `Upgrade: websocket`, `Connection: Upgrade`, a key of 16 bytes, version 13.
- A refusal is an HTTP status with a JSON body `{"code", "message"}` (PROTOCOL: error codes), and closes the connection.
- A plain GET of `/` is answered 426: the person behind it learns here what this is.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

import h11
from msgspec import Struct

from sdpx.ids import is_name
from sdpx.protocol.messages import PROTOCOL
from sdpx.relay.auth.tokens import ANYBODY, Grant
from sdpx.relay.core.sessions import NOTHING, ResumeRequest, asked
from sdpx.relay.http.responses import HttpError, HttpResponse

KEY_BYTES: Final = 16
HEAD_TOO_LARGE: Final = HttpError(431, "bad_request", "The request's head is too large")
Pages = Mapping[str, Callable[[str], HttpResponse]]  # by path; what makes one is given the Accept header
SERVICE_DESCRIPTION: Final = (
    "This is sdpx, a signaling relay for WebRTC. Connect to this address with a WebSocket (ws:// or wss://); "
    "`sdpx peer --url` does, and so does `new WebSocket(url)` in a browser."
)


class Upgrade(Struct, frozen=True):
    """The request is good: open a WebSocket, under this ID if the client asked for one, to do what `grant` allows.

    With numbers and a token if the client `asked` for them; one that `returns` takes back the ID that it had.
    """

    client_id: str | None
    subprotocol: str | None
    key: str
    grant: Grant = ANYBODY
    asked: ResumeRequest = NOTHING
    returns: bool = False

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


def parse_upgrade(request: h11.Request, pages: Pages) -> Upgrade | HttpResponse | HttpError:
    """Decide about a request by its form; whether its ID is free is asked last, by `ensure_id_free`."""
    if request.http_version not in (b"1.0", b"1.1"):
        return HttpError(505, "bad_request", "This port speaks HTTP/1.1 and WebSocket over it, not HTTP/2")
    if not _asks_for_websocket(request):
        return _plain(request, pages)
    return _flaw(request) or _upgrade(request)


def not_http(error: h11.RemoteProtocolError, start: bytes) -> HttpError:
    """Return the answer to bytes that are no HTTP/1.1 request; `start` is how they began."""
    if start.startswith(b"\x16\x03"):
        return HttpError(400, "bad_request", "This port speaks plain ws://, and that looked like TLS (wss://)")
    if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return HEAD_TOO_LARGE
    flaw = str(error).partition(":")[0]  # what stands behind it is the client's own line, and may be a credential
    return HttpError(400, "bad_request", f"That is no HTTP/1.1 request: {flaw}")


def _tokens(request: h11.Request, name: bytes) -> list[str]:
    """Return the elements of a list header (RFC 9110, 5.6.1), however many lines it is spread over."""
    values = [value.decode("latin-1") for key, value in request.headers if key == name]
    return [token.strip() for value in values for token in value.split(",")]


def _has_token(request: h11.Request, name: bytes, token: str) -> bool:
    return token in (found.lower() for found in _tokens(request, name))


def _asks_for_websocket(request: h11.Request) -> bool:
    return _has_token(request, b"upgrade", "websocket")


def parse_plain_request(request: h11.Request, pages: Pages) -> HttpResponse | HttpError:
    """Decide about a request at a port that has pages and nothing else."""
    path = _path(request)
    if request.method not in (b"GET", b"HEAD"):
        return _method_not_allowed()
    if path not in pages:
        return HttpError(404, "not_found", f"There is nothing at this path; there is {', '.join(pages)}")
    return pages[path](", ".join(_tokens(request, b"accept")))


def _path(request: h11.Request) -> str:
    return request.target.partition(b"?")[0].decode("latin-1")


def _plain(request: h11.Request, pages: Pages) -> HttpResponse | HttpError:
    verdict = parse_plain_request(request, pages)
    if isinstance(verdict, HttpResponse) or verdict.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return verdict
    if _path(request) != "/":
        return HttpError(404, "not_found", f"There is nothing at this path. {SERVICE_DESCRIPTION}")
    upgrade = (("Upgrade", "websocket"), ("Connection", "Upgrade, close"))
    return HttpError(426, "upgrade_required", SERVICE_DESCRIPTION, upgrade)


def _method_not_allowed() -> HttpError:
    return HttpError(
        405, "method_not_allowed", f"Only GET is answered here. {SERVICE_DESCRIPTION}", (("Allow", "GET, HEAD"),)
    )


def _flaw(request: h11.Request) -> HttpError | None:  # noqa: PLR0911  a table of rules
    """Return what is wrong with a request for a WebSocket, by RFC 6455, 4.2.1 and 4.4."""
    if request.method != b"GET":
        return _method_not_allowed()
    if request.http_version < b"1.1":
        return HttpError(400, "bad_request", "A WebSocket needs HTTP/1.1")
    if len(_tokens(request, b"upgrade")) > 1:
        return HttpError(400, "bad_request", "Ask for one upgrade at a time: 'Upgrade: websocket'")
    if not _has_token(request, b"connection", "upgrade"):
        return HttpError(400, "bad_request", "A WebSocket needs the header 'Connection: Upgrade'")
    if _tokens(request, b"sec-websocket-version") != ["13"]:
        version = (
            ("Sec-WebSocket-Version", "13"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade, close"),
        )
        return HttpError(426, "upgrade_required", "Only WebSocket version 13 (RFC 6455) is spoken here", version)
    if not _is_key(_tokens(request, b"sec-websocket-key")):
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


def _has_body(request: h11.Request) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )


def asked_id(request: h11.Request) -> str | None:
    """Return the ID that a request asks for, whatever else is wrong with it; None if it asks for none that can be."""
    names = _query(request).get("id", [])
    return names[0] if len(names) == 1 and is_name(names[0]) else None


def _query(request: h11.Request) -> dict[str, list[str]]:
    return parse_qs(request.target.decode("latin-1").partition("?")[2], keep_blank_values=True)


def _upgrade(request: h11.Request) -> Upgrade | HttpError:
    query = _query(request)
    client_id = asked_id(request)
    if client_id is None and "id" in query:
        return HttpError(400, "bad_id", "An 'id' is 1 to 64 of letters, digits and -_. and is given once")
    wishes = asked(query)
    if isinstance(wishes, HttpError):
        return wishes
    offered = PROTOCOL in _tokens(request, b"sec-websocket-protocol")
    [key] = _tokens(request, b"sec-websocket-key")
    return Upgrade(client_id, PROTOCOL if offered else None, key, asked=wishes)


def ensure_id_free(upgrade: Upgrade, is_taken: Callable[[str], bool]) -> Upgrade | HttpError:
    """Refuse an ID that somebody has; `is_taken` tells whether a client with that ID is here."""
    client_id = upgrade.client_id
    if client_id is not None and is_taken(client_id):
        return HttpError(409, "id_taken", f"The ID '{client_id}' is taken; ask for another, or for none")
    return upgrade
