"""The SCTP transport withstands any packets: each is used, or dropped, and the association stays as it was."""

import asyncio
import time
from typing import Any, Final

import pytest
from aiortc import rtcsctptransport as aiortc
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.webrtc import sctp_packet, sctp_receive, sctp_send
from sdpx.peer.webrtc.sctp_ext import SctpTransport
from sdpx.peer.webrtc.sctp_packet import TSN_MASK
from sdpx.peer.webrtc.sctp_patch import WINDOW
from tests.harness.sctp_pair import PORT, alone, run

MTU: Final = aiortc.USERDATA_MAX_LENGTH


def packet(sctp: SctpTransport, *chunks: bytes, tag: int | None = None) -> bytes:
    tag = sctp._local_verification_tag if tag is None else tag
    return sctp_packet.seal(sctp_packet.COMMON_HEADER.pack(PORT, PORT, tag), b"".join(chunks))


def chunk(kind: int, value: bytes, flags: int = 0, length: int | None = None) -> bytes:
    length = 4 + len(value) if length is None else length
    return sctp_packet.CHUNK_HEADER.pack(kind, flags, length) + value + bytes(-len(value) % 4)


def sack(
    cumulative: int, window: int = WINDOW, gaps: bytes = b"", duplicates: int = 0, *, count: int | None = None
) -> bytes:
    count = len(gaps) // 4 if count is None else count
    return chunk(sctp_packet.SACK, sctp_packet.SACK_VALUE.pack(cumulative, window, count, duplicates) + gaps)


def state(sctp: SctpTransport) -> tuple[Any, ...]:
    return sctp._last_sacked_tsn, sctp._flight_size, [each.tsn for each in sctp._sent_queue], sctp._cwnd


async def sending() -> SctpTransport:
    """Return a transport with ten chunks in flight and more that wait."""
    sctp = alone()
    sctp._cwnd = 10 * MTU
    sctp._cut(1, 53, bytes(100 * MTU))
    while sctp._flight_size < sctp._cwnd:
        sctp._send_chunks()
    return sctp


def test_a_sack_of_what_was_never_sent_is_ignored() -> None:
    """Ahead of the TSNs sent, behind those acknowledged, claiming more gap blocks than it has: nothing changes."""

    async def main() -> None:
        sctp = await sending()
        before = state(sctp)
        for cumulative in (11, 12, 1000, 0x7FFFFFFF, 0x80000001, TSN_MASK):
            sctp.receive(packet(sctp, sack(cumulative)))
        sctp.receive(packet(sctp, sack(5, count=1)))
        sctp.receive(packet(sctp, sack(5, duplicates=65_535)))
        sctp.receive(packet(sctp, chunk(sctp_packet.SACK, b"")))
        sctp.receive(packet(sctp, chunk(sctp_packet.SACK, bytes(11))))
        sctp.receive(packet(sctp, sack(5), tag=1))
        assert state(sctp) == before
        sctp.receive(packet(sctp, sack(5)))
        assert sctp._last_sacked_tsn == 5
        assert next(each.tsn for each in sctp._sent_queue) == 6

    run(main())


def test_bytes_in_gap_blocks_count_in_congestion_avoidance() -> None:
    """RFC 9260, 7.2.2; in fast recovery nothing counts (7.2.4) up to the SACK that ends it."""

    async def main() -> None:
        sctp = await sending()
        sctp._ssthresh = 4 * MTU
        sctp._on_sack(0, WINDOW, [(2, 4)])
        assert (sctp._partial_bytes_acked, sctp._cwnd) == (3 * MTU, 10 * MTU)
        for newest in (5, 6):
            sctp._on_sack(0, WINDOW, [(2, newest)])
        exit_tsn = sctp._fast_recovery_exit
        assert exit_tsn is not None
        assert (sctp._partial_bytes_acked, sctp._cwnd) == (0, 5 * MTU)
        sctp._on_sack(exit_tsn - 1, WINDOW, [])
        assert (sctp._partial_bytes_acked, sctp._cwnd) == (0, 5 * MTU)
        while sctp._flight_size < sctp._cwnd:
            sctp._send_chunks()
        sctp._on_sack(exit_tsn, WINDOW, [])
        assert (sctp._fast_recovery_exit, sctp._cwnd) == (None, 6 * MTU)

    run(main())


def test_thousands_of_overlapping_gap_blocks_cost_little() -> None:
    """Each chunk in flight is looked at once for a SACK, however many blocks claim to contain it."""

    async def main() -> None:
        sctp = await sending()
        blocks = b"".join(sctp_packet.GAP.pack(1, 65_535) for _ in range(16_000))
        began = time.process_time()
        for _ in range(20):
            sctp.receive(packet(sctp, sack(0, gaps=blocks)))
        assert time.process_time() - began < 5.0  # 20 * 16,000 * 65,535 steps would take hours
        assert sctp._flight_size >= 0

    run(main())


def test_a_packet_without_a_checksum_is_refused() -> None:
    async def main() -> None:
        sctp = alone()
        right = packet(sctp, sctp_packet.data_chunk(3, 1, 1, 0, 53, b"x"))
        sctp.receive(right[:8] + bytes(4) + right[12:])
        assert sctp._last_received_tsn == 0
        sctp.receive(right)
        assert sctp._last_received_tsn == 1

    run(main())


def test_disorder_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second TSN, without end: a bounded number is kept, and the missing one is still taken."""
    monkeypatch.setattr(sctp_receive, "MAX_DISORDER", 500)

    async def main() -> None:
        sctp = alone()
        for tsn in range(2, 4 * sctp_receive.MAX_DISORDER, 2):
            sctp.receive(packet(sctp, sctp_packet.data_chunk(0, tsn, tsn & 0xFFF, 0, 53, b"x")))
        assert len(sctp._sack_misordered) == sctp_receive.MAX_DISORDER
        assert sctp._fragments == sctp_receive.MAX_DISORDER
        sctp.receive(packet(sctp, sctp_packet.data_chunk(3, 1, 1, 0, 53, b"x")))
        assert sctp._last_received_tsn == 2

    run(main())


@pytest.mark.parametrize("size", [1, 1000])
def test_a_message_without_an_end_ends_the_association(size: int) -> None:
    """Tiny fragments, and large ones: memory is bounded, and the flaw is reported."""

    async def main() -> None:
        sctp = alone()
        flaws: list[str] = []
        sctp._on_flaw = lambda _stream, flaw: flaws.append(flaw)
        for tsn in range(1, sctp_receive.MAX_FRAGMENTS + 10):
            if sctp.state != "connected":
                break
            flags = sctp_packet.FIRST if tsn == 1 else 0
            sctp.receive(packet(sctp, sctp_packet.data_chunk(flags, tsn, 1, 0, 53, bytes(size))))
        assert sctp.state == "closed"
        assert len(flaws) == 1
        assert tsn <= 2 + min(sctp_receive.MAX_FRAGMENTS, sctp_receive.MAX_FRAGMENT_BYTES // size)

    run(main())


def dcep_open(label: bytes, protocol: bytes = b"") -> bytes:
    return b"\x03\0\0\0\0\0\0\0" + len(label).to_bytes(2, "big") + len(protocol).to_bytes(2, "big") + label + protocol


@pytest.mark.parametrize(
    ("kind", "data", "flaw"),
    [
        (50, dcep_open(b"\xff"), "a label that is not UTF-8"),
        (50, dcep_open(b"x", b"\xff"), "a label that is not UTF-8"),
        (50, dcep_open(b"label")[:-1], "a truncated message"),
        (50, b"\x02", "a data channel that does not exist"),
        (50, b"\x07", "unknown type (07)"),
        (51, b"text", "a stream without a data channel"),
        (54, b"part", "unknown type (PPID 54)"),
        (0, b"data", "unknown type (PPID 0)"),
    ],
)
def test_a_faulty_message_is_reported_and_ignored(kind: int, data: bytes, flaw: str) -> None:
    """The association continues, and the next message opens a channel."""

    async def main() -> None:
        sctp = alone()
        flaws: list[str] = []
        sctp._on_flaw = lambda _stream, flaw: flaws.append(flaw)
        sctp.receive(packet(sctp, sctp_packet.data_chunk(3, 1, 5, 0, kind, data)))
        sctp.receive(packet(sctp, sctp_packet.data_chunk(3, 2, 7, 0, 50, dcep_open(b"good"))))
        await asyncio.sleep(0)
        assert [flaw in each for each in flaws] == [True]
        assert [channel.label for channel in sctp._data_channels.values()] == ["x", "good"]

    run(main())


def test_chunks_in_flight_are_bounded_in_number() -> None:
    """Tiny messages count little for the windows; a SACK could not even name more than 65,535 of them."""

    async def main() -> None:
        sctp = alone()
        sctp._cwnd = sctp._peer_window = 10_000_000
        for _ in range(sctp_send.MAX_IN_FLIGHT + 100):
            sctp._cut(1, 53, b"x")
        for _ in range(sctp_send.MAX_IN_FLIGHT):
            sctp._send_chunks()
        assert len(sctp._sent_queue) == sctp_send.MAX_IN_FLIGHT

    run(main())


KINDS: Final = [kind for kind in aiortc.CHUNK_TYPES if kind != 6]  # an ABORT ends the association, rightly
VALUES: Final = st.binary(max_size=60)
CHUNKS: Final = st.one_of(
    st.tuples(st.sampled_from(KINDS), VALUES, st.integers(0, 15)).map(lambda each: chunk(*each)),
    st.tuples(st.sampled_from(KINDS), VALUES, st.just(0), st.integers(0, 100)).map(lambda each: chunk(*each)),
    st.tuples(
        st.integers(0, 30), st.integers(0, WINDOW), st.lists(st.tuples(*[st.integers(0, 65_535)] * 2), max_size=40)
    ).map(lambda each: sack(each[0], each[1], b"".join(sctp_packet.GAP.pack(*gap) for gap in each[2]))),
    st.tuples(
        st.integers(0, 15),
        st.integers(0, 40),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([50, 51, 53, 56, 57, 99]),
        VALUES,
    ).map(lambda each: sctp_packet.data_chunk(*each)),
)


@given(st.lists(st.lists(CHUNKS, min_size=1, max_size=4), max_size=30))
def test_any_packets_leave_a_consistent_transport(packets: list[list[bytes]]) -> None:
    """Chunks of every type with any value and length, acknowledgements of anything: no exception, and the counts are right."""

    async def main() -> None:
        sctp = await sending()
        tasks = asyncio.all_tasks()
        for chunks in packets:
            sctp.receive(packet(sctp, *chunks))
            sctp.flush()
            assert sctp._flight_size == sum(each._book_size for each in sctp._sent_queue if each._in_flight)
            tsns = [each.tsn for each in (*sctp._sent_queue, *sctp._outbound_queue)]
            assert tsns == sorted(tsns)
        await asyncio.sleep(1)
        assert asyncio.all_tasks() <= tasks

    run(main())


@given(st.lists(CHUNKS, max_size=20))
def test_any_packets_before_the_association_are_dropped(chunks: list[bytes]) -> None:
    """Neither data nor acknowledgements mean anything before the peer's INIT."""

    async def main() -> None:
        sctp = alone()
        sctp._last_received_tsn = None
        for each in chunks:
            if each[0] not in (sctp_packet.INIT, 2):  # INIT ACK, too, begins it
                sctp.receive(packet(sctp, each))
                sctp.flush()
        assert sctp._last_received_tsn is None

    run(main())


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_any_bytes_are_dropped(packets: list[bytes]) -> None:
    async def main() -> None:
        sctp = await sending()
        before = state(sctp)
        for each in packets:
            sctp.receive(each)
            sctp.receive(sctp_packet.seal(each[:8].ljust(8, b"\0"), each[8:]))
        assert state(sctp) == before

    run(main())
