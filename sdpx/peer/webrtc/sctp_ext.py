"""The hot path of aiortc's SCTP transport (RFC 9260), for the version in `versions.TESTED`.

aiortc awaits, queues and acknowledges each packet. Here a packet is handled where it comes in, without a task switch; DATA and
SACK chunks are read from the bytes; a packet is built once, with its checksum, and sent again as it is; only missing chunks
are looked at when gaps are reported; T3 is a deadline, checked by one timer; SACKs are sent for every second to eighth packet.
All else (association, stream resets, partial reliability) is aiortc's own code.

New in the protocol: the other side's receive window is respected (RFC 9260, 6.2.1), its data and its claims
are bounded, and a faulty packet is dropped instead of ending the connection.
"""

# ruff: noqa: SLF001  this module is about private parts
import time
from collections.abc import Callable, Iterable
from struct import error as BadStruct  # noqa: N812  an exception
from typing import Final

from aiortc.rtcsctptransport import CHUNK_TYPES, USERDATA_MAX_LENGTH, BaseInitChunk, Chunk, RTCSctpTransport

from sdpx.peer.webrtc import sctp_packet
from sdpx.peer.webrtc.sctp_packet import TSN_MASK
from sdpx.peer.webrtc.sctp_receive import ReceivingTransport
from sdpx.peer.webrtc.sctp_send import SendingTransport

MISSES: Final = 3  # reports of a missing chunk until it is sent again (RFC 9260, 7.2.4)
# The exceptions of aiortc for a malformed chunk.
MALFORMED: Final = (BadStruct, ValueError, AssertionError, KeyError, IndexError, AttributeError, TypeError)


class SctpTransport(ReceivingTransport, SendingTransport):
    """An SCTP transport without awaits on its hot path; `upgrade` makes one of aiortc's.

    `receive` takes packets, `flush` ends a batch of them. Packets leave by `path`, if there is one, else as in aiortc.
    """

    def prepare(self, exempt_stream: int, on_flaw: Callable[[int, str], None]) -> None:
        """Begin, before the association is initiated."""
        super().prepare(exempt_stream, on_flaw)
        self.packets_received = 0

    def stats(self) -> dict[str, float]:
        """Return the counters of the association, and the measurements of its path (bytes and seconds)."""
        return {
            "rtt": self._srtt or 0.0,
            "cwnd": self._cwnd,
            "flight": self._flight_size,
            "peer_window": self._peer_window,
            "packets_sent": self.packets_sent,
            "packets_received": self.packets_received,
            "retransmissions": self.retransmissions,
            "timeouts": self.timeouts,
        }

    # ---- receiving --------------------------------------------------------------------------------------------------

    async def _handle_data(self, data: bytes) -> None:
        self.receive(data)
        self.flush()

    def flush(self) -> None:
        """End a batch of packets: acknowledge those that are not acknowledged yet."""
        self.last_packet = self._loop.time()
        if self._sack_needed:
            self._acknowledge()

    def receive(self, packet: bytes) -> None:
        """Handle a packet; a faulty one is dropped."""
        if len(packet) < sctp_packet.CHUNKS + sctp_packet.CHUNK_HEADER.size or not sctp_packet.has_checksum(packet):
            return
        self.packets_received += 1
        tag = sctp_packet.COMMON_HEADER.unpack_from(packet)[2]
        kind, flags, length = sctp_packet.CHUNK_HEADER.unpack_from(packet, sctp_packet.CHUNKS)
        end = sctp_packet.CHUNKS + length
        if kind == sctp_packet.DATA and end <= len(packet) < end + 4 and tag == self._local_verification_tag:
            self._on_data(packet, flags, sctp_packet.CHUNKS + sctp_packet.CHUNK_HEADER.size, end)
        else:
            self._on_chunks(packet, tag)
        if self._sack_needed and (self._sacks.note_packet() or self._sack_due):
            self._acknowledge()

    def _on_chunks(self, packet: bytes, tag: int) -> None:
        """Handle the chunks of a packet."""
        chunks = sctp_packet.chunks(packet)
        if not chunks or tag != (0 if chunks[0][0] == sctp_packet.INIT else self._local_verification_tag):
            return
        for kind, flags, start, end in chunks:
            if kind == sctp_packet.DATA:
                self._on_data(packet, flags, start, end)
            elif kind == sctp_packet.SACK:
                self._on_sack_bytes(packet, start, end)
            elif kind in CHUNK_TYPES and (kind != sctp_packet.INIT or len(chunks) == 1):
                try:
                    self.step(self._receive_chunk(CHUNK_TYPES[kind](flags=flags, body=packet[start:end])))
                except MALFORMED:
                    continue

    async def _receive_chunk(self, chunk: Chunk) -> None:
        await super()._receive_chunk(chunk)
        if isinstance(chunk, BaseInitChunk):
            self._peer_window = chunk.advertised_rwnd

    # ---- acknowledgements of the other side -------------------------------------------------------------------------

    def _on_sack_bytes(self, packet: bytes, start: int, end: int) -> None:
        blocks = start + sctp_packet.SACK_VALUE.size
        if blocks <= end:
            cumulative, window, gaps, duplicates = sctp_packet.SACK_VALUE.unpack_from(packet, start)
            if blocks + 4 * (gaps + duplicates) <= end:
                self._on_sack(cumulative, window, sctp_packet.acknowledged_blocks(packet, blocks, gaps))

    def _on_sack(self, cumulative: int, window: int, blocks: Iterable[tuple[int, int]]) -> None:
        """Handle a SACK, unless it is older than another one, or acknowledges a TSN that was never sent."""
        if (cumulative - self._last_sacked_tsn) & TSN_MASK >= (self._next_new_tsn - self._last_sacked_tsn) & TSN_MASK:
            return
        was_full, was_probing = self._flight_size >= self._cwnd, self._is_probing
        self._last_sacked_tsn = cumulative
        count, size = self._take_acknowledged(cumulative)
        gap_size, has_loss = self._note_gaps(cumulative, blocks)
        if was_probing and not count and window >= USERDATA_MAX_LENGTH:  # the probe was dropped
            self._sent_queue[0]._retransmit = self._is_lossy = True
            self._flight_size_decrease(self._sent_queue[0])
        self._announced_window = window
        self._peer_window = max(0, window - self._flight_size)
        self._bursts.note_acknowledged(count)
        self._adjust_window(cumulative, count, size + gap_size, was_full=was_full, has_loss=has_loss)
        if not self._sent_queue:
            self._t3_cancel()
        elif count:
            self._t3_restart()
        if self._is_partial or self._forward_tsn_streams:
            self._update_advanced_peer_ack_point()
        else:
            self._advanced_peer_ack_tsn = cumulative
        self._send_waiting()

    def _take_acknowledged(self, cumulative: int) -> tuple[int, int]:
        """Remove the chunks up to a TSN; return their number, and the bytes that were not acknowledged before."""
        queue, count, size = self._sent_queue, 0, 0
        while queue and not sctp_packet.follows((chunk := queue[0]).tsn, cumulative):
            queue.popleft()
            count += 1
            if not chunk._acked:
                size += chunk._book_size
            self._flight_size_decrease(chunk)
            if count == 1 and chunk._sent_count == 1 and chunk._sent_time is not None:
                self._update_rto(time.time() - chunk._sent_time)
        if count:
            self._t3_failures = 0
        return count, size

    def _note_gaps(self, cumulative: int, blocks: Iterable[tuple[int, int]]) -> tuple[int, bool]:
        """Mark the chunks in gap blocks; return the bytes newly acknowledged, and whether a chunk is now lost.

        Chunks of a block that began at the same TSN in the SACK before are not looked at again.
        """
        queue, known, size, newest, position = self._sent_queue, self._known_gaps, 0, -1, 0
        self._known_gaps = {}
        if not queue:
            return 0, False
        base = (queue[0].tsn - cumulative) & TSN_MASK
        holes = []
        for first, last in blocks:
            start, end = max(first - base, position), min(last - base, len(queue) - 1)
            if start > end:
                continue
            holes.append((position, start))
            first_tsn, last_tsn = queue[start].tsn, queue[end].tsn
            self._known_gaps[first_tsn] = last_tsn
            seen = (known.get(first_tsn, first_tsn - 1) - first_tsn + 1) & TSN_MASK
            for index in range(start + seen, end + 1):
                chunk = queue[index]
                if not chunk._acked:
                    chunk._acked = True
                    size += chunk._book_size
                    newest = index
                chunk._retransmit = False
                self._flight_size_decrease(chunk)
            position = end + 1
        has_loss = [self._strike(start, min(end, newest), newest) for start, end in holes if start < newest]
        return size, any(has_loss)

    def _strike(self, start: int, end: int, newest_index: int) -> bool:
        """Count a report that these chunks are missing; whether that makes one of them lost.

        A chunk that was sent again is missing once a chunk has arrived that was sent after it.
        """
        has_loss, newest = False, self._sent_queue[newest_index].tsn
        for index in range(start, end):
            chunk = self._sent_queue[index]
            if chunk.resent_at is not None and sctp_packet.follows(chunk.resent_at, newest):
                continue
            chunk._misses += 1
            if chunk._misses == MISSES:
                chunk._misses = 0
                chunk._acked = False
                if not self._maybe_abandon(chunk):
                    chunk._retransmit = self._is_lossy = True
                self._flight_size_decrease(chunk)
                has_loss = True
        return has_loss

    def _adjust_window(self, cumulative: int, count: int, size: int, *, was_full: bool, has_loss: bool) -> None:
        """Adjust the congestion window (RFC 9260, 7.2).

        In slow start it grows as with a SACK for every second packet, and only while the cumulative TSN advances. In congestion
        avoidance all bytes count, those in gap blocks, too.
        """
        if self._fast_recovery_exit is not None:
            if sctp_packet.follows(self._fast_recovery_exit, cumulative):
                return
            self._fast_recovery_exit = None
        if was_full and self._cwnd > self._ssthresh:
            self._partial_bytes_acked += size
            if self._partial_bytes_acked >= self._cwnd:
                self._partial_bytes_acked -= self._cwnd
                self._cwnd += self.flows * USERDATA_MAX_LENGTH
        elif was_full and count:
            self._cwnd += min(size, max(1, count // 2) * USERDATA_MAX_LENGTH)
        if has_loss:
            self._bursts.note_loss()
            self._ssthresh = max(self._cwnd * (2 * self.flows - 1) // (2 * self.flows), 4 * USERDATA_MAX_LENGTH)
            self._cwnd = self._ssthresh
            self._partial_bytes_acked = 0
            self._fast_recovery_exit = self._sent_queue[-1].tsn
            self._fast_recovery_transmit = True


def upgrade(sctp: RTCSctpTransport, exempt_stream: int, on_flaw: Callable[[int, str], None]) -> SctpTransport:
    """Make a transport of aiortc that has not started one of this module; see `FlowControlledTransport.prepare`."""
    sctp.__class__ = SctpTransport
    assert isinstance(sctp, SctpTransport)
    sctp.prepare(exempt_stream, on_flaw)
    return sctp
