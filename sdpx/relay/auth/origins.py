"""The allowed origins of web pages. Pure.

A browser sends the origin of the page in `Origin` (RFC 6454, 7; RFC 6455, 10.2), which the page cannot change. Other programs
send no `Origin`, or any value: this rule does not restrict them, and a request without the header is allowed.

The origin of the relay's own page is allowed by the request's Host. A page of another site can have its own name resolved to
the relay (DNS rebinding), and then has the same Host. It has no certificate for that name at the relay, though, and can do so
neither to an address nor to a name without a domain: without TLS only those are taken for the relay's own.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<wildcard>\*\.)?"
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>[0-9]{1,5}))?"
)
# The origin of a sandboxed page or a file (HTML 7.1.1), and that of a file in some web views.
_WITHOUT_HOST: Final = ("null", "file://")
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_PORT: Final = re.compile(r":\d*$")
_LARGEST_PORT: Final = 65535


class Origins:
    """The allowed origins: exact ones, and `https://*.example.com` for all subdomains. An empty list allows every origin."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        matches = [match for each in allowed if (match := _ORIGIN.fullmatch(each.lower()))]
        self._any = not allowed
        self._named = {each.lower() for each in allowed}.intersection(_WITHOUT_HOST)
        assert len(matches) + len(self._named) >= len(set(allowed)), "an origin that `validate_origin` refuses"
        self._exact = {_parts(match) for match in matches if not match["wildcard"]}
        self._suffixes = [_parts(match) for match in matches if match["wildcard"]]

    def allow(self, origin: str | None, own_host: str | None = None) -> bool:
        """Return whether a request with this Origin header, or without one, is allowed.

        `own_host` is the request's Host if the relay serves a page, whose origin is allowed with https, or a local name.
        """
        if self._any or origin is None or origin in self._named:
            return True
        match = _ORIGIN.fullmatch(origin.lower())
        if match is None or match["wildcard"]:
            return False
        scheme, host, port = _parts(match)
        own = _ORIGIN.fullmatch(f"{scheme}://{own_host}".lower()) if own_host is not None else None
        if own is not None and _parts(own) == (scheme, host, port) and (scheme == "https" or is_local_name(host)):
            return True
        return (scheme, host, port) in self._exact or any(
            (scheme, port) == (allowed_scheme, allowed_port) and host.endswith(f".{domain}")
            for allowed_scheme, domain, allowed_port in self._suffixes
        )


def is_local_name(host: str) -> bool:
    """Return whether no other site can have this Host: an address, or a name without a domain, with a port or without."""
    name = _PORT.sub("", host)
    try:
        return bool(ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return "." not in name or name.endswith(".localhost")


def validate_origin(text: str) -> str | None:
    """Return the problem of an origin to allow; None if it is valid."""
    match = _ORIGIN.fullmatch(text.lower())
    if text.lower() in _WITHOUT_HOST:
        return None
    if match is None or int(match["port"] or 1) not in range(1, _LARGEST_PORT + 1):
        return f"'{text}' is not an origin; use https://HOST, https://HOST:PORT, https://*.HOST, null or file://"
    return None


def _parts(match: re.Match[str]) -> tuple[str, str, str]:
    return match["scheme"], match["host"], match["port"] or _DEFAULT_PORTS.get(match["scheme"], "")
