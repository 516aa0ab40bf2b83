"""The reduction of a peer's description to its data section, and the completion of the answer."""

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.description import MAX_MEDIA, BadDescription, RemoteDescription, parse_description

HEAD = "v=0\r\no=- 4711 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
TRANSPORT = "a=ice-ufrag:Fd7k\r\na=ice-pwd:aOv3v8x\r\na=fingerprint:sha-256 0C:87\r\na=setup:actpass\r\n"
M_LINE = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
DATA = M_LINE + "c=IN IP4 0.0.0.0\r\n" + TRANSPORT + "a=mid:d\r\n"
OPUS = "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:a\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
GROUP = "a=group:BUNDLE a d\r\n"
ANSWER = (
    "v=0\r\no=- 5 5 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic:WMS *\r\n"
    "m=application 41234 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 10.0.0.1\r\na=mid:0\r\na=sctp-port:5000\r\n"
    "a=max-message-size:65536\r\na=candidate:1 1 udp 1 10.0.0.1 41234 typ host\r\na=end-of-candidates\r\n"
    "a=ice-ufrag:mine\r\na=ice-pwd:secret\r\na=fingerprint:sha-256 AA:BB\r\na=setup:passive\r\n"
)


def offer(text: str) -> RemoteDescription:
    return parse_description(text, "offer")


def flaw(text: str, kind: str = "offer") -> str:
    """Return why a description cannot be used."""
    with pytest.raises(BadDescription) as refused:
        parse_description(text, "answer" if kind == "answer" else "offer")
    return str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + DATA,
        HEAD + DATA.replace("\r\n", " \r\n"),
        "\ufeff\r\n" + HEAD + "\r\n" + DATA + "\r\n\0",
        (HEAD + DATA).replace("\r\n", "\r").replace("s=-", "s=a\u2028b\x0bc"),
        HEAD + DATA.replace("actpass", "ACTPASS") + "a=max-message-size:18446744073709551615\r\n",
        HEAD + DATA.replace("UDP/DTLS/SCTP", "udp/dtls/sctp"),
        HEAD + TRANSPORT + M_LINE,
        HEAD + DATA.replace(" 9 ", " 9/2 "),
        HEAD + DATA.replace(" webrtc-datachannel", ""),
        HEAD + DATA.replace("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000"),
        HEAD + DATA.replace("UDP/DTLS/SCTP", "DTLS/SCTP") + "a=sctp-port:5000\r\n",
        HEAD + DATA.replace("UDP/DTLS/SCTP", "TCP/DTLS/SCTP"),
        HEAD + GROUP + DATA.replace(" 9 ", " 0 ") + "a=bundle-only\r\n",
        HEAD + GROUP + OPUS + TRANSPORT + M_LINE + "a=mid:d\r\n",
        HEAD + GROUP + OPUS + "a=fmtp:96 x\r\na=ssrc:1\r\na=rtpmap:9 x\r\na=extmap:x\r\n" + DATA,
        HEAD + "m=audio 0 RTP/AVP\r\nm=text 9 x *\r\n" + DATA,
        HEAD + "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n" * 300 + DATA,
    ],
)
def test_a_description_is_reduced_to_one_data_section(text: str) -> None:
    """Deviations of other stacks, and media, are not for aiortc."""
    (section,) = SessionDescription.parse(offer(text).text).media
    assert (section.kind, section.profile, section.rtp.muxId, section.sctp_port) == (
        *("application", "UDP/DTLS/SCTP"),
        *("0", 5000),
    )
    assert section.ice is not None
    assert section.dtls is not None
    assert section.ice.usernameFragment == "Fd7k"
    assert [(each.algorithm, each.value) for each in section.dtls.fingerprints] == [("sha-256", "0C:87")]


def test_a_missing_setup_is_active_in_an_offer_and_passive_in_an_answer() -> None:
    """RFC 4145, 4."""
    text = HEAD + DATA.replace("a=setup:actpass\r\n", "")
    assert (offer(text).setup, parse_description(text, "answer").setup) == ("active", "passive")


def test_all_known_fingerprints_are_kept() -> None:
    """RFC 8122, 5: one of several has to fit; those of unknown algorithms are passed over."""
    more = "a=fingerprint:sha-1 11\r\na=fingerprint:SHA-512 aa:bb\r\na=fingerprint:sha-256 junk\r\n"
    assert offer(HEAD + DATA + more).fingerprints == {"sha-256 0C:87", "sha-512 AA:BB"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("actpass", "holdconn", "line 10, 'a=setup:holdconn', asks for no connection now (RFC 4145, 4)"),
        ("actpass", "x", "line 10, 'x', is no 'a=setup' of an offer: actpass, active, passive (RFC 8842, 5)"),
        ("a=ice-ufrag:Fd7k\r\n", "", "it has no 'a=ice-ufrag', which ICE needs"),
        ("a=ice-pwd:aOv3v8x\r\n", "", "it has no 'a=ice-pwd', which ICE needs"),
        ("aOv3v8x", "a b", "line 8, 'a b', is not a valid value of 'a=ice-pwd'"),
        ("a=fingerprint:sha-256 0C:87\r\n", "", "it has no 'a=fingerprint', which DTLS needs"),
        ("sha-256", "md5", "line 9, 'md5 0C:87', is no fingerprint by sha-256, sha-384, sha-512"),
        (M_LINE, "m=application\r\n", "line 5, 'm=application', is not of the form 'm=MEDIA PORT PROTOCOL FORMAT'"),
        (" 9 ", " 0 ", "line 5 rejects the data section: 'm=application 0 UDP/DTLS/SCTP webrtc-datachannel'"),
        ("UDP/DTLS/SCTP", "TCP/BFCP", "it has no data section ('m=application PORT UDP/DTLS/SCTP webrtc-datachannel')"),
        ("a=mid:d", "a=max-message-size:x", "line 11, 'x', is not a number: a=max-message-size"),
        ("a=mid:d", "a=sctp-port:99999", f"line 5, '{M_LINE.strip()}', has no usable SCTP port (99999)"),
    ],
)
def test_a_refusal_names_the_reason_and_the_line(old: str, new: str, reason: str) -> None:
    assert flaw(HEAD + DATA.replace(old, new)) == reason


def test_an_answer_that_rejects_the_data_section_is_marked() -> None:
    """RFC 3264, 6: port 0."""
    for rejecting in (DATA.replace(" 9 ", " 0 "), "m=audio 0 X 0\r\n"):
        with pytest.raises(BadDescription) as refused:
            parse_description(HEAD + rejecting, "answer")
        assert refused.value.rejected


def test_media_sections_are_bounded() -> None:
    assert flaw(HEAD + "m=audio 0 X 0\r\n" * MAX_MEDIA + DATA) == f"it has more than {MAX_MEDIA} media sections"


@given(st.text() | st.text("=:/ \r\n0a1").map((HEAD + DATA).__add__) | st.text("m=apliction 0/").map(HEAD.__add__))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """A parsed text is a description for aiortc, and its answer can be completed."""
    try:
        parsed = offer(text)
    except BadDescription:
        return
    assert len(SessionDescription.parse(parsed.text).media) == bool(parsed.sections)
    assert parsed.complete_answer(ANSWER).count("\nm=") == max(1, len(parsed.sections))


def test_candidates_are_those_of_the_transport_that_the_bundle_has() -> None:
    """The transport is the tagged section's; other bundled sections had their own. The end of candidates, None, is last."""
    text = OPUS + "a=candidate:1\r\na=candidate:2\r\n" + DATA + "a=candidate:3\r\na=end-of-candidates\r\n"

    def candidates(offered: str) -> list[str | None]:
        return [None if each is None else each.candidate for each in offer(offered).candidates]

    assert candidates(HEAD + GROUP + text) == ["candidate:1", "candidate:2", None]
    assert candidates(HEAD + text) == ["candidate:3", None]
    bundle_only = text.replace("a=candidate:3", "a=bundle-only\r\na=candidate:3")
    assert candidates(HEAD + GROUP + bundle_only) == ["candidate:1", "candidate:2", "candidate:3", None]
    rejected = GROUP + text.replace("a=rtcp-mux\r\n", "")
    assert candidates(HEAD + rejected) == ["candidate:1", "candidate:2", "candidate:3", None]


def test_a_further_offer_has_the_session_and_a_fingerprint_of_the_earlier_one() -> None:
    """RFC 8829, 5.2.2; with new ICE credentials it restarts ICE (RFC 8839, 5.4)."""
    first = offer(HEAD + DATA)
    further = offer(HEAD.replace(" 2 ", " 3 ") + DATA.replace("Fd7k", "new1"))
    assert further.continues(first)
    assert further.restarts(first)
    assert not first.restarts(first)
    assert offer(HEAD.replace("4711", "4712") + DATA).continues(first)  # aiortc
    assert not offer(HEAD.replace("4711", "4712") + DATA.replace("Fd7k", "new1")).continues(first)
    assert not offer(HEAD + DATA.replace("0C:87", "0C:88")).continues(first)


# ---- answers --------------------------------------------------------------------------------------------------------


def sections(answer: str) -> list[str]:
    return [line for line in answer.splitlines() if line.startswith("m=")]


def test_bundled_media_are_answered_inactive_over_the_transport_of_the_data() -> None:
    """The first section of the BUNDLE has the candidates, and gives its name to the trickled ones (RFC 8843, 7.3)."""
    remote = offer(HEAD + GROUP + OPUS + DATA)
    answer = remote.complete_answer(ANSWER)
    _, audio, data = answer.split("m=")
    assert audio.startswith(
        "audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:a\r\na=inactive\r\na=rtcp-mux\r\n"
    )
    for line in ("a=rtpmap:111 opus/48000/2", "a=ice-ufrag:mine", "a=fingerprint:sha-256 AA:BB", "a=setup:passive"):
        assert line in audio.splitlines()
    assert "a=candidate:" in audio
    assert "a=mid:d\r\n" in data
    assert GROUP in answer
    assert (remote.tagged, remote.inactive, remote.rejected) == (("a", 0), ["audio"], [])


@pytest.mark.parametrize(
    "section",
    [
        OPUS.replace("a=rtcp-mux\r\n", ""),
        OPUS.replace("opus/48000/2", "opus").replace(" 0\r\n", "\r\n"),
        OPUS.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
        OPUS.replace("a=mid:a", "a=mid:b"),
        "m=text 9 TCP/MSRP *\r\na=mid:a\r\n",
    ],
)
def test_a_section_that_cannot_be_used_is_rejected_with_port_0(section: str) -> None:
    """The rejected section is at its index, and not in the BUNDLE (RFC 8843, 7.3)."""
    remote = offer(HEAD + GROUP + section + DATA)
    answer = remote.complete_answer(ANSWER)
    first = sections(answer)[0].split()
    assert (first[0], first[1]) == (section.split(maxsplit=1)[0], "0")
    assert "a=group:BUNDLE d\r\n" in answer
    assert remote.tagged == ("d", 1)
    assert len(remote.rejected) == 1


@pytest.mark.parametrize(
    ("media", "answered"),
    [
        ("UDP/DTLS/SCTP webrtc-datachannel", "UDP/DTLS/SCTP webrtc-datachannel"),
        ("UDP/DTLS/SCTP", "UDP/DTLS/SCTP webrtc-datachannel"),
        ("DTLS/SCTP webrtc-datachannel", "DTLS/SCTP webrtc-datachannel"),
        ("DTLS/SCTP 5001", "DTLS/SCTP 5000"),
    ],
)
def test_the_answer_has_the_form_of_the_offer(media: str, answered: str) -> None:
    """The form of the drafts before RFC 8841 has its port in the m-line, and `a=sctpmap`."""
    answer = offer(HEAD + DATA.replace("UDP/DTLS/SCTP webrtc-datachannel", media)).complete_answer(ANSWER)
    assert sections(answer) == [f"m=application 41234 {answered}"]
    assert ("a=sctpmap:5000 webrtc-datachannel 65535" in answer) == answered.endswith("5000")
    assert ("a=sctp-port:5000" in answer) != answered.endswith("5000")
    assert "a=group" not in answer


def test_no_line_of_the_peer_gets_past_the_reduction() -> None:
    """aiortc ends lines at more characters than SDP does."""
    for end in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029":
        text = HEAD.replace("127.0.0.1", f"127.0.0.1{end}m=audio 9 RTP/AVP 0{end}a=mid:x") + DATA
        (section,) = SessionDescription.parse(offer(text).text).media
        assert section.kind == "application"
