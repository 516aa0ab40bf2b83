"""PeerConnection: two real connections in one process, without a relay."""

import re

import pytest
import trio
import trio_asyncio

from sdpx.events import Event
from sdpx.events.webrtc import (
    AddressesSkipped,
    CandidateIgnored,
    ChannelClosed,
    ChannelOpen,
    ConnectionState,
    DataChannelError,
    IceConnectionState,
    SignalingState,
)
from sdpx.peer.negotiation.addresses import MAX_LOCAL, MAX_PAIRS
from sdpx.peer.negotiation.description import parse_description
from sdpx.peer.webrtc import aioice_ext, data_channel, versions
from sdpx.peer.webrtc.events import MessageReceived, NegotiationFailed, Overrun
from sdpx.peer.webrtc.peer_connection import host_addresses
from sdpx.peer.webrtc.runtime import in_asyncio
from sdpx.protocol.messages import CandidateInit
from tests.harness.peer_connections import negotiate, two_connections, until


async def test_two_peers_connect_and_exchange_messages() -> None:
    """After offer, answer, ICE, DTLS and SCTP the channel opens on both sides and carries text."""
    async with two_connections() as (a, b):
        await negotiate(a, b)
        opened = await until(a, ChannelOpen)
        assert opened == await until(b, ChannelOpen)
        assert isinstance(opened, ChannelOpen)
        assert opened.label == "chat"
        assert await a.channels.send("from a")
        assert await until(b, MessageReceived) == MessageReceived("from a")
        assert await b.channels.send("")
        assert await until(a, MessageReceived) == MessageReceived("")


async def test_state_changes_are_in_order() -> None:
    async with two_connections() as (a, b):
        await negotiate(a, b)
        seen: list[Event] = []
        while not isinstance(event := await a.events.receive(), ChannelOpen):
            assert isinstance(event, Event)
            seen.append(event)
    assert [each.state for each in seen if isinstance(each, ConnectionState)] == ["connecting", "connected"]
    assert [each.state for each in seen if isinstance(each, IceConnectionState)] == ["checking", "completed"]
    assert [each.state for each in seen if isinstance(each, SignalingState)] == ["have-local-offer", "stable"]


async def test_finish_waits_until_the_peer_has_all_messages() -> None:
    """The messages sent before the channel is closed arrive before its close."""
    async with two_connections() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpen)
        for number in range(200):
            await a.channels.send(f"{number} " + "x" * 1000)
        await a.channels.finish()
        await a.close()
        received = []
        while not isinstance(event := await b.events.receive(), ChannelClosed):
            if isinstance(event, MessageReceived):
                received.append(event.data)
    assert len(received) == 200


async def test_a_burst_of_messages_is_held_back_and_loses_none() -> None:
    """The receive window closes (RFC 9260, 6.2) while they are not released; the sender goes on when it opens again."""
    async with two_connections() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpen)
        await until(b, ChannelOpen)
        count, window = 3000, 100_000
        b._pc.sctp._advertised_rwnd = window  # type: ignore[union-attr]

        async def burst() -> None:
            for number in range(count):
                await in_asyncio(a.channels._open[0].send, f"{number:020}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(burst)
            held = -1
            while b.channels._held != held or not held:
                held = b.channels._held
                await trio.sleep(0.3)
            assert window <= held < window + 100
            assert a.channels.unacknowledged()[0] > 0
            for number in range(count):
                event = await until(b, MessageReceived)
                assert event == MessageReceived(f"{number:020}")
                b.channels.release(f"{number:020}")
        assert b.channels._held == 0


async def test_nothing_is_delivered_after_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `flow_control` a sender is cut off at a bound."""
    monkeypatch.setattr(versions, "fits", lambda feature: feature != "flow_control")
    monkeypatch.setattr(data_channel, "HELD_BYTES", 10_000)
    async with two_connections() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpen)
        for number in range(20):
            await a.channels.send(f"{number} " + "x" * 1000)
        await until(b, Overrun)
        await a.channels.finish()
        assert not isinstance(await until(b, (MessageReceived, ChannelClosed)), MessageReceived)


async def test_send_without_an_open_channel_returns_false() -> None:
    async with two_connections() as (a, _):
        assert not await a.channels.send("x")


async def test_close_works_in_a_cancelled_scope_and_twice() -> None:
    """The second close does nothing; the events end."""
    async with two_connections() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpen)
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.close()
        await a.close()
        events = [event async for event in a.events]
        assert ConnectionState("closed") in events


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
async def test_a_hostile_candidate_is_bad_candidate(candidate: str) -> None:
    async with two_connections() as (a, b):
        await negotiate(a, b)
        with pytest.raises(NegotiationFailed) as failed:
            await a.add_candidate(CandidateInit(candidate, "0"))
        assert failed.value.code == "bad_candidate"


async def test_a_second_answer_is_wrong_state() -> None:
    async with two_connections() as (a, b):
        await a.channels.create("chat")
        await b.accept_offer(parse_description(await a.create_offer(), "offer"))
        answer = parse_description(await b.create_answer(), "answer")
        await a.accept_answer(answer)
        with pytest.raises(NegotiationFailed) as failed:
            await a.accept_answer(answer)
        assert failed.value.code == "wrong_state"


async def test_descriptions_have_one_fingerprint() -> None:
    """By SHA-256, as those of browsers: with several ones libdatachannel sometimes rejects the certificate."""
    async with two_connections() as (a, b):
        await a.channels.create("chat")
        offer = await a.create_offer()
        await b.accept_offer(parse_description(offer, "offer"))
        for text in (offer, await b.create_answer()):
            assert re.findall("a=fingerprint:([^ ]+)", text) == ["sha-256"]


OPUS = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
AV1 = "m=video 9 UDP/TLS/RTP/SAVPF 45\r\na=mid:v\r\na=rtcp-mux\r\na=rtpmap:45 AV1/90000\r\n"


@pytest.mark.parametrize("media", [[OPUS], [AV1], [AV1, OPUS], ["m=text 9 TCP/MSRP *\r\na=mid:t\r\n"]])
async def test_a_data_channel_opens_beside_any_media(media: list[str]) -> None:
    """An offer may have audio, video and unknown sections before its data section."""
    async with two_connections() as (a, b):
        await a.channels.create("chat")
        offer = await a.create_offer()
        head, _, data = offer.partition("m=application")
        shared = ("a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=setup")
        transport = "".join(f"{line}\r\n" for line in data.splitlines() if line.startswith(shared))
        candidates = [line for line in data.splitlines() if line.startswith("a=candidate:")]
        front = "".join(section + transport for section in media)
        mids = [line.removeprefix("a=mid:") for line in front.splitlines() if line.startswith("a=mid:")]
        bundled = head.replace("BUNDLE 0", f"BUNDLE {' '.join(mids)} 0")
        await b.accept_offer(parse_description(f"{bundled}{front}m=application{data}", "offer"))
        for candidate in candidates:
            await b.add_candidate(CandidateInit(candidate, mids[0], 0))
        answer = await b.create_answer()
        assert answer.count("m=") == len(media) + 1
        await a.accept_answer(parse_description(answer, "answer"))
        await until(a, ChannelOpen)


async def test_candidates_that_another_party_could_suffer_from_get_no_checks() -> None:
    """Each is an event; beyond 100 candidates one event says that no more are used. There are at most 100 pairs."""
    async with two_connections() as (a, b):
        await negotiate(a, b)
        for address, port in (("224.0.0.1", 5000), ("169.254.169.254", 5000), ("192.0.2.9", 53)):
            await b.add_candidate(CandidateInit(f"candidate:1 1 udp 1 {address} {port} typ host", "0"))
        for number in range(200):
            await b.add_candidate(CandidateInit(f"candidate:1 1 udp 1 198.51.100.{number + 1} 5000 typ host", "0"))
        assert b.pair_count is not None
        assert b.pair_count <= MAX_PAIRS
        await b.close()
        notes = [event.message() async for event in b.events if isinstance(event, CandidateIgnored)]
        words = [
            word
            for word in ("multicast", "link-local", "port 53", "more than 100")
            if any(word in each for each in notes)
        ]
        assert words == ["multicast", "link-local", "port 53", "more than 100"]
        assert len(notes) == 4


async def test_a_machine_with_hundreds_of_addresses_uses_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says how many."""
    address = host_addresses()[0]
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: [address] * 260)
    monkeypatch.setattr(aioice_ext, "interfaces", lambda: [("eth0", [address] * 260)])
    async with two_connections() as (a, _):
        await a.channels.create("chat")
        assert (await a.create_offer()).count("a=candidate:") == MAX_LOCAL
        assert await until(a, AddressesSkipped) == AddressesSkipped(MAX_LOCAL, 260 - MAX_LOCAL)


async def test_every_channel_has_its_events_and_the_next_one_takes_over() -> None:
    """Messages on another channel than the first have its label; they can be sent to a label."""
    async with two_connections() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpen)
        await a.channels.create("second")
        first, second = await until(b, ChannelOpen), await until(b, ChannelOpen)
        assert isinstance(first, ChannelOpen)
        assert isinstance(second, ChannelOpen)
        assert (first.label, second.label, second.id) == ("chat", "second", (first.id or 0) + 2)
        await until(a, ChannelOpen)
        assert await a.channels.send("x", "second")
        assert await until(b, MessageReceived) == MessageReceived("x", "second")
        assert not await a.channels.send("x", "third")
        await in_asyncio(a.channels._open[0].close)
        assert await until(b, ChannelClosed) == ChannelClosed("chat", first.id)
        assert await until(a, ChannelClosed) == ChannelClosed("chat", first.id)
        assert await b.channels.send("y")
        assert await until(a, MessageReceived) == MessageReceived("y")


async def test_faulty_messages_are_noted_and_the_channel_stays_open() -> None:
    """RFC 8832: opened twice, acknowledged on an unknown stream, truncated; texts and labels that are not UTF-8."""
    async with two_connections() as (a, b):
        await negotiate(a, b)
        await until(a, ChannelOpen)
        sctp, stream = a._pc.sctp, a.channels._open[0].id
        assert sctp is not None
        open_again = bytes.fromhex("030000000000000000040000") + b"chat"
        for number, kind, data in (
            *((stream, 51, b"t\xe9"), (stream, 50, open_again), (40, 50, b"\x02"), (42, 50, open_again[:14])),
            (44, 50, open_again[:12] + b"\xff\xff\xff\xff"),
        ):
            await trio_asyncio.aio_as_trio(sctp._send)(number, kind, data)
        assert await a.channels.send("after")
        notes = []
        while not isinstance(event := await b.events.receive(), MessageReceived):
            if isinstance(event, DataChannelError):
                notes.append(event.message())
        assert event == MessageReceived("after")
        words = ("text that is not UTF-8", "open already", "does not exist", "truncated", "label that is not UTF-8")
        assert [word in note for word, note in zip(words, notes, strict=True)] == [True] * 5
