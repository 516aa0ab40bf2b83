"""The relay as its clients see it: pairings and their ends, relayed frames, timeouts, rates and overload, on both engines."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionClosed

from sdpx.relay.core.limits import Limits
from tests.harness.frames import BINARY, CLOSE, PING, PONG, TEXT, frame, message, upgrade_request
from tests.harness.relay import Client, OpenRelay, RawClient, RelayHarness, takes

CONTINUATION = 0x0
PATIENT = Limits(ping_interval=10_000, idle_timeout=20_000)


async def raw_pair(relay: RelayHarness) -> tuple[RawClient, Client]:
    """Return a raw client `a`, paired with `b`, which uses a WebSocket library."""
    a, b = relay.raw(), await relay.client("/?id=b")
    await a.open("/?id=a")
    await a.send(message(type="pair_request", target_id="b"))
    assert (await a.receive())["type"] == (await b.receive())["type"] == "paired"
    return a, b


# ---- one pairing ------------------------------------------------------------------------------------------------


async def test_both_clients_are_notified_of_a_pairing(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The requesting client is the initiator."""
    async with open_relay() as relay:
        a, b = await relay.client("/?id=a"), await relay.client("/?id=b")
        await a.send(type="pair_request", target_id="b")
        assert await a.receive() == {"type": "paired", "peer_id": "b", "is_initiator": True}
        assert await b.receive() == {"type": "paired", "peer_id": "a", "is_initiator": False}


async def test_simultaneous_pair_requests_make_one_pair(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """A requests B while B requests A: one pairing, one error."""
    async with open_relay() as relay:
        a, b = await relay.client("/?id=a"), await relay.client("/?id=b")
        async with trio.open_nursery() as both:
            both.start_soon(lambda: a.send(type="pair_request", target_id="b"))
            both.start_soon(lambda: b.send(type="pair_request", target_id="a"))
        heard = [await client.receive() for client in (a, b)]
        await a.send(type="ping", t="end")
        await b.send(type="ping", t="end")
        for client in (a, b):
            while (message := await client.receive())["type"] != "pong":
                heard.append(message)
        assert sorted(m["type"] for m in heard) == ["error", "paired", "paired"]
        assert sorted(m["is_initiator"] for m in heard if m["type"] == "paired") == [False, True]


async def test_a_frame_is_relayed_as_it_came_with_from_peer(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Byte for byte."""
    sent = ' {"sdp" : "v=0\\r\\n\\u00e9 é", "n":1e400, "type":"offer" }\n'
    async with open_relay() as relay:
        a, b = await relay.pair()
        await a.socket.send_message(sent)
        assert await b.socket.get_message() == sent.rstrip()[:-1] + ',"from_peer":true}'


async def test_frames_arrive_in_order_at_the_peer_only(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Another client gets none."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        c = await relay.client("/?id=c")
        for number in range(300):
            await a.send(type="candidate", candidate={"candidate": str(number)})
        received = [(await b.receive())["candidate"]["candidate"] for _ in range(300)]
        assert received == [str(number) for number in range(300)]
        await c.send(type="ping")
        assert await c.receive() == {"type": "pong"}


async def test_a_refused_message_is_answered_and_the_connection_stays_open(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """One `error` each."""
    async with open_relay() as relay:
        a = await relay.client("/?id=a")
        await a.socket.send_message("{")
        assert (await a.receive())["code"] == "bad_json"
        await a.socket.send_message(b'{"type":"ping"}')
        assert (await a.receive())["code"] == "bad_message"
        await a.send(type="your_id")
        error = await a.receive()
        assert (error["type"], error["code"], error["in_reply_to"]) == ("error", "unknown_type", "your_id")


@pytest.mark.parametrize("key", ["from_peer", "x"])
async def test_a_deeply_nested_frame_is_relayed_or_refused(
    open_relay: OpenRelay, autojump_clock: MockClock, key: str
) -> None:
    """At every depth; no connection ends."""
    async with open_relay(PATIENT) as relay:
        a, b = await relay.pair()
        for depth in range(700, 1100):
            value = "[" * depth + "]" * depth
            await a.socket.send_message(f'{{"type":"offer","sdp":"{depth}","{key}":{value}}}')
        await a.send(type="unpair")
        refused = 0
        while (heard := await a.receive())["type"] == "error":
            refused += heard["code"] == "bad_json"
        assert heard["type"] == "unpaired"
        arrived = 0
        while '"offer"' in str(await b.socket.get_message()):
            arrived += 1
        assert arrived + refused == 400
    assert relay.log.of("internal_error") == []


@pytest.mark.parametrize("t", [None, 0, 1.5, "x", [1, {"a": []}], {"b": False}])
async def test_a_pong_contains_the_t_of_the_ping(open_relay: OpenRelay, autojump_clock: MockClock, t: object) -> None:
    """Any JSON value; also without a pairing."""
    async with open_relay() as relay:
        a = await relay.client()
        await a.send(type="ping", t=t)
        assert await a.receive() == {"type": "pong", "t": t}


@pytest.mark.one_node
async def test_a_frame_sent_while_the_peer_unpairs_is_delivered_or_refused(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """B unpairs while A sends: each frame arrives, or A gets an error for it."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        async with trio.open_nursery() as both:
            both.start_soon(_send_many, a, 100)
            both.start_soon(_receive_then_unpair, b, 30)
        arrived, refused = 30, 0
        while (await b.receive())["type"] == "offer":
            arrived += 1
        heard: list[str] = []
        await a.send(type="ping")
        while (message := await a.receive())["type"] != "pong":
            heard.append(message.get("code", message["type"]))
        refused = heard.count("not_paired")
        assert arrived + refused == 100
        assert heard == ["peer_disconnected"] + ["not_paired"] * refused


async def _send_many(client: Client, count: int) -> None:
    for number in range(count):
        await client.send(type="offer", sdp=str(number))


async def _receive_then_unpair(client: Client, count: int) -> None:
    for number in range(count):
        assert (await client.receive())["sdp"] == str(number)
    await client.send(type="unpair")


# ---- how a pairing ends -----------------------------------------------------------------------------------------


async def _leaves(a: RawClient) -> None:
    await a.send(message(type="unpair"))


async def _closes(a: RawClient) -> None:
    await a.send(frame(CLOSE, (1000).to_bytes(2)))


async def _vanishes(a: RawClient) -> None:
    await a.stream.aclose()


async def _breaks_a_rule(a: RawClient) -> None:
    await a.send(b"\xff")


async def _sends_bad_utf8(a: RawClient) -> None:
    await a.send(frame(TEXT, b"\xff\xfe"))


async def _is_silent(_: RawClient) -> None:
    await trio.sleep(45)


ENDS = [
    (_leaves, "left"),
    (_closes, "closed"),
    (_vanishes, "closed"),
    (_breaks_a_rule, "refused"),
    (_sends_bad_utf8, "refused"),
    (_is_silent, "timeout"),
]


@pytest.mark.parametrize(("end", "reason"), ENDS)
async def test_after_any_end_the_peer_can_pair_again(
    open_relay: OpenRelay, autojump_clock: MockClock, end: Callable[[RawClient], Awaitable[None]], reason: str
) -> None:
    """`peer_disconnected` comes once, with the reason, and the same connection serves the next pairing."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        c = await relay.client("/?id=c")
        await end(a)
        assert await b.receive() == {"type": "peer_disconnected", "peer_id": "a", "reason": reason}
        await b.pair(c)
        await c.send(type="answer", sdp="v")
        assert await b.receive() == {"type": "answer", "sdp": "v", "from_peer": True}


async def test_unpair_is_confirmed_and_the_client_can_pair_again(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Also with the same peer."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        await a.send(type="unpair")
        assert await a.receive() == {"type": "unpaired", "peer_id": "b"}
        assert (await b.receive())["reason"] == "left"
        await b.pair(a)


async def test_the_peer_is_notified_before_the_closing_handshake_ends(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A client that violates the protocol and stalls its own close does not delay its peer."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        await _breaks_a_rule(a)
        assert await takes(b.receive) == 0


# ---- frames and their bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 20, 30, 31, 32, 33])
async def test_a_fragmented_message_is_relayed_whole(
    open_relay: OpenRelay, autojump_clock: MockClock, cut: int
) -> None:
    """Also fragmented within a character, with a ping in between, which is answered."""
    payload = '{"type":"offer","sdp":"é€😀😀"}'.encode()
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        await a.send(frame(TEXT, payload[:cut], fin=False))
        await a.send(frame(PING, b"in between"))
        await a.send(frame(CONTINUATION, payload[cut:]))
        assert await a.frame() == (PONG, b"in between")
        assert (await b.receive())["sdp"] == "é€😀😀"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, bytes(201)), 1009),
        (frame(TEXT, bytes(150), fin=False) + frame(CONTINUATION, bytes(51)), 1009),
        (frame(BINARY, bytes(1 << 16)), 1009),
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 9, 1008),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"x", masked=False), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
    ],
)
async def test_a_client_that_violates_the_framing_is_closed_with_a_code(
    open_relay: OpenRelay, autojump_clock: MockClock, data: bytes, code: int
) -> None:
    """The close frame has the code of the violation."""
    async with open_relay(Limits(max_message_size=200, max_fragments=8)) as relay:
        a = relay.raw()
        await a.open()
        await a.send(data)
        assert await a.close_code() == code


@pytest.mark.parametrize("code", [1000, 1001, 4321])
async def test_a_client_that_closes_is_removed_at_once(
    open_relay: OpenRelay, autojump_clock: MockClock, code: int
) -> None:
    """The log contains its close code."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        await a.socket.aclose(code)
        assert await b.receive() == {"type": "peer_disconnected", "peer_id": "a", "reason": "closed"}
        await trio.sleep(1)
        assert relay.clients == 1
    [line] = relay.log.of("client_disconnected")[:1]
    assert (line["client_id"], line["code"]) == ("a", code)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\xff" + (65537).to_bytes(8) + b"....", 1009),
        (b"\xc1\x81....x", 1002),
        (b"\x81\x01x", 1002),
        (b"\x83\x80....", 1002),
    ],
)
async def test_messages_before_a_violation_are_delivered(
    open_relay: OpenRelay, autojump_clock: MockClock, data: bytes, code: int
) -> None:
    """Although they came in the same segment."""
    async with open_relay() as relay:
        a, b = relay.raw(), await relay.client("/?id=b")
        await a.open("/?id=a")
        await a.send(message(type="pair_request", target_id="b") + message(type="offer", sdp="x") + data)
        assert [(await b.receive())["type"] for _ in range(2)] == ["paired", "offer"]
        assert (await b.receive())["reason"] == "refused"
        assert await a.close_code() == code


async def test_a_message_of_the_largest_size_is_relayed(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The size counts bytes of UTF-8, without the `from_peer` that the relay adds."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        empty = '{"type":"offer","sdp":""}'
        sdp = "€" * ((65536 - len(empty)) // 3)
        await a.socket.send_message(empty.replace('""', f'"{sdp}"'))
        assert (await b.receive())["sdp"] == sdp


# ---- timeouts, rates and overload ----------------------------------------------------------------------------------


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
    await narrow.send(message(type="pair_request", target_id=peer.id))
    assert (await narrow.receive())["type"] == (await peer.receive())["type"] == "paired"
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
    async with open_relay(Limits(max_queued_bytes=100_000, ping_interval=10_000, idle_timeout=20_000)) as relay:
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
    async with open_relay(Limits(max_queued_bytes=100_000, ping_interval=10_000, idle_timeout=20_000)) as relay:
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
        await a.send(type="pair_request", target_id="b")
        assert (await a.receive())["type"] == (await b.receive())["type"] == "paired"
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
        await b.send(type="pair_request", target_id="a")
        await a.receive()
        await b.receive()
        await a.send(frame(PING) * 3 + message(type="ping") * 3 + frame(CLOSE, (1000).to_bytes(2)))
        received: list[object] = []
        assert await takes(lambda: _receive(b, received)) < 1
        assert received == [{"type": "peer_disconnected", "peer_id": "a", "reason": "closed"}]


@pytest.mark.parametrize("count", [1500, 3000])
async def test_a_client_that_reads_is_never_slow(open_relay: OpenRelay, autojump_clock: MockClock, count: int) -> None:
    """However many frames arrive at once: writers get their turn."""
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
        await a.send(message(type="pair_request", target_id="b"))
        await a.receive()
        await b.receive()
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


# ---- the log ----------------------------------------------------------------------------------------------------


@pytest.mark.one_node
async def test_each_step_of_a_pairing_is_logged(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """One line each, in order, without SDP."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        await a.send(type="offer", sdp="SECRET")
        await b.receive()
        await a.send(type="unpair")
        await b.receive()
        await b.send(type="answer", sdp="SECRET")
        assert (await b.receive())["code"] == "not_paired"
        await a.socket.aclose()
        await wait_all_tasks_blocked()
    events = [record["event"] for record in relay.log.records if record["event"] != "library"]
    assert events[:8] == [
        *("client_connected", "client_connected", "pair_requested", "paired"),
        *("relayed", "unpaired", "relay_refused"),
        "client_disconnected",
    ]
    assert b"SECRET" not in b"".join(relay.log.lines)
