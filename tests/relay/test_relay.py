"""The relay as its clients live through it: no pairing is lost, none hangs on, nobody is left waiting."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.ids import LENGTH, is_name
from sdpx.relay.core.limits import Limits
from tests.harness.frames import BINARY, CLOSE, PING, PONG, TEXT, frame, message, upgrade_request
from tests.harness.relay import Client, OpenRelay, RawClient, RelayHarness, takes

CONTINUATION = 0x0
PATIENT = Limits(ping_interval=10_000, idle_timeout=20_000)


async def raw_pair(relay: RelayHarness) -> tuple[RawClient, Client]:
    """A raw client `a`, paired with `b`, which rides on a real library."""
    a, b = relay.raw(), await relay.client("/?id=b")
    await a.open("/?id=a")
    await a.send(message(type="pair_request", target_id="b"))
    assert (await a.receive())["type"] == (await b.receive())["type"] == "paired"
    return a, b


# ---- one pairing ------------------------------------------------------------------------------------------------


async def test_the_first_frame_is_the_id(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Who asks for none is given one."""
    async with open_relay() as relay:
        first = await relay.raw().open()
    assert first == {"type": "your_id", "id": first["id"]}
    assert len(first["id"]) == LENGTH
    assert is_name(first["id"])


async def test_both_hear_of_the_pairing_and_one_is_the_initiator(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """The one that asked."""
    async with open_relay() as relay:
        a, b = await relay.client("/?id=a"), await relay.client("/?id=b")
        await a.send(type="pair_request", target_id="b")
        assert await a.receive() == {"type": "paired", "peer_id": "b", "is_initiator": True}
        assert await b.receive() == {"type": "paired", "peer_id": "a", "is_initiator": False}


async def test_requests_that_cross_make_one_pair(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """A asks B while B asks A, on the wire: one pairing, one error."""
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


async def test_a_relayed_frame_is_the_text_that_came_and_the_mark(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Byte for byte, on the wire."""
    sent = ' {"sdp" : "v=0\\r\\n\\u00e9 é", "n":1e400, "type":"offer" }\n'
    async with open_relay() as relay:
        a, b = await relay.pair()
        await a.socket.send_message(sent)
        assert await b.socket.get_message() == sent.rstrip()[:-1] + ',"from_peer":true}'


@pytest.mark.parametrize("key", ["from_peer", "x"])
async def test_a_deeply_nested_frame_costs_nobody_the_connection(
    open_relay: OpenRelay, autojump_clock: MockClock, key: str
) -> None:
    """At every depth it is relayed, or its sender hears bad_json."""
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
async def test_a_pong_echoes_t(open_relay: OpenRelay, autojump_clock: MockClock, t: object) -> None:
    """Any JSON value; also outside a pairing."""
    async with open_relay() as relay:
        a = await relay.client()
        await a.send(type="ping", t=t)
        assert await a.receive() == {"type": "pong", "t": t}


async def test_a_frame_that_crosses_with_the_end_is_delivered_or_refused(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """B unpairs while A sends: what A sent has arrived, or A hears that it did not, and nothing is lost between."""
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


async def test_who_unpairs_hears_so_and_can_pair_again(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Also with the same peer."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        await a.send(type="unpair")
        assert await a.receive() == {"type": "unpaired", "peer_id": "b"}
        assert (await b.receive())["reason"] == "left"
        await b.pair(a)


async def test_a_peer_hears_of_a_lost_client_before_the_farewell_is_over(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A client that breaks a rule and then stalls its own close does not delay its peer."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        await _breaks_a_rule(a)
        assert await takes(b.receive) == 0


# ---- frames and their bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 20, 30, 31, 32, 33])
async def test_a_message_in_fragments_is_relayed_whole(
    open_relay: OpenRelay, autojump_clock: MockClock, cut: int
) -> None:
    """Also cut within a character, with a ping in between, which is answered."""
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
async def test_who_breaks_the_frames_rules_is_closed_with_a_code(
    open_relay: OpenRelay, autojump_clock: MockClock, data: bytes, code: int
) -> None:
    """The client can read why."""
    async with open_relay(Limits(max_message_size=200, max_fragments=8)) as relay:
        a = relay.raw()
        await a.open()
        await a.send(data)
        assert await a.close_code() == code


async def test_a_message_at_the_bound_is_relayed(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """64 KiB counts bytes of UTF-8, and the relay's own key comes on top."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        empty = '{"type":"offer","sdp":""}'
        sdp = "€" * ((65536 - len(empty)) // 3)
        await a.socket.send_message(empty.replace('""', f'"{sdp}"'))
        assert (await b.receive())["sdp"] == sdp


# ---- silence, slowness, haste -----------------------------------------------------------------------------------


async def test_a_client_that_answers_pings_stays_for_ever(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Every WebSocket library does."""
    async with open_relay() as relay:
        a = await relay.client()
        await trio.sleep(3600)
        await a.send(type="ping")
        assert await a.receive() == {"type": "pong"}


async def test_any_frame_is_a_sign_of_life(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Also of a client that never answers a ping frame."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        for _ in range(10):
            await trio.sleep(40)
            await a.send(message(type="pong"))
        await a.send(message(type="offer", sdp="still here"))
        assert (await b.receive())["sdp"] == "still here"


async def test_a_trickle_of_bytes_is_no_sign_of_life(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """A frame that never ends does not hold a connection."""
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


async def test_silence_before_the_request_is_cut_without_a_word(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """After `handshake_timeout`."""
    async with open_relay(Limits(handshake_timeout=3)) as relay:
        a = relay.raw()
        assert await takes(a.rest) == pytest.approx(3)
        assert await a.rest() == b""


async def test_a_request_that_trickles_is_408(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """A byte now and then does not move the deadline."""
    async with open_relay(Limits(handshake_timeout=3)) as relay:
        a = relay.raw()
        for byte in upgrade_request()[:5]:
            await a.send(bytes([byte]))
            await trio.sleep(0.5)
        status, headers, body = await a.response()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["code"] == "timeout"


async def test_of_two_that_want_one_id_at_once_one_gets_it(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The other hears 409, whichever of them it is."""
    async with open_relay() as relay:
        both = [relay.raw(), relay.raw()]
        for client in both:
            await client.send(upgrade_request("/?id=robot"))
        assert sorted([(await client.response())[0] for client in both]) == [101, 409]


async def test_an_id_is_not_kept_by_a_client_that_never_reads_the_handshake(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """It is free again after `handshake_timeout`."""
    async with open_relay() as relay:
        await relay.narrow().send(upgrade_request("/?id=robot"))
        await trio.sleep(Limits().handshake_timeout + 1)
        assert (await relay.client("/?id=robot")).id == "robot"


async def test_a_stalled_client_holds_up_the_end_for_a_bounded_time(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """It reads nothing, not even the goodbye; all others are long gone."""
    async with open_relay(PATIENT) as relay:
        stalled = relay.narrow()
        await stalled.open("/?id=stalled")
        a = await relay.client("/?id=a")
        await a.send(type="pair_request", target_id="stalled")
        assert (await a.receive())["type"] == "paired"
        relay.acceptor.stop()
        assert (await a.receive())["reason"] == "shutdown"
        assert await takes(a.closed) == 0
        assert await takes(relay.relay.wait_closed) <= Limits().drain_timeout + 2 * Limits().close_timeout


async def test_a_request_that_is_being_read_when_the_relay_stops_is_503(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """With a hint when to come again."""
    async with open_relay() as relay:
        a = relay.raw()
        await a.send(upgrade_request()[:20])
        await trio.sleep(1)
        relay.acceptor.stop()
        await a.send(upgrade_request()[20:])
        status, headers, _ = await a.response()
        assert (status, headers["retry-after"]) == (503, "5")


async def narrow_pair(relay: RelayHarness) -> tuple[RawClient, Client]:
    """One that reads only when told to, and its peer, which reads all the while."""
    narrow, peer = relay.narrow(), await relay.client()
    await narrow.open()
    await narrow.send(message(type="pair_request", target_id=peer.id))
    assert (await narrow.receive())["type"] == (await peer.receive())["type"] == "paired"
    return narrow, peer


async def test_who_lets_most_wait_for_longest_pays_for_what_waits_in_all(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Not one to whom much has just been sent; and its peer, who reads, hears that it was slow, and stays."""
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


async def test_a_client_that_pauses_does_not_pay_for_one_that_lets_much_wait(
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


async def test_who_makes_most_be_kept_unfinished_goes(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """A message that never ends costs memory; a small one beside it is not its fault."""
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
    """They cost as much: a flood of messages in many fragments is a flood."""
    async with open_relay(Limits(rate=2)) as relay:
        a = relay.raw()
        await a.open()
        pieces = (
            frame(TEXT, b'{"type":', fin=False) + frame(CONTINUATION, fin=False) * 8 + frame(CONTINUATION, b'"pong"}')
        )
        await a.send(pieces * 3)
        assert await a.close_code() == 1008


async def test_who_sent_what_was_never_read_hears_that(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Also when the pairing is over: A sends, unpairs, and only then B goes without having read."""
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


async def test_a_ping_while_the_relay_closes_is_no_fault(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """It is simply not answered any more."""
    async with open_relay() as relay:
        a = relay.raw()
        await a.open()
        relay.acceptor.stop()
        await a.send(frame(PING, b"late") * 20)
        assert await a.close_code() == 1001
    assert not relay.log.of("internal_error")


async def test_who_pings_and_closes_without_reading_is_gone_at_once(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """All that is still to be said to it has one short deadline, not one each."""
    async with open_relay(PATIENT) as relay:
        a, b = relay.narrow(), await relay.client("/?id=b")
        await a.open("/?id=a")
        await b.send(type="pair_request", target_id="a")
        await a.receive()
        await b.receive()
        await a.send(frame(PING) * 3 + message(type="ping") * 3 + frame(CLOSE, (1000).to_bytes(2)))
        heard: list[object] = []
        assert await takes(lambda: _hear(b, heard)) < 1
        assert heard == [{"type": "peer_disconnected", "peer_id": "a", "reason": "closed"}]


async def test_who_comes_after_the_stop_and_says_nothing_holds_nothing_up(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    async with open_relay() as relay:
        relay.acceptor.stop()
        relay.raw()
        await trio.sleep(0.01)
        assert await takes(relay.relay.wait_closed) < 1


@pytest.mark.parametrize("more", ["Host: xn--a\r\n", "Connection: keep-alive\r\n"])
async def test_what_the_library_would_dislike_is_no_obstacle(
    open_relay: OpenRelay, autojump_clock: MockClock, more: str
) -> None:
    """It gets a request that says what was judged, and no more."""
    request = upgrade_request().replace(b"Host: relay.test\r\n", b"" if "Host" in more else b"Host: x\r\n")
    async with open_relay() as relay:
        a = relay.raw()
        await a.send(request.replace(b"\r\n\r\n", f"\r\n{more}\r\n".encode()))
        assert (await a.response())[0] == 101
        assert (await a.receive())["type"] == "your_id"


@pytest.mark.parametrize("count", [1500, 3000])
async def test_a_client_that_reads_is_never_slow(open_relay: OpenRelay, autojump_clock: MockClock, count: int) -> None:
    """However many frames come at once: writers get their turn."""
    async with open_relay(Limits(rate=0)) as relay:
        a, b = await raw_pair(relay)
        await a.send(message(type="candidate", candidate=None) * count + message(type="ping") * count)
        for _ in range(count):
            assert (await b.receive())["type"] == "candidate"
        for _ in range(count):
            assert await a.receive() == {"type": "pong"}


async def test_a_close_frame_is_answered_by_one(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """RFC 6455, 5.5.1; and what comes behind it counts for nothing."""
    async with open_relay() as relay:
        a, b = await raw_pair(relay)
        await a.send(frame(CLOSE, (1002).to_bytes(2)) + b"\xff\xff")
        assert await a.rest() == bytes([0x88, 2]) + (1002).to_bytes(2)
        assert (await b.receive())["reason"] == "closed"


async def test_who_closes_without_reading_is_gone_at_once(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
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
        heard: list[object] = []
        assert await takes(lambda: _hear(b, heard)) < 1
        assert heard == [{"type": "peer_disconnected", "peer_id": "a", "reason": "closed"}]


async def _hear(client: Client, heard: list[object]) -> None:
    heard.append(await client.receive())


@pytest.mark.parametrize("bad", [b"\xff", frame(TEXT, b"\xff")])
async def test_what_was_to_be_said_is_said_before_the_close(
    open_relay: OpenRelay, autojump_clock: MockClock, bad: bytes
) -> None:
    """Also to one who breaks a rule in the segment of its request: the first frame is the ID, then come the answers."""
    async with open_relay() as relay:
        a = relay.raw()
        await a.send(upgrade_request() + message(type="ping") * 3 + bad)
        assert (await a.response())[0] == 101
        assert [(await a.receive())["type"] for _ in range(4)] == ["your_id", "pong", "pong", "pong"]
        assert await a.close_code() in (1002, 1007)


# ---- the log ----------------------------------------------------------------------------------------------------


async def test_the_log_tells_the_story_and_no_secret(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Each step of a pairing is one line, in order, and no SDP is in any."""
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
