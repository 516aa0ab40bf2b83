"""SCTP packets as bytes: they are those that aiortc reads and writes, and malformed ones are refused."""

import itertools
from typing import Any

import pytest
from aiortc import rtcsctptransport as aiortc
from aiortc.utils import uint32_gt
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.webrtc import sctp_packet, sctp_patch
from sdpx.peer.webrtc.sctp_packet import TSN_MASK

WORD = st.integers(0, 0xFFFFFFFF)
HALF = st.integers(0, 0xFFFF)


assert sctp_patch  # replaces aiortc's own reader of parameters


def as_chunk(flags: int, tsn: int, stream: int, number: int, protocol: int, payload: bytes) -> aiortc.DataChunk:
    chunk = aiortc.DataChunk(flags)
    chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = (
        tsn,
        stream,
        number,
        protocol,
        payload,
    )
    return chunk


@given(st.tuples(st.integers(0, 15), WORD, HALF, HALF, WORD, st.binary(min_size=1, max_size=1200)))
def test_a_data_packet_is_that_of_aiortc(fields: Any) -> None:
    expected = aiortc.serialize_packet(5000, 5001, 7, as_chunk(*fields))
    packet = sctp_packet.seal(sctp_packet.COMMON_HEADER.pack(5000, 5001, 7), sctp_packet.data_chunk(*fields))
    assert packet == expected
    assert sctp_packet.has_checksum(packet)
    size = len(fields[-1])
    assert sctp_packet.chunks(packet) == [(sctp_packet.DATA, fields[0], 16, 28 + size)]
    assert packet[sctp_packet.PAYLOAD :][:size] == fields[-1]


@given(st.binary(min_size=16, max_size=60), st.integers(0, 2**32 - 1))
def test_a_wrong_checksum_is_noticed_and_zero_is_wrong(body: bytes, checksum: int) -> None:
    """RFC 9653, by which a zero would be accepted, is not negotiated."""
    right = sctp_packet.seal(body[:8], body[8:])
    assert sctp_packet.has_checksum(right)
    assert sctp_packet.has_checksum(right[:8] + checksum.to_bytes(4, "little") + right[12:]) is (
        right[8:12] == checksum.to_bytes(4, "little")
    )
    assert not sctp_packet.has_checksum(right[:8] + bytes(4) + right[12:]) or right[8:12] == bytes(4)


@given(st.binary(max_size=80))
def test_chunks_are_those_of_aiortc_or_none(body: bytes) -> None:
    """Any bytes: a length that is too short, or beyond the packet, makes the whole packet malformed."""
    packet = sctp_packet.seal(bytes(8), bytes([15, 0]) + body)  # 15 is a type that aiortc does not know
    found = sctp_packet.chunks(packet)
    for kind, flags, start, end in found:
        assert 16 <= start <= end <= len(packet)
        assert packet[start - 4 : start - 2] == bytes([kind, flags])
    if not found:
        return
    known = [each for each in found if each[0] in aiortc.CHUNK_TYPES]
    try:
        parsed = aiortc.parse_packet(packet)[3]
    except Exception:  # noqa: BLE001  the value of a chunk is malformed
        return
    assert [(each.type, each.flags) for each in parsed] == [each[:2] for each in known]


@given(WORD, st.sets(st.integers(2, 65_535), max_size=400))
def test_gap_blocks_cover_the_tsns_and_no_others(cumulative: int, offsets: set[int]) -> None:
    """As many as a packet has room for, the lowest ones; and the blocks read from a SACK are those that were written."""
    blocks = sctp_packet.gap_blocks({(cumulative + each) & TSN_MASK for each in offsets}, cumulative)
    covered = {each for first, last in blocks for each in range(first, last + 1)}
    assert len(blocks) <= sctp_packet.MAX_GAPS
    assert covered == offsets if len(blocks) < sctp_packet.MAX_GAPS else covered <= offsets
    assert not covered or covered == {each for each in offsets if each <= max(covered)}
    assert all(last + 1 < first for (_, last), (first, _) in itertools.pairwise(blocks))
    written = b"".join(sctp_packet.GAP.pack(*each) for each in blocks)
    assert list(sctp_packet.acknowledged_blocks(written, 0, len(blocks))) == blocks


@given(st.lists(st.tuples(HALF, HALF), max_size=300))
def test_acknowledged_blocks_ascend_whatever_a_sack_claims(blocks: list[tuple[int, int]]) -> None:
    written = b"".join(sctp_packet.GAP.pack(*each) for each in blocks)
    read = list(sctp_packet.acknowledged_blocks(written, 0, len(blocks)))
    assert set(read) <= set(blocks)
    flat = [each for block in read for each in block]
    assert flat == sorted(flat)
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(read))


@given(WORD, WORD)
def test_a_tsn_follows_another_one_as_in_aiortc(one: int, other: int) -> None:
    if (one - other) & TSN_MASK != sctp_packet.TSN_HALF:
        assert sctp_packet.follows(one, other) == uint32_gt(one, other)


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=9)), max_size=4))
def test_parameters_are_read_as_they_were_written(written: list[tuple[int, bytes]]) -> None:
    assert sctp_packet.parameters(aiortc.encode_params(written)) == written


@pytest.mark.parametrize("value", [bytes(8), b"\0\1\0\3", b"\0\1\0\6ab\0\0\0\0\0\0"])
def test_parameter_of_an_impossible_length_is_refused(value: bytes) -> None:
    """aiortc's own function would never end; its chunks are read with this one."""
    with pytest.raises(ValueError, match="bytes"):
        sctp_packet.parameters(value)
    for kind in (1, 2, 4, 130):  # INIT, INIT ACK, HEARTBEAT, RE-CONFIG
        with pytest.raises(ValueError, match="bytes"):
            aiortc.CHUNK_TYPES[kind](body=(bytes(16) if kind < 4 else b"") + value)
