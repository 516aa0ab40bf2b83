"""Session, from the first message of the relay to the exit status: relay and connections are fakes, the clock jumps."""

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.errors import Ending, ExitStatus
from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation.confirmation import Receipt
from sdpx.peer.webrtc.events import Overrun, StateChanged
from sdpx.protocol.messages import (
    Candidate,
    CandidateInit,
    Description,
    ErrorFrame,
    IceServers,
    Paired,
    PairRequest,
    PeerDisconnected,
    Unpair,
    Unpaired,
)
from tests.harness.peer import OTHER_SDP, SDP, SessionHarness, session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NOT_FOUND = ErrorFrame("target_not_found", "Client 'bob' is not connected", "bob", "pair_request")
LOST = Ending("relay_lost", "The connection to the relay was lost", ExitStatus.RELAY)


def verdict(peer: SessionHarness, code: str, status: int) -> None:
    """Check the one diagnosis, and that the program ended with it."""
    assert peer.codes("diagnosis") == [code]
    assert peer.ending is not None
    assert (peer.ending.code, peer.ending.status) == (code, status)
    assert peer.ending.reason == peer.log.of("diagnosis")[0]["message"]


# ---- the relay ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["unauthorized", "full"])
async def test_a_relay_that_refuses_the_peer_ends_it_with_the_relays_code(code: str, autojump_clock: MockClock) -> None:
    async with session(connected=False, pair="bob") as peer:
        await peer.relay.stop(Ending(code, "Not you", ExitStatus.REFUSED))
        assert await peer.ended() == 6
        assert peer.ending is not None
        assert (peer.ending.code, peer.ending.reason) == (code, "Not you")


async def test_a_relay_that_is_not_reached_within_the_time_is_unreachable(autojump_clock: MockClock) -> None:
    async with session(connected=False, expect="channel", within=5.0) as peer:
        began = trio.current_time()
        assert await peer.ended() == 3
        assert peer.ending is not None
        assert peer.ending.code == "relay_unreachable"
        assert trio.current_time() - began == 5


async def test_a_relay_that_is_lost_ends_a_peer_that_may_not_reconnect(autojump_clock: MockClock) -> None:
    async with session(reconnect=False) as peer:
        await peer.relay.lose()
        await peer.relay.stop(LOST)
        assert await peer.ended() == 3


async def test_an_open_channel_outlives_the_relay_and_then_the_program_ends(autojump_clock: MockClock) -> None:
    """Status 3 once the channel closes; messages went both ways meanwhile."""
    async with session(reconnect=False) as peer:
        pc = await peer.open()
        await peer.relay.lose()
        await peer.relay.stop(LOST)
        await peer.type("without a relay")
        assert pc.sent == ["without a relay"]
        await pc.close_channel()
        assert await peer.ended() == 3


async def test_once_is_successful_when_the_channel_closes_after_the_relay_is_gone(autojump_clock: MockClock) -> None:
    async with session(reconnect=False, once=True) as peer:
        pc = await peer.open()
        await peer.relay.lose()
        await peer.relay.stop(LOST)
        await pc.close_channel()
        assert await peer.ended() == 0


async def test_a_lost_relay_ends_a_pairing_without_a_channel_and_pair_asks_again(autojump_clock: MockClock) -> None:
    async with session(pair="bob") as peer:
        await peer.pair()
        await peer.relay.lose()
        assert peer.pc.closed
        assert peer.log.of("ready")[0]["reason"] == "relay_lost"
        assert peer.requests == ["bob"]
        await peer.relay.connect()
        assert peer.requests == ["bob", "bob"]


async def test_a_relay_without_an_answer_is_dropped_and_asked_again(autojump_clock: MockClock) -> None:
    async with session(pair="bob") as peer:
        await trio.sleep(10.5)
        assert peer.relay.drops == 1
        assert peer.requests == ["bob", "bob"]
        assert not peer.finished.is_set()


async def test_a_relay_without_an_answer_ends_a_peer_that_may_not_reconnect(autojump_clock: MockClock) -> None:
    async with session(pair="bob", reconnect=False) as peer:
        assert await peer.ended() == 3
        assert peer.relay.drops == 1


# ---- requests -----------------------------------------------------------------------------------------------------------


async def test_a_refusal_ends_a_peer_with_pair_and_names_the_remedy(autojump_clock: MockClock) -> None:
    async with session(pair="bob") as peer:
        await peer.relay.say(NOT_FOUND)
        assert await peer.ended() == 4
        assert peer.ending is not None
        assert peer.ending.code == "target_not_found"
        assert peer.ending.reason == "No client 'bob' is connected: start it first, or use --wait 30"
        assert peer.codes("server_error") == ["target_not_found"]


async def test_wait_has_an_end(autojump_clock: MockClock) -> None:
    """The pairing is requested again and again, and the last refusal counts."""
    async with session(pair="bob", wait=8.0) as peer:
        began = trio.current_time()
        while not peer.finished.is_set():
            answered = len(peer.requests)
            await peer.relay.say(NOT_FOUND)
            while len(peer.requests) == answered and not peer.finished.is_set():
                await trio.sleep(0.01)
        assert await peer.ended() == 4
        assert len(peer.requests) > 3
        assert trio.current_time() - began == pytest.approx(8, abs=0.1)


async def test_wait_ends_with_the_pairing(autojump_clock: MockClock) -> None:
    async with session(pair="bob", wait=20.0) as peer:
        await peer.relay.say(NOT_FOUND)
        assert peer.log.of("pair_retry_scheduled")[0]["code"] == "target_not_found"
        await peer.pair(is_initiator=False)
        await trio.sleep(30)
        assert peer.requests == ["bob"]


async def test_a_typed_id_is_requested_and_later_lines_are_messages(autojump_clock: MockClock) -> None:
    async with session() as peer:
        await peer.type("no spaces", "bob")
        assert peer.codes("input_rejected") == ["bad_id"]
        assert peer.requests == ["bob"]
        pc = await peer.open()
        await peer.type("hello", "")
        assert pc.sent == ["hello", ""]
        await peer.relay.say(PeerDisconnected("bob", "left"))
        await peer.type("carol")
        assert peer.requests == ["bob", "carol"]


# ---- what is expected -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_initiator", [True, False])
@pytest.mark.parametrize("expected", ["exchange", "connected", "channel", "message"])
async def test_a_peer_ends_successfully_as_soon_as_it_has_what_it_expects(
    expected: str, is_initiator: bool, autojump_clock: MockClock
) -> None:
    async with session(expect=expected) as peer:
        pc = await peer.pair(is_initiator=is_initiator)
        steps: list[Callable[[], Awaitable[None]]] = [peer.exchange, pc.connect, pc.open, lambda: pc.receive("hello")]
        for phase, step in zip(["exchange", "connected", "channel", "message"], steps, strict=True):
            assert not peer.finished.is_set(), phase
            await step()
            if phase == expected:
                break
        assert await peer.ended() == 0
        assert ("connection_summary" in peer.events) == (expected != "exchange")


async def test_once_and_expect_send_everything_and_wait_for_the_reply(autojump_clock: MockClock) -> None:
    """`echo ping | sdpx peer --once --expect message`."""
    async with session(pair="bob", once=True, expect="message") as peer:
        await peer.type("ping")
        peer.lines.end()
        pc = await peer.open()
        await trio.sleep(60)
        assert pc.sent == ["ping"]
        assert not peer.finished.is_set()
        await pc.receive("pong")
        assert await peer.ended() == 0


async def test_no_peer_comes_within_the_time(autojump_clock: MockClock) -> None:
    async with session(expect="channel", within=1.0) as peer:
        assert await peer.ended() == 13
        assert peer.ending is not None
        assert "no peer was paired" in peer.ending.reason


async def test_the_wanted_peer_does_not_come_within_the_time(autojump_clock: MockClock) -> None:
    """The relay's refusal says more than that the time is over."""
    async with session(pair="bob", wait=30.0, expect="channel", within=0.1) as peer:
        await peer.relay.say(NOT_FOUND)
        assert await peer.ended() == 4


async def test_no_message_comes_within_the_time(autojump_clock: MockClock) -> None:
    """The channel was open, and that was not enough."""
    async with session(expect="message", within=3.0) as peer:
        await peer.open()
        assert await peer.ended() == 13
        assert peer.ending is not None
        assert "before a message came; the connection to bob was up" in peer.ending.reason
        assert "diagnosis" not in peer.events
        assert "connection_summary" in peer.events


async def test_the_phase_that_failed_has_its_status_also_when_within_ends_it(autojump_clock: MockClock) -> None:
    async with session(pair="bob", expect="channel", within=1.5) as peer:
        await peer.pair()
        assert await peer.ended() == 8
        verdict(peer, "no_answer", 8)


@pytest.mark.parametrize("paired", [False, True])
async def test_a_program_that_is_ended_before_is_no_success(paired: bool, autojump_clock: MockClock) -> None:
    """The sentence is about the pairing that there was, although that is over by then."""
    async with session(expect="channel") as peer, trio.open_nursery() as nursery:
        if paired:
            await peer.pair()
        peer.session._scope.cancel()
        await peer.finished.wait()
        with pytest.raises(Ending) as caught:
            peer.session.check("SIGTERM")
        assert "ended by SIGTERM" in caught.value.reason
        assert ("no answer had come from bob" if paired else "no peer was paired") in caught.value.reason
        nursery.cancel_scope.cancel()


# ---- ends of a pairing ----------------------------------------------------------------------------------------------------


async def test_a_peer_that_leaves_before_there_is_a_connection(autojump_clock: MockClock) -> None:
    """Status 7 with `--pair`; else the next pairing is possible."""
    async with session(pair="bob") as peer:
        await peer.pair()
        await peer.relay.say(PeerDisconnected("bob", "left"))
        assert await peer.ended() == 7
        verdict(peer, "pairing_lost", 7)
    async with session() as peer:
        await peer.pair()
        await peer.relay.say(PeerDisconnected("bob", "left"))
        assert peer.codes("diagnosis") == ["pairing_lost"]
        await peer.open("carol")
        assert not peer.finished.is_set()


@pytest.mark.parametrize(
    ("options", "status"), [({"pair": "bob"}, 8), ({"expect": "channel"}, 8), ({"once": True}, None), ({}, None)]
)
@pytest.mark.parametrize(("is_initiator", "code"), [(True, "no_answer"), (False, "no_offer")])
async def test_no_description_comes_in_time(
    options: dict[str, Any], status: int | None, is_initiator: bool, code: str, autojump_clock: MockClock
) -> None:
    """One attempt; this side leaves the pairing, and is ready unless it needs it."""
    async with session(timeout=2.0, **options) as peer:
        began = trio.current_time()
        await peer.pair(is_initiator=is_initiator)
        await peer.log.wait_for("diagnosis")
        await wait_all_tasks_blocked()
        assert trio.current_time() - began == 2
        assert peer.relay.sent[-1] == Unpair()
        assert "connection_retry" not in peer.events
        error = peer.log.of("negotiation_error")[0]
        assert (error["type"], error["code"]) == (code.removeprefix("no_"), "timeout")
        if status is None:
            assert peer.log.of("ready")[0]["reason"] == "failed"
        else:
            assert await peer.ended() == status
            verdict(peer, code, status)


async def test_once_ends_when_the_channel_closes(autojump_clock: MockClock) -> None:
    async with session(once=True) as peer:
        pc = await peer.open()
        await pc.close_channel()
        assert await peer.ended() == 0


async def test_once_ends_when_the_input_is_sent(autojump_clock: MockClock) -> None:
    async with session(once=True, pair="bob") as peer:
        await peer.type("a", "b")
        peer.lines.end()
        pc = await peer.open()
        assert await peer.ended() == 0
        assert pc.sent == ["a", "b"]


async def test_once_ends_when_the_other_sdpx_has_confirmed_all(autojump_clock: MockClock) -> None:
    async with session(once=True, pair="bob") as peer:
        await peer.type("a", "b")
        peer.lines.end()
        pc = await peer.open(sdpx=True)
        await pc.confirm(2, 1)
        assert not peer.finished.is_set()
        await pc.confirm(2)
        assert await peer.ended() == 0
        assert "messages_unconfirmed" not in peer.events


async def test_once_gives_up_when_nothing_is_confirmed_for_the_timeout(autojump_clock: MockClock) -> None:
    """Heartbeats without progress are not enough; the event says what is in doubt."""
    async with session(once=True, pair="bob", timeout=10.0) as peer:
        await peer.type("a", "bb")
        peer.lines.end()
        pc = await peer.open(sdpx=True)
        began = trio.current_time()
        for _ in range(5):
            await trio.sleep(1)
            await pc.confirm(1)
        while not peer.finished.is_set():
            await pc.confirm(1)
            await trio.sleep(0.5)
        assert 10 <= trio.current_time() - began < 17
        assert await peer.ended() == 12
        verdict(peer, "unconfirmed", 12)
        event = peer.log.of("messages_unconfirmed")[0]
        assert (event["messages"], event["bytes"]) == (1, 2)


async def test_close_with_unconfirmed_messages_is_no_success(autojump_clock: MockClock) -> None:
    """Where the other side is no sdpx, its SCTP counts."""
    for doubtful, status in (((0, 0), 0), ((3, 300), 12)):
        async with session(stdin="json", timeout=10.0) as peer:
            pc = await peer.open()
            pc.fake_channels.doubtful = doubtful
            await peer.type({"send": "a"}, {"close": True})
            assert await peer.ended() == status
            assert [line["messages"] for line in peer.log.of("messages_unconfirmed")] == [3] * (status > 0)


async def test_a_message_picks_its_channel_by_label(autojump_clock: MockClock) -> None:
    """One that no open channel has is rejected, after a moment in which it may open; the next messages go out."""
    async with session(stdin="json") as peer:
        pc = await peer.open()
        await peer.type(
            {"send": "a", "channel": "chat"}, {"send": "b", "channel": "robot"}, {"send": "c"}, {"close": True}
        )
        assert await peer.ended() == 15
        assert pc.sent == ["a", "c"]
        assert [line["code"] for line in peer.log.of("input_rejected")] == ["not_open"]


async def test_a_close_before_the_acknowledgement_is_no_success_for_once(autojump_clock: MockClock) -> None:
    """Another stack may delay its acknowledgement (RFC 9260, 6.2) and close meanwhile: the message may be lost."""
    async with session(once=True, pair="bob") as peer:
        pc = await peer.open()
        await peer.type("a")
        pc.fake_channels.doubtful = (1, 1)
        await pc.close_channel()
        assert await peer.ended() == 12
        assert [line["messages"] for line in peer.log.of("messages_unconfirmed")] == [1]


@pytest.mark.parametrize("once", [False, True])
async def test_a_signal_with_unconfirmed_messages_is_no_success(once: bool, autojump_clock: MockClock) -> None:
    """The other side has a second for the confirmation; the event and the status follow without it."""
    for confirmed, status in ((True, None), (False, 12)):
        async with session(once=once) as peer:
            pc = await peer.open(sdpx=True)
            await peer.type("a")
            peer.session._scope.cancel()
            await wait_all_tasks_blocked()
            if confirmed:
                await pc.confirm(1)
            await peer.finished.wait()
            assert len(peer.log.of("messages_unconfirmed")) == (not confirmed)
            assert (peer.ending and peer.ending.status) == status


async def test_input_that_was_read_and_not_sent_is_no_success(autojump_clock: MockClock) -> None:
    """It waits for a channel that never opens."""
    for stdin, line in (("lines", "a"), ("json", '{"send": "a"}')):
        async with session(stdin=stdin, pair="bob") as peer:
            await peer.type(line)
            peer.session._scope.cancel()
            assert await peer.ended() == 12
            assert peer.codes("input_rejected") == ["not_sent"]


async def test_messages_of_an_earlier_pairing_count_at_the_end(autojump_clock: MockClock) -> None:
    async with session() as peer:
        pc = await peer.open(sdpx=True)
        await peer.type("a")
        await pc.close_channel()
        await peer.relay.say(PeerDisconnected("bob", "closed"))
        await peer.log.wait_for("ready")
        peer.session._scope.cancel()
        assert await peer.ended() == 12
        assert "bob has not confirmed" in str(peer.ending)


async def test_a_message_that_waits_for_an_earlier_one_is_kept(autojump_clock: MockClock) -> None:
    """The next connection has not begun with what the earlier one lost when the pairing ends."""
    async with session(stdin="json", timeout=5.0) as peer:
        await peer.open(sdpx=True)
        await peer.type({"send": "a"})
        await peer.log.wait_for("connection_retry")
        await peer.relay.say(Description("answer", SDP, agent="sdpx/1"))
        await peer.pc.open()
        await peer.type({"send": "b"})
        assert peer.pc.sent == []
        await peer.type({"close": True})
        assert await peer.ended() == 12
        assert [line["messages"] for line in peer.log.of("messages_unconfirmed")] == [1]
        assert peer.codes("input_rejected") == ["not_sent"]


async def test_a_departure_with_unconfirmed_messages_is_no_success_for_once(autojump_clock: MockClock) -> None:
    async with session(once=True, pair="bob") as peer:
        pc = await peer.open(sdpx=True)
        await peer.type("a")
        await pc.close_channel()
        assert await peer.ended() == 12
        assert "unconfirmed" in str(peer.ending)


async def test_next_connection_begins_with_what_was_not_received(autojump_clock: MockClock) -> None:
    """The counts go on from one connection to the next."""
    async with session(pair="bob") as peer:
        first = await peer.open(sdpx=True)
        await peer.type("a", "b", "c", "d")
        await first.confirm(2, 1)
        await peer.log.wait_for("connection_retry")
        await peer.relay.say(Description("answer", SDP, agent="sdpx/1"))
        second = peer.pc
        await second.open()
        await peer.type("e")
        assert second.sent == []
        await second.confirm(3, 2)
        assert second.sent == ["d", "e"]
        await second.confirm(5)
        await peer.type("f")
        assert second.sent == ["d", "e", "f"]


async def test_messages_that_no_later_connection_carries_are_counted_once(autojump_clock: MockClock) -> None:
    async with session(pair="bob", timeout=5.0) as peer:
        await peer.open(sdpx=True)
        await peer.type("a", "b")
        await peer.log.wait_for("connection_retry")
        assert await peer.ended() == 12
        [event] = peer.log.of("messages_unconfirmed")
        assert (event["messages"], event["bytes"]) == (2, 2)


async def test_receipts_count_what_was_received_and_written(autojump_clock: MockClock) -> None:
    async with session() as peer:
        pc = await peer.open(sdpx=True)
        assert pc.fake_channels.receipts == [Receipt(0, 0)]
        written, peer.log.on_written = peer.log.on_written, None
        await pc.receive("a", "b")
        await trio.sleep(1.1)
        assert pc.fake_channels.receipts[-1] == Receipt(2, 0)
        assert written is not None
        written(2)
        await wait_all_tasks_blocked()
        assert pc.fake_channels.receipts[-1] == Receipt(2, 2)


async def test_any_packet_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    """A slow path carries nothing but fragments of data for a while."""
    async with session(pair="bob", retries=0) as peer:
        pc = await peer.open(sdpx=True)
        for _ in range(20):
            await trio.sleep(0.5)
            pc.fake_channels.last_packet = trio.current_time()
        assert "diagnosis" not in peer.events
        assert await peer.ended() == 12
        verdict(peer, "peer_silent", 12)


async def test_an_overrun_ends_the_connection(autojump_clock: MockClock) -> None:
    async with session(pair="bob") as peer:
        pc = await peer.open()
        await pc.emit(Overrun())
        assert await peer.ended() == 12
        verdict(peer, "receiver_overrun", 12)


async def test_once_with_input_left_is_no_success(autojump_clock: MockClock) -> None:
    async with session(once=True, pair="bob") as peer:
        pc = await peer.open()
        await pc.close_channel()
        assert await peer.ended() == 0
    async with session(once=True, pair="bob") as peer:
        pc = await peer.open()
        pc.fake_channels.is_open = False  # it takes nothing any more
        await peer.type("a")
        pc.fake_channels.is_open = True
        await pc.close_channel()
        assert await peer.ended() == 12
        assert "input was left unsent" in str(peer.ending)


async def test_a_killed_peer_is_no_success_for_once(autojump_clock: MockClock) -> None:
    """Its socket broke, which its channel outlives; it does not answer for `--timeout`, and is no sdpx."""
    async with session(once=True, timeout=20.0) as peer:
        await peer.open()
        began = trio.current_time()
        await peer.relay.say(PeerDisconnected("bob", "closed"))
        assert await peer.ended() == 12
        assert 19 < trio.current_time() - began < 23
        verdict(peer, "peer_silent", 12)


async def test_the_channel_of_a_peer_that_leaves_closes_a_moment_later(autojump_clock: MockClock) -> None:
    async with session(once=True) as peer:
        pc = await peer.open()
        peer.relay._send_event.send_nowait(PeerDisconnected("bob", "left"))
        await trio.sleep(0.5)
        await pc.close_channel()
        assert await peer.ended() == 0


async def test_an_answer_that_came_before_the_departure_is_used(autojump_clock: MockClock) -> None:
    async with session(expect="exchange") as peer:
        await peer.pair()
        peer.relay._send_event.send_nowait(Description("answer", SDP))
        peer.relay._send_event.send_nowait(PeerDisconnected("bob", "left"))
        assert await peer.ended() == 0


# ---- detached pairings ------------------------------------------------------------------------------------------------------


async def test_a_detached_pairing_declines_another_until_its_channel_closes(autojump_clock: MockClock) -> None:
    async with session() as peer:
        pc = await peer.open()
        await peer.relay.lose()
        await peer.relay.connect()
        await peer.relay.say(Paired("carol", is_initiator=False))
        declined = peer.log.of("pairing_declined")
        assert [(line["peer_id"], line["present_peer_id"]) for line in declined] == [("carol", "bob")]
        assert peer.relay.sent[-1] == Unpair()
        assert not pc.closed
        await pc.close_channel()
        assert peer.log.of("ready")[0]["reason"] == "relay_lost"
        assert await peer.pair("carol") is not pc
        assert not peer.finished.is_set()


async def test_a_detached_pairing_gives_way_to_a_new_one_with_the_same_peer(autojump_clock: MockClock) -> None:
    async with session() as peer:
        pc = await peer.open()
        await peer.relay.lose()
        await peer.relay.connect()
        again = await peer.open()
        assert pc.closed
        assert not again.closed
        assert peer.events.index("closed") < peer.events.index("paired", peer.events.index("paired") + 1)


@pytest.mark.parametrize(("reason", "sdpx"), [("shutdown", False), ("closed", False), ("timeout", True)])
async def test_a_pairing_is_detached_when_only_the_peers_socket_is_gone(
    reason: str, sdpx: bool, autojump_clock: MockClock
) -> None:
    async with session() as peer:
        pc = await peer.open(sdpx=sdpx)
        await peer.relay.say(PeerDisconnected("bob", reason))
        assert not pc.closed
        await pc.close_channel()
        assert peer.log.of("ready")[0]["reason"] == reason


async def test_pair_asks_again_once_a_detached_peer_is_silent(autojump_clock: MockClock) -> None:
    """Three seconds without a beat: the peer is gone, and with it the pairing that the relay connection was lost under."""
    async with session(pair="bob") as peer:
        await peer.open(sdpx=True)
        await peer.relay.lose()
        diagnosis = await peer.log.wait_for("diagnosis")
        assert (diagnosis["code"], diagnosis["retrying"]) == ("peer_silent", False)
        assert diagnosis["silent_ms"] >= 3000
        await peer.log.wait_for("ready", reason="failed")
        await peer.relay.connect()
        assert peer.requests == ["bob", "bob"]


async def test_a_silent_peer_is_offered_a_new_connection(autojump_clock: MockClock) -> None:
    """On the same pairing; without retries it is the end."""
    async with session(pair="bob") as peer:
        await peer.open(sdpx=True)
        assert (await peer.log.wait_for("diagnosis"))["retrying"] is True
        await peer.log.wait_for("connection_retry", attempt=1)
        await wait_all_tasks_blocked()
        assert [type(frame) for frame in peer.relay.sent] == [PairRequest, Description, Description]
    async with session(pair="bob", retries=0) as peer:
        await peer.open(sdpx=True)
        assert await peer.ended() == 12
        verdict(peer, "peer_silent", 12)


async def test_a_receiver_waits_for_the_offer_of_a_silent_peer(autojump_clock: MockClock) -> None:
    async with session(pair="bob", timeout=20.0) as peer:
        pc = await peer.pair(is_initiator=False)
        await peer.relay.say(Description("offer", SDP, agent="sdpx/1"))
        await pc.open()
        assert (await peer.log.wait_for("diagnosis"))["retrying"] is True
        await wait_all_tasks_blocked()
        assert pc.closed
        await peer.relay.say(Description("offer", SDP, agent="sdpx/1"))
        assert peer.pc is not pc
        await peer.pc.open()
        await peer.pc.emit(StateChanged("connectionState", "failed"))
        assert await peer.ended() == 12  # no offer came in time


async def test_no_connection_comes_in_time(autojump_clock: MockClock) -> None:
    """Both descriptions are there, and ICE is still checking."""
    async with session(pair="bob", timeout=2.0, retries=0) as peer:
        await peer.pair()
        await peer.exchange()
        assert await peer.ended() == 10
        verdict(peer, "ice_failed", 10)
        error = peer.log.of("negotiation_error")[0]
        assert (error["type"], error["code"]) == ("connection", "timeout")


async def test_a_connection_that_fails_raises_an_event(autojump_clock: MockClock) -> None:
    async with session(pair="bob", retries=0) as peer:
        pc = await peer.pair()
        await peer.exchange()
        await pc.emit(StateChanged("iceConnectionState", "failed"), StateChanged("connectionState", "failed"))
        assert await peer.ended() == 10
        verdict(peer, "ice_failed", 10)


async def test_expect_message_gives_another_channel_some_seconds(autojump_clock: MockClock) -> None:
    async with session(expect="message") as peer:
        pc = await peer.open()
        await pc.close_channel()
        await trio.sleep(4)
        await pc.open()
        await trio.sleep(10)
        assert not peer.finished.is_set()
        await pc.close_channel()
        assert await peer.ended() == 12
        verdict(peer, "channel_closed", 12)


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
        await pc.emit(StateChanged("connectionState", "closed"))
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
