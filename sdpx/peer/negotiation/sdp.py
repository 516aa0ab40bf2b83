"""Session descriptions (RFC 8866) and ICE candidates (RFC 8839) as text, without a WebRTC stack. Pure.

aiortc accepts garbage, and the empty string, as a description without media. So a description is validated first: it begins
with `v=0`, has the mandatory lines, and each line is `<type>=<value>`. `description` has its content.
"""

import ipaddress
import re
from typing import Final, NamedTuple

from sdpx.protocol.messages import CandidateInit

_LINE_END: Final = re.compile("\r\n|\r|\n")
_LINE: Final = re.compile(r"[a-z]=.*")
_CANDIDATE_TYPE: Final = re.compile(r" typ ([a-z]{1,10})(?: |$)")
_CANDIDATE: Final = re.compile(
    r"(?:candidate:)?[^ ]{1,64} (?P<component>[0-9]{1,3}) [A-Za-z0-9-]{1,16} [0-9]{1,10}"
    r" (?P<address>[^ ]{1,255}) (?P<port>[0-9]{1,5}) typ (?P<type>host|srflx|prflx|relay)(?P<rest>(?: [^ ]+)*) ?"
)
_MDNS_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,63}\.local")


# ---- descriptions ---------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of a description, or the value in it, and the number of that line."""

    number: int
    text: str


def read_lines(text: str) -> list[Line]:
    """Return the lines of a description without spaces at their ends. Raises ValueError, with the line, for an invalid one.

    Empty lines, a byte order mark, and the zero byte at the end of a string in C are passed over.
    """
    split = _LINE_END.split(text.removeprefix("\ufeff").rstrip("\0"))
    lines = [Line(number, line.rstrip()) for number, line in enumerate(split, 1) if line.strip()]
    if not lines or lines[0].text != "v=0":
        raise ValueError("it does not begin with 'v=0'")
    for number, line in lines:
        if not _LINE.fullmatch(line):
            raise ValueError(f"line {number} is not of the form 'x=...'")
    for kind in "ost":
        if not any(line.text.startswith(f"{kind}=") for line in lines):
            raise ValueError(f"it has no line '{kind}='")
    return lines


def media_count(text: str) -> int:
    """Return the number of media sections (m-lines) of a description. Without one, ICE never starts."""
    return sum(line.startswith("m=") for line in text.splitlines())


def has_end_of_candidates(text: str) -> bool:
    """Whether a description says that no candidates follow it (RFC 8838, 8.2)."""
    return "a=end-of-candidates" in text.splitlines()


def announce_trickle(text: str, *, more_follow: bool) -> str:
    """Return a local description that announces trickle ICE (RFC 8838, 4.1.1).

    While more candidates may follow, it must not say that they have ended.
    """
    lines = [line for line in text.splitlines() if not (more_follow and line == "a=end-of-candidates")]
    after = next((number for number, line in enumerate(lines, 1) if line.startswith("t=")), None)
    if after is not None and media_count(text):
        lines.insert(after, "a=ice-options:trickle")
    return "\r\n".join(lines) + "\r\n"


# ---- candidates -----------------------------------------------------------------------------------------------------


def normalize_candidate(candidate: str) -> str:
    """Return a candidate as in RTCIceCandidateInit: some stacks send it with `a=`, a space or a line end; "" is the end."""
    text = candidate.strip().removeprefix("a=")
    if text in ("end-of-candidates", "candidate:"):
        return ""
    return f"candidate:{text.removeprefix('candidate:').lstrip()}" if text.startswith("candidate: ") else text


def candidate_type(candidate: str) -> str | None:
    """Return the type of a candidate (RFC 8839, 5.1): host, srflx, prflx or relay; None if it has none."""
    found = _CANDIDATE_TYPE.search(candidate)
    return found[1] if found else None


def candidate_endpoint(candidate: str) -> tuple[str, int]:
    """Return the address of a candidate, which may be an mDNS name, and its port; an empty string and 0 if it has none."""
    found = _CANDIDATE.fullmatch(candidate)
    return (found["address"], int(found["port"])) if found else ("", 0)


def is_mdns(candidate: str) -> bool:
    """Whether a candidate's address is an mDNS name, which takes time to resolve."""
    return candidate_endpoint(candidate)[0].lower().endswith(".local")


def validate_candidate(init: CandidateInit) -> str | None:
    """Return the flaw of a candidate (RFC 8839, 5.1), or None."""
    found = _CANDIDATE.fullmatch(init.candidate)
    if found is None:
        return "it is not of the form 'candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE'"
    if not 0 < int(found["component"]) <= 256 or int(found["port"]) >= 1 << 16:  # noqa: PLR2004  RFC 8839's ranges
        return "its component or port is out of range"
    if not _MDNS_NAME.fullmatch(found["address"]):
        try:
            ipaddress.ip_address(found["address"])
        except ValueError:
            return "its address is neither an IP address nor a name in .local"
    words = found["rest"].split()
    extensions = dict(zip(words[::2], words[1::2], strict=False))
    return None if re.fullmatch(r"[0-9]{1,10}", extensions.get("rport", "0")) else "its rport is not a number"
