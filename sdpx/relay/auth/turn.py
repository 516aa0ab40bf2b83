"""Credentials for a TURN server that end by themselves: what coturn's `use-auth-secret` takes. Pure.

The user name is `expiry:id`, the expiry in seconds since the epoch; the password is the base64 of its HMAC-SHA1 under the
secret that relay and TURN server share ("A REST API For Access To TURN Services", draft-uberti-behave-turn-rest). Nobody asks
the relay whether they are good.
"""

import hmac
import re
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Final

_URL: Final = re.compile(
    r"(?:turns?|stuns?):(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?:\?transport=(?:udp|tcp))?"
)
_LARGEST_PORT: Final = 65535

IceServer = dict[str, Any]  # RTCIceServer (W3C WebRTC 4.2.4)


def turn_server(secret: bytes, urls: Sequence[str], client_id: str, expiry: int) -> IceServer:
    """Return an RTCIceServer for this client whose credentials end at `expiry`, in seconds since the epoch."""
    username = f"{expiry}:{client_id}"
    digest = hmac.digest(secret, username.encode(), "sha1")
    return {"urls": list(urls), "username": username, "credential": b64encode(digest).decode()}


def validate_turn_url(url: str) -> str | None:
    """Return what is wrong with a TURN server's URL (RFC 7065)."""
    found = _URL.fullmatch(url)
    if found is None or not url.startswith("turn"):
        return f"'{url}' is no TURN server's URL; it looks like turn:HOST, turn:HOST:PORT?transport=tcp or turns:HOST"
    if int(found["port"] or 1) not in range(1, _LARGEST_PORT + 1):
        return f"'{url}' has no port from 1 to 65535"
    return None
