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
from tests.harness.relay import PATIENT, OpenRelay, RawClient, takes
from tests.harness.sequenced_client import lose, open_sequenced, resume_path, sequenced_pair

WINDOW = Limits().resume_window


async def test_your_id_has_a_resume_token_and_all_other_frames_a_seq(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Acks and pongs carry no `seq`."""
    async with open_relay() as relay:
        pair = await sequenced_pair(relay)
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
        pair = await sequenced_pair(relay)
        await pair.send_to_a("one", "two")
        assert [(await pair.a.receive())["sdp"] for _ in range(2)] == ["one", "two"]
        await pair.a.send(message(type="answer", sdp="x", client_seq=1))
        await lose(pair.a)
        await pair.send_to_a("three")
        again = relay.raw()
        your_id = await again.open(resume_path(pair.first, last=2))
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
        pair = await sequenced_pair(relay)
        await lose(pair.a)
        for path in (
            resume_path(pair.first),
            resume_path(pair.first, last=9),
            f"{resume_path(pair.first)}&last=x",
            f"{resume_path(pair.first)}&id=b",
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
        pair = await sequenced_pair(relay)
        await pair.b.send(frame(TEXT, b'{"type":"offer","seq":77,"s\\u0065q":"x","sdp":"v"}'))
        _, payload = await pair.a.frame()
        assert payload == b'{"type":"offer","sdp":"v","from_peer":true,"seq":2}'


async def test_a_client_takes_over_its_open_connection(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """At once, while the relay takes the old connection for open; frames on the old one are ignored."""
    async with open_relay() as relay:
        pair = await sequenced_pair(relay)
        again = relay.raw()
        assert (await again.open(resume_path(pair.first)))["resumed"] is True
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
        _, first = await open_sequenced(relay, "a")
        lost = relay.raw()
        await lost.open(resume_path(first))
        await lose(lost)
        again = relay.raw()
        second = await again.open(resume_path(first))
        assert second["resumed"] is True
        await again.send(message(type="ack", seq=0))
        await wait_all_tasks_blocked()
        assert (await relay.raw().open(resume_path(first)))["resumed"] is False
        await lose(again)
        assert (await relay.raw().open(resume_path(second)))["id"] == "a"


async def test_an_id_is_taken_over_with_its_resume_token_only(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Other requests for the ID get 409."""
    async with open_relay() as relay:
        _, first = await open_sequenced(relay, "a")
        a2 = relay.raw()
        second = await a2.open(resume_path(first))
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
            liar = await relay.raw().open(resume_path(second, last=7))  # nothing was sent to it yet
            assert (liar["resumed"], liar["id"] == "a") == (False, False)

        await attack()
        await lose(a2)
        await attack()
        await trio.sleep(WINDOW)
        assert (await relay.raw().open(resume_path(second)))["resumed"] is False
        assert (await relay.raw().open("/?id=a"))["id"] == "a"
        assert (await relay.raw().open(resume_path(second)))["id"] != "a"


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
        pair = await sequenced_pair(relay)
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
        assert (await again.open(resume_path(first, last=1)))["resumed"] is True
        assert [(await again.receive())["seq"] for _ in range(3)] == [2, 3, 4]
        await again.send(frame(CLOSE, (1000).to_bytes(2)))
        assert (await b.receive())["reason"] == "closed"


@pytest.mark.one_node
async def test_with_a_resume_window_of_0_no_session_is_suspended(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A token still takes over an open connection."""
    async with open_relay(Limits(resume_window=0)) as relay:
        pair = await sequenced_pair(relay)
        again = relay.raw()
        assert (await again.open(resume_path(pair.first)))["resumed"] is True
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
        pair = await sequenced_pair(relay)
        await pair.a.send(close)
        await pair.a.rest()
        assert relay.log.of("client_suspended")[0]["code"] in (1001, 1012, 1013)
        assert (await relay.raw().open(resume_path(pair.first)))["resumed"] is True
        assert relay.log.of("unpaired") == []


async def test_a_close_frame_ends_the_session(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Its token is revoked."""
    async with open_relay() as relay:
        pair = await sequenced_pair(relay)
        await pair.a.send(frame(CLOSE, (1000).to_bytes(2)))
        assert await takes(pair.b.receive) < 1
        assert (await relay.raw().open(resume_path(pair.first)))["resumed"] is False


async def test_a_gap_in_client_seq_ends_the_session(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """With 1002; the peer gets `refused`."""
    async with open_relay() as relay:
        pair = await sequenced_pair(relay)
        await pair.a.send(message(type="answer", sdp="x", client_seq=2))
        assert await pair.a.close_code() == 1002
        assert (await pair.b.receive())["reason"] == "refused"


@pytest.mark.parametrize("last", [None, 0])
async def test_senders_to_a_suspended_client_are_notified_when_it_expires(
    open_relay: OpenRelay, autojump_clock: MockClock, last: int | None
) -> None:
    """A suspended client can be paired; frames that it never got are reported to their senders."""
    async with open_relay() as relay:
        a, first = await open_sequenced(relay, "a")
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
        await again.open(resume_path(first, last))
        received = [await again.receive() for _ in range(3)]
        assert [(each["type"], each["seq"]) for each in received] == [
            ("paired", 1),
            ("offer", 2),
            ("peer_disconnected", 3),
        ]


# ---- the end ----------------------------------------------------------------------------------------------------


@pytest.mark.one_node
async def test_shutdown_ends_suspended_sessions(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """At once; their peers get `shutdown`, and new requests 503."""
    async with open_relay() as relay:
        pair = await sequenced_pair(relay)
        late = relay.raw()
        await late.send(upgrade_request(resume_path(pair.first))[:20])
        await lose(pair.a)
        await pair.send_to_a("never to be read")
        relay.acceptor.stop()
        assert (await pair.b.receive())["reason"] == "shutdown"
        await late.send(upgrade_request(resume_path(pair.first))[20:])
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
        pair = await sequenced_pair(relay)
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
        _, your_id = await open_sequenced(relay, "a")
        given_up, server = relay.socket_pair()
        await given_up.send_all(upgrade_request(resume_path(your_id)))
        given_up.close()
        living = relay.raw()
        assert (await living.open(resume_path(your_id)))["resumed"]
        relay.serve(server)
        await wait_all_tasks_blocked()
        await living.send(message(type="ping"))
        assert (await living.receive())["type"] == "pong"
