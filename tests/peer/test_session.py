"""Session, from the first message of the relay to the exit status: relay and connections are fakes, the clock jumps."""

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from sdpx.errors import Ending, ExitStatus
from sdpx.protocol.messages import (
    ErrorFrame,
    PeerDisconnected,
)
from tests.harness.peer import check_diagnosis, session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NOT_FOUND = ErrorFrame("target_not_found", "Client 'bob' is not connected", "bob", "pair_request")
LOST = Ending("relay_lost", "The connection to the relay was lost", ExitStatus.RELAY)


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


# ---- expectations ---------------------------------------------------------------------------------------------------------


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
        check_diagnosis(peer, "no_answer", 8)


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
