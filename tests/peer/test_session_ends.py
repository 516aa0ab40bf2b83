"""Steps of a session after a pairing, with and without the relay. Relay and connections are fakes, the clock jumps."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.events.webrtc import ConnectionState, IceConnectionState
from sdpx.peer.negotiation.confirmation import Receipt
from sdpx.peer.webrtc.events import Overrun
from sdpx.protocol.messages import (
    Description,
    Paired,
    PairRequest,
    PeerDisconnected,
    Unpair,
)
from tests.harness.peer import SDP, check_diagnosis, session

# ---- ends of a pairing ----------------------------------------------------------------------------------------------------


async def test_a_peer_that_leaves_before_there_is_a_connection(autojump_clock: MockClock) -> None:
    """Status 7 with `--pair`; else the next pairing is possible."""
    async with session(pair="bob") as peer:
        await peer.pair()
        await peer.relay.say(PeerDisconnected("bob", "left"))
        assert await peer.ended() == 7
        check_diagnosis(peer, "pairing_lost", 7)
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
            check_diagnosis(peer, code, status)


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
    """Heartbeats without progress are not enough; the event counts the messages in doubt."""
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
        check_diagnosis(peer, "unconfirmed", 12)
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
    """The next connection has not begun with the messages that the earlier one lost when the pairing ends."""
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
        check_diagnosis(peer, "peer_silent", 12)


async def test_an_overrun_ends_the_connection(autojump_clock: MockClock) -> None:
    async with session(pair="bob") as peer:
        pc = await peer.open()
        await pc.emit(Overrun())
        assert await peer.ended() == 12
        check_diagnosis(peer, "receiver_overrun", 12)


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
        check_diagnosis(peer, "peer_silent", 12)


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
        pc.fake_channels.answers = True
        await peer.relay.lose()
        await peer.relay.connect()
        await trio.sleep(10)
        await peer.relay.say(Paired("carol", is_initiator=False))
        await trio.sleep(3)
        declined = peer.log.of("pairing_declined")
        assert [(line["peer_id"], line["present_peer_id"]) for line in declined] == [("carol", "bob")]
        assert peer.relay.sent[-1] == Unpair()
        assert not pc.closed
        await pc.close_channel()
        assert peer.log.of("ready")[0]["reason"] == "relay_lost"
        assert await peer.pair("carol") is not pc
        assert not peer.finished.is_set()


async def test_a_detached_pairing_whose_peer_is_silent_gives_way(autojump_clock: MockClock) -> None:
    """A page that was killed sends nothing: the next one does not wait for `--timeout`."""
    async with session() as peer:
        pc = await peer.open()
        await trio.sleep(1)
        pc.fake_channels.last_packet = trio.current_time()
        await peer.relay.say(PeerDisconnected("bob", "closed"))
        await trio.sleep(1)
        await peer.relay.say(Paired("carol", is_initiator=False))
        assert "closed" not in peer.events
        await trio.sleep(3.1)
        assert pc.closed
        assert peer.log.of("paired")[-1]["peer_id"] == "carol"
        assert not peer.log.of("pairing_declined")


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
    """Three seconds without a beat: the peer is lost, and with it the pairing that the relay connection was lost under."""
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
        check_diagnosis(peer, "peer_silent", 12)


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
        await peer.pc.emit(ConnectionState("failed"))
        assert await peer.ended() == 12  # no offer came in time


async def test_no_connection_comes_in_time(autojump_clock: MockClock) -> None:
    """Both descriptions are there, and ICE is still checking."""
    async with session(pair="bob", timeout=2.0, retries=0) as peer:
        await peer.pair()
        await peer.exchange()
        assert await peer.ended() == 10
        check_diagnosis(peer, "ice_failed", 10)
        error = peer.log.of("negotiation_error")[0]
        assert (error["type"], error["code"]) == ("connection", "timeout")


async def test_a_connection_that_fails_raises_an_event(autojump_clock: MockClock) -> None:
    async with session(pair="bob", retries=0) as peer:
        pc = await peer.pair()
        await peer.exchange()
        await pc.emit(IceConnectionState("failed"), ConnectionState("failed"))
        assert await peer.ended() == 10
        check_diagnosis(peer, "ice_failed", 10)


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
        check_diagnosis(peer, "channel_closed", 12)
