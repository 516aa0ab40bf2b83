"""The relay as its clients see it: timeouts, rates and overload, on both engines."""

from contextlib import suppress
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import ConnectionClosed

from sdpx.relay.core.limits import Limits
from tests.harness.frames import CLOSE, CONTINUATION, PING, TEXT, frame, message, upgrade_request
from tests.harness.relay import PATIENT, Client, OpenRelay, RawClient, RelayHarness, raw_pair, takes


async def test_a_client_that_answers_pings_stays_connected(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Every WebSocket library does."""
    async with open_relay() as relay:
        a = await relay.client()
        await trio.sleep(3600)
        await a.send(type="ping")
        assert await a.receive() == {"type": "pong"}


async def test_any_frame_resets_the_idle_timeout(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Also of a client that never answers a ping frame."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        for _ in range(10):
            await trio.sleep(40)
            await a.send(message(type="pong"))
        await a.send(message(type="offer", sdp="still here"))
        assert (await b.receive())["sdp"] == "still here"


async def test_bytes_of_an_incomplete_frame_do_not_reset_the_idle_timeout(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A frame that never ends does not keep a connection open."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        await a.send(frame(TEXT, bytes(10_000))[:500])
        relay.nursery.start_soon(_trickle, a)
        assert await takes(b.receive) == pytest.approx(45)


async def _trickle(client: RawClient) -> None:
    with suppress(trio.BrokenResourceError):
        while True:
            await client.send(b"x")
            await trio.sleep(4)


async def narrow_pair(relay: RelayHarness) -> tuple[RawClient, Client]:
    """Return a client that reads only on request, and its peer, which always reads."""
    narrow, peer = relay.narrow(), await relay.client()
    await narrow.open()
    await peer.pair(narrow)
    return narrow, peer


async def test_a_client_whose_send_queue_is_full_is_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Its peer gets `slow`, without a delay."""
    async with open_relay(Limits(send_queue_frames=10)) as relay:
        _b, a = await narrow_pair(relay)
        began = trio.current_time()
        for number in range(20):
            await a.send(type="offer", sdp=str(number))
        assert (await a.receive())["reason"] == "slow"
        assert trio.current_time() == began


async def test_a_client_whose_socket_accepts_nothing_is_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """After `write_timeout`, although its queue is not full."""
    async with open_relay(Limits(write_timeout=7, ping_interval=1000, idle_timeout=2000)) as relay:
        _b, a = await narrow_pair(relay)
        await a.send(type="offer", sdp="x")
        assert await takes(a.receive) == pytest.approx(7)


async def test_a_silent_client_is_pinged_and_then_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """After `idle_timeout` without a frame, not even a pong; its peer gets `timeout`."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        assert await takes(b.receive) == pytest.approx(45)
        assert (await a.frame())[0] == PING
        assert await a.close_code() == 1008


async def test_a_client_over_the_rate_is_refused_and_then_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A burst passes; each message past it is `rate_limited`; the peer of a client that goes on gets `refused`."""
    async with open_relay(Limits(rate=2)) as relay:
        a, b = await relay.pair()
        for _ in range(9):
            await a.send(type="ping")
        assert [(await a.receive())["type"] for _ in range(9)] == ["pong"] * 9
        await a.send(type="pair_request", target_id="b")
        refused = await a.receive()
        assert (refused["code"], refused["in_reply_to"], refused["target_id"]) == ("rate_limited", "pair_request", "b")
        relay.nursery.start_soon(_flood, a)
        assert await a.closed() == 1008
        assert await b.receive() == {"type": "peer_disconnected", "peer_id": "a", "reason": "refused"}


async def _flood(client: Client) -> None:
    with suppress(ConnectionClosed):
        for _ in range(100):
            await client.send(type="offer", sdp="x")
            await trio.sleep(0.01)


async def test_pings_count_as_messages(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Control frames cost as much."""
    async with open_relay(Limits(rate=2)) as relay:
        a = relay.raw()
        await a.open()
        await a.send(frame(PING) * 100)
        assert await a.close_code() == 1008


async def test_overload_disconnects_the_slowest_reader(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Not the client with the largest queue, if it has just been sent; the peer of the slow client gets `slow` and stays."""
    async with open_relay(replace(PATIENT, max_queued_bytes=100_000)) as relay:
        _slow, a = await narrow_pair(relay)
        late, c = await narrow_pair(relay)
        await a.send(type="offer", sdp="x" * 1000)
        await trio.sleep(1)
        for _ in range(3):
            await c.send(type="offer", sdp="x" * 33_000)
        assert (await a.receive())["reason"] == "slow"
        await a.send(type="ping")
        assert (await a.receive())["type"] == "pong"
        for _ in range(3):
            assert len((await late.receive())["sdp"]) == 33_000


async def test_overload_spares_a_client_that_pauses_with_a_small_queue(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Although it has not read for longer."""
    async with open_relay(replace(PATIENT, max_queued_bytes=100_000)) as relay:
        pausing, a = await narrow_pair(relay)
        _greedy, c = await narrow_pair(relay)
        await a.send(type="offer", sdp="x" * 1000)
        await trio.sleep(1)
        await c.send(type="offer", sdp="x" * 60_000)
        await trio.sleep(1)
        await c.send(type="offer", sdp="x" * 60_000)
        assert (await c.receive())["reason"] == "slow"
        assert len((await pausing.receive())["sdp"]) == 1000


@pytest.mark.one_node
async def test_the_client_with_the_largest_incomplete_message_is_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A client with a small incomplete message stays."""
    async with open_relay(Limits(max_partial_bytes=10_000)) as relay:
        small, *greedy = [relay.raw() for _ in range(4)]
        for client in (small, *greedy):
            await client.open()
        await small.send(frame(TEXT, b'{"type":"ping"}')[:-1])
        for client in greedy:
            await client.send(frame(TEXT, bytes(4500))[:-1])
            await trio.sleep(0.1)
        assert await greedy[0].close_code() == 1008
        await small.send(frame(TEXT, b'{"type":"ping"}')[-1:])
        assert (await small.receive())["type"] == "pong"


async def test_fragments_count_as_messages(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Fragments cost as much as messages: a flood of messages in many fragments is a flood."""
    async with open_relay(Limits(rate=2)) as relay:
        a = relay.raw()
        await a.open()
        pieces = (
            frame(TEXT, b'{"type":', fin=False) + frame(CONTINUATION, fin=False) * 8 + frame(CONTINUATION, b'"pong"}')
        )
        await a.send(pieces * 3)
        assert await a.close_code() == 1008


async def test_the_sender_of_an_undelivered_frame_is_notified(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Also after the pairing has ended: A sends and unpairs, then B disconnects without having read."""
    async with open_relay(PATIENT) as relay:
        a, b = await relay.client("/?id=a"), relay.narrow()
        await b.open("/?id=b")
        await a.pair(b)
        for _ in range(3):
            await a.send(type="offer", sdp="never read")
        await a.send(type="unpair")
        assert (await a.receive())["type"] == "unpaired"
        await b.stream.aclose()
        error = await a.receive()
        assert (error["code"], "'b'" in error["message"]) == ("peer_unreachable", True)
        await a.send(type="ping")
        assert (await a.receive())["type"] == "pong"


async def test_a_client_that_pings_and_closes_without_reading_is_removed_at_once(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """All frames that are still to be written to it have one short deadline together."""
    async with open_relay(PATIENT) as relay:
        a, b = relay.narrow(), await relay.client("/?id=b")
        await a.open("/?id=a")
        await b.pair(a)
        await a.send(frame(PING) * 3 + message(type="ping") * 3 + frame(CLOSE, (1000).to_bytes(2)))
        received: list[object] = []
        assert await takes(lambda: _receive(b, received)) < 1
        assert received == [{"type": "peer_disconnected", "peer_id": "a", "reason": "closed"}]


async def test_a_client_that_reads_is_never_slow(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """However many frames arrive at once: writers get their turn."""
    count = 3000
    async with open_relay(Limits(rate=0)) as relay:
        a, b = await raw_pair(relay)
        await a.send(message(type="candidate", candidate=None) * count + message(type="ping") * count)
        for _ in range(count):
            assert (await b.receive())["type"] == "candidate"
        for _ in range(count):
            assert await a.receive() == {"type": "pong"}


async def test_a_close_frame_is_answered_by_a_close_frame(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """RFC 6455, 5.5.1; data behind it is ignored."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        await a.send(frame(CLOSE, (1002).to_bytes(2)) + b"\xff\xff")
        assert await a.rest() == bytes([0x88, 2]) + (1002).to_bytes(2)
        assert (await b.receive())["reason"] == "closed"


async def test_a_client_that_closes_without_reading_is_removed_at_once(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Although the relay is in the middle of writing to it."""
    async with open_relay(PATIENT) as relay:
        a, b = relay.narrow(), await relay.client("/?id=b")
        await a.open("/?id=a")
        await b.pair(a)
        await b.send(type="offer", sdp="never read")
        await trio.sleep(1)
        await a.send(frame(CLOSE, (1000).to_bytes(2)))
        received: list[object] = []
        assert await takes(lambda: _receive(b, received)) < 1
        assert received == [{"type": "peer_disconnected", "peer_id": "a", "reason": "closed"}]


async def _receive(client: Client, received: list[object]) -> None:
    received.append(await client.receive())


@pytest.mark.parametrize("bad", [b"\xff", frame(TEXT, b"\xff")])
async def test_queued_frames_are_written_before_the_close_frame(
    open_relay: OpenRelay, autojump_clock: MockClock, bad: bytes
) -> None:
    """Also to a client that violates the protocol in the segment of its request."""
    async with open_relay() as relay:
        a = relay.raw()
        await a.send(upgrade_request() + message(type="ping") * 3 + bad)
        assert (await a.response())[0] == 101
        assert [(await a.receive())["type"] for _ in range(4)] == ["your_id", "pong", "pong", "pong"]
        assert await a.close_code() in (1002, 1007)
