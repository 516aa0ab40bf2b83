"""The claims of a token whose signature is valid (RFC 7519). Pure: the time is an argument, in seconds since the epoch.

- `sub`, or the claim of `--id-claim`, binds the ID: a client that asks for no ID, or for the same one, gets it; a request for
  another ID is refused. `sdpx.ids.id_of` maps its value to the ID.
- `pair` limits the targets of pair requests: an ID, or a name that is mapped to one, or a list of them, `*` standing for any
  characters. An empty list allows none.
- `admin`, if it is true, allows to see and to disconnect clients (`/stats.json`).
- `exp`, `nbf` and `iat` are checked with `LEEWAY_SECONDS`; a token without `exp` does not expire.
- `aud` must contain this relay's audience.
"""

import re
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from sdpx.ice_servers import RtcIceServer
from sdpx.ids import id_of, is_name

LEEWAY_SECONDS: Final = 30
_LARGEST_NUMBER: Final = 2**63
_INFINITE: Final = 2**1024  # beyond all floats
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*-]{1,64}", re.ASCII)
_DURATION: Final = re.compile(r"(?P<count>[0-9]{1,9})(?P<unit>[smhd])?", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class BadToken(ValueError):
    """A token is refused. The message quotes nothing of the token; `client_id` is its `sub`, if the signature is valid."""

    def __init__(self, reason: str, client_id: str | None = None) -> None:
        super().__init__(reason)
        self.client_id = client_id


class Grant(Struct, frozen=True):
    """The permissions of a client: its ID, if bound; the targets of its pair requests, if limited; ICE servers, if any."""

    client_id: str | None = None
    pair: tuple[str, ...] | None = None
    ice_servers: Sequence[RtcIceServer] | None = None
    is_admin: bool = False  # may see and disconnect clients

    def may_ask(self, target_id: str) -> bool:
        """Return whether the client may ask to be paired with `target_id`."""
        return self.pair is None or any(_matches(each, target_id) for each in self.pair)


UNRESTRICTED: Final = Grant()


def parse_claims(claims: object, now: float, audience: str | None = None, id_claim: str | None = None) -> Grant:
    """Return the permissions in a token's claims at `now`; raises `BadToken`, also for a missing `id_claim`."""
    if not isinstance(claims, dict):
        raise BadToken("The token's payload is not a JSON object")
    expires_at, not_before, issued_at = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
    if expires_at is not None and now >= expires_at + LEEWAY_SECONDS:
        raise BadToken("The token has expired; get a new one")
    if any(start is not None and now < start - LEEWAY_SECONDS for start in (not_before, issued_at)):
        raise BadToken("The token is not valid yet; compare the clocks of its issuer and of this relay")
    _check_audience(claims.get("aud"), audience)
    client_id, pair, name = subject_of(claims, id_claim), claims.get("pair"), id_claim or "sub"
    if client_id is None and (id_claim is not None or claims.get(name) is not None):
        raise BadToken(f"The token's '{name}' is missing, or gives no ID of 1 to 64 characters")
    is_admin = claims.get("admin") is True
    if pair is None:
        return Grant(client_id, is_admin=is_admin)
    names = [pair] if isinstance(pair, str) else pair
    patterns = [pattern_of(each) for each in names if isinstance(each, str)] if isinstance(names, list) else []
    if not isinstance(names, list) or len(patterns) < len(names) or any(map(validate_pattern, patterns)):
        raise BadToken("The token's 'pair' must be an ID, a pattern such as robot-*, or a list of them")
    return Grant(client_id, tuple(patterns), is_admin=is_admin)


def subject_of(claims: object, id_claim: str | None = None) -> str | None:
    """Return the ID that claims are for, valid or not at this time; None if there is no valid ID. Whole numbers are names."""
    name = claims.get(id_claim or "sub") if isinstance(claims, dict) else None
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name <= _LARGEST_NUMBER:
        name = str(name)
    client_id = id_of(name) if isinstance(name, str) else ""
    return client_id if is_name(client_id) else None


def pattern_of(text: str) -> str:
    """Return the pattern of IDs for an entry of `pair`, in which names are mapped to IDs."""
    return "*".join(map(id_of, text.split("*")))


def make_claims(sub: str, pair: Sequence[str], audience: str | None, now: float, ttl: float) -> dict[str, object]:
    """Return the claims of a token for the client `sub` that is valid from `now` for `ttl` seconds."""
    claims: dict[str, object] = {"sub": sub, "iat": int(now), "exp": int(now + ttl)}
    if pair:
        claims["pair"] = list(pair)
    if audience is not None:
        claims["aud"] = audience
    return claims


def validate_pattern(text: str) -> str | None:
    """Return the problem of an entry of `pair`; None if it is valid."""
    if _PATTERN.fullmatch(text):
        return None
    return f"'{text}' is not an ID or a pattern: 1 to 64 letters, digits, '-', '_', '.' or '*'"


def parse_duration(text: str) -> int | None:
    """Return the seconds of `90s`, `15m`, `1h` or `7d`, or of a number alone; None if the text is not a time above 0."""
    match = _DURATION.fullmatch(text)
    seconds = int(match["count"]) * _UNITS[match["unit"] or "s"] if match else 0
    return seconds or None


def _seconds(claims: dict[str, object], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _INFINITE:
        raise BadToken(f"The token's '{name}' is not a number of seconds")
    return value


def _check_audience(aud: object, audience: str | None) -> None:
    names = [aud] if isinstance(aud, str) else aud
    if names is None and audience is None:
        return
    if audience is None:
        raise BadToken("The token has an audience ('aud'), but this relay has none (--auth-audience)")
    if not isinstance(names, list) or audience not in names:
        raise BadToken("The token is for another audience ('aud') than this relay's (--auth-audience)")


def _matches(pattern: str, name: str) -> bool:
    """Return whether a name matches a pattern. Each part is placed leftmost, so there is no backtracking."""
    first, *parts = pattern.split("*")
    if not parts:
        return name == pattern
    *middle, last = parts
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    start, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True
