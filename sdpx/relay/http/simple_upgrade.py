"""The plain request for a WebSocket, known at one look: what nearly every client library sends. Pure.

Plain is: GET, HTTP/1.1, printable ASCII, the five headers that RFC 6455, 4.1 asks for, each once, no body, no subprotocol, and
no query but `id`. An extension that is offered is not taken (9.1), so offering one is plain. Everything else is None here, and
is read and judged at leisure, with the same outcome: see relay.http and relay.handshake.
"""

import re
from typing import Final

from sdpx.relay.http.upgrade import Upgrade

_HEAD: Final = re.compile(
    rb"GET /[!-\"$->@-~]*(?:\?id=([A-Za-z0-9._-]{1,64}))? HTTP/1\.1\r\n((?:[A-Za-z0-9-]+: [ -~]*\r\n)+)\r\n"
)
_HEADER: Final = re.compile(rb"([A-Za-z0-9-]+): ([ -~]*)\r\n")
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_LARGEST: Final = 4096
# Headers that a plain request has once at most, and those that it has not.
_UNUSUAL: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"sec-websocket-protocol", b"expect", b"te", b"trailer"}
)


def parse_simple_upgrade(head: bytes) -> Upgrade | None:
    """Return what a request asks for, if that is all there is and it is plain."""
    found = _HEAD.fullmatch(head) if len(head) <= _LARGEST else None
    if found is None:
        return None
    pairs = [(name.lower(), value) for name, value in _HEADER.findall(found[2])]
    headers = dict(pairs)
    if len(headers) < len(pairs) or not _UNUSUAL.isdisjoint(headers) or not _asks(headers):
        return None
    return Upgrade(found[1].decode() if found[1] else None, None, headers[b"sec-websocket-key"].decode())


def _asks(headers: dict[bytes, bytes]) -> bool:
    """Tell whether the headers are those of a WebSocket (RFC 6455, 4.2.1)."""
    return (
        headers.get(b"upgrade", b"").lower() == b"websocket"
        and headers.get(b"connection", b"").lower() in (b"upgrade", b"keep-alive, upgrade")
        and headers.get(b"sec-websocket-version") == b"13"
        and b"host" in headers
        and _KEY.fullmatch(headers.get(b"sec-websocket-key", b"")) is not None
    )
