"""STUN and TURN servers: their URLs (RFC 7064, RFC 7065) and the W3C's RTCIceServer dictionaries. Pure.

The URL of a TURN server may contain user and password, percent-encoded if they contain `:`, `@` or `/`:
`turn:USER:PASS@HOST:PORT?transport=tcp`. `IceServer.url` has no credentials and may be logged.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Required, TypedDict, cast
from urllib.parse import unquote

from sdpx.urls import host_port

Scheme = Literal["stun", "stuns", "turn", "turns"]
Transport = Literal["udp", "tcp"]

MAX_SERVERS: Final = 8  # limits the requests that a malicious relay can cause
_PORTS: Final[dict[str, int]] = {"stun": 3478, "turn": 3478, "stuns": 5349, "turns": 5349}
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)([0-9A-Za-z_\-]{1,63}\.)*[0-9A-Za-z_\-]{1,63}\.?"  # RFC 1035, 2.3.4
    r"|\[[0-9A-Fa-f:.]{2,45}\]"
)
_MAX_USERNAME: Final = 508  # bytes (RFC 8489, 14.3)


class RtcIceServer(TypedDict, total=False):
    """An RTCIceServer dictionary (W3C WebRTC, 4.2.4), as messages contain it."""

    urls: Required[str | list[str]]
    username: str
    credential: str


@dataclass(frozen=True, slots=True)
class IceServer:
    """One STUN or TURN server with one transport. `host` is a name, or an address without brackets."""

    scheme: Scheme
    host: str
    port: int
    transport: Transport = "udp"
    username: str | None = None
    credential: str | None = None

    @property
    def is_turn(self) -> bool:
        """Whether this is a TURN server."""
        return self.scheme in ("turn", "turns")

    @property
    def url(self) -> str:
        """The URL without credentials."""
        return f"{self.scheme}:{host_port(self.host, self.port)}" + (
            f"?transport={self.transport}" if self.is_turn else ""
        )

    def dictionary(self) -> RtcIceServer:
        """Return the RTCIceServer dictionary."""
        named: RtcIceServer = {"urls": self.url}
        if self.username is not None:
            named["username"] = self.username
        if self.credential is not None:
            named["credential"] = self.credential
        return named


DEFAULT_STUN: Final = IceServer("stun", "stun.l.google.com", 19302)


def parse_server(url: str) -> IceServer:
    """Parse the URL of a STUN or TURN server. Raises ValueError with a sentence for the user."""
    try:
        return _parse(url.strip())
    except ValueError as error:
        raise ValueError(f"'{_shown(url)}' {error}") from None


def parse_stun(url: str) -> IceServer:
    """Parse the URL of a STUN server (RFC 7064). Raises ValueError."""
    if not url.lower().startswith(("stun:", "stuns:")):
        raise ValueError(f"'{_shown(url)}' is not the URL of a STUN server; use stun:HOST or stun:HOST:PORT")
    return parse_server(url)


def parse_turn(url: str) -> IceServer:
    """Parse the URL of a TURN server with credentials (RFC 7065). Raises ValueError."""
    form = "turn:USER:PASS@HOST:PORT?transport=udp"
    if not url.lower().startswith(("turn:", "turns:")):
        raise ValueError(f"'{_shown(url)}' is not the URL of a TURN server; use {form}")
    server = parse_server(url)
    if server.username is None:
        raise ValueError(f"'{_shown(url)}' has no user and password; use {form}")
    return server


def _parse(url: str) -> IceServer:
    """Parse a URL. Raises ValueError with the predicate of a sentence."""
    scheme, _, rest = url.partition(":")
    scheme = scheme.lower()
    if scheme not in _PORTS:
        raise ValueError("is not the URL of a STUN or TURN server; use stun:HOST:PORT or turn:USER:PASS@HOST:PORT")
    login, at, place = rest.removeprefix("//").rpartition("@")
    address, mark, query = place.partition("?")
    if rest.startswith("//"):  # the form of other programs
        address = address.removesuffix("/")
    host, port = _address(address, _PORTS[scheme])
    default = "transport=udp" if scheme in ("stun", "turn") else "transport=tcp"
    query = query.lower() if mark else default
    if scheme in ("stun", "stuns"):
        if at or query != default:
            raise ValueError("has parts that a STUN URL does not allow; use stun:HOST:PORT")
        return IceServer(cast("Scheme", scheme), host, port)
    if query not in ("transport=udp", "transport=tcp"):
        raise ValueError("has an unknown transport; use ?transport=udp or ?transport=tcp")
    if scheme == "turns" and query == "transport=udp":
        raise ValueError("uses TURN over DTLS, which is not supported; use ?transport=tcp")
    user, colon, password = login.partition(":")
    if at and not (colon and user):
        raise ValueError("has no user and password before the @; use USER:PASS@HOST")
    transport: Transport = "udp" if query == "transport=udp" else "tcp"
    credentials = (unquote(user), unquote(password)) if at else ()
    return IceServer(cast("Scheme", scheme), host, port, transport, *credentials)


def servers_from(dictionaries: Any, ignored: Callable[[str], None] = lambda _reason: None) -> tuple[IceServer, ...]:
    """Return the servers in a list of RTCIceServer dictionaries.

    `ignored` is called with the problems of other entries, each once, and `MAX_SERVERS` at most.
    """
    if not isinstance(dictionaries, list):
        ignored("the relay's 'ice_servers' is not a list")
        return ()
    problems: list[str] = []
    named = [server for each in dictionaries for server in _of_dictionary(each, problems.append)]
    different = list(dict.fromkeys(problems))
    for problem in different[:MAX_SERVERS]:
        ignored(problem)
    if len(different) > MAX_SERVERS:
        ignored(f"{len(different) - MAX_SERVERS} more entries of the relay's 'ice_servers' are invalid")
    return tuple(dict.fromkeys(named))[:MAX_SERVERS]


def choose(
    named: Iterable[IceServer] | None,
    offered: Any,
    *,
    no_stun: bool,
    ignored: Callable[[str], None] = lambda _reason: None,
) -> tuple[IceServer, ...]:
    """Return the servers to use: those of the command line, else the relay's `offered`, else the default STUN server.

    `named` is None if the command line has no server. `offered` is None without a list of the relay, which is used even if
    no server in it is valid; `ignored` is called as by `servers_from`. `no_stun` removes all STUN servers.
    """
    if named is None:
        named = (DEFAULT_STUN,) if offered is None else servers_from(offered, ignored)
    return tuple(server for server in named if server.is_turn or not no_stun)


def _of_dictionary(named: Any, ignored: Callable[[str], None]) -> list[IceServer]:
    if not isinstance(named, dict):
        ignored("an entry of the relay's 'ice_servers' is not an object")
        return []
    urls: Any = named.get("urls", named.get("url"))  # `url` is the name in an old version of the W3C draft
    user, credential = named.get("username"), named.get("credential")
    servers = []
    for url in urls if isinstance(urls, list) else [urls]:
        try:
            server = parse_server(url if isinstance(url, str) else "")
        except ValueError as error:
            ignored(str(error))
            continue
        if server.is_turn and isinstance(user, str) and isinstance(credential, str):
            if len(user.encode(errors="replace")) > _MAX_USERNAME:
                ignored(f"the user name for '{server.url}' has more than {_MAX_USERNAME} bytes")
                continue
            server = replace(server, username=user, credential=credential)
        servers.append(server)
    return servers


def _address(text: str, default_port: int) -> tuple[str, int]:
    bracketed = text.endswith("]") or ":" not in text
    host, _, port = (text, "", str(default_port)) if bracketed else text.rpartition(":")
    if not _HOST.fullmatch(host):
        raise ValueError("has no valid host")
    if not _PORT.fullmatch(port) or not 0 < int(port) < 1 << 16:
        raise ValueError("has no port from 1 to 65535")
    return host.strip("[]"), int(port)


def _shown(url: str) -> str:
    """Return a URL for an error message: without credentials, truncated."""
    scheme, colon, rest = url.partition(":")
    _, at, place = rest.rpartition("@")
    return (f"{scheme}{colon}...@{place}" if at else url)[:200]
