"""A peer's session description, reduced to the lines that a data channel needs (RFC 8829, RFC 8841, RFC 8843). Pure.

aiortc gets one section, for data, with the mid `MID`: nothing in the other sections can make it fail. The answer has them
again: audio and video in the BUNDLE of the data section are `inactive`, all others are rejected with port 0 (RFC 3264, 6).
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

from sdpx.peer.negotiation.sdp import Line, read_lines
from sdpx.protocol.messages import CandidateInit

MID: Final = "0"
DIGESTS: Final = ("sha-256", "sha-384", "sha-512")
DEFAULT_SCTP_PORT: Final = 5000
DEFAULT_MAX_MESSAGE: Final = 65536  # RFC 8841, 6.1
_M_LINE: Final = re.compile(r"m=([^ ]+) +([0-9]{1,5})(?:/[0-9]+)? +([^ ]+)((?: +[^ ]+)*)")
_DATA_PROTOCOLS: Final = ("UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP")
_FINGERPRINT: Final = re.compile(rf"({'|'.join(DIGESTS)}) +((?:[0-9A-F]{{2}}:)+[0-9A-F]{{2}})", re.IGNORECASE)
_RTPMAP: Final = re.compile(r"([0-9]{1,3}) ([^/ ]+)/[0-9]{1,6}(?:/[0-9]{1,2})?")
_STATIC: Final = {"audio": ("0", "8", "9"), "video": ()}  # payload types without an rtpmap (RFC 3551, 6)
_NO_CODECS: Final = ("rtx", "red", "ulpfec", "flexfec-03", "telephone-event", "cn")
_TRANSPORT: Final = ("a=candidate:", "a=end-of-candidates", "a=ice-", "a=fingerprint:", "a=setup:")
_SETUPS: Final = {"offer": ("actpass", "active", "passive"), "answer": ("active", "passive")}
_SETUP_DEFAULTS: Final = {"offer": "active", "answer": "passive"}  # RFC 4145, 4
MAX_MEDIA: Final = 1024
SHOWN: Final = 60  # characters of a line in a reason

Kind = Literal["offer", "answer"]


class BadDescription(ValueError):
    """A description that cannot be used; the message says why, with the line. `rejected`: it rejects the data section."""

    def __init__(self, reason: str, *, rejected: bool = False) -> None:
        super().__init__(reason)
        self.rejected = rejected


@dataclass(frozen=True)
class _Section:
    """The lines of the session, or those of one media section."""

    lines: list[Line]

    @cached_property
    def media(self) -> tuple[str, int, str, list[str]]:
        """The media type, port, protocol and formats of the m-line. Raises `BadDescription`."""
        line = self.lines[0]
        found = _M_LINE.fullmatch(line.text)
        if found is None:
            raise _flaw(line, "is not of the form 'm=MEDIA PORT PROTOCOL FORMAT'")
        return found[1], int(found[2]), found[3], found[4].split()

    def all(self, name: str) -> list[Line]:
        """Return the values of an attribute."""
        return [Line(line.number, line.text[len(name) + 3 :].strip()) for line in self.lines if _is(line, name)]

    def first(self, name: str) -> str:
        """Return the value of an attribute, an empty string without it."""
        return next((line.text for line in self.all(name)), "")

    def has(self, name: str) -> bool:
        """Whether an attribute is there, with or without a value."""
        return any(line.text == f"a={name}" or _is(line, name) for line in self.lines)

    @property
    def is_live(self) -> bool:
        """Whether it is not rejected: a port of 0 rejects, unless the section is bundle-only (RFC 8843, 6)."""
        return self.media[1] > 0 or self.has("bundle-only")

    def number(self, name: str, default: int) -> int:
        """Return the value of a numeric attribute. Raises `BadDescription`."""
        for line in self.all(name):
            if not re.fullmatch(r"[0-9]{1,20}", line.text):  # up to 64 bits
                raise _flaw(line, f"is not a number: a={name}")
            return int(line.text)
        return default

    def inactive(self) -> list[str]:
        """Return the section of the answer that sends and receives nothing, an empty list if there is no format for it."""
        kind, _, protocol, formats = self.media
        if kind not in _STATIC or "RTP/SAVPF" not in protocol or not self.has("rtcp-mux"):
            return []
        codecs = {found[1]: found[2] for line in self.all("rtpmap") if (found := _RTPMAP.fullmatch(line.text))}
        usable = (each for each in formats if each in _STATIC[kind] or codecs.get(each, "cn").lower() not in _NO_CODECS)
        if (chosen := next(usable, None)) is None:
            return []
        mapped = [
            line.text for line in self.lines if line.text.startswith((f"a=rtpmap:{chosen} ", f"a=fmtp:{chosen} "))
        ]
        media = [f"m={kind} 9 {protocol} {chosen}", "c=IN IP4 0.0.0.0"]
        return [*media, f"a=mid:{self.first('mid')}", "a=inactive", "a=rtcp-mux", *mapped]

    def rejected(self) -> list[str]:
        """Return the section of the answer that rejects this one (RFC 3264, 6)."""
        kind, _, protocol, formats = self.media
        mid = self.first("mid")
        return [f"m={kind} 0 {protocol} {' '.join(formats[:1]) or '0'}", *([f"a=mid:{mid}"] if mid else [])]


@dataclass(frozen=True)
class RemoteDescription:
    """A peer's description: `text` is for aiortc; the rest is kept for candidates, later offers and the answer."""

    text: str
    candidates: list[CandidateInit | None]  # None is the end of candidates
    session_id: str = ""
    ufrag: str = ""
    password: str = ""
    fingerprints: frozenset[str] = frozenset()
    setup: str = ""
    max_message_size: int = DEFAULT_MAX_MESSAGE
    index: int = 0  # of the data section
    sections: tuple[_Section, ...] = ()
    bundle: tuple[str, ...] = ()  # the mids that share the transport of the data section

    @cached_property
    def mids(self) -> list[str]:
        """The mid of each section, an empty string for one without."""
        return [section.first("mid") for section in self.sections]

    def continues(self, earlier: "RemoteDescription") -> bool:
        """Whether it is of the same connection as an earlier one: its session and a certificate (RFC 8829, 5.2.2).

        aiortc gives each offer another session ID; the ICE credentials are those of the connection then.
        """
        same_session = self.session_id == earlier.session_id or not self.restarts(earlier)
        return same_session and bool(self.fingerprints & earlier.fingerprints)

    def restarts(self, earlier: "RemoteDescription") -> bool:
        """Whether it restarts ICE (RFC 8839, 5.4)."""
        return (self.ufrag, self.password) != (earlier.ufrag, earlier.password)

    def uses_candidates(self, index: int) -> bool:
        """Whether candidates of the section at this index are of the transport that the data channel has.

        Each bundled section of an offer may have a transport of its own until the answer: then the tagged section's stays, that
        of the offer or, where the answer rejects it, of the answer (RFC 8843, 7.3). A bundle-only section has none of its own.
        """
        mid = self.mids[index]
        is_bundled = mid in self.bundle and (mid == self.bundle[0] or self.sections[index].has("bundle-only"))
        return index == self.tagged[1] or is_bundled

    @cached_property
    def _answered(self) -> list[list[str]]:
        """The sections of the answer; that of the data section is empty."""
        answered: list[list[str]] = []
        for number, section in enumerate(self.sections):
            is_bundled = section.is_live and section.first("mid") in self.bundle
            inactive = section.inactive() if is_bundled else []
            answered.append([] if number == self.index else inactive or section.rejected())
        return answered

    @property
    def inactive(self) -> list[str]:
        """The media types that are answered `inactive`."""
        return [self.sections[n].media[0] for n, lines in enumerate(self._answered) if "a=inactive" in lines]

    @property
    def rejected(self) -> list[str]:
        """The media types of live sections that are rejected."""
        return [
            section.media[0]
            for section, lines in zip(self.sections, self._answered, strict=True)
            if lines and "a=inactive" not in lines and section.is_live
        ]

    @property
    def tagged(self) -> tuple[str, int]:
        """The mid and index of the section that gives the transport: the first of the BUNDLE (RFC 8843, 7.3)."""
        if not self.sections:
            return "", 0
        active = [n for n, lines in enumerate(self._answered) if not lines or "a=inactive" in lines]
        mids = self.mids
        index = min(active, key=lambda n: self.bundle.index(mids[n]) if mids[n] in self.bundle else -1)
        return mids[index], index

    def complete_answer(self, answer: str) -> str:
        """Return aiortc's answer to `text` as the answer to the whole offer: with all of its sections, and its forms."""
        if not self.sections:
            return answer
        lines = answer.splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("m="))
        head, data = lines[:start], lines[start:]
        transport = [line for line in data if line.startswith(_TRANSPORT)]
        plain = [line for line in transport if not line.startswith(_TRANSPORT[:2])]
        sections = [
            [*section, *(transport if self.tagged[1] == number else plain)] if "a=inactive" in section else section
            for number, section in enumerate(self._answered)
        ]
        sections[self.index] = self._in_offered_form(data)
        head = [line for line in head if not line.startswith("a=group:")]
        active = [mid for mid, section in zip(self.mids, sections, strict=True) if section[0].split()[1] != "0"]
        if self.bundle:
            head.append(f"a=group:BUNDLE {' '.join(mid for mid in self.bundle if mid in active)}")
        if any(len(section) <= 2 for section in sections):  # noqa: PLR2004  a rejected one has no c-line of its own
            head.insert(next(n for n, line in enumerate(head) if line.startswith("t=")), "c=IN IP4 0.0.0.0")
        return "\r\n".join([*head, *(line for section in sections for line in section)]) + "\r\n"

    def _in_offered_form(self, data: list[str]) -> list[str]:
        section = self.sections[self.index]
        _, _, protocol, formats = section.media
        mid = section.first("mid")
        data = [line for line in data if line != f"a=mid:{MID}"]
        port = next(line.partition(":")[2] for line in data if line.startswith("a=sctp-port:"))
        if formats[:1] and formats[0].isdecimal():  # the form of the drafts before RFC 8841
            formats = [port]
            data = [line for line in data if not line.startswith("a=sctp-port:")]
            data.append(f"a=sctpmap:{port} webrtc-datachannel 65535")
        data[0] = f"m=application {data[0].split()[1]} {protocol} {' '.join(formats) or 'webrtc-datachannel'}"
        return [*data[:2], *([f"a=mid:{mid}"] if mid else []), *data[2:]]


def parse_description(text: str, kind: Kind) -> RemoteDescription:
    """Return a description, as far as it is about the data channel. Raises `BadDescription`."""
    try:
        lines = read_lines(text)
    except ValueError as error:
        raise BadDescription(str(error)) from None
    head, *sections = _split_sections(lines)
    ended = [None] * any(line.text == "a=end-of-candidates" for line in lines)
    # aiortc splits the origin at single spaces.
    origin = next(" ".join(line.text.split()) for line in head.lines if line.text.startswith("o="))
    start = ["v=0", origin, "s=-", "t=0 0"]
    if not sections:
        return RemoteDescription("\r\n".join([*start, ""]), list(ended))
    if len(sections) > MAX_MEDIA:
        raise BadDescription(f"it has more than {MAX_MEDIA} media sections")
    index = _find_data(sections, kind)
    data = sections[index]
    bundle = _bundle(head, data)
    remote = RemoteDescription("", [], index=index, sections=tuple(sections), bundle=bundle)
    bundled = [section for section in sections if section.first("mid") in bundle]
    sources = [sections[remote.tagged[1]], data, head, *bundled]
    ufrag, password = (_needed(sources, name) for name in ("ice-ufrag", "ice-pwd"))
    fingerprints, setup = _fingerprints(sources), _setup(sources, kind)
    limit = data.number("max-message-size", DEFAULT_MAX_MESSAGE)
    start += ["a=ice-lite"] * any(line.text == "a=ice-lite" for line in lines)
    transport = [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}", *(f"a=fingerprint:{each}" for each in fingerprints)]
    section = _data_section([*transport, f"a=setup:{setup}"], _sctp_port(data), limit)
    return replace(
        remote,
        text="\r\n".join([*start, *section, ""]),
        candidates=[*_candidates(head, remote), *ended],
        session_id=" ".join(origin.split()[:2]),
        ufrag=ufrag,
        password=password,
        fingerprints=frozenset(fingerprints),
        setup=setup,
        max_message_size=limit,
    )


def _data_section(transport: list[str], port: int, limit: int) -> list[str]:
    """Return the one section that aiortc gets, with its BUNDLE group."""
    return [
        f"a=group:BUNDLE {MID}",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{MID}",
        *transport,
        f"a=sctp-port:{port}",
        f"a=max-message-size:{limit}",
    ]


def _candidates(head: _Section, remote: RemoteDescription) -> list[CandidateInit]:
    """Return the candidates of the transport that the data channel has."""
    sources = [head, *(each for number, each in enumerate(remote.sections) if remote.uses_candidates(number))]
    found = dict.fromkeys(line.text for source in sources for line in source.all("candidate"))
    return [CandidateInit(f"candidate:{each}", sdpMLineIndex=remote.tagged[1]) for each in found]


def _is(line: Line, name: str) -> bool:
    return line.text.startswith(f"a={name}:")


def _flaw(line: Line, flaw: str) -> BadDescription:
    return BadDescription(f"line {line.number}, '{line.text[:SHOWN]}', {flaw}")


def _split_sections(lines: list[Line]) -> list[_Section]:
    """Return the lines of the session, and then those of each media section."""
    sections: list[list[Line]] = [[]]
    for line in lines:
        if line.text.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    return [_Section(each) for each in sections]


def _find_data(sections: list[_Section], kind: Kind) -> int:
    """Return the index of the first data section that can be used."""
    data = [
        number
        for number, section in enumerate(sections)
        if section.media[0] == "application" and section.media[2].upper() in _DATA_PROTOCOLS
    ]
    live = [number for number in data if sections[number].is_live]
    if live:
        return live[0]
    if data:
        line = sections[data[0]].lines[0]
        raise BadDescription(f"line {line.number} rejects the data section: '{line.text[:SHOWN]}'", rejected=True)
    rejected = kind == "answer" and not any(section.is_live for section in sections)
    flaw = "it rejects every media section, and so the data channel" if rejected else "it has no data section"
    raise BadDescription(
        flaw if rejected else f"{flaw} ('m=application PORT UDP/DTLS/SCTP webrtc-datachannel')", rejected=rejected
    )


def _bundle(head: _Section, data: _Section) -> tuple[str, ...]:
    mid = data.first("mid")
    groups = [line.text.split()[1:] for line in head.all("group") if line.text.split()[:1] == ["BUNDLE"]]
    return next((tuple(dict.fromkeys(group)) for group in groups if mid and mid in group), ())


def _needed(sources: list[_Section], name: str) -> str:
    """Return the attribute of the data section, else of the session, else of a section bundled with it (RFC 8843, 7.1.3)."""
    for source in sources:
        for line in source.all(name):
            if not re.fullmatch(r"[A-Za-z0-9+/=_-]{1,256}", line.text):
                raise _flaw(line, f"is not a valid value of 'a={name}'")
            return line.text
    raise BadDescription(f"it has no 'a={name}', which ICE needs")


def _fingerprints(sources: list[_Section]) -> list[str]:
    """Return the fingerprints that can be compared; one of them has to fit the certificate (RFC 8122, 5)."""
    given = next((found for source in sources if (found := source.all("fingerprint"))), [])
    usable = [
        f"{match[1].lower()} {match[2].upper()}" for line in given if (match := _FINGERPRINT.fullmatch(line.text))
    ]
    if given and not usable:
        raise _flaw(given[0], f"is no fingerprint by {', '.join(DIGESTS)}")
    if not usable:
        raise BadDescription("it has no 'a=fingerprint', which DTLS needs")
    return usable


def _setup(sources: list[_Section], kind: Kind) -> str:
    given = next((found for source in sources if (found := source.all("setup"))), [])
    for line in given:
        if line.text.lower() == "holdconn":
            raise BadDescription(f"line {line.number}, 'a=setup:holdconn', asks for no connection now (RFC 4145, 4)")
        if line.text.lower() not in _SETUPS[kind]:
            raise _flaw(line, f"is no 'a=setup' of an {kind}: {', '.join(_SETUPS[kind])} (RFC 8842, 5)")
    return given[0].text.lower() if given else _SETUP_DEFAULTS[kind]


def _sctp_port(data: _Section) -> int:
    formats = data.media[3]
    older = int(formats[0]) if formats and re.fullmatch("[0-9]{1,5}", formats[0]) else DEFAULT_SCTP_PORT
    port = data.number("sctp-port", older)
    if not 0 < port < 1 << 16:
        raise _flaw(data.lines[0], f"has no usable SCTP port ({port})")
    return port
