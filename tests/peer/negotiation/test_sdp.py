"""Validation and rewriting of session descriptions and candidates, without a WebRTC stack."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.sdp import (
    MAX_MEDIA,
    announce_trickle,
    candidate_address,
    candidate_type,
    ice_ufrags,
    insert_rejected_media,
    is_mdns,
    media_count,
    mids,
    normalize_candidate,
    remove_unsupported_media,
    split_candidates,
    validate_candidate,
    validate_sdp,
    with_passive_setup,
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
def test_a_valid_description_is_accepted(text: str) -> None:
    """A description without media is valid, as a client of the founding design sends it; so are bare line feeds."""
    assert validate_sdp(text) is None


@pytest.mark.parametrize(
    "text", ["", " ", "garbage", "v=1\r\n", " " + HEAD, "\r\n" + HEAD, HEAD.replace("v=0", "V=0"), MEDIA]
)
def test_a_description_begins_with_its_version(text: str) -> None:
    """aiortc accepts the empty string; the validation rejects it."""
    assert validate_sdp(text) == "it does not begin with 'v=0'"


@pytest.mark.parametrize("line", ["nonsense", "", "a", "aa=x", "=x", "A=x", " a=x", "1=x"])
def test_each_line_has_a_type_and_a_value(line: str) -> None:
    """The error has the line number."""
    assert validate_sdp(f"{HEAD}{line}\r\na=x\r\n") == "line 5 is not of the form 'x=...'"


@pytest.mark.parametrize("kind", ["o", "s", "t"])
def test_a_missing_mandatory_line_is_an_error(kind: str) -> None:
    """RFC 8866, 5: origin, session name and time."""
    text = "".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(kind))
    assert validate_sdp(text) == f"it has no line '{kind}='"


@pytest.mark.parametrize("end", ["", "\r\n", "\r\n\r\n", "\n\n", " \n"])
def test_empty_lines_at_the_end_are_accepted(end: str) -> None:
    """They occur where an SDP is copied by hand or from a log; browsers accept them, too."""
    text = (HEAD + SECURED + M_LINE).rstrip() + end
    assert validate_sdp(text) is None
    assert split_candidates(text)[0] == HEAD + SECURED + split_candidates(M_LINE)[0]


def test_media_sections_are_bounded() -> None:
    """A hostile description cannot make aiortc create a thousand transports."""
    assert validate_sdp(HEAD + MEDIA * MAX_MEDIA) is None
    assert validate_sdp(HEAD + MEDIA * (MAX_MEDIA + 1)) == f"it has more than {MAX_MEDIA} media sections"


def test_media_sections_are_counted_by_their_m_lines() -> None:
    """An `m=` in the value of another line does not count."""
    assert [media_count(HEAD + MEDIA * n + "a=m=x\r\n") for n in (0, 1, 3)] == [0, 1, 3]


@given(st.text() | st.text("v=0\r\nost \x85\u2028m").map(HEAD.__add__))
def test_validation_of_any_text_raises_nothing(text: str) -> None:
    flaw = validate_sdp(text)
    assert flaw is None or flaw.startswith(("it ", "line "))


@pytest.mark.parametrize("kind", ["host", "srflx", "prflx", "relay"])
@pytest.mark.parametrize("tail", ["", " raddr 192.0.2.1 rport 1", " generation 0 ufrag x"])
def test_the_candidate_type_is_parsed(kind: str, tail: str) -> None:
    """RFC 8839, 5.1."""
    assert candidate_type(f"candidate:1 1 udp 2130706431 192.0.2.7 5000 typ {kind}{tail}") == kind


@pytest.mark.parametrize("text", ["", "candidate:1 1 udp", "typ host", "x typ ", "x typ HOST", "x typ " + "a" * 99])
def test_an_invalid_candidate_type_is_none(text: str) -> None:
    """A log line never contains an arbitrary long word as a type."""
    assert candidate_type(text) is None


@pytest.mark.parametrize(("attribute", "what"), [("fingerprint", "DTLS"), ("ice-ufrag", "ICE"), ("ice-pwd", "ICE")])
def test_media_need_the_attributes_of_ice_and_dtls(attribute: str, what: str) -> None:
    """A missing fingerprint would end a hidden task of aiortc. Bundled sections may share the attributes of another one."""
    lines = [line for line in MEDIA.splitlines(keepends=True) if attribute not in line]
    assert validate_sdp(HEAD + "".join(lines)) == f"it has no 'a={attribute}', which {what} needs"
    assert validate_sdp(HEAD + "".join(lines) + MEDIA) is None
    assert validate_sdp(HEAD + SECURED + M_LINE) is None


def test_a_description_that_rejects_all_media_is_an_error() -> None:
    """RFC 3264, 6: port 0."""
    refused = HEAD + M_LINE.replace(" 9 ", " 0 ")
    assert validate_sdp(refused) == "it rejects every media section, and so the data channel"
    assert validate_sdp(refused + MEDIA) is None


def test_candidates_are_split_off_with_their_section() -> None:
    """None, for the end of candidates, is last; the rest of the description is unchanged."""
    first, second = MEDIA + "a=mid:x\r\na=sctp-port:5000\r\n", MEDIA + "a=sctp-port:5001\r\n"
    text = HEAD + first + f"a={HOST}\r\na=end-of-candidates\r\n" + second + "a=candidate:junk\r\n"
    assert split_candidates(text) == (
        HEAD + first + second,
        [CandidateInit(HOST, "x", 0), CandidateInit("candidate:junk", None, 1), None],
    )
    assert split_candidates(HEAD) == (HEAD, [])


def test_a_data_section_without_a_port_gets_the_default_port() -> None:
    """RFC 8841, 5.2; the older form has the port in its m-line."""
    assert split_candidates(HEAD + MEDIA)[0] == HEAD + MEDIA + "a=sctp-port:5000\r\n"
    older = HEAD + MEDIA.replace("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000")
    assert split_candidates(older)[0] == older
    audio = "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
    assert split_candidates(HEAD + audio + MEDIA)[0] == HEAD + audio + MEDIA + "a=sctp-port:5000\r\n"


def test_a_local_description_announces_trickle() -> None:
    """RFC 8838, 4.1.1: it does not say that candidates have ended while more may follow."""
    ended = HEAD + MEDIA + "a=end-of-candidates\r\n"
    trickles = HEAD + "a=ice-options:trickle\r\n" + MEDIA
    assert announce_trickle(ended, more_follow=True) == trickles
    assert announce_trickle(ended, more_follow=False) == trickles + "a=end-of-candidates\r\n"
    assert announce_trickle(HEAD, more_follow=True) == HEAD


@pytest.mark.parametrize(
    ("offered", "answered"), [("actpass", "passive"), ("active", "passive"), ("passive", "active"), (None, "passive")]
)
def test_an_answer_is_passive_unless_the_offer_is(offered: str | None, answered: str) -> None:
    """RFC 8842, 5.3: one side has to be active."""
    offer = HEAD + MEDIA + (f"a=setup:{offered}\r\n" if offered else "")
    assert with_passive_setup(MEDIA + "a=setup:active\r\n", offer) == MEDIA + f"a=setup:{answered}\r\n"


def test_mids_and_ice_ufrags_are_parsed() -> None:
    text = HEAD + MEDIA + "a=mid:0\r\n" + MEDIA.replace("abcd", "wxyz") + M_LINE + "a=mid:data \r\n"
    assert mids(text) == ["0", None, "data"]
    assert ice_ufrags(text) == {"abcd", "wxyz"}


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
        or candidate_address(text)
    )


def test_a_candidate_is_normalized() -> None:
    """Some stacks send it with `a=` and a line end."""
    assert normalize_candidate(f"a={HOST}\r\n") == HOST
    assert normalize_candidate(" \r\n") == ""
    assert (candidate_address(HOST), is_mdns(HOST)) == ("192.0.2.7", False)
    assert is_mdns(HOST.replace("192.0.2.7", "abc-1.local"))


# ---- unsupported media sections -------------------------------------------------------------------------------------

BUNDLED = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v d\r\n"
OPUS = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
AV1 = "m=video 9 UDP/TLS/RTP/SAVPF 45\r\na=mid:v\r\na=rtcp-mux\r\na=rtpmap:45 AV1/90000\r\n"
DATA_SECTION = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n"


def test_a_section_without_a_supported_codec_is_rejected_at_its_index() -> None:
    """The rejected section has port 0, the same formats and mid, and is not bundled."""
    rest, rejected = remove_unsupported_media(BUNDLED + OPUS + AV1 + DATA_SECTION)
    assert rest == BUNDLED.replace(" v ", " ") + OPUS + "a=sendrecv\r\n" + DATA_SECTION
    rejection = "m=video 0 UDP/TLS/RTP/SAVPF 45\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=inactive\r\n"
    assert rejected == {1: rejection}
    assert insert_rejected_media(BUNDLED + OPUS + DATA_SECTION, rejected) == BUNDLED + OPUS + rejection + DATA_SECTION


@pytest.mark.parametrize(
    "section",
    [
        *(
            OPUS,
            OPUS.replace("opus", "OPUS"),
            "m=audio 9 RTP/AVP 0\r\na=rtcp-mux\r\n",
            AV1.replace("AV1", "VP8"),
            AV1.replace("AV1", "H264"),
        ),
        *(DATA_SECTION, "m=\r\n", "m=audio x y z\r\n"),
    ],
)
def test_a_supported_or_malformed_section_is_left_to_aiortc(section: str) -> None:
    rest, rejected = remove_unsupported_media(BUNDLED + section + DATA_SECTION)
    assert rest.replace("a=sendrecv\r\n", "") == BUNDLED + section + DATA_SECTION
    assert rejected == {}


def test_a_section_without_rtcp_mux_is_rejected() -> None:
    assert list(remove_unsupported_media(BUNDLED + OPUS.replace("a=rtcp-mux\r\n", "") + DATA_SECTION)[1]) == [0]


@pytest.mark.parametrize("kind", ["text", "message", "image"])
def test_a_section_of_another_media_type_is_rejected(kind: str) -> None:
    assert list(remove_unsupported_media(f"{BUNDLED}m={kind} 9 TCP/MSRP *\r\n{DATA_SECTION}")[1]) == [0]


@given(st.lists(st.sampled_from([OPUS, AV1, DATA_SECTION, "m=text 9 X y\r\n"]), min_size=1, max_size=8))
def test_an_answer_has_all_sections_of_the_offer(sections: list[str]) -> None:
    """RFC 3264, 6: the same number and media types, in the same order."""
    offer = BUNDLED + "".join(sections)
    rest, rejected = remove_unsupported_media(offer)
    answered = insert_rejected_media(rest, rejected)
    kinds = [line.split()[0] for line in answered.splitlines() if line.startswith("m=")]
    assert kinds == [section.split()[0] for section in sections]
