"""Bounds on resumable sessions as their clients see them, on both engines, and their metrics."""

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from tests.harness.frames import CLOSE, frame, message, upgrade_request
from tests.harness.metrics import scrape
from tests.harness.relay import PATIENT, OpenRelay, relay_harness
from tests.harness.sequenced_client import lose, open_sequenced, resume_path, sequenced_pair

WINDOW = Limits().resume_window


@pytest.mark.one_node
async def test_the_replay_buffer_of_a_suspended_session_is_bounded(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Past the bound the session ends, its peer gets `slow`, and the token is revoked."""
    async with open_relay(replace(PATIENT, send_queue_frames=20)) as relay:
        pair = await sequenced_pair(relay)
        await lose(pair.a)
        await pair.send_to_a(*"x" * 19)
        assert relay.clients == 2
        await pair.send_to_a("one too many")
        assert (await pair.b.receive())["reason"] == "slow"
        assert (await relay.raw().open(resume_path(pair.first)))["resumed"] is False


@pytest.mark.one_node
async def test_a_client_that_never_acknowledges_is_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Although it reads."""
    async with open_relay(replace(PATIENT, send_queue_frames=20)) as relay:
        pair = await sequenced_pair(relay)
        relay.nursery.start_soon(pair.a.rest)
        await pair.send_to_a(*"x" * 20)
        assert (await pair.b.receive())["reason"] == "slow"
        assert relay.clients == 1


@pytest.mark.one_node
async def test_a_client_that_acknowledges_stays_connected(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Its acks do not count for its rate."""
    async with open_relay(replace(PATIENT, send_queue_frames=20, rate=0.1)) as relay:
        pair = await sequenced_pair(relay)
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
            a, _ = await open_sequenced(relay, "a")
            await a.send(flood * 200)
            assert await a.close_code() == 1008


@pytest.mark.one_node
async def test_all_replay_buffers_together_are_bounded(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The session with the largest buffer ends, connected or suspended."""
    async with open_relay(replace(PATIENT, max_queued_bytes=100_000)) as relay:
        pair = await sequenced_pair(relay)
        await lose(pair.a)
        await open_sequenced(relay, "c")
        await pair.send_to_a("x" * 60_000, "x" * 60_000)
        assert (await pair.b.receive())["reason"] == "slow"
        assert relay.clients == 2
        assert relay.relay._resume.snapshot().replay_buffer_bytes == 0


@pytest.mark.one_node
async def test_suspended_sessions_are_bounded(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The oldest ends first; after the window nothing is kept."""
    async with open_relay(Limits(max_suspended_sessions=5)) as relay:
        for number in range(50):
            client, _ = await open_sequenced(relay, f"n{number}")
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
        pair = await sequenced_pair(relay)
        await lose(pair.a)
        await pair.send_to_a(*map(str, range(99)))
        for _ in range(3):
            again = relay.narrow()
            pair.first = await again.open(resume_path(pair.first))
            assert (pair.first["resumed"], (await again.receive())["seq"]) == (True, 1)
            assert [(await again.receive())["sdp"] for _ in range(99)] == list(map(str, range(99)))


@pytest.mark.one_node
async def test_a_suspended_session_keeps_its_place_among_max_clients(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A suspended session can resume while the relay is full."""
    async with open_relay(Limits(max_clients=1)) as relay:
        a, first = await open_sequenced(relay, "a")
        await lose(a)
        newcomer = relay.raw()
        await newcomer.send(upgrade_request("/?seq=1"))
        assert (await newcomer.response())[0] == 503
        again = relay.raw()
        assert (await again.open(resume_path(first)))["resumed"] is True
        await again.send(frame(CLOSE, (1000).to_bytes(2)))
        await again.rest()
        await again.stream.aclose()
        await wait_all_tasks_blocked()
        assert (await relay.raw().open())["type"] == "your_id"


@pytest.mark.one_node
async def test_metrics_of_suspended_and_resumed_sessions(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """And of the bytes in replay buffers."""
    async with open_relay() as relay:
        pair = await sequenced_pair(relay)
        gone, _ = await open_sequenced(relay, "gone")
        await lose(gone)
        await lose(pair.a)
        await pair.send_to_a("x" * 1000)
        now = await scrape(relay)
        assert (now["sdpx_sessions_suspended"], now["sdpx_clients"]) == (2, 3)
        assert now["sdpx_suspended_bytes"] == now["sdpx_replay_buffer_bytes"] > 1000
        again = relay.raw()
        await again.open(resume_path(pair.first, last=1))
        await trio.sleep(1)  # the page is rendered once a second
        now = await scrape(relay)
        assert (now["sdpx_sessions_suspended"], now["sdpx_suspended_bytes"], now["sdpx_clients_resumed_total"]) == (
            1,
            0,
            1,
        )
        assert now["sdpx_replay_buffer_bytes"] > 1000
        await again.send(message(type="ack", seq=2))
        await trio.sleep(WINDOW)
        now = await scrape(relay)
        assert (now["sdpx_replay_buffer_bytes"], now["sdpx_sessions_expired_total"], now["sdpx_clients"]) == (0, 1, 2)
