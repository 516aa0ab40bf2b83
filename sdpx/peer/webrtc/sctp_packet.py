"""SCTP packets (RFC 9260, 3) as bytes, which the hot path builds and reads without an object for each. Pure."""

from collections.abc import Collection, Iterator
from struct import Struct
from typing import Final

from google_crc32c import value as crc32c

COMMON_HEADER: Final = Struct("!HHL")  # ports and verification tag; the checksum follows
CHUNK_HEADER: Final = Struct("!BBH")
DATA_HEADER: Final = Struct("!BBHLHHL")
DATA_VALUE: Final = Struct("!LHHL")  # the fields between the chunk header and the payload
PARAMETER_HEADER: Final = Struct("!HH")
SACK_VALUE: Final = Struct("!LLHH")
GAP: Final = Struct("!HH")
CHECKSUM: Final = Struct("<L")
CHUNKS: Final = 12  # where the chunks begin
PAYLOAD: Final = CHUNKS + DATA_HEADER.size  # where that of the first chunk begins
NO_CHECKSUM: Final = bytes(4)

DATA: Final = 0
INIT: Final = 1
SACK: Final = 3

LAST: Final = 0x01  # flags of a DATA chunk (RFC 9260, 3.3.1)
FIRST: Final = 0x02
UNORDERED: Final = 0x04
SACK_IMMEDIATELY: Final = 0x08  # RFC 7053, 3

TSN_MASK: Final = 0xFFFFFFFF
TSN_HALF: Final = 0x80000000  # a difference from here on is a negative one (RFC 1982)
MAX_GAPS: Final = 256  # that a packet has room for, beside
MAX_DUPLICATES: Final = 32


def has_checksum(packet: bytes) -> bool:
    """Whether the CRC32c of a packet is right; a zero in its place is wrong (nothing negotiates RFC 9653)."""
    found: int = CHECKSUM.unpack_from(packet, 8)[0]
    return bool(found == crc32c(packet[:8] + NO_CHECKSUM + packet[CHUNKS:]))


def seal(header: bytes, chunk: bytes) -> bytes:
    """Return the packet of a chunk, from the first eight bytes of the common header."""
    return header + CHECKSUM.pack(crc32c(header + NO_CHECKSUM + chunk)) + chunk


def data_chunk(flags: int, tsn: int, stream: int, number: int, protocol: int, payload: bytes) -> bytes:
    """Return a DATA chunk with its padding."""
    size = len(payload)
    return DATA_HEADER.pack(DATA, flags, 16 + size, tsn, stream, number, protocol) + payload + bytes(-size % 4)


def chunks(packet: bytes) -> list[tuple[int, int, int, int]]:
    """Return the type, the flags, the start and the end of each chunk's value; none if the packet is malformed."""
    found, at, size = [], CHUNKS, len(packet)
    while at + CHUNK_HEADER.size <= size:
        kind, flags, length = CHUNK_HEADER.unpack_from(packet, at)
        if length < CHUNK_HEADER.size or at + length > size:
            return []
        found.append((kind, flags, at + CHUNK_HEADER.size, at + length))
        at += length + -length % 4
    return found


def parameters(body: bytes) -> list[tuple[int, bytes]]:
    """Return type and value of each parameter of a chunk (RFC 9260, 3.2.1). Raises `ValueError` for an impossible length."""
    found, at = [], 0
    while at + PARAMETER_HEADER.size <= len(body):
        kind, length = PARAMETER_HEADER.unpack_from(body, at)
        if length < PARAMETER_HEADER.size:
            raise ValueError(f"a parameter of {length} bytes")
        found.append((kind, body[at + PARAMETER_HEADER.size : at + length]))
        at += length + -length % 4
    return found


def acknowledged_blocks(packet: bytes, start: int, count: int) -> Iterator[tuple[int, int]]:
    """Return the gap blocks of a SACK that ascend, without those that overlap an earlier one."""
    end = 0
    for at in range(start, start + GAP.size * count, GAP.size):
        first, last = GAP.unpack_from(packet, at)
        if end < first <= last:
            yield first, last
            end = last


def gap_blocks(tsns: Collection[int], cumulative: int) -> list[tuple[int, int]]:
    """Return the first gap blocks of a SACK (RFC 9260, 3.3.4) for the TSNs that came after a missing one."""
    ordered = sorted(tsns)
    if ordered and ordered[-1] - ordered[0] >= TSN_HALF:  # they wrap
        ordered.sort(key=lambda tsn: (tsn - cumulative) & TSN_MASK)
    blocks: list[tuple[int, int]] = []
    first = last = -1
    for tsn in ordered:
        offset = (tsn - cumulative) & TSN_MASK
        if offset == last + 1:
            last = offset
            continue
        if first >= 0:
            blocks.append((first, last))
        if len(blocks) == MAX_GAPS:
            return blocks
        first = last = offset
    return [*blocks, (first, last)] if first >= 0 else blocks


def follows(tsn: int, other: int) -> bool:
    """Whether a TSN comes after another one (RFC 1982)."""
    return 0 < (tsn - other) & TSN_MASK < TSN_HALF
