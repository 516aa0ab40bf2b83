"""The wall from its Trio side: two real RTCPeerConnections in one process, no relay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from sdpx.peer.webrtc import peer_connection
from sdpx.peer.webrtc.peer_connection import (
    ChannelClosed,
    ChannelOpened,
    NegotiationFailed,
    PeerConnection,
    Received,
    RtcEvent,
    StateChanged,
)
from sdpx.protocol.messages import CandidateInit


@asynccontextmanager
async def two_peers() -> AsyncIterator[tuple[PeerConnection, PeerConnection]]:
    with trio.fail_after(30):
        async with peer_connection.asyncio_loop():
            a, b = await peer_connection.connect([]), await peer_connection.connect([])
            try:
                yield a, b
            finally:
                await a.close()
                await b.close()


async def negotiate(a: PeerConnection, b: PeerConnection) -> None:
    await a.create_channel("chat")
    await add(b, await b.accept_offer(await a.create_offer()))
    await add(a, await a.accept_answer(await b.create_answer()))


async def add(peer: PeerConnection, candidates: list[CandidateInit | None]) -> None:
    for candidate in candidates:
        if candidate is not None:
            await peer.add_candidate(candidate)


async def until(peer: PeerConnection, wanted: type[RtcEvent]) -> RtcEvent:
    while not isinstance(event := await peer.events.receive(), wanted):
        pass
    return event


async def test_two_peers_connect_and_talk_both_ways() -> None:
    """Offer, answer, ICE, DTLS, SCTP: the channel opens on both sides and carries text."""
    async with two_peers() as (a, b):
        await negotiate(a, b)
        assert await until(a, ChannelOpened) == await until(b, ChannelOpened) == ChannelOpened("chat")
        assert await a.send("from a")
        assert await until(b, Received) == Received("from a")
        assert await b.send("")
        assert await until(a, Received) == Received("")


async def test_states_come_in_order_of_their_kind() -> None:
    """connecting, connected; checking, completed."""
    async with two_peers() as (a, b):
        await negotiate(a, b)
        seen: list[StateChanged] = []
        while not isinstance(event := await a.events.receive(), ChannelOpened):
            assert isinstance(event, StateChanged)
            seen.append(event)
    assert [each.state for each in seen if each.kind == "connection"] == ["connecting", "connected"]
    assert [each.state for each in seen if each.kind == "ice_connection"] == ["checking", "completed"]
    assert [each.state for each in seen if each.kind == "signaling"] == ["have-local-offer", "stable"]


async def test_finish_waits_until_the_peer_has_everything() -> None:
    """What was sent before the channel was closed arrives, then the close."""
    async with two_peers() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpened)
        for number in range(200):
            await a.send(f"{number} " + "x" * 1000)
        await a.finish()
        await a.close()
        received = []
        while not isinstance(event := await b.events.receive(), ChannelClosed):
            if isinstance(event, Received):
                received.append(event.data)
    assert len(received) == 200


async def test_sending_without_a_channel_says_so() -> None:
    async with two_peers() as (a, _):
        assert not await a.send("nobody hears")


async def test_closing_ends_the_events_also_when_cancelled_and_twice() -> None:
    """A close in a cancelled scope still closes, a second one does nothing, and the events end."""
    async with two_peers() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpened)
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.close()
        await a.close()
        events = [event async for event in a.events]
        assert StateChanged("connection", "closed") in events


HOSTILE = [
    "",
    "garbage",
    "v=0\r\n",
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application\r\n",
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio x y z\r\na=mid:0\r\n",
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    "v=0\r\no=\r\ns=\r\nt=\r\na=group:BUNDLE 0\r\nm=video 9 RTP 0\r\na=rtpmap:zz\r\n",
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 5000,
]


@pytest.mark.parametrize("sdp", HOSTILE)
async def test_hostile_descriptions_are_one_kind_of_failure(sdp: str) -> None:
    """Whatever aiortc raises becomes `bad_sdp`, as an offer and as an answer."""
    async with two_peers() as (a, b):
        with pytest.raises(NegotiationFailed) as failed:
            await b.accept_offer(sdp)
        assert failed.value.code == "bad_sdp"
        await a.create_channel("chat")
        await a.create_offer()
        with pytest.raises(NegotiationFailed) as failed:
            await a.accept_answer(sdp)
        assert failed.value.code == "bad_sdp"


@pytest.mark.parametrize(
    "candidate",
    [
        "candidate:",
        "x",
        "candidate:1 1 udp x 1.2.3.4 y typ host",
        "a b c d e f g h",
        "candidate:1 1 udp 1 a.example 1 typ host",
    ],
)
async def test_hostile_candidates_are_one_kind_of_failure(candidate: str) -> None:
    async with two_peers() as (a, b):
        await negotiate(a, b)
        with pytest.raises(NegotiationFailed) as failed:
            await a.add_candidate(CandidateInit(candidate, "0"))
        assert failed.value.code == "bad_candidate"


async def test_an_answer_out_of_turn_is_a_wrong_state() -> None:
    async with two_peers() as (a, b):
        await a.create_channel("chat")
        offer = await a.create_offer()
        await b.accept_offer(offer)
        answer = await b.create_answer()
        await a.accept_answer(answer)
        with pytest.raises(NegotiationFailed) as failed:
            await a.accept_answer(answer)
        assert failed.value.code == "wrong_state"
