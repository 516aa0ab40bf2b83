"""What `sdpx peer` was asked for, checked before anything starts."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sdpx.ice_servers import IceServer
from sdpx.ids import is_name
from sdpx.peer.diagnostics.progress import Expected

_VISIBLE: Final = re.compile(r"[!-~]*")
_NUMBERS: Final = ("seq", "resume", "last")


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """What the command line asks for. All times are in seconds.

    `timeout` is from the pairing to the connection, all tries included; `within` from the start to what is expected (None:
    no limit); `wait` how long `pair` may not be there yet. `retries` is how often a connection is built again.
    `ice_servers` is None where the command line names none; `no_stun` forbids STUN servers, whoever names them;
    `relay_only` all paths but those through a TURN server (RTCIceTransportPolicy, W3C WebRTC 4.2.1).
    """

    url: str
    pair: str | None = None
    client_id: str | None = None
    ice_servers: tuple[IceServer, ...] | None = None
    timeout: float = 30.0
    once: bool = False
    log_sdp: bool = False
    token: str | None = None
    cafile: str | None = None
    insecure: bool = False
    wait: float = 0.0
    expect: Expected | None = None
    within: float | None = None
    retries: int = 3
    reconnect: bool = True
    stdin: Literal["lines", "json"] = "lines"
    no_stun: bool = False
    relay_only: bool = False

    @property
    def dial_url(self) -> str:
        """The URL to dial: the relay's, asking for the ID that is wanted."""
        return self.dial_url_for(self.client_id)

    @property
    def names_itself(self) -> bool:
        """Whether the ID is the user's choice, by `--id` or in the URL, and not the relay's."""
        return self.client_id is not None or "id" in dict(parse_qsl(urlsplit(self.url).query))

    def dial_url_for(self, client_id: str | None, resume: Iterable[tuple[str, str]] = ()) -> str:
        """Return the URL to dial, asking for this ID if it is not None, with the token.

        `resume` is what to ask of numbers (PROTOCOL: Resume); what the user wrote of that does not count.
        """
        parts = urlsplit(self.url)
        query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in _NUMBERS]
        if client_id is not None:
            query = [(key, value) for key, value in query if key != "id"] + [("id", client_id)]
        if self.token is not None:
            query = [(key, value) for key, value in query if key != "token"] + [("token", self.token)]
        query += resume
        return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", urlencode(query), ""))

    @property
    def shown_url(self) -> str:
        """The relay's URL as a log may show it: without password, and without the values of the query."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        query = urlencode([(key, "...") for key, _ in parse_qsl(parts.query, keep_blank_values=True)], safe=".")
        return urlunsplit((parts.scheme, host, parts.path, query, ""))


def validate_url(url: str) -> str | None:
    """Return what is wrong with a relay's URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"'{url}' is no URL: {error}"
    if not _VISIBLE.fullmatch(parts.path + parts.query):
        return f"'{url}' has a character that a URL can only hold percent-encoded"
    if parts.scheme not in ("ws", "wss"):
        return f"'{url}' is no WebSocket URL; it begins with ws:// or wss://"
    if not parts.hostname or port == 0:
        return f"'{url}' names no host and port to dial"
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        return f"'{url}' names a host that cannot be"
    return None


def validate_id(name: str) -> str | None:
    """Return what is wrong with a client's ID."""
    return None if is_name(name) else f"'{name}' is no ID; one is 1 to 64 of letters, digits and -_."
