"""The SCTP transport delivers every message once over any network, also to and from that of aiortc."""

import asyncio
import random
from typing import Final

import pytest
from aiortc import rtcsctptransport as aiortc
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpx.peer.webrtc import sctp_packet
from sdpx.peer.webrtc.sctp_patch import WINDOW
from tests.harness.sctp_pair import End, FakeDtls, Network, alone, connect, run

MTU: Final = aiortc.USERDATA_MAX_LENGTH
INIT_ACK: Final = 2  # the type of a chunk
SIZES: Final = (1, 100, MTU, MTU + 1, 20_000, 65_536, 262_144)


def messages(seed: int, count: int, largest: int = SIZES[-1]) -> list[bytes | str]:
    """Return messages of all sizes, some of them text or empty."""
    source = random.Random(seed)
    found: list[bytes | str] = [source.randbytes(min(largest, source.choice(SIZES))) for _ in range(count)]
    return [*found, b"", "grüße ☃", ""]


async def exchange(one: End, other: End, seed: int, *, largest: int = SIZES[-1], ordered: bool = True) -> None:
    """Send messages in both directions, and require that each arrives once and as it was."""
    sent = messages(seed, 5, largest), messages(seed + 1, 5, largest)
    for end, todo in zip((one, other), sent, strict=True):
        for message in todo:
            end.channel.send(message)
    while len(one.received) < len(sent[1]) or len(other.received) < len(sent[0]):
        await asyncio.sleep(0.1)
    await asyncio.sleep(5)  # for messages that should not come
    for received, expected in ((other.received, sent[0]), (one.received, sent[1])):
        if ordered:
            assert received == expected
        else:
            assert sorted(map(repr, received)) == sorted(map(repr, expected))
    for end in (one, other):
        assert not end.sctp._sent_queue
        assert not end.sctp._outbound_queue
        assert end.sctp._flight_size == 0
        assert end.sctp._advertised_rwnd == end.window


@pytest.mark.parametrize("fast", [(True, True), (True, False), (False, True)], ids=["sdpx", "to_aiortc", "from_aiortc"])
@pytest.mark.parametrize("loss", [0, 1, 2, 5])
def test_all_messages_arrive_once_over_loss(loss: int, fast: tuple[bool, bool]) -> None:
    """Percent of the packets are lost in each direction, come twice, and come late."""

    async def main() -> None:
        network = Network(loss / 100, loss / 100, loss / 100, seed=loss)
        one, other = await connect(network, fast=fast)
        await exchange(one, other, loss)

    run(main())


@given(
    st.floats(0, 0.2),
    st.floats(0, 0.2),
    st.floats(0, 0.5),
    st.sampled_from([(True, True), (True, False), (False, True)]),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(max_examples=8)
def test_all_messages_arrive_once_over_any_network(
    loss: float, twice: float, late: float, fast: tuple[bool, bool], ordered: bool, seed: int
) -> None:
    async def main() -> None:
        one, other = await connect(Network(loss, twice, late, seed=seed), fast=fast, ordered=ordered)
        await exchange(one, other, seed, largest=4_000, ordered=ordered)

    run(main(), 24 * 3600)


def test_association_is_established_after_both_answers_to_an_init_were_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """An INIT that is sent again has no verification tag (RFC 9260, 8.5.1), although that of the other side is known."""
    send = FakeDtls._send_data
    lost: list[bytes] = []

    async def lose_first(self: FakeDtls, packet: bytes) -> None:
        if packet[sctp_packet.CHUNKS] == INIT_ACK and len(lost) < 2:
            lost.append(packet)
        else:
            await send(self, packet)

    monkeypatch.setattr(FakeDtls, "_send_data", lose_first)

    async def main() -> None:
        await connect(Network())
        assert len(lost) == 2

    run(main(), 20)


def test_a_reader_that_stops_stops_the_sender() -> None:
    """The sender never has more in flight than the window that was announced, and goes on when it opens again."""

    async def main() -> None:
        one, other = await connect(Network())
        for _ in range(64):
            one.channel.send(bytes(65_536))

        def hold(data: bytes) -> None:
            other.sctp.hold(len(data))

        other.channel.on("message", hold)
        await asyncio.sleep(60)
        held = other.sctp._held
        assert WINDOW - 65_536 <= held <= WINDOW
        assert one.sctp._flight_size <= 65_536 + MTU
        assert one.channel.bufferedAmount > 0
        before = one.sctp.retransmissions, one.sctp._cwnd
        while len(other.received) < 64 or other.sctp._held:
            other.sctp.release(min(65_536, other.sctp._held))
            await asyncio.sleep(0.05)
        assert one.sctp._cwnd >= before[1]  # a window that was closed is no congestion
        assert one.sctp.retransmissions - before[0] < 10

    run(main())


def test_a_lost_window_update_does_not_stop_the_sender() -> None:
    """While the window is closed one chunk is sent again and again (RFC 9260, 6.1)."""

    async def main() -> None:
        one, other = await connect(Network())
        other.channel.on("message", lambda data: other.sctp.hold(len(data)))
        for _ in range(64):
            one.channel.send(bytes(65_536))
        await asyncio.sleep(60)
        assert one.channel.bufferedAmount > 0
        other.dtls._network = Network(loss=1.0)
        other.sctp.release(other.sctp._held)
        await asyncio.sleep(0.1)
        other.dtls._network = Network()
        while len(other.received) < 64:
            other.sctp.release(other.sctp._held)
            await asyncio.sleep(0.1)

    run(main(), 120)


def test_t3_is_a_deadline_that_backs_off() -> None:
    """Nothing arrives: the chunk is sent again after ever longer times, up to aiortc's RTO."""

    async def main() -> None:
        one, _ = await connect(Network())
        one.channel.send(b"x" * 5000)
        await asyncio.sleep(1)
        one.dtls._network = Network(loss=1.0)
        one.dtls.sent = 0
        one.channel.send(b"x")
        await asyncio.sleep(30)
        assert 20 <= one.dtls.sent <= 40
        assert one.sctp.timeouts == one.dtls.sent - 1

    run(main())


def test_every_packet_is_a_sign_of_life() -> None:
    """A sender that gets acknowledgements alone, however slowly, counts the other side as present."""

    async def main() -> None:
        one, other = await connect(Network())
        one.channel.send(b"x")
        await asyncio.sleep(1)
        assert not one.received
        acknowledged = one.sctp.last_packet
        one.channel.send(b"x")
        await asyncio.sleep(1)
        assert one.sctp.last_packet > acknowledged
        other.sctp.send_heartbeat()
        before = one.sctp.last_packet
        await asyncio.sleep(1)
        assert one.sctp.last_packet > before

    run(main())


# ---- differences from aiortc's own handling of SACKs ------------------------------------------------------------------


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 12), st.sets(st.integers(1, 40))), max_size=12))
def test_sacks_have_the_effect_that_they_have_in_aiortc(count: int, sacks: list[tuple[int, set[int]]]) -> None:
    """Acknowledgements of a window that is not sent further: the same chunks are acknowledged, lost and in flight."""

    async def main() -> None:
        fast, slow = alone(), alone()
        slow.__class__ = aiortc.RTCSctpTransport  # type: ignore[assignment]
        for each in (fast, slow):
            each._cwnd = each._ssthresh = 1000 * MTU
            await each._send(1, 53, bytes(count * MTU))
            while each._outbound_queue:
                await each._transmit()

            async def nothing() -> None: ...

            vars(each)["_transmit"] = nothing
        vars(fast)["_send_chunks"] = lambda: None
        cumulative = 0
        for step, offsets in sacks:
            cumulative = min(cumulative + step, count)
            sack = aiortc.SackChunk()
            sack.cumulative_tsn = cumulative
            tsns = {cumulative + 1 + each for each in offsets if cumulative + 1 + each <= count}
            sack.gaps = sctp_packet.gap_blocks(tsns, cumulative)
            fast._on_sack(cumulative, WINDOW, sack.gaps)
            await slow._receive_sack_chunk(sack)
            assert [
                (each.tsn, each._acked, each._misses, each._in_flight, each._retransmit) for each in fast._sent_queue
            ] == [
                (each.tsn, each._acked, each._misses, each._in_flight, each._retransmit and not each._acked)
                for each in slow._sent_queue
            ]
            assert (fast._flight_size, fast._last_sacked_tsn) == (slow._flight_size, slow._last_sacked_tsn)
            assert fast._fast_recovery_exit == slow._fast_recovery_exit

    run(main())
