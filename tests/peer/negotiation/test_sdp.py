"""What can be said of a session description without a WebRTC stack."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.sdp import (
    MAX_MEDIA,
    as_sent,
    bare,
    candidate_address,
    candidate_type,
    is_mdns,
    media_count,
    mids,
    passive,
    sift,
    usernames,
    validate_candidate,
    validate_sdp,
)
from sdpx.protocol.messages import CandidateInit

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
M_LINE = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
SECURED = "a=fingerprint:sha-256 00:11\r\na=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\n"
MEDIA = M_LINE + SECURED
HOST = "candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host"


@pytest.mark.parametrize(
    "text", [HEAD, HEAD + MEDIA, HEAD.replace("\r\n", "\n"), HEAD.rstrip(), HEAD + "a=\r\n", HEAD + "a=x=y z\r\n"]
)
def test_a_description_has_no_flaw(text: str) -> None:
    """Also one without media, which a literal client of the founding design sends; line ends may be bare."""
    assert validate_sdp(text) is None


@pytest.mark.parametrize(
    "text", ["", " ", "garbage", "v=1\r\n", " " + HEAD, "\r\n" + HEAD, HEAD.replace("v=0", "V=0"), MEDIA]
)
def test_a_description_begins_with_its_version(text: str) -> None:
    """The empty string, which aiortc takes for a description, is none."""
    assert validate_sdp(text) == "it does not begin with 'v=0'"


@pytest.mark.parametrize("line", ["nonsense", "", "a", "aa=x", "=x", "A=x", " a=x", "1=x"])
def test_each_line_has_a_type_and_a_value(line: str) -> None:
    """The flaw names the line's number."""
    assert validate_sdp(f"{HEAD}{line}\r\na=x\r\n") == "line 5 is not of the form 'x=...'"


@pytest.mark.parametrize("kind", ["o", "s", "t"])
def test_a_line_that_every_description_has_is_missed(kind: str) -> None:
    """RFC 8866, 5: origin, session name and time."""
    text = "".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(kind))
    assert validate_sdp(text) == f"it has no line '{kind}='"


@pytest.mark.parametrize("end", ["", "\r\n", "\r\n\r\n", "\n\n", " \n"])
def test_empty_lines_at_the_end_are_no_flaw(end: str) -> None:
    """Where an SDP is put together by hand, or logged and read again, they come easily, and no browser minds them."""
    text = (HEAD + SECURED + M_LINE).rstrip() + end
    assert validate_sdp(text) is None
    assert sift(text)[0] == HEAD + SECURED + sift(M_LINE)[0]


def test_media_sections_are_bounded() -> None:
    """A hostile description cannot make the stack build a thousand transports."""
    assert validate_sdp(HEAD + MEDIA * MAX_MEDIA) is None
    assert validate_sdp(HEAD + MEDIA * (MAX_MEDIA + 1)) == f"it has more than {MAX_MEDIA} media sections"


def test_media_sections_are_counted_by_their_m_lines() -> None:
    """And not by an m= in another line's value."""
    assert [media_count(HEAD + MEDIA * n + "a=m=x\r\n") for n in (0, 1, 3)] == [0, 1, 3]


@given(st.text() | st.text("v=0\r\nost \x85\u2028m").map(HEAD.__add__))
def test_any_text_gets_a_verdict(text: str) -> None:
    """Hostile descriptions are judged, and raise nothing."""
    flaw = validate_sdp(text)
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


@pytest.mark.parametrize(("attribute", "what"), [("fingerprint", "DTLS"), ("ice-ufrag", "ICE"), ("ice-pwd", "ICE")])
def test_media_need_what_ice_and_dtls_need(attribute: str, what: str) -> None:
    """A missing fingerprint would kill a hidden task of aiortc. Bundled sections may leave it to another one."""
    lines = [line for line in MEDIA.splitlines(keepends=True) if attribute not in line]
    assert validate_sdp(HEAD + "".join(lines)) == f"it has no 'a={attribute}', without which there is no {what}"
    assert validate_sdp(HEAD + "".join(lines) + MEDIA) is None
    assert validate_sdp(HEAD + SECURED + M_LINE) is None


def test_a_description_that_refuses_the_channel_says_so() -> None:
    """RFC 3264, 6: port 0."""
    refused = HEAD + M_LINE.replace(" 9 ", " 0 ")
    assert validate_sdp(refused) == "it refuses every media section, and so the data channel"
    assert validate_sdp(refused + MEDIA) is None


def test_candidates_are_taken_out_each_for_its_section() -> None:
    """And None for the end of them, last; the rest of the description is as it was."""
    first, second = MEDIA + "a=mid:x\r\na=sctp-port:5000\r\n", MEDIA + "a=sctp-port:5001\r\n"
    text = HEAD + first + f"a={HOST}\r\na=end-of-candidates\r\n" + second + "a=candidate:junk\r\n"
    assert sift(text) == (
        HEAD + first + second,
        [CandidateInit(HOST, "x", 0), CandidateInit("candidate:junk", None, 1), None],
    )
    assert sift(HEAD) == (HEAD, [])


def test_a_data_channel_without_its_port_gets_the_default() -> None:
    """RFC 8841, 5.2; the older form has it in its m-line."""
    assert sift(HEAD + MEDIA)[0] == HEAD + MEDIA + "a=sctp-port:5000\r\n"
    older = HEAD + MEDIA.replace("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000")
    assert sift(older)[0] == older
    audio = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
    assert sift(HEAD + audio + MEDIA)[0] == HEAD + audio + MEDIA + "a=sctp-port:5000\r\n"


def test_what_is_sent_says_that_this_side_trickles() -> None:
    """RFC 8838, 4.1.1: and never that candidates have ended while more may follow."""
    ended = HEAD + MEDIA + "a=end-of-candidates\r\n"
    trickles = HEAD + "a=ice-options:trickle\r\n" + MEDIA
    assert as_sent(ended, more_follow=True) == trickles
    assert as_sent(ended, more_follow=False) == trickles + "a=end-of-candidates\r\n"
    assert as_sent(HEAD, more_follow=True) == HEAD


@pytest.mark.parametrize(
    ("offered", "answered"), [("actpass", "passive"), ("active", "passive"), ("passive", "active"), (None, "passive")]
)
def test_an_answer_is_passive_unless_the_offer_is(offered: str | None, answered: str) -> None:
    """RFC 8842, 5.3: both cannot wait."""
    offer = HEAD + MEDIA + (f"a=setup:{offered}\r\n" if offered else "")
    assert passive(MEDIA + "a=setup:active\r\n", offer) == MEDIA + f"a=setup:{answered}\r\n"


def test_sections_and_usernames_are_read() -> None:
    text = HEAD + MEDIA + "a=mid:0\r\n" + MEDIA.replace("abcd", "wxyz") + M_LINE + "a=mid:data \r\n"
    assert mids(text) == ["0", None, "data"]
    assert usernames(text) == {"abcd", "wxyz"}


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
def test_a_candidate_has_no_flaw(text: str) -> None:
    """RFC 8839, 5.1, and what stacks make of it."""
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
def test_what_is_wrong_with_a_candidate_is_said(text: str, word: str) -> None:
    assert word in str(validate_candidate(CandidateInit(text)))


@given(st.text() | st.text("candidate:1 udp typ host.local").map("candidate:1 1 udp 1 ".__add__))
def test_any_candidate_gets_a_verdict(text: str) -> None:
    assert validate_candidate(CandidateInit(bare(text))) is None or not is_mdns(text) or candidate_address(text)


def test_what_stacks_put_round_a_candidate_is_taken_off() -> None:
    assert bare(f"a={HOST}\r\n") == HOST
    assert bare(" \r\n") == ""
    assert (candidate_address(HOST), is_mdns(HOST)) == ("192.0.2.7", False)
    assert is_mdns(HOST.replace("192.0.2.7", "abc-1.local"))
