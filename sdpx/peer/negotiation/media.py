"""Media sections that the stack cannot answer: taken out of an offer, and refused in the answer (RFC 3264, 6). Pure.

aiortc refuses a whole offer for one audio or video section without a codec that it knows or without rtcp-mux, stumbles over
one without a direction, and over sections that are neither audio, video nor data. A data channel beside them is none the
worse for that.
"""

import re
from typing import Final

_CODECS: Final = {"audio": {"opus", "pcmu", "pcma", "g722"}, "video": {"vp8", "h264"}}
_STATIC: Final = {"audio": {"0", "8", "9"}, "video": set[str]()}  # payload types that need no rtpmap (RFC 3551, 6)
_DIRECTIONS: Final = {"a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive"}
_M_LINE: Final = re.compile(r"m=([^ ]+) [0-9]+ ([^ ]+) (.+)")
_RTPMAP: Final = re.compile(r"a=rtpmap:[0-9]+ ([^/ ]+)/")


def without_strange(offer: str) -> tuple[str, dict[int, str]]:
    """Return an offer without the sections that the stack cannot answer, and what refuses each, by its place in the offer."""
    head, *sections = sections_of(offer.splitlines())
    if not sections:
        return offer, {}
    refusals = {number: _refusal(section) for number, section in enumerate(sections) if not _is_known(section)}
    kept = [line for number, section in enumerate(sections) if number not in refusals for line in _directed(section)]
    gone = {mid for number in refusals if (mid := _mid(sections[number]))}
    return "\r\n".join([*(_ungrouped(line, gone) for line in head), *kept]) + "\r\n", refusals


def with_refusals(answer: str, refusals: dict[int, str]) -> str:
    """Return an answer that refuses those sections, each in its place."""
    if not refusals:
        return answer
    head, *sections = ["".join(f"{line}\r\n" for line in section) for section in sections_of(answer.splitlines())]
    for number, refusal in sorted(refusals.items()):
        sections.insert(number, refusal)
    return head + "".join(sections)


def sections_of(lines: list[str]) -> list[list[str]]:
    """Return the lines of the session, and then those of each media section."""
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    return sections


def _is_known(section: list[str]) -> bool:
    found = _M_LINE.fullmatch(section[0])
    if found is None or found[1] == "application":
        return True  # malformed ones are for the stack to refuse
    codecs = {mapped[1].lower() for line in section if (mapped := _RTPMAP.match(line))}
    formats = set(found[3].split())
    if "a=rtcp-mux" not in section:
        return False
    return bool(codecs & _CODECS.get(found[1], set()) or formats & _STATIC.get(found[1], set()))


def _directed(section: list[str]) -> list[str]:
    """Return a section with its direction: sendrecv where it names none (RFC 8866, 6.7)."""
    is_media = section[0].startswith(("m=audio ", "m=video "))
    return section if not is_media or _DIRECTIONS & set(section) else [*section, "a=sendrecv"]


def _refusal(section: list[str]) -> str:
    found = _M_LINE.fullmatch(section[0])
    assert found is not None
    mid = _mid(section)
    named = f"a=mid:{mid}\r\n" if mid else ""
    return f"m={found[1]} 0 {found[2]} {found[3]}\r\nc=IN IP4 0.0.0.0\r\n{named}a=inactive\r\n"


def _mid(section: list[str]) -> str:
    return next((line.removeprefix("a=mid:").strip() for line in section if line.startswith("a=mid:")), "")


def _ungrouped(line: str, gone: set[str]) -> str:
    """Return a line without these sections, if it is the one that says what is bundled (RFC 8843, 7.3)."""
    if not line.startswith("a=group:BUNDLE"):
        return line
    return " ".join(word for word in line.split() if word not in gone)
