"""STUN and TURN servers: their URLs (RFC 7064, RFC 7065) and the W3C's RTCIceServer dictionaries. Pure.

A URL may bear a TURN server's user and password, percent-encoded where they hold `:`, `@` or `/`:
`turn:USER:PASS@HOST:PORT?transport=tcp`. Credentials never come out in `url`, which a log may show.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote

Scheme = Literal["stun", "stuns", "turn", "turns"]
Transport = Literal["udp", "tcp"]

MAX_SERVERS: Final = 16  # a relay that names a thousand cannot make this peer knock at a thousand doors
_SCHEMES: Final = get_args(Scheme)
_PORTS: Final = {"stun": 3478, "turn": 3478, "stuns": 5349, "turns": 5349}
_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST: Final = re.compile(r"[0-9A-Za-z_\-.]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server, one way to it. `host` is a name or an address without brackets."""

    scheme: Scheme
    host: str
    port: int
    transport: Transport = "udp"
    username: str | None = None
    credential: str | None = None

    @property
    def is_turn(self) -> bool:
        """Whether it relays."""
        return self.scheme in ("turn", "turns")

    @property
    def url(self) -> str:
        """Its URL without credentials, as logs and RTCIceServer dictionaries have it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}:{host}:{self.port}" + (f"?transport={self.transport}" if self.is_turn else "")

    def dictionary(self) -> dict[str, str]:
        """Return it as an RTCIceServer dictionary (W3C WebRTC, 4.2.4)."""
        named: dict[str, str] = {"urls": self.url}
        if self.username is not None:
            named["username"] = self.username
        if self.credential is not None:
            named["credential"] = self.credential
        return named


DEFAULT_STUN: Final = IceServer("stun", "stun.l.google.com", 19302)


def parse_server(url: str) -> IceServer:
    """Read the URL of a STUN or TURN server. Raises ValueError with a sentence that says what is wrong with it."""
    scheme, _, rest = url.partition(":")
    if scheme not in _SCHEMES:
        raise ValueError(f"'{_shown(url)}' is no STUN or TURN server's URL; one begins with stun:, turn: or turns:")
    login, at, place = rest.rpartition("@")
    address, mark, query = place.partition("?")
    host, port = _address(address, url, _PORTS[scheme])
    if scheme in ("stun", "stuns"):
        if at or mark:
            raise ValueError(f"'{_shown(url)}' has more than a STUN server's URL can; one looks like stun:HOST:PORT")
        return IceServer(_scheme(scheme), host, port)
    transport = _transport(scheme, query if mark else None, url)
    user, colon, password = login.partition(":")
    if at and not (colon and user):
        raise ValueError(f"'{_shown(url)}' has no user and password in front of its @; write USER:PASS@HOST")
    login_known = (unquote(user), unquote(password)) if at else (None, None)
    return IceServer(_scheme(scheme), host, port, transport, *login_known)


def parse_stun(url: str) -> IceServer:
    """Read the URL of a STUN server (RFC 7064). Raises ValueError."""
    if not url.startswith(("stun:", "stuns:")):
        raise ValueError(f"'{_shown(url)}' is no STUN server's URL; it looks like stun:HOST or stun:HOST:PORT")
    return parse_server(url)


def parse_turn(url: str) -> IceServer:
    """Read the URL of a TURN server with its credentials (RFC 7065). Raises ValueError."""
    looks = "turn:USER:PASS@HOST:PORT?transport=udp"
    if not url.startswith(("turn:", "turns:")):
        raise ValueError(f"'{_shown(url)}' is no TURN server's URL; it looks like {looks}")
    server = parse_server(url)
    if server.username is None:
        raise ValueError(f"'{_shown(url)}' has no user and password; it looks like {looks}")
    return server


def servers_from(dictionaries: Any) -> tuple[IceServer, ...]:
    """Return the servers that a list of RTCIceServer dictionaries names; what makes no sense in it is left out."""
    if not isinstance(dictionaries, Sequence):
        return ()
    named = [server for each in dictionaries if isinstance(each, dict) for server in _of_dictionary(each)]
    return tuple(dict.fromkeys(named))[:MAX_SERVERS]


def choose(named: Iterable[IceServer] | None, offered: Any, *, no_stun: bool) -> tuple[IceServer, ...]:
    """Return the servers to use: those of the command line, else the relay's `offered`, else the default STUN server.

    `named` is None where the command line names none. With `no_stun` there is no STUN server among them, whoever names it.
    """
    servers = tuple(named) if named is not None else servers_from(offered) or (DEFAULT_STUN,)
    return tuple(server for server in servers if server.is_turn or not no_stun)


def _of_dictionary(named: dict[str, Any]) -> list[IceServer]:
    urls: Any = named.get("urls", named.get("url"))  # `url` is what old browsers had
    user, credential = named.get("username"), named.get("credential")
    servers = []
    for url in urls if isinstance(urls, list) else [urls]:
        try:
            server = parse_server(url)
        except (ValueError, AttributeError):
            continue
        if server.is_turn and isinstance(user, str) and isinstance(credential, str):
            server = IceServer(server.scheme, server.host, server.port, server.transport, user, credential)
        servers.append(server)
    return servers


def _address(text: str, url: str, default_port: int) -> tuple[str, int]:
    bracketed = text.endswith("]") or ":" not in text
    host, _, port = (text, "", str(default_port)) if bracketed else text.rpartition(":")
    if not _HOST.fullmatch(host):
        raise ValueError(f"'{_shown(url)}' names no host")
    if not _PORT.fullmatch(port) or not 0 < int(port) < 1 << 16:
        raise ValueError(f"'{_shown(url)}' has no port from 1 to 65535")
    return host.strip("[]"), int(port)


def _transport(scheme: str, query: str | None, url: str) -> Transport:
    default = "transport=udp" if scheme == "turn" else "transport=tcp"
    key, _, value = (default if query is None else query).partition("=")
    if key != "transport" or value not in get_args(Transport):
        raise ValueError(f"'{_shown(url)}' has an unknown transport; it is ?transport=udp or ?transport=tcp")
    if scheme == "turns" and value == "udp":
        raise ValueError(f"'{_shown(url)}' asks for TURN over DTLS, which is not there; use ?transport=tcp")
    return "tcp" if value == "tcp" else "udp"


def _scheme(text: str) -> Scheme:
    return next(scheme for scheme in _SCHEMES if scheme == text)


def _shown(url: str) -> str:
    """Return a URL as an error may quote it: without what may be a password, and not endless."""
    scheme, colon, rest = url.partition(":")
    _, at, place = rest.rpartition("@")
    return (f"{scheme}{colon}...@{place}" if at else url)[:200]
