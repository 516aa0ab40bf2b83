"""A data channel for bulk data, between two real connections in one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from sdpx.events.webrtc import ChannelOpen
from sdpx.peer.webrtc import binary_channel, versions
from sdpx.peer.webrtc.binary_channel import BinaryChannel
from sdpx.peer.webrtc.peer_connection import PeerConnection
from sdpx.peer.webrtc.sctp_patch import WINDOW
from tests.harness.peer_connections import negotiate, two_connections


@asynccontextmanager
async def two_channels() -> AsyncIterator[tuple[BinaryChannel, BinaryChannel, PeerConnection, PeerConnection]]:
    """Yield both ends of a channel, and their connections."""
    async with two_connections() as (a, b):
        one, other = a.channels.binary("chat"), b.channels.binary(None)
        await negotiate(a, b)
        await one.opened()
        await other.opened()
        yield one, other, a, b


async def take(channel: BinaryChannel, count: int) -> list[bytes | str]:
    received: list[bytes | str] = []
    while len(received) < count:
        received += await channel.receive()
    return received


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "fallback"])
async def test_messages_arrive_in_order_and_are_no_events(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with an aiortc that the hot path does not fit."""
    if not fast:
        monkeypatch.setattr(versions, "fits", lambda feature: feature in {"trickle_ice", "dtls_diagnosis"})
    async with two_channels() as (one, other, _, b):
        sent: list[bytes | str] = [bytes([number]) * (number * 700) for number in range(0, 100, 3)]
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for message in [*sent, "text"]:
                    await one.send(message)

            nursery.start_soon(send)
            assert await take(other, len(sent) + 1) == [*sent, "text"]
        await other.send(b"back")
        assert await one.receive() == [b"back"]
        events = [b.events.receive_nowait() for _ in range(b.events.statistics().current_buffer_used)]
        assert any(isinstance(each, ChannelOpen) for each in events)
        assert not [each for each in events if type(each).__name__ == "MessageReceived"]


async def test_a_reader_that_stops_stops_the_sender() -> None:
    """The sender has no room once its buffer and the receiver's window are full; nothing is lost when the reader goes on."""
    async with two_channels() as (one, other, _, b):
        message, count = bytes(65_536), 0
        with trio.move_on_after(1.0) as stopped:
            while True:
                await one.send(message)
                count += 1
        assert stopped.cancelled_caught
        assert other.unread <= WINDOW + len(message)
        assert count * len(message) <= 2 * WINDOW + binary_channel.HIGH_WATER
        assert await take(other, count + 1) == [message] * (count + 1)
        await one.writable()
        assert b.channels._held == 0


async def test_a_closed_channel_has_no_more_messages_and_takes_none() -> None:
    async with two_channels() as (one, other, _, _):
        await one.send(b"last")
        one.close()
        assert await other.receive() == [b"last"]
        assert await other.receive() == []
        with pytest.raises(trio.BrokenResourceError):
            other.send_nowait(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await one.writable()


async def test_a_message_that_is_too_large_is_refused() -> None:
    async with two_channels() as (one, _, _, _):
        assert one.max_message_size == binary_channel.MAX_MESSAGE
        with pytest.raises(ValueError, match="may have"):
            one.send_nowait(bytes(one.max_message_size + 1))


async def test_the_path_has_figures() -> None:
    async with two_channels() as (one, other, a, _):
        await one.send(bytes(100_000))
        await take(other, 1)
        assert a.channels.stats()["packets_sent"] > 80
        assert a.channels.stats()["rtt"] > 0


async def test_channel_is_closed_from_any_task() -> None:
    """Also from one outside the asyncio loop, after the messages that were sent."""

    async def close() -> None:
        one.close()
        await trio.lowlevel.checkpoint()

    async with two_channels() as (one, other, _, _):
        await one.send(b"last")
        trio.lowlevel.spawn_system_task(close)
        assert await other.receive() == [b"last"]
        assert await other.receive() == []
        with pytest.raises(trio.BrokenResourceError):
            await one.writable()
