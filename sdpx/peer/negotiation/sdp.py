"""What can be said of a session description (RFC 8866) without a WebRTC stack. Pure.

aiortc takes garbage, and the empty string, for a description that describes nothing. So a description is looked at
first: it begins with `v=0`, it has the lines that every one must have, each line is `<type>=<value>`, and where there is
media there is what ICE and DTLS need. Candidates are taken out of it: each is judged by itself, as a trickled one is.
"""

import ipaddress
import re
from typing import Final

from sdpx.peer.negotiation.media import sections_of
from sdpx.protocol.messages import CandidateInit

MAX_MEDIA: Final = 16
_LINE: Final = re.compile(r"[a-z]=.*")
_CANDIDATE_TYPE: Final = re.compile(r" typ ([a-z]{1,10})(?: |$)")
_CANDIDATE: Final = re.compile(
    r"(?:candidate:)?[^ ]{1,64} (?P<component>[0-9]{1,3}) [A-Za-z0-9-]{1,16} [0-9]{1,10}"
    r" (?P<address>[^ ]{1,255}) (?P<port>[0-9]{1,5}) typ (?P<type>host|srflx|prflx|relay)(?P<rest>(?: [^ ]+)*) ?"
)
_MDNS_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,63}\.local")
_REFUSED: Final = re.compile(r"m=[^ ]+ 0 ")  # port 0 (RFC 3264, 6)
_ICE_ATTRIBUTES: Final = {"fingerprint": "DTLS", "ice-ufrag": "ICE", "ice-pwd": "ICE"}


# ---- descriptions -----------------------------------------------------------------------------------------------


def validate_sdp(text: str) -> str | None:
    """Return what is wrong with a session description, or None."""
    lines = (
        text.rstrip().splitlines()
    )  # an empty line at the end says nothing, and comes easily where an SDP is put together
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
    return _validate_transport(lines) if media_count(text) else None


def _validate_transport(lines: list[str]) -> str | None:
    """Bundled sections may leave it to the first one (RFC 8843, 7), so it need only be somewhere."""
    if all(_REFUSED.match(line) for line in lines if line.startswith("m=")):
        return "it refuses every media section, and so the data channel"
    for attribute, what_for in _ICE_ATTRIBUTES.items():
        if not any(line.startswith(f"a={attribute}:") for line in lines):
            return f"it has no 'a={attribute}', without which there is no {what_for}"
    return None


def media_count(text: str) -> int:
    """Return how many media sections (m-lines) a description has. With none, ICE never starts."""
    return sum(line.startswith("m=") for line in text.splitlines())


def mids(text: str) -> list[str | None]:
    """Return the `a=mid` of each media section in its order (RFC 5888), None for one that has none."""
    found: list[str | None] = []
    for line in text.splitlines():
        if line.startswith("m="):
            found.append(None)
        elif line.startswith("a=mid:") and found:
            found[-1] = line.removeprefix("a=mid:").strip()
    return found


def usernames(text: str) -> set[str]:
    """Return the ICE username fragments of a description."""
    return {line.removeprefix("a=ice-ufrag:").strip() for line in text.splitlines() if line.startswith("a=ice-ufrag:")}


def sift(text: str) -> tuple[str, list[CandidateInit | None]]:
    """Take the candidates out of a description: returns the rest, and them in their order, None for the end of them.

    What ends the candidates of one section ends them all: they are bundled, or the one section that matters is the first.
    A data channel's section without its port gets the default (RFC 8841, 5.2).
    """
    kept: list[str] = []
    candidates: list[CandidateInit | None] = []
    section_mids = mids(text)
    index = -1
    ended = False
    for line in text.rstrip().splitlines():
        index += line.startswith("m=")
        if line.startswith("a=candidate:"):
            mid = section_mids[index] if index >= 0 else None
            candidates.append(CandidateInit(line.removeprefix("a="), mid, max(index, 0)))
        elif line.strip() == "a=end-of-candidates":
            ended = True
        else:
            kept.append(line)
    return "\r\n".join(_with_sctp_ports(kept)) + "\r\n", candidates + [None] * ended


def _with_sctp_ports(lines: list[str]) -> list[str]:
    out: list[str] = []
    for section in sections_of(lines):
        out += section
        is_data = section[:1] and section[0].startswith("m=application ") and section[0].split()[2:3] != ["DTLS/SCTP"]
        if is_data and not any(line.startswith("a=sctp-port:") for line in section):
            out.append("a=sctp-port:5000")
    return out


def as_sent(text: str, *, more_follow: bool) -> str:
    """Return a local description as the peer gets it: one that says that this side trickles (RFC 8838, 4.1.1).

    While more candidates may follow it must not say that they have ended.
    """
    lines = [line for line in text.splitlines() if not (more_follow and line == "a=end-of-candidates")]
    after = next((number for number, line in enumerate(lines, 1) if line.startswith("t=")), None)
    if after is not None and media_count(text):
        lines.insert(after, "a=ice-options:trickle")
    return "\r\n".join(lines) + "\r\n"


def has_ended(text: str) -> bool:
    """Whether a description says that no candidates follow it."""
    return "a=end-of-candidates" in text.splitlines()


def passive(answer: str, offer: str) -> str:
    """Return an answer that leaves the first word of DTLS to the offerer (RFC 8842, 5.3), unless the offer does so itself.

    aiortc as a DTLS client speaks ECDSA only, and fails against RSA certificates; as a server it takes whatever comes.
    """
    if any(line.strip() == "a=setup:passive" for line in offer.splitlines()):
        return answer
    return answer.replace("a=setup:active", "a=setup:passive")


# ---- candidates -------------------------------------------------------------------------------------------------


def bare(candidate: str) -> str:
    """Return a candidate as RTCIceCandidateInit has it, whatever a stack put round it: `a=`, a line end."""
    return candidate.strip().removeprefix("a=")


def candidate_type(candidate: str) -> str | None:
    """Return the type of a candidate (RFC 8839, 5.1): host, srflx, prflx or relay; None if it has none."""
    found = _CANDIDATE_TYPE.search(candidate)
    return found[1] if found else None


def candidate_address(candidate: str) -> str:
    """Return the address of a candidate, which may be an mDNS name; an empty string if it has none."""
    found = _CANDIDATE.fullmatch(candidate)
    return found["address"] if found else ""


def is_mdns(candidate: str) -> bool:
    """Whether a candidate's address is an mDNS name, which takes its time to resolve."""
    return candidate_address(candidate).lower().endswith(".local")


def validate_candidate(init: CandidateInit) -> str | None:
    """Return what is wrong with a candidate (RFC 8839, 5.1), or None."""
    found = _CANDIDATE.fullmatch(init.candidate)
    if found is None:
        return "it is not of the form 'candidate:FOUNDATION COMPONENT TRANSPORT PRIORITY ADDRESS PORT typ TYPE'"
    if not 0 < int(found["component"]) <= 256 or int(found["port"]) >= 1 << 16:  # noqa: PLR2004  RFC 8839's ranges
        return "its component or port is out of range"
    if not _is_address(found["address"]):
        return "its address is neither an IP address nor a name in .local"
    return _validate_extensions(found["rest"].split())


def _validate_extensions(words: list[str]) -> str | None:
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    return None if re.fullmatch(r"[0-9]{1,10}", pairs.get("rport", "0")) else "its rport is no number"


def _is_address(text: str) -> bool:
    if _MDNS_NAME.fullmatch(text):
        return True
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
