"""What a token allows, once its signature is found good (RFC 7519). Pure: the time is an argument, seconds since the epoch.

- `sub` binds the ID: a client without `?id=`, or with the same one, gets it; another one is refused.
- `pair` limits whom the client may ask for: an ID or a list of them, `*` standing for any characters. An empty list is nobody.
- `exp`, `nbf` and `iat` are checked with `LEEWAY_SECONDS`; a token without `exp` does not end.
- `aud` has to name this relay's audience: a token for another service is none for this one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

from sdpx.ice_servers import RtcIceServer
from sdpx.ids import is_name

LEEWAY_SECONDS: Final = 30
_PATTERN: Final = re.compile(r"[A-Za-z0-9._*-]{1,64}", re.ASCII)
_TIME: Final = re.compile(r"(?P<count>[0-9]{1,9})(?P<unit>[smhd])?", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class BadToken(ValueError):
    """Why a token is not taken: a sentence that quotes nothing of it. `client_id` is whom it is for, once that is proven."""

    def __init__(self, flaw: str, client_id: str | None = None) -> None:
        super().__init__(flaw)
        self.client_id = client_id


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client may do: under which ID, if bound, whom it may ask for, if limited, and what ICE servers are its own."""

    client_id: str | None = None
    pair: tuple[str, ...] | None = None
    ice_servers: tuple[RtcIceServer, ...] = ()

    def may_ask(self, target_id: str) -> bool:
        """Tell whether the client may ask to be paired with `target_id`."""
        return self.pair is None or any(_matches(each, target_id) for each in self.pair)


ANYBODY: Final = Grant()


def grant_of(claims: object, now: float, audience: str | None = None) -> Grant:
    """Return what the claims of a token allow at `now`; raises `BadToken`."""
    if not isinstance(claims, dict):
        raise BadToken("The token's payload is no JSON object")
    _check_time(claims, now)
    _check_audience(claims.get("aud"), audience)
    return Grant(_bound_id(claims.get("sub")), _patterns(claims.get("pair")))


def subject_of(claims: object) -> str | None:
    """Return the ID that claims are for, whether they hold or not; None if they are for none that can be."""
    sub = claims.get("sub") if isinstance(claims, dict) else None
    return sub if isinstance(sub, str) and is_name(sub) else None


def claims_for(sub: str, pair: Sequence[str], audience: str | None, now: float, ttl: float) -> dict[str, object]:
    """Return the claims of a token for the client `sub` that holds from `now` on for `ttl` seconds."""
    claims: dict[str, object] = {"sub": sub, "iat": int(now), "exp": int(now + ttl)}
    if pair:
        claims["pair"] = list(pair)
    if audience is not None:
        claims["aud"] = audience
    return claims


def validate_pattern(text: str) -> str | None:
    """Return what is wrong with an entry of `pair`."""
    if _PATTERN.fullmatch(text):
        return None
    return f"'{text}' is no ID and no pattern of one; it is 1 to 64 of letters, digits, -_. and *"


def seconds_of(text: str) -> int | None:
    """Return how many seconds `90s`, `15m`, `1h` or `7d` are, or a bare number of them; None if that is no time above 0."""
    found = _TIME.fullmatch(text)
    seconds = int(found["count"]) * _UNITS[found["unit"] or "s"] if found else 0
    return seconds or None


def _check_time(claims: dict[str, object], now: float) -> None:
    expires, begins, made = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is not None and now >= expires + LEEWAY_SECONDS:
        raise BadToken("The token has expired; get a new one")
    if any(start is not None and now < start - LEEWAY_SECONDS for start in (begins, made)):
        raise BadToken(
            "The token is not valid yet; if it should be, compare the clocks of who made it and of this relay"
        )


def _seconds(claims: dict[str, object], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise BadToken(f"The token's '{name}' is no number of seconds")
    return value


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _check_audience(told: object, audience: str | None) -> None:
    names = [told] if isinstance(told, str) else told
    if names is None and audience is None:
        return
    if audience is None:
        raise BadToken("The token is for another audience ('aud'), and this relay was given none (--auth-audience)")
    if not isinstance(names, list) or audience not in names:
        raise BadToken("The token is for another audience ('aud') than this relay's (--auth-audience)")


def _bound_id(sub: object) -> str | None:
    if sub is not None and not (isinstance(sub, str) and is_name(sub)):
        raise BadToken("The token's 'sub' is no ID; one is 1 to 64 of letters, digits and -_.")
    return sub


def _patterns(pair: object) -> tuple[str, ...] | None:
    if pair is None:
        return None
    patterns = [pair] if isinstance(pair, str) else pair
    if not isinstance(patterns, list) or not all(
        isinstance(each, str) and _PATTERN.fullmatch(each) for each in patterns
    ):
        raise BadToken("The token's 'pair' is neither an ID, nor a pattern such as robot-*, nor a list of them")
    return tuple(patterns)


def _matches(pattern: str, name: str) -> bool:
    """Tell whether a name fits a pattern: the leftmost place for each part is as good as any, so nothing is tried twice."""
    first, *parts = pattern.split("*")
    if not parts:
        return name == pattern
    *middle, last = parts
    if not name.startswith(first) or len(name) < len(first) + len(last) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
