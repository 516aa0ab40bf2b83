"""The relay itself was suspended (SIGSTOP, a paused virtual machine): its clock jumps, and no client is to blame for it."""

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.socket_stream import SocketStream
from tests.harness.frames import PING, PONG, frame, message, upgrade_request
from tests.harness.relay import Client, OpenRelay, RawClient, RelayHarness, relay_harness, takes

LIMITS = Limits()
SUSPENDED = 60.0
LARGE = "x" * 60_000


def send_now(client: RawClient, data: bytes) -> None:
    """Send without a checkpoint, so that the clock can jump before the relay reads."""
    assert isinstance(client.stream, SocketStream)
    client.stream.send_now(data)


async def pong_of(client: RawClient) -> None:
    """Exchange a ping and pong of the protocol, past the WebSocket pings that came before."""
    await client.send(message(type="ping"))
    while (await client.frame())[0] == PING:
        pass


async def blocked_pair(relay: RelayHarness) -> tuple[RawClient, Client]:
    """Return a client that has not read a large offer, and its peer, which sent it."""
    reader, sender = relay.narrow(), await relay.client()
    await reader.open()
    await sender.pair(reader)
    await sender.send(type="offer", sdp=LARGE)
    await wait_all_tasks_blocked()
    return reader, sender


async def test_a_silent_client_has_a_full_idle_timeout_after_a_suspension(
    autojump_clock: MockClock, open_relay: OpenRelay
) -> None:
    """The client is pinged at once, and disconnected if it does not answer."""
    async with open_relay(LIMITS) as relay:
        client = relay.raw()
        await client.open()
        autojump_clock.jump(SUSPENDED)
        assert (await client.frame())[0] == PING
        assert await takes(client.close_code) == pytest.approx(LIMITS.idle_timeout, abs=1)


@pytest.mark.one_node
async def test_a_suspension_that_no_timer_of_a_client_notices(autojump_clock: MockClock, open_relay: OpenRelay) -> None:
    """It is logged with its duration, and silence is measured from its end."""
    async with open_relay(LIMITS) as relay:
        client = relay.raw()
        await client.open()
        seconds = LIMITS.ping_interval / 2
        autojump_clock.jump(seconds)
        assert await takes(client.close_code) == pytest.approx(LIMITS.idle_timeout, abs=1)
        [event] = relay.log.of("process_suspended")
        assert event["ms"] == pytest.approx(seconds * 1000, abs=1000)


async def test_bytes_that_wait_in_the_socket_are_read_before_a_client_is_found_silent(
    autojump_clock: MockClock, open_relay: OpenRelay
) -> None:
    async with open_relay(LIMITS) as relay:
        client = relay.raw()
        await client.open()
        for _ in range(2):  # the idle timeout is a little more than two intervals
            assert (await client.frame())[0] == PING
        autojump_clock.jump(LIMITS.idle_timeout - 2 * LIMITS.ping_interval - 0.5)
        await wait_all_tasks_blocked()
        send_now(client, frame(PONG))
        autojump_clock.jump(0.9)
        await pong_of(client)


async def test_a_request_that_waits_in_the_socket_is_read_before_the_handshake_times_out(
    autojump_clock: MockClock, open_relay: OpenRelay
) -> None:
    async with open_relay(LIMITS) as relay:
        client = relay.raw()
        await wait_all_tasks_blocked()
        send_now(client, upgrade_request())
        autojump_clock.jump(SUSPENDED)
        assert (await client.response())[0] == 101


async def test_half_a_request_has_a_full_handshake_timeout_after_a_suspension(
    autojump_clock: MockClock, open_relay: OpenRelay
) -> None:
    async with open_relay(LIMITS) as relay:
        client, request = relay.raw(), upgrade_request()
        await client.send(request[:20])
        await wait_all_tasks_blocked()
        autojump_clock.jump(SUSPENDED)
        await wait_all_tasks_blocked()
        await client.send(request[20:])
        assert (await client.response())[0] == 101


async def test_a_client_whose_socket_is_full_has_a_full_write_timeout_after_a_suspension(
    autojump_clock: MockClock, open_relay: OpenRelay
) -> None:
    async with open_relay(LIMITS) as relay:
        _, sender = await blocked_pair(relay)
        autojump_clock.jump(SUSPENDED)
        assert await takes(sender.receive) == pytest.approx(LIMITS.write_timeout, abs=1)
        reader, sender = await blocked_pair(relay)
        autojump_clock.jump(SUSPENDED)
        await wait_all_tasks_blocked()
        assert (await reader.receive())["sdp"] == LARGE
        await sender.send(type="ping")
        assert (await sender.receive())["type"] == "pong"


async def test_suspended_sessions_have_a_full_resume_window_after_a_suspension(autojump_clock: MockClock) -> None:
    async with relay_harness(LIMITS) as relay:
        client = relay.raw()
        token = (await client.open("/?seq=1"))["resume_token"]
        await client.stream.aclose()
        await wait_all_tasks_blocked()
        autojump_clock.jump(SUSPENDED)
        await wait_all_tasks_blocked()
        autojump_clock.jump(LIMITS.resume_window - 1)
        assert (await relay.raw().open(f"/?seq=1&resume={token}"))["resumed"]
