"""Resumable sessions on the wire, on both engines."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from tests.harness.frames import CLOSE, TEXT, frame, message, upgrade_request
from tests.harness.relay import PATIENT, OpenRelay, RawClient, RelayHarness, relay_harness, takes

WINDOW = Limits().resume_window


Frame = dict[str, Any]


def back(your_id: Frame, last: int | None = None) -> str:
    """The path by which a client comes back."""
    return f"/?seq=1&resume={your_id['resume_token']}" + ("" if last is None else f"&last={last}")


async def numbered(relay: RelayHarness, name: str) -> tuple[RawClient, Frame]:
    client = relay.raw()
    return client, await client.open(f"/?seq=1&id={name}")


async def lose(client: RawClient) -> None:
    """Let a socket end without a close frame, and the relay notice it."""
    await client.stream.aclose()
    await wait_all_tasks_blocked()


class Pair:
    """`a` asked for numbers and is paired with `b`, which did not."""

    def __init__(self, relay: RelayHarness) -> None:
        self.relay = relay

    async def meet(self) -> "Pair":
        self.a, self.first = await numbered(self.relay, "a")
        self.b = self.relay.raw()
        await self.b.open("/?id=b")
        await self.b.send(message(type="pair_request", target_id="a"))
        assert await self.b.receive() == {"type": "paired", "peer_id": "a", "is_initiator": True}
        assert await self.a.receive() == {"type": "paired", "peer_id": "b", "is_initiator": False, "seq": 1}
        return self

    async def send_to_a(self, *texts: str) -> None:
        for text in texts:
            await self.b.send(message(type="offer", sdp=text))
        await wait_all_tasks_blocked()


async def test_your_id_has_a_resume_token_and_all_other_frames_a_seq(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Acks and pongs carry no `seq`."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        assert pair.first == {
            "type": "your_id",
            "id": "a",
            "resume_token": pair.first["resume_token"],
            "resumed": False,
        }
        await pair.send_to_a("one")
        assert await pair.a.receive() == {"type": "offer", "sdp": "one", "from_peer": True, "seq": 2}
        await pair.a.send(message(type="ping", t=1))
        assert await pair.a.receive() == {"type": "pong", "t": 1}
        await pair.a.send(message(type="answer", sdp="x", client_seq=1))
        assert await pair.b.receive() == {"type": "answer", "sdp": "x", "client_seq": 1, "from_peer": True}
        assert await takes(pair.a.receive) <= 0.2
        await pair.a.send(message(type="x", client_seq=2))
        assert (await pair.a.receive())["seq"] == 3
        assert await pair.a.receive() == {"type": "ack", "client_seq": 2}


async def test_a_plain_client_gets_no_token_and_no_numbers(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Its own `seq` and `client_seq` are relayed unchanged."""
    async with open_relay() as relay:
        a, b = relay.raw(), relay.raw()
        assert await a.open("/?id=a") == {"type": "your_id", "id": "a"}
        assert await b.open("/?id=b&seq=0&last=x") == {"type": "your_id", "id": "b"}
        await a.send(message(type="pair_request", target_id="b", client_seq="x"))
        assert "seq" not in await a.receive()
        await a.send(message(type="offer", sdp="", seq=5, client_seq=-1))
        await b.receive()
        assert await b.receive() == {"type": "offer", "sdp": "", "seq": 5, "client_seq": -1, "from_peer": True}


async def test_a_resumed_client_gets_the_frames_that_it_missed(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """And its peer notices nothing."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        await pair.send_to_a("one", "two")
        assert [(await pair.a.receive())["sdp"] for _ in range(2)] == ["one", "two"]
        await pair.a.send(message(type="answer", sdp="x", client_seq=1))
        await lose(pair.a)
        await pair.send_to_a("three")
        again = relay.raw()
        your_id = await again.open(back(pair.first, last=2))
        assert your_id == {
            "type": "your_id",
            "id": "a",
            "resume_token": your_id["resume_token"],
            "resumed": True,
            "client_seq": 1,
            "peer_id": "b",
        }
        assert [(await again.receive())["sdp"] for _ in range(2)] == ["two", "three"]
        await again.send(message(type="answer", sdp="x", client_seq=1) + message(type="answer", sdp="y", client_seq=2))
        assert [(await pair.b.receive())["sdp"] for _ in range(2)] == ["x", "y"]
        assert await again.receive() == {"type": "ack", "client_seq": 2}
        lost, resumed = relay.log.of("client_suspended"), relay.log.of("client_resumed")
        assert [(each["client_id"], each["code"]) for each in lost] == [("a", 1006)]
        assert [(each["client_id"], each["again"]) for each in resumed] == [("a", 2)]
        assert relay.log.of("client_disconnected") == []


async def test_resume_tokens_are_not_logged(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """At any level, from any client, with any answer."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        await lose(pair.a)
        for path in (
            back(pair.first),
            back(pair.first, last=9),
            f"{back(pair.first)}&last=x",
            f"{back(pair.first)}&id=b",
        ):
            await relay.raw().send(upgrade_request(path))
            plain = upgrade_request(path).replace(b"Upgrade: websocket\r\n", b"")
            await relay.raw().send(plain)
            await wait_all_tasks_blocked()
        assert relay.log.of("client_resumed")
        assert relay.log.of("http_request") or relay.log.of("connection_refused")
        assert pair.first["resume_token"].encode() not in b"".join(relay.log.lines)


async def test_the_seq_of_the_relay_replaces_the_senders(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The key is there once, as the last one: no reader takes the sender's value for the relay's."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        await pair.b.send(frame(TEXT, b'{"type":"offer","seq":77,"s\\u0065q":"x","sdp":"v"}'))
        _, payload = await pair.a.frame()
        assert payload == b'{"type":"offer","sdp":"v","from_peer":true,"seq":2}'


async def test_a_client_takes_over_its_open_connection(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """At once, while the relay takes the old connection for open; frames on the old one are ignored."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        again = relay.raw()
        assert (await again.open(back(pair.first)))["resumed"] is True
        await pair.a.send(message(type="answer", sdp="from the old socket", client_seq=1))
        assert await pair.a.close_code() == 4001
        await pair.a.stream.aclose()
        await again.send(message(type="answer", sdp="from the new one", client_seq=1))
        assert (await pair.b.receive())["sdp"] == "from the new one"
        assert relay.clients == 2


async def test_a_token_is_valid_until_a_frame_arrives_on_the_next_connection(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Then only the next token is."""
    async with open_relay() as relay:
        _, first = await numbered(relay, "a")
        lost = relay.raw()
        await lost.open(back(first))
        await lose(lost)
        again = relay.raw()
        second = await again.open(back(first))
        assert second["resumed"] is True
        await again.send(message(type="ack", seq=0))
        await wait_all_tasks_blocked()
        assert (await relay.raw().open(back(first)))["resumed"] is False
        await lose(again)
        assert (await relay.raw().open(back(second)))["id"] == "a"


async def test_an_id_is_taken_over_with_its_resume_token_only(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Other requests for the ID get 409."""
    async with open_relay() as relay:
        _, first = await numbered(relay, "a")
        a2 = relay.raw()
        second = await a2.open(back(first))
        await a2.send(message(type="ack", seq=0))
        await wait_all_tasks_blocked()
        token = second["resume_token"]
        wrong = ["", "x", token[:-1], token + "A", token.swapcase(), first["resume_token"], "%00", "a" * 5000]

        async def attack() -> None:
            for each in wrong:
                other = await relay.raw().open(f"/?seq=1&resume={each}")
                assert other["resumed"] is False
                assert other["id"] != "a"
                taken = relay.raw()
                await taken.send(upgrade_request(f"/?id=a&seq=1&resume={each}"))
                assert (await taken.response())[0] == 409
            liar = await relay.raw().open(back(second, last=7))  # nothing was sent to it yet
            assert (liar["resumed"], liar["id"] == "a") == (False, False)

        await attack()
        await lose(a2)
        await attack()
        await trio.sleep(WINDOW)
        assert (await relay.raw().open(back(second)))["resumed"] is False
        assert (await relay.raw().open("/?id=a"))["id"] == "a"
        assert (await relay.raw().open(back(second)))["id"] != "a"


async def test_an_invalid_resume_request_is_refused_with_400(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Before any token is looked up."""
    async with open_relay() as relay:
        for query in ("resume=a&resume=b", "resume=a&last=-1", "resume=a&last=1&last=2"):
            client = relay.raw()
            await client.send(upgrade_request(f"/?seq=1&{query}"))
            status, _, body = await client.response()
            assert (status, json.loads(body)["code"]) == (400, "bad_resume")


async def _resets(client: RawClient) -> None:
    await lose(client)


async def _is_silent(client: RawClient) -> None:
    await trio.sleep(45)


@pytest.mark.parametrize(("end", "reason"), [(_resets, "closed"), (_is_silent, "timeout")])
async def test_the_peer_is_notified_when_the_resume_window_is_over(
    open_relay: OpenRelay, autojump_clock: MockClock, end: Callable[[RawClient], Any], reason: str
) -> None:
    """With the reason of the loss."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        relay.nursery.start_soon(_keep_alive, pair.b)
        await end(pair.a)
        taken = relay.raw()
        await taken.send(upgrade_request("/?id=a"))
        assert (await taken.response())[0] == 409
        assert relay.clients == 2
        assert await takes(pair.b.receive) == pytest.approx(WINDOW)
        assert relay.clients == 1
        assert (await relay.raw().open("/?id=a"))["id"] == "a"
        assert relay.log.of("unpaired")[0]["reason"] == reason
        gone = relay.log.of("client_disconnected")
        assert [(each["client_id"], each["reason"]) for each in gone] == [("a", "The client did not resume in time")]


async def _keep_alive(client: RawClient) -> None:
    while True:
        await trio.sleep(15)
        await client.send(message(type="pong"))


async def test_a_client_whose_socket_accepts_nothing_is_suspended(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Its network may be lost; if it does not resume, the reason is `slow`."""
    async with open_relay(replace(PATIENT, write_timeout=5)) as relay:
        stuck, b = relay.narrow(), relay.raw()
        first = await stuck.open("/?seq=1&id=a")
        await b.open("/?id=b")
        await b.send(message(type="pair_request", target_id="a"))
        assert (await b.receive())["type"] == (await stuck.receive())["type"] == "paired"
        await b.send(message(type="offer", sdp="x" * 500) * 3)
        await trio.sleep(6)
        assert [each["code"] for each in relay.log.of("client_suspended")] == [1008]
        again = relay.raw()
        assert (await again.open(back(first, last=1)))["resumed"] is True
        assert [(await again.receive())["seq"] for _ in range(3)] == [2, 3, 4]
        await again.send(frame(CLOSE, (1000).to_bytes(2)))
        assert (await b.receive())["reason"] == "closed"


@pytest.mark.one_node
async def test_with_a_resume_window_of_0_no_session_is_suspended(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A token still takes over an open connection."""
    async with open_relay(Limits(resume_window=0)) as relay:
        pair = await Pair(relay).meet()
        again = relay.raw()
        assert (await again.open(back(pair.first)))["resumed"] is True
        await lose(again)
        assert (await pair.b.receive())["reason"] == "closed"
        assert relay.clients == 1
    assert relay.log.of("client_suspended") == []


@pytest.mark.parametrize(
    "close",
    [
        *(frame(CLOSE, code.to_bytes(2)) for code in (1001, 1012, 1013)),
        frame(CLOSE, (1001).to_bytes(2), masked=False),
        frame(CLOSE, masked=False),
    ],
)
async def test_a_close_frame_of_a_proxy_suspends_the_session(
    open_relay: OpenRelay, autojump_clock: MockClock, close: bytes
) -> None:
    """The proxy stops or loads its configuration; Caddy does not even mask the frame."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        await pair.a.send(close)
        await pair.a.rest()
        assert relay.log.of("client_suspended")[0]["code"] in (1001, 1012, 1013)
        assert (await relay.raw().open(back(pair.first)))["resumed"] is True
        assert relay.log.of("unpaired") == []


async def test_a_close_frame_ends_the_session(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Its token is revoked."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        await pair.a.send(frame(CLOSE, (1000).to_bytes(2)))
        assert await takes(pair.b.receive) < 1
        assert (await relay.raw().open(back(pair.first)))["resumed"] is False


async def test_a_gap_in_client_seq_ends_the_session(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """With 1002; the peer gets `refused`."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        await pair.a.send(message(type="answer", sdp="x", client_seq=2))
        assert await pair.a.close_code() == 1002
        assert (await pair.b.receive())["reason"] == "refused"


@pytest.mark.parametrize("last", [None, 0])
async def test_senders_to_a_suspended_client_are_notified_when_it_expires(
    open_relay: OpenRelay, autojump_clock: MockClock, last: int | None
) -> None:
    """A suspended client can be paired; frames that it never got are reported to their senders."""
    async with open_relay() as relay:
        a, first = await numbered(relay, "a")
        await lose(a)
        b = relay.raw()
        await b.open("/?id=b")
        await b.send(message(type="pair_request", target_id="a"))
        assert (await b.receive())["type"] == "paired"
        await b.send(message(type="offer", sdp="x") + message(type="unpair"))
        assert (await b.receive())["type"] == "unpaired"
        if last is None:
            relay.nursery.start_soon(_keep_alive, b)
            error = await b.receive()
            assert (error["type"], error["code"]) == ("error", "peer_unreachable")
            return
        again = relay.raw()
        await again.open(back(first, last))
        received = [await again.receive() for _ in range(3)]
        assert [(each["type"], each["seq"]) for each in received] == [
            ("paired", 1),
            ("offer", 2),
            ("peer_disconnected", 3),
        ]


# ---- bounds -----------------------------------------------------------------------------------------------------


@pytest.mark.one_node
async def test_the_replay_buffer_of_a_suspended_session_is_bounded(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Past the bound the session ends, its peer gets `slow`, and the token is revoked."""
    async with open_relay(replace(PATIENT, send_queue_frames=20)) as relay:
        pair = await Pair(relay).meet()
        await lose(pair.a)
        await pair.send_to_a(*"x" * 19)
        assert relay.clients == 2
        await pair.send_to_a("one too many")
        assert (await pair.b.receive())["reason"] == "slow"
        assert (await relay.raw().open(back(pair.first)))["resumed"] is False


@pytest.mark.one_node
async def test_a_client_that_never_acknowledges_is_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Although it reads."""
    async with open_relay(replace(PATIENT, send_queue_frames=20)) as relay:
        pair = await Pair(relay).meet()
        relay.nursery.start_soon(pair.a.rest)
        await pair.send_to_a(*"x" * 20)
        assert (await pair.b.receive())["reason"] == "slow"
        assert relay.clients == 1


@pytest.mark.one_node
async def test_a_client_that_acknowledges_stays_connected(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Its acks do not count for its rate."""
    async with open_relay(replace(PATIENT, send_queue_frames=20, rate=0.1)) as relay:
        pair = await Pair(relay).meet()
        relay.relay._sessions["b"].rate_limit.unlimited = True
        for number in range(200):
            await pair.send_to_a("x")
            assert (await pair.a.receive())["seq"] == number + 2
            await pair.a.send(message(type="ack", seq=number + 2))
        assert relay.clients == 2


async def test_duplicate_frames_count_for_the_rate(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Acks that acknowledge nothing, and repeated frames."""
    async with open_relay(Limits(rate=10)) as relay:
        for flood in (
            message(type="ack", seq=0),
            message(type="pong", client_seq=1),
            message(type="unpair", client_seq="x"),
        ):
            a, _ = await numbered(relay, "a")
            await a.send(flood * 200)
            assert await a.close_code() == 1008


@pytest.mark.one_node
async def test_all_replay_buffers_together_are_bounded(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The session with the largest buffer ends, connected or suspended."""
    async with open_relay(replace(PATIENT, max_queued_bytes=100_000)) as relay:
        pair = await Pair(relay).meet()
        await lose(pair.a)
        await numbered(relay, "c")
        await pair.send_to_a("x" * 60_000, "x" * 60_000)
        assert (await pair.b.receive())["reason"] == "slow"
        assert relay.clients == 2
        assert relay.relay._resume.snapshot().replay_buffer_bytes == 0


@pytest.mark.one_node
async def test_suspended_sessions_are_bounded(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The oldest ends first; after the window nothing is kept."""
    async with open_relay(Limits(max_suspended_sessions=5)) as relay:
        for number in range(50):
            client, _ = await numbered(relay, f"n{number}")
            await lose(client)
        away = relay.relay._resume.snapshot()
        assert (away.clients, relay.clients, away.totals.evicted) == (5, 5, 45)
        taken = relay.raw()
        await taken.send(upgrade_request("/?id=n49"))
        assert (await taken.response())[0] == 409
        await trio.sleep(WINDOW + 1)
        away = relay.relay._resume.snapshot()
        assert (away.clients, away.replay_buffer_bytes, relay.clients) == (0, 0, 0)
        assert relay.relay._resume.store._by_digest == {}
        assert relay.relay.counts.total == 0


async def test_a_client_that_never_got_its_token_is_not_suspended(autojump_clock: MockClock) -> None:
    """Such a client could not resume: its ID is free again."""
    async with relay_harness() as relay:
        await relay.narrow().send(upgrade_request("/?seq=1&id=robot"))
        await trio.sleep(Limits().handshake_timeout + 1)
        assert (await relay.raw().open("/?id=robot"))["id"] == "robot"


async def test_a_full_replay_buffer_is_replayed(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The replayed frames may exceed the bounds of a send queue; the client is not slow for that."""
    async with open_relay(replace(PATIENT, send_queue_frames=100)) as relay:
        pair = await Pair(relay).meet()
        await lose(pair.a)
        await pair.send_to_a(*map(str, range(99)))
        for _ in range(3):
            again = relay.narrow()
            pair.first = await again.open(back(pair.first))
            assert (pair.first["resumed"], (await again.receive())["seq"]) == (True, 1)
            assert [(await again.receive())["sdp"] for _ in range(99)] == list(map(str, range(99)))


@pytest.mark.one_node
async def test_a_suspended_session_keeps_its_place_among_max_clients(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A suspended session can resume while the relay is full."""
    async with open_relay(Limits(max_clients=1)) as relay:
        a, first = await numbered(relay, "a")
        await lose(a)
        newcomer = relay.raw()
        await newcomer.send(upgrade_request("/?seq=1"))
        assert (await newcomer.response())[0] == 503
        again = relay.raw()
        assert (await again.open(back(first)))["resumed"] is True
        await again.send(frame(CLOSE, (1000).to_bytes(2)))
        await again.rest()
        await again.stream.aclose()
        await wait_all_tasks_blocked()
        assert (await relay.raw().open())["type"] == "your_id"


@pytest.mark.one_node
async def test_metrics_of_suspended_and_resumed_sessions(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """And of the bytes in replay buffers."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        gone, _ = await numbered(relay, "gone")
        await lose(gone)
        await lose(pair.a)
        await pair.send_to_a("x" * 1000)
        now = await metrics(relay)
        assert (now["sdpx_sessions_suspended"], now["sdpx_clients"]) == (2, 3)
        assert now["sdpx_suspended_bytes"] == now["sdpx_replay_buffer_bytes"] > 1000
        again = relay.raw()
        await again.open(back(pair.first, last=1))
        await trio.sleep(1)  # the page is rendered once a second
        now = await metrics(relay)
        assert (now["sdpx_sessions_suspended"], now["sdpx_suspended_bytes"], now["sdpx_clients_resumed_total"]) == (
            1,
            0,
            1,
        )
        assert now["sdpx_replay_buffer_bytes"] > 1000
        await again.send(message(type="ack", seq=2))
        await trio.sleep(WINDOW)
        now = await metrics(relay)
        assert (now["sdpx_replay_buffer_bytes"], now["sdpx_sessions_expired_total"], now["sdpx_clients"]) == (0, 1, 2)


async def metrics(relay: RelayHarness) -> dict[str, float]:
    client = relay.raw()
    await client.send(b"GET /metrics HTTP/1.1\r\nHost: relay.test\r\n\r\n")
    _, _, body = await client.response()
    lines = [line.split() for line in body.decode().splitlines() if line.startswith("sdpx_") and "{" not in line]
    return {name: float(value) for name, value in lines}


# ---- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.one_node
async def test_shutdown_ends_suspended_sessions(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """At once; their peers get `shutdown`, and new requests 503."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        late = relay.raw()
        await late.send(upgrade_request(back(pair.first))[:20])
        await lose(pair.a)
        await pair.send_to_a("never to be read")
        relay.acceptor.stop()
        assert (await pair.b.receive())["reason"] == "shutdown"
        await late.send(upgrade_request(back(pair.first))[20:])
        assert (await late.response())[0] == 503
        opcode, code = await pair.b.frame()
        assert (opcode, code[:2]) == (CLOSE, (1001).to_bytes(2)), "it knows already that what it sent was lost"
        await pair.b.stream.aclose()
        await relay.relay.wait_closed()
        assert relay.clients == 0


@pytest.mark.one_node
async def test_shutdown_ends_resumable_clients(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Resumable clients get 1001 and are not suspended."""
    async with open_relay() as relay:
        pair = await Pair(relay).meet()
        await pair.send_to_a("last words")
        relay.acceptor.stop()
        received = [await pair.a.receive() for _ in range(2)]
        assert [(each["type"], each["seq"]) for each in received] == [("offer", 2), ("peer_disconnected", 3)]
        assert await pair.a.close_code() == 1001


async def test_an_attempt_to_resume_that_its_client_has_closed_does_not_supersede(
    autojump_clock: MockClock, open_relay: OpenRelay
) -> None:
    """It is served behind the attempt that followed it, and is dropped."""
    async with open_relay(PATIENT) as relay:
        _, your_id = await numbered(relay, "a")
        given_up, server = relay.socket_pair()
        await given_up.send_all(upgrade_request(back(your_id)))
        given_up.close()
        living = relay.raw()
        assert (await living.open(back(your_id)))["resumed"]
        relay.serve(server)
        await wait_all_tasks_blocked()
        await living.send(message(type="ping"))
        assert (await living.receive())["type"] == "pong"
