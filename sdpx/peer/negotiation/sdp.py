"""Session descriptions (RFC 8866) and ICE candidates (RFC 8839) as text, without a WebRTC stack. Pure.

aiortc accepts garbage, and the empty string, as a description without media. So a description is validated first: it begins
with `v=0`, has the mandatory lines, each line is `<type>=<value>`, and with media it has what ICE and DTLS need. Candidates
are taken out of it, and each is validated by itself, as a trickled one is.

aiortc rejects a whole offer for one audio or video section without a codec that it knows or without rtcp-mux, fails at one
without a direction, and at sections other than audio, video and data. Such sections are removed from the offer, and rejected
in the answer (RFC 3264, 6), so that the data channel beside them still opens.
"""

import ipaddress
import re
from typing import Final

from sdpx.protocol.messages import CandidateInit

MAX_MEDIA: Final = 16
_LINE: Final = re.compile(r"[a-z]=.*")
_REJECTED: Final = re.compile(r"m=[^ ]+ 0 ")  # port 0 (RFC 3264, 6)
_ICE_ATTRIBUTES: Final = {"fingerprint": "DTLS", "ice-ufrag": "ICE", "ice-pwd": "ICE"}
_CODECS: Final = {"audio": {"opus", "pcmu", "pcma", "g722"}, "video": {"vp8", "h264"}}
_STATIC: Final = {"audio": {"0", "8", "9"}, "video": set[str]()}  # payload types without an rtpmap (RFC 3551, 6)
_DIRECTIONS: Final = {"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"}
_M_LINE: Final = re.compile(r"m=([^ ]+) [0-9]+ ([^ ]+) (.+)")
_RTPMAP: Final = re.compile(r"a=rtpmap:[0-9]+ ([^/ ]+)/")
_CANDIDATE_TYPE: Final = re.compile(r" typ ([a-z]{1,10})(?: |$)")
_CANDIDATE: Final = re.compile(
    r"(?:candidate:)?[^ ]{1,64} (?P<component>[0-9]{1,3}) [A-Za-z0-9-]{1,16} [0-9]{1,10}"
    r" (?P<address>[^ ]{1,255}) (?P<port>[0-9]{1,5}) typ (?P<type>host|srflx|prflx|relay)(?P<rest>(?: [^ ]+)*) ?"
)
_MDNS_NAME: Final = re.compile(r"[0-9A-Za-z-]{1,63}\.local")


# ---- descriptions ---------------------------------------------------------------------------------------------------


def validate_sdp(text: str) -> str | None:
    """Return what is wrong with a session description, or None. Empty lines at the end are tolerated."""
    lines = text.rstrip().splitlines()
    if not lines or lines[0] != "v=0":
        return "it does not begin with 'v=0'"
    for number, line in enumerate(lines, 1):
        if not _LINE.fullmatch(line):
            return f"line {number} is not of the form 'x=...'"
    missing = [kind for kind in "ost" if not any(line.startswith(f"{kind}=") for line in lines)]
    if missing:
        return f"it has no line '{missing[0]}='"
    media = [line for line in lines if line.startswith("m=")]
    if len(media) > MAX_MEDIA:
        return f"it has more than {MAX_MEDIA} media sections"
    return _validate_media(media, lines) if media else None


def _validate_media(media: list[str], lines: list[str]) -> str | None:
    """Bundled sections share the attributes of one (RFC 8843, 7), so any section may have them."""
    if all(_REJECTED.match(line) for line in media):
        return "it rejects every media section, and so the data channel"
    for attribute, protocol in _ICE_ATTRIBUTES.items():
        if not any(line.startswith(f"a={attribute}:") for line in lines):
            return f"it has no 'a={attribute}', which {protocol} needs"
    return None


def media_count(text: str) -> int:
    """Return the number of media sections (m-lines) of a description. Without one, ICE never starts."""
    return sum(line.startswith("m=") for line in text.splitlines())


def mids(text: str) -> list[str | None]:
    """Return the `a=mid` of each media section in order (RFC 5888), None for a section without one."""
    found: list[str | None] = []
    for line in text.splitlines():
        if line.startswith("m="):
            found.append(None)
        elif line.startswith("a=mid:") and found:
            found[-1] = line.removeprefix("a=mid:").strip()
    return found


def ice_ufrags(text: str) -> set[str]:
    """Return the ICE username fragments of a description (RFC 8839, 5.4)."""
    return {line.removeprefix("a=ice-ufrag:").strip() for line in text.splitlines() if line.startswith("a=ice-ufrag:")}


def has_end_of_candidates(text: str) -> bool:
    """Whether a description says that no candidates follow it (RFC 8838, 8.2)."""
    return "a=end-of-candidates" in text.splitlines()


def split_candidates(text: str) -> tuple[str, list[CandidateInit | None]]:
    """Return a description without its candidates, and the candidates in order; None is the end of candidates.

    The end of one section's candidates ends them all: the sections are bundled, or only the first one matters. A data
    section without a port gets the default port (RFC 8841, 5.2).
    """
    kept: list[str] = []
    candidates: list[CandidateInit | None] = []
    section_mids = mids(text)
    index = -1
    for line in text.rstrip().splitlines():
        index += line.startswith("m=")
        if line.startswith("a=candidate:"):
            mid = section_mids[index] if index >= 0 else None
            candidates.append(CandidateInit(line.removeprefix("a="), mid, max(index, 0)))
        elif line.strip() != "a=end-of-candidates":
            kept.append(line)
    ended = any(line.strip() == "a=end-of-candidates" for line in text.splitlines())
    lines = [line for section in _split_sections(kept) for line in _with_sctp_port(section)]
    return "\r\n".join(lines) + "\r\n", candidates + [None] * ended


def _with_sctp_port(section: list[str]) -> list[str]:
    is_data = section[:1] and section[0].startswith("m=application ") and section[0].split()[2:3] != ["DTLS/SCTP"]
    if not is_data or any(line.startswith("a=sctp-port:") for line in section):
        return section
    return [*section, "a=sctp-port:5000"]


def announce_trickle(text: str, *, more_follow: bool) -> str:
    """Return a local description that announces trickle ICE (RFC 8838, 4.1.1).

    While more candidates may follow, it must not say that they have ended.
    """
    lines = [line for line in text.splitlines() if not (more_follow and line == "a=end-of-candidates")]
    after = next((number for number, line in enumerate(lines, 1) if line.startswith("t=")), None)
    if after is not None and media_count(text):
        lines.insert(after, "a=ice-options:trickle")
    return "\r\n".join(lines) + "\r\n"


def with_passive_setup(answer: str, offer: str) -> str:
    """Return an answer that makes the offerer the DTLS client (RFC 8842, 5.3), unless the offer is `passive` itself.

    aiortc as a DTLS client offers ECDSA suites only, and fails against RSA certificates; as a server it accepts both.
    """
    if any(line.strip() == "a=setup:passive" for line in offer.splitlines()):
        return answer
    return answer.replace("a=setup:active", "a=setup:passive")


# ---- unsupported media sections -------------------------------------------------------------------------------------


def remove_unsupported_media(offer: str) -> tuple[str, dict[int, str]]:
    """Return an offer without the sections that aiortc cannot answer, and the rejected m-sections by their index."""
    head, *sections = _split_sections(offer.splitlines())
    if not sections:
        return offer, {}
    rejected = {number: _rejection(section) for number, section in enumerate(sections) if not _is_supported(section)}
    kept = [line for number, section in enumerate(sections) if number not in rejected for line in _directed(section)]
    gone = {mid for number in rejected if (mid := _mid(sections[number]))}
    return "\r\n".join([*(_without_mids(line, gone) for line in head), *kept]) + "\r\n", rejected


def insert_rejected_media(answer: str, rejected: dict[int, str]) -> str:
    """Return an answer with these rejected sections, each at its index."""
    if not rejected:
        return answer
    head, *sections = ["".join(f"{line}\r\n" for line in section) for section in _split_sections(answer.splitlines())]
    for number, section in sorted(rejected.items()):
        sections.insert(number, section)
    return head + "".join(sections)


def _split_sections(lines: list[str]) -> list[list[str]]:
    """Return the lines of the session, and then those of each media section."""
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    return sections


def _is_supported(section: list[str]) -> bool:
    found = _M_LINE.fullmatch(section[0])
    if found is None or found[1] == "application":
        return True  # aiortc rejects a malformed one by itself
    codecs = {mapped[1].lower() for line in section if (mapped := _RTPMAP.match(line))}
    formats = set(found[3].split())
    if "a=rtcp-mux" not in section:
        return False
    return bool(codecs & _CODECS.get(found[1], set()) or formats & _STATIC.get(found[1], set()))


def _directed(section: list[str]) -> list[str]:
    """Return a section with its direction, which defaults to sendrecv (RFC 8866, 6.7)."""
    is_media = section[0].startswith(("m=audio ", "m=video "))
    return section if not is_media or _DIRECTIONS & set(section) else [*section, "a=sendrecv"]


def _rejection(section: list[str]) -> str:
    found = _M_LINE.fullmatch(section[0])
    assert found is not None
    mid = _mid(section)
    mid_line = f"a=mid:{mid}\r\n" if mid else ""
    return f"m={found[1]} 0 {found[2]} {found[3]}\r\nc=IN IP4 0.0.0.0\r\n{mid_line}a=inactive\r\n"


def _mid(section: list[str]) -> str:
    return next((line.removeprefix("a=mid:").strip() for line in section if line.startswith("a=mid:")), "")


def _without_mids(line: str, gone: set[str]) -> str:
    """Return a line, without these mids if it is the BUNDLE group (RFC 8843, 7.3)."""
    if not line.startswith("a=group:BUNDLE"):
        return line
    return " ".join(word for word in line.split() if word not in gone)


# ---- candidates -----------------------------------------------------------------------------------------------------


def normalize_candidate(candidate: str) -> str:
    """Return a candidate as in RTCIceCandidateInit: some stacks send it with `a=` and a line end."""
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
    """Whether a candidate's address is an mDNS name, which takes time to resolve."""
    return candidate_address(candidate).lower().endswith(".local")


def validate_candidate(init: CandidateInit) -> str | None:
    """Return what is wrong with a candidate (RFC 8839, 5.1), or None."""
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
