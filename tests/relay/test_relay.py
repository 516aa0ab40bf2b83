"""The relay as its clients see it: pairings and their ends, and relayed frames, on both engines."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, message
from tests.harness.relay import PATIENT, Client, OpenRelay, RawClient, raw_pair, takes

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
        received = [await client.receive() for client in (a, b)]
        await a.send(type="ping", t="end")
        await b.send(type="ping", t="end")
        for client in (a, b):
            while (message := await client.receive())["type"] != "pong":
                received.append(message)
        assert sorted(m["type"] for m in received) == ["error", "paired", "paired"]
        assert sorted(m["is_initiator"] for m in received if m["type"] == "paired") == [False, True]


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
        while (received := await a.receive())["type"] == "error":
            refused += received["code"] == "bad_json"
        assert received["type"] == "unpaired"
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
        received: list[str] = []
        await a.send(type="ping")
        while (message := await a.receive())["type"] != "pong":
            received.append(message.get("code", message["type"]))
        refused = received.count("not_paired")
        assert arrived + refused == 100
        assert received == ["peer_disconnected"] + ["not_paired"] * refused


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
