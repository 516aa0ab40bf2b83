"""Which web pages may open a WebSocket here. Pure.

A browser says in `Origin` whose page it is (RFC 6454, 7; RFC 6455, 10.2), and a page cannot change that. Other programs say
nothing, or what they like: for them this rule is none, and they are let in without the header.
"""

import re
from collections.abc import Sequence
from typing import Final

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<wild>\*\.)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_LARGEST_PORT: Final = 65535


class Origins:
    """The origins that are let in: exact ones, and `https://*.example.com` for every subdomain; none means any."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._any = not allowed
        parsed = [_parse(each) for each in allowed]
        self._exact = {(scheme, host, port) for scheme, wild, host, port in parsed if not wild}
        self._wild = [(scheme, f".{host}", port) for scheme, wild, host, port in parsed if wild]

    def allow(self, origin: str | None) -> bool:
        """Tell whether a request with this Origin header, or without one, may come in."""
        if self._any or origin is None:
            return True
        found = _ORIGIN.fullmatch(origin.lower())
        if found is None or found["wild"]:
            return False  # `null` among them: a sandboxed page, a file
        scheme, host, port = _parts(found)
        return (scheme, host, port) in self._exact or any(
            (scheme, port) == (wild_scheme, wild_port) and host.endswith(suffix)
            for wild_scheme, suffix, wild_port in self._wild
        )


def validate_origin(text: str) -> str | None:
    """Return what is wrong with an origin that somebody wants to allow."""
    found = _ORIGIN.fullmatch(text.lower())
    if found is None or int(found["port"] or 1) not in range(1, _LARGEST_PORT + 1):
        return f"'{text}' is no origin; one is https://example.com, with a port if it has one, or https://*.example.com"
    return None


def _parse(text: str) -> tuple[str, bool, str, str]:
    found = _ORIGIN.fullmatch(text.lower())
    assert found is not None, text
    scheme, host, port = _parts(found)
    return scheme, bool(found["wild"]), host, port


def _parts(found: re.Match[str]) -> tuple[str, str, str]:
    scheme = found["scheme"]
    return scheme, found["host"], found["port"] or _DEFAULT_PORTS.get(scheme, "")
