"""Session: frames of the peer, and commands of `--stdin json`. Relay and connections are fakes, the clock jumps."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sdpx.errors import ExitStatus
from sdpx.events.webrtc import ConnectionState
from sdpx.ice_servers import IceServer
from sdpx.protocol.messages import (
    Candidate,
    CandidateInit,
    Description,
    ErrorFrame,
    IceServers,
    Paired,
    PeerDisconnected,
    Unpair,
    Unpaired,
)
from tests.harness.peer import OTHER_SDP, SDP, session

NOT_FOUND = ErrorFrame("target_not_found", "Client 'bob' is not connected", "bob", "pair_request")


# ---- frames ---------------------------------------------------------------------------------------------------------------


async def test_a_description_without_a_pairing_is_an_error(autojump_clock: MockClock) -> None:
    async with session() as peer:
        await peer.relay.say(Description("offer", SDP))
        assert peer.codes("negotiation_error") == ["not_ready"]


async def test_a_second_pairing_closes_the_first_connection(autojump_clock: MockClock) -> None:
    async with session() as peer:
        first = await peer.pair("one")
        second = await peer.pair("two")
        assert first.closed
        assert not second.closed
        assert "ready" not in peer.events


async def test_requests_that_cross_leave_the_pairing(autojump_clock: MockClock) -> None:
    """The wanted peer asked first: this side's own request is refused, and the program goes on."""
    async with session(pair="bob") as peer:
        await peer.relay.say(Paired("bob", is_initiator=False))
        await peer.relay.say(ErrorFrame("already_paired", "no", "bob", "pair_request"))
        assert peer.codes("server_error") == ["already_paired"]
        assert not peer.finished.is_set()
        assert not peer.pc.closed


async def test_a_further_offer_of_the_same_session_keeps_the_connection(autojump_clock: MockClock) -> None:
    """RFC 8829, 5.2.2: it renegotiates or restarts ICE, in both roles; an unusable one changes nothing."""
    for is_initiator in (True, False):
        async with session(timeout=2.0) as peer:
            first = await peer.pair(is_initiator=is_initiator)
            await peer.exchange()
            await first.open()
            before = len(peer.relay.sent)
            await peer.relay.say(Description("offer", SDP), Description("offer", "garbage"))
            (answer,) = peer.relay.sent[before:]
            assert isinstance(answer, Description)
            assert answer.type == "answer"
            assert not first.closed
            assert peer.codes("negotiation_error") == ["bad_sdp"]
            await trio.sleep(5)
            await peer.type("still here")
            assert first.sent == ["still here"]


async def test_crossing_offers_are_resolved_for_a_polite_and_an_impolite_peer(autojump_clock: MockClock) -> None:
    """The peer under test gives up its own offer, unless the other gives up and answers it (RFC 8829, 4.1.10.2)."""
    async with session() as peer:
        polite = await peer.pair()
        await peer.relay.say(Description("offer", OTHER_SDP), Description("answer", SDP))
        await trio.sleep(1)
        assert not polite.closed
    async with session() as peer:
        impolite = await peer.pair()
        candidate = CandidateInit("candidate:1 1 udp 1 192.0.2.9 9 typ host", "0", 0)
        await peer.relay.say(Description("offer", OTHER_SDP), Candidate(candidate))
        await trio.sleep(1)
        assert impolite.closed
        assert isinstance(peer.relay.sent[-1], Description)
        assert peer.relay.sent[-1].type == "answer"
        assert candidate in peer.pc.candidates
        await peer.pc.open()
        assert "negotiation_error" not in peer.events


async def test_an_answer_that_rejects_the_data_section_ends_the_attempt_at_once(autojump_clock: MockClock) -> None:
    """No other attempt follows, and no event says that the answer did not come."""
    async with session(pair="bob", timeout=9.0) as peer:
        await peer.pair()
        await peer.relay.say(Description("answer", SDP.replace("m=application 9", "m=application 0")))
        assert await peer.ended() == ExitStatus.NO_CONNECTION.value
        assert peer.codes("negotiation_error") == peer.codes("diagnosis") == ["data_rejected"]


async def test_a_refused_offer_is_the_cause_at_the_deadline(autojump_clock: MockClock) -> None:
    async with session(timeout=2.0) as peer:
        await peer.pair(is_initiator=False)
        await peer.relay.say(Description("offer", SDP.replace("a=setup:active", "a=setup:holdconn")))
        (error,) = peer.log.of("negotiation_error")
        assert "RFC 4145" in error["message"]
        await trio.sleep(3)
        assert peer.codes("negotiation_error") == ["bad_sdp"]
        assert peer.codes("diagnosis") == ["bad_description"]


async def test_a_further_offer_has_a_connection_and_a_deadline_of_its_own(autojump_clock: MockClock) -> None:
    """One of another session, however long the first connection was up; with `--once` its end is not the program's."""
    async with session(timeout=2.0, once=True) as peer:
        first = await peer.pair(is_initiator=False)
        await peer.exchange()
        await first.open()
        await trio.sleep(5)
        await peer.relay.say(Description("offer", OTHER_SDP))
        assert first.closed
        assert peer.pc is not first
        await trio.sleep(1)
        await peer.pc.open()
        peer.pc.fake_channels.answers = True
        await peer.relay.lose()
        await trio.sleep(5)
        assert "diagnosis" not in peer.events
        await peer.type("still here")
        assert peer.pc.sent == ["still here"]
        await peer.pc.close_channel()
        assert await peer.ended() == 0


async def test_renewed_ice_servers_are_for_the_next_pairing(autojump_clock: MockClock) -> None:
    async with session() as peer:
        await peer.relay.say(IceServers([{"urls": "stun:192.0.2.9:3478"}]))
        pc = await peer.pair()
        assert pc.servers == [IceServer("stun", "192.0.2.9", 3478)]


async def test_a_pairing_took_the_time_since_this_side_was_free_or_asked(autojump_clock: MockClock) -> None:
    async with session(stdin="json") as peer:
        await trio.sleep(2)
        pc = await peer.open()
        await trio.sleep(5)
        await peer.relay.say(PeerDisconnected("bob", "left"))
        assert pc.closed
        await trio.sleep(3)
        await peer.open("carol")
        await peer.type({"unpair": True})
        await trio.sleep(7)
        await peer.type({"pair": "dave"})
        await trio.sleep(1)
        await peer.open("dave")
        await peer.type({"unpair": True})
        phases = [line["phases"]["pairing"] for line in peer.log.of("connection_summary")]
        assert phases == pytest.approx([2000, 3000, 1000])


# ---- commands -------------------------------------------------------------------------------------------------------------


async def test_a_program_pairs_sends_leaves_and_closes_by_commands(autojump_clock: MockClock) -> None:
    async with session(stdin="json") as peer:
        await peer.type("hello", {"pair": "bob"})
        assert peer.codes("input_rejected") == ["bad_json"]
        pc = await peer.open()
        await peer.type({"send": "grüß dich"}, {"send_base64": "AP8="}, {"pair": "carol"})
        assert pc.sent == ["grüß dich", b"\0\xff"]
        assert peer.codes("input_rejected")[1:] == ["already_paired"]
        await peer.type({"send": "bye"}, {"unpair": True})
        assert pc.sent[-1] == "bye"
        assert peer.log.of("ready")[0]["reason"] == "unpaired"
        assert peer.relay.sent[-1] == Unpair()
        await peer.relay.say(Unpaired("bob"))
        again = await peer.open()
        await peer.type({"send": "last words"}, {"close": True})
        assert await peer.ended() == 15  # "hello" was no command
        assert again.sent == ["last words"]


async def test_a_refused_request_does_not_end_a_program_controlled_by_commands(autojump_clock: MockClock) -> None:
    async with session(stdin="json") as peer:
        await peer.type({"pair": "bob"})
        await peer.relay.say(NOT_FOUND)
        assert peer.codes("server_error") == ["target_not_found"]
        await peer.type({"close": True})
        assert await peer.ended() == 0


async def test_close_before_the_expectation_is_met_is_no_success(autojump_clock: MockClock) -> None:
    async with session(stdin="json", expect="message") as peer:
        await peer.open()
        await peer.type({"close": True})
        assert await peer.ended() == 13


async def test_a_request_without_a_relay_is_rejected(autojump_clock: MockClock) -> None:
    async with session(stdin="json", connected=False) as peer:
        await peer.type({"pair": "bob"})
        assert peer.codes("input_rejected") == ["no_relay"]


async def test_a_message_for_one_peer_does_not_go_to_the_next(autojump_clock: MockClock) -> None:
    """Before the first pairing it waits; between two it is rejected."""
    async with session(stdin="json") as peer:
        await peer.type({"send": "first"}, {"pair": "bob"})
        bob = await peer.open()
        assert bob.sent == ["first"]
        await peer.type({"unpair": True}, {"send": "for bob"}, {"pair": "carol"})
        assert peer.codes("input_rejected") == ["not_paired"]
        carol = await peer.open("carol")
        await peer.type({"send": "for carol"})
        assert carol.sent == ["for carol"]


async def test_a_lost_relay_does_not_make_messages_wait_for_any_peer(autojump_clock: MockClock) -> None:
    """Without `--pair` no pairing is being requested then."""
    async with session(stdin="json") as peer:
        await peer.pair()
        await peer.relay.lose()
        await peer.type({"send": "for bob"})
        assert peer.codes("input_rejected") == ["not_paired"]


async def test_a_message_that_the_other_side_does_not_take_is_rejected(autojump_clock: MockClock) -> None:
    """RFC 8841, 6.1: the event has both sizes, and the next message is sent."""
    async with session() as peer:
        pc = await peer.open()
        pc.fake_channels.max_message_size = 10
        await peer.type("12345678901", "1234567890")
        assert pc.sent == ["1234567890"]
        (rejected,) = peer.log.of("input_rejected")
        assert (rejected["code"], "11 bytes" in rejected["message"], "takes 10" in rejected["message"]) == (
            *("too_long", True),
            True,
        )


@pytest.mark.parametrize("options", [{}, {"once": True}, {"expect": "channel"}])
async def test_a_connection_without_a_channel_fails_at_the_timeout(
    autojump_clock: MockClock, options: dict[str, Any]
) -> None:
    """The pairing is given back; the program ends if it needs the channel."""
    async with session(timeout=2.0, **options) as peer:
        await peer.pair(is_initiator=False)
        await peer.exchange()
        await peer.pc.connect()
        await trio.sleep(3)
        assert peer.codes("diagnosis") == ["no_channel"]
        assert peer.relay.sent[-1] == Unpair()
        assert ("ready" in peer.events) == ("expect" not in options)
        if "expect" in options:
            assert await peer.ended() == ExitStatus.NO_CONNECTION.value


async def test_a_peer_that_closes_its_connection_only_is_left(autojump_clock: MockClock) -> None:
    """A page may close its RTCPeerConnection and keep its WebSocket: the pairing is given back, unless it offers again."""
    async with session() as peer:
        pc = await peer.open()
        await pc.close_channel()
        await pc.emit(ConnectionState("closed"))
        await trio.sleep(6)
        assert peer.relay.sent[-1] == Unpair()
        assert peer.events[-1] == "ready"
        assert pc.closed


async def test_a_connection_that_has_lost_its_channel_is_left_at_the_timeout(autojump_clock: MockClock) -> None:
    async with session(timeout=9.0) as peer:
        pc = await peer.open()
        await pc.close_channel()
        await trio.sleep(8)
        assert not pc.closed
        await trio.sleep(2)
        assert peer.events[-1] == "ready"
