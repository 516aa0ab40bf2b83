"""Validation and rewriting of session descriptions and candidates, without a WebRTC stack."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.sdp import (
    announce_trickle,
    candidate_endpoint,
    candidate_type,
    is_mdns,
    media_count,
    normalize_candidate,
    read_lines,
    validate_candidate,
)
from sdpx.protocol.messages import CandidateInit

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
M_LINE = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
SECURED = "a=fingerprint:sha-256 00:11\r\na=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\n"
MEDIA = M_LINE + SECURED
HOST = "candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host"


def flaw(text: str) -> str | None:
    """Return why the lines of a description cannot be read, or None."""
    try:
        read_lines(text)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "text", [HEAD, HEAD + MEDIA, HEAD.replace("\r\n", "\n"), HEAD.rstrip(), HEAD + "a=\r\n", HEAD + "a=x=y z\r\n"]
)
def test_a_valid_description_is_accepted(text: str) -> None:
    """A description without media is valid, as a client of the original design sends it; so are bare line feeds."""
    assert flaw(text) is None


@pytest.mark.parametrize("text", ["", " ", "garbage", "v=1\r\n", " " + HEAD, HEAD.replace("v=0", "V=0"), MEDIA])
def test_a_description_begins_with_its_version(text: str) -> None:
    """aiortc accepts the empty string; the validation rejects it."""
    assert flaw(text) == "it does not begin with 'v=0'"


@pytest.mark.parametrize("line", ["nonsense", "a", "aa=x", "=x", "A=x", " a=x", "1=x"])
def test_each_line_has_a_type_and_a_value(line: str) -> None:
    """The error has the line number."""
    assert flaw(f"{HEAD}{line}\r\na=x\r\n") == "line 5 is not of the form 'x=...'"


@pytest.mark.parametrize("kind", ["o", "s", "t"])
def test_a_missing_mandatory_line_is_an_error(kind: str) -> None:
    """RFC 8866, 5: origin, session name and time."""
    text = "".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(kind))
    assert flaw(text) == f"it has no line '{kind}='"


@pytest.mark.parametrize("end", ["", "\r\n", "\r\n\r\n", "\n\n", " \n"])
def test_empty_lines_at_the_end_are_accepted(end: str) -> None:
    """Empty lines occur where an SDP is copied by hand or from a log; browsers accept them, too."""
    text = (HEAD + SECURED + M_LINE).rstrip() + end
    assert [line.text for line in read_lines(text)] == (HEAD + SECURED + M_LINE).splitlines()


def test_media_sections_are_counted_by_their_m_lines() -> None:
    """An `m=` in the value of another line does not count."""
    assert [media_count(HEAD + MEDIA * n + "a=m=x\r\n") for n in (0, 1, 3)] == [0, 1, 3]


@given(st.text() | st.text("v=0\r\nost \x85\u2028m").map(HEAD.__add__))
def test_validation_of_any_text_raises_nothing(text: str) -> None:
    assert str(flaw(text) or "it ").startswith(("it ", "line "))


@pytest.mark.parametrize("kind", ["host", "srflx", "prflx", "relay"])
@pytest.mark.parametrize("tail", ["", " raddr 192.0.2.1 rport 1", " generation 0 ufrag x"])
def test_the_candidate_type_is_parsed(kind: str, tail: str) -> None:
    """RFC 8839, 5.1."""
    assert candidate_type(f"candidate:1 1 udp 2130706431 192.0.2.7 5000 typ {kind}{tail}") == kind


@pytest.mark.parametrize("text", ["", "candidate:1 1 udp", "typ host", "x typ ", "x typ HOST", "x typ " + "a" * 99])
def test_an_invalid_candidate_type_is_none(text: str) -> None:
    """A log line never contains an arbitrary long word as a type."""
    assert candidate_type(text) is None


def test_a_local_description_announces_trickle() -> None:
    """RFC 8838, 4.1.1: it does not say that candidates have ended while more may follow."""
    ended = HEAD + MEDIA + "a=end-of-candidates\r\n"
    trickles = HEAD + "a=ice-options:trickle\r\n" + MEDIA
    assert announce_trickle(ended, more_follow=True) == trickles
    assert announce_trickle(ended, more_follow=False) == trickles + "a=end-of-candidates\r\n"
    assert announce_trickle(HEAD, more_follow=True) == HEAD


@pytest.mark.parametrize(
    "text",
    [
        *(
            HOST,
            HOST.removeprefix("candidate:"),
            HOST + " generation 0 ufrag x network-cost 999",
            HOST + " odd",
            HOST + " ",
        ),
        *(HOST.replace("192.0.2.7", address) for address in ("2001:db8::1", "a-b.local", "FE80::1%eth0")),
        "candidate:842163049 1 tcp 1518280447 10.0.0.1 9 typ host tcptype active generation 0",
        "candidate:H1 2 UDP 1 10.0.0.1 0 typ srflx raddr 0.0.0.0 rport 0",
        "candidate:1 1 udp 4294967295 10.0.0.1 65535 typ relay raddr 10.0.0.2 rport 9",
    ],
)
def test_a_valid_candidate_is_accepted(text: str) -> None:
    """RFC 8839, 5.1, and common deviations of other stacks."""
    assert validate_candidate(CandidateInit(text)) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        *[
            (text, "form")
            for text in ("x", "candidate:", "candidate:1 1 udp", "candidate:1 1 udp 1 10.0.0.1 x typ host")
        ],
        *[(HOST.replace("typ host", each), "form") for each in ("typ odd", "typ", "host", "typ HOST", "typ host\nx y")],
        *[(HOST.replace(" 1 udp", each), "range") for each in (" 0 udp", " 257 udp")],
        (HOST.replace("5000", "65536"), "range"),
        *[
            (HOST.replace("192.0.2.7", each), "address")
            for each in ("a.example", "1.2.3", "x.y.local", ".local", "[::1]")
        ],
        (HOST.replace("typ host", "typ srflx raddr 1.2.3.4 rport x"), "rport"),
    ],
)
def test_an_invalid_candidate_is_an_error(text: str, word: str) -> None:
    assert word in str(validate_candidate(CandidateInit(text)))


@given(st.text() | st.text("candidate:1 udp typ host.local").map("candidate:1 1 udp 1 ".__add__))
def test_validation_of_any_candidate_raises_nothing(text: str) -> None:
    assert (
        validate_candidate(CandidateInit(normalize_candidate(text))) is None
        or not is_mdns(text)
        or candidate_endpoint(text)[0]
    )


def test_a_candidate_is_normalized() -> None:
    """Some stacks send it with `a=`, a space or a line end, and the end of candidates as a candidate."""
    assert normalize_candidate(f"a={HOST}\r\n") == HOST
    assert normalize_candidate(HOST.replace(":", ": ", 1)) == HOST
    assert {
        normalize_candidate(end) for end in (" \r\n", "a=end-of-candidates", "end-of-candidates", "candidate:")
    } == {""}
    assert (candidate_endpoint(HOST)[0], is_mdns(HOST)) == ("192.0.2.7", False)
    assert is_mdns(HOST.replace("192.0.2.7", "abc-1.local"))
