"""What can be said of a session description (RFC 8866) without a WebRTC stack. Pure.

aiortc takes garbage, and the empty string, for a description that describes nothing. So a description is looked at
first: it begins with `v=0`, it has the lines that every one must have, and each line is `<type>=<value>`.
"""

import re
from typing import Final

MAX_MEDIA: Final = 16
_LINE: Final = re.compile(r"[a-z]=.*")
_CANDIDATE_TYPE: Final = re.compile(r" typ ([a-z]{1,10})(?: |$)")


def flaw_in_sdp(text: str) -> str | None:
    """Return what is wrong with a session description, or None."""
    lines = text.splitlines()
    if not lines or lines[0] != "v=0":
        return "it does not begin with 'v=0'"
    for number, line in enumerate(lines, 1):
        if not _LINE.fullmatch(line):
            return f"line {number} is not of the form 'x=...'"
    missing = [kind for kind in "ost" if not any(line.startswith(f"{kind}=") for line in lines)]
    if missing:
        return f"it has no line '{missing[0]}='"
    if media_count(text) > MAX_MEDIA:
        return f"it has more than {MAX_MEDIA} media sections"
    return None


def media_count(text: str) -> int:
    """Return how many media sections (m-lines) a description has. With none, ICE never starts."""
    return sum(line.startswith("m=") for line in text.splitlines())


def candidate_type(candidate: str) -> str | None:
    """Return the type of a candidate (RFC 8839, 5.1): host, srflx, prflx or relay; None if it has none."""
    found = _CANDIDATE_TYPE.search(candidate)
    return found[1] if found else None
