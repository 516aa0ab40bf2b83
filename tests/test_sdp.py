"""What can be said of a session description without a WebRTC stack."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.sdp import MAX_MEDIA, candidate_type, flaw_in_sdp, media_count

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
MEDIA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"


@pytest.mark.parametrize(
    "text", [HEAD, HEAD + MEDIA, HEAD.replace("\r\n", "\n"), HEAD.rstrip(), HEAD + "a=\r\n", HEAD + "a=x=y z\r\n"]
)
def test_a_description_has_no_flaw(text: str) -> None:
    """Also one without media, which a literal client of the founding design sends; line ends may be bare."""
    assert flaw_in_sdp(text) is None


@pytest.mark.parametrize(
    "text", ["", " ", "garbage", "v=1\r\n", " " + HEAD, "\r\n" + HEAD, HEAD.replace("v=0", "V=0"), MEDIA]
)
def test_a_description_begins_with_its_version(text: str) -> None:
    """The empty string, which aiortc takes for a description, is none."""
    assert flaw_in_sdp(text) == "it does not begin with 'v=0'"


@pytest.mark.parametrize("line", ["nonsense", "", "a", "aa=x", "=x", "A=x", " a=x", "1=x"])
def test_each_line_has_a_type_and_a_value(line: str) -> None:
    """The flaw names the line's number."""
    assert flaw_in_sdp(f"{HEAD}{line}\r\na=x\r\n") == "line 5 is not of the form 'x=...'"


@pytest.mark.parametrize("kind", ["o", "s", "t"])
def test_a_line_that_every_description_has_is_missed(kind: str) -> None:
    """RFC 8866, 5: origin, session name and time."""
    text = "".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(kind))
    assert flaw_in_sdp(text) == f"it has no line '{kind}='"


def test_media_sections_are_bounded() -> None:
    """A hostile description cannot make the stack build a thousand transports."""
    assert flaw_in_sdp(HEAD + MEDIA * MAX_MEDIA) is None
    assert flaw_in_sdp(HEAD + MEDIA * (MAX_MEDIA + 1)) == f"it has more than {MAX_MEDIA} media sections"


def test_media_sections_are_counted_by_their_m_lines() -> None:
    """And not by an m= in another line's value."""
    assert [media_count(HEAD + MEDIA * n + "a=m=x\r\n") for n in (0, 1, 3)] == [0, 1, 3]


@given(st.text() | st.text("v=0\r\nost \x85\u2028m").map(HEAD.__add__))
def test_any_text_gets_a_verdict(text: str) -> None:
    """Hostile descriptions are judged, and raise nothing."""
    flaw = flaw_in_sdp(text)
    assert flaw is None or flaw.startswith(("it ", "line "))


@pytest.mark.parametrize("kind", ["host", "srflx", "prflx", "relay"])
@pytest.mark.parametrize("tail", ["", " raddr 192.0.2.1 rport 1", " generation 0 ufrag x"])
def test_a_candidates_type_is_read(kind: str, tail: str) -> None:
    """RFC 8839, 5.1."""
    assert candidate_type(f"candidate:1 1 udp 2130706431 192.0.2.7 5000 typ {kind}{tail}") == kind


@pytest.mark.parametrize("text", ["", "candidate:1 1 udp", "typ host", "x typ ", "x typ HOST", "x typ " + "a" * 99])
def test_what_has_no_type_has_none(text: str) -> None:
    """A log line never gets a stranger's long word for a type."""
    assert candidate_type(text) is None
