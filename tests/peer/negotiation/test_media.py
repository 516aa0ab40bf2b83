"""Sections of an offer that the stack cannot answer are refused, and the data channel beside them is not."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.media import with_refusals, without_strange
from sdpx.peer.webrtc import peer_connection
from sdpx.peer.webrtc.peer_connection import ChannelOpened
from sdpx.protocol.messages import CandidateInit

HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v d\r\n"
OPUS = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
AV1 = "m=video 9 UDP/TLS/RTP/SAVPF 45\r\na=mid:v\r\na=rtcp-mux\r\na=rtpmap:45 AV1/90000\r\n"
DATA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\n"


def test_a_section_without_a_known_codec_is_refused_in_its_place() -> None:
    """Port 0, the same formats, its mid; and it is no longer bundled."""
    rest, refusals = without_strange(HEAD + OPUS + AV1 + DATA)
    assert rest == HEAD.replace(" v ", " ") + OPUS + "a=sendrecv\r\n" + DATA
    refusal = "m=video 0 UDP/TLS/RTP/SAVPF 45\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=inactive\r\n"
    assert refusals == {1: refusal}
    assert with_refusals(HEAD + OPUS + DATA, refusals) == HEAD + OPUS + refusal + DATA


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
        *(DATA, "m=\r\n", "m=audio x y z\r\n"),
    ],
)
def test_what_is_known_or_malformed_is_left_to_the_stack(section: str) -> None:
    rest, refusals = without_strange(HEAD + section + DATA)
    assert rest.replace("a=sendrecv\r\n", "") == HEAD + section + DATA
    assert refusals == {}


def test_a_section_that_wants_a_second_port_for_rtcp_is_refused() -> None:
    assert list(without_strange(HEAD + OPUS.replace("a=rtcp-mux\r\n", "") + DATA)[1]) == [0]


@pytest.mark.parametrize("kind", ["text", "message", "image"])
def test_a_section_of_another_kind_is_refused(kind: str) -> None:
    assert list(without_strange(f"{HEAD}m={kind} 9 TCP/MSRP *\r\n{DATA}")[1]) == [0]


@given(st.lists(st.sampled_from([OPUS, AV1, DATA, "m=text 9 X y\r\n"]), min_size=1, max_size=8))
def test_every_section_is_answered_in_its_place(sections: list[str]) -> None:
    """RFC 3264, 6: as many as were offered, in their order, each of its kind."""
    offer = HEAD + "".join(sections)
    rest, refusals = without_strange(offer)
    answered = with_refusals(rest, refusals)
    kinds = [line.split()[0] for line in answered.splitlines() if line.startswith("m=")]
    assert kinds == [section.split()[0] for section in sections]


@pytest.mark.parametrize("media", [[OPUS], [AV1], [AV1, OPUS], ["m=text 9 TCP/MSRP *\r\na=mid:t\r\n"]])
async def test_a_data_channel_beside_whatever_media_opens(media: list[str]) -> None:
    """A real offer with more sections in front of its data channel."""
    with trio.fail_after(20):
        async with peer_connection.asyncio_loop():
            a, b = await peer_connection.connect([]), await peer_connection.connect([])
            try:
                await a.create_channel("chat")
                offer = await a.create_offer()
                head, _, data = offer.partition("m=application")
                shared = ("a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=setup")
                transport = "".join(f"{line}\r\n" for line in data.splitlines() if line.startswith(shared))
                candidates = [line for line in data.splitlines() if line.startswith("a=candidate:")]
                front = "".join(section + transport for section in media)
                mids = [line.removeprefix("a=mid:") for line in front.splitlines() if line.startswith("a=mid:")]
                bundled = head.replace("BUNDLE 0", f"BUNDLE {' '.join(mids)} 0")
                whole = f"{bundled}{front}m=application{data}"
                await b.accept_offer(whole)
                for candidate in candidates:
                    await b.add_candidate(CandidateInit(candidate, mids[0], 0))
                answer = await b.create_answer()
                assert answer.count("m=") == len(media) + 1
                answer_head, _, answer_data = answer.partition("m=application")
                for mid in mids:  # the offerer itself has no other section: for its stack the answer has none either
                    answer_head = answer_head.replace(f"BUNDLE {mid} ", "BUNDLE ")
                await a.accept_answer(answer_head.partition("m=")[0] + "m=application" + answer_data)
                while not isinstance(await a.events.receive(), ChannelOpened):
                    pass
            finally:
                await a.close()
                await b.close()
