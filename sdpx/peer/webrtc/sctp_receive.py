"""Receiving over aiortc's SCTP transport (RFC 9260, 6.2 to 6.9), without a task switch for a packet.

The data of the other side is bounded: chunks that came after a missing one, and fragments of messages that have no end.
"""

from collections.abc import Callable
from typing import Final

from aiortc.rtcsctptransport import WEBRTC_BINARY, DataChunk, InboundStream, SackChunk

from sdpx.peer.webrtc import sctp_packet
from sdpx.peer.webrtc.sctp_packet import FIRST, LAST, TSN_HALF, TSN_MASK, UNORDERED
from sdpx.peer.webrtc.sctp_patch import WINDOW, FlowControlledTransport
from sdpx.peer.webrtc.sctp_policy import SackPolicy

MAX_DISORDER: Final = 4096  # chunks kept that came after a missing one
MAX_FRAGMENTS: Final = 65_536  # of messages that are not complete
MAX_FRAGMENT_BYTES: Final = 2 * WINDOW


class ReceivingTransport(FlowControlledTransport):
    """The receiving half of an SCTP transport."""

    def prepare(self, exempt_stream: int, on_flaw: Callable[[int, str], None]) -> None:
        """Begin, before the association is initiated."""
        super().prepare(exempt_stream, on_flaw)
        self._sacks = SackPolicy()
        self._sack_due = False
        self._fragments = self._fragment_bytes = 0

    def _on_data(self, packet: bytes, flags: int, start: int, end: int) -> None:
        if end - start <= sctp_packet.DATA_VALUE.size or self._last_received_tsn is None:
            return  # without a payload, or before the association
        tsn, stream, number, protocol = sctp_packet.DATA_VALUE.unpack_from(packet, start)
        self._sack_needed = True
        self._sack_due = self._sack_due or bool(flags & sctp_packet.SACK_IMMEDIATELY)
        if self._is_closed_to(stream, protocol) or self._is_beyond(tsn) or self._mark_received(tsn):
            self._sack_due = True
            return
        data = packet[start + sctp_packet.DATA_VALUE.size : end]
        inbound = self._inbound_streams.get(stream) or self._get_inbound_stream(stream)
        is_next = number == inbound.sequence_number or flags & UNORDERED
        if flags & (FIRST | LAST) == FIRST | LAST and is_next and not inbound.reassembly:
            if not flags & UNORDERED:
                inbound.sequence_number = (number + 1) & 0xFFFF
            self._deliver(stream, protocol, data)
        else:
            chunk = DataChunk(flags)
            chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol = tsn, stream, number, protocol
            chunk.user_data = data
            self._reassemble(inbound, chunk)
        if self._reconfig_deferred is not None:
            self.step(self._reset_deferred_streams())

    def _is_beyond(self, tsn: int) -> bool:
        """Whether there is no room for a TSN: only the next one is taken when too many came out of order."""
        ahead = (tsn - self._last_received_tsn) & TSN_MASK  # type: ignore[operator]
        return TSN_HALF > ahead > 1 and len(self._sack_misordered) >= MAX_DISORDER

    def _mark_received(self, tsn: int) -> bool:
        last = self._last_received_tsn
        assert last is not None
        if (tsn - last) & TSN_MASK == 1 and not self._sack_misordered:
            self._last_received_tsn = tsn
            return False
        self._sacks.note_disorder()
        self._sack_due = True
        if not sctp_packet.follows(tsn, last) or tsn in self._sack_misordered:
            self._sack_duplicates.append(tsn)
            return True
        self._sack_misordered.add(tsn)
        while (following := (last + 1) & TSN_MASK) in self._sack_misordered:
            self._sack_misordered.remove(following)
            last = following
        self._last_received_tsn = last
        self._sack_duplicates = [each for each in self._sack_duplicates if sctp_packet.follows(each, last)]
        return False

    def _reassemble(self, inbound: InboundStream, chunk: DataChunk) -> None:
        """Keep a fragment, and deliver the messages that it completes."""
        waiting, size = inbound.reassembly, len(chunk.user_data)
        self._advertised_rwnd -= size
        self._fragment_bytes += size
        self._fragments += 1
        is_last = not waiting or sctp_packet.follows(chunk.tsn, waiting[-1].tsn)
        if is_last:
            waiting.append(chunk)
        else:
            inbound.add_chunk(chunk)
        first = waiting[0]
        if (
            is_last
            and chunk.flags & (LAST | UNORDERED) == LAST
            and first.flags & FIRST
            and first.stream_seq == chunk.stream_seq == inbound.sequence_number
            and (chunk.tsn - first.tsn) & TSN_MASK == len(waiting) - 1
        ):
            inbound.reassembly = []
            inbound.sequence_number = (chunk.stream_seq + 1) & 0xFFFF
            message = b"".join([each.user_data for each in waiting])
            self._deliver_fragments(chunk.stream_id, chunk.protocol, message, len(waiting))
        elif not is_last or chunk.flags & LAST:
            before = len(waiting)
            for stream, protocol, message in inbound.pop_messages():
                after = len(inbound.reassembly)
                self._deliver_fragments(stream, protocol, message, before - after)
                before = after
        if self._fragments > MAX_FRAGMENTS or self._fragment_bytes > MAX_FRAGMENT_BYTES:
            self._limit_fragments(chunk.stream_id)

    def _deliver_fragments(self, stream: int, protocol: int, message: bytes, count: int) -> None:
        self._advertised_rwnd += len(message)
        self._fragment_bytes -= len(message)
        self._fragments -= count
        self._deliver(stream, protocol, message)

    def _deliver(self, stream: int, protocol: int, message: bytes) -> None:
        if protocol == WEBRTC_BINARY:
            channel = self._data_channels.get(stream)
            if channel is None:
                return
            if channel.readyState != "connecting":
                channel.emit("message", message)
                return
        self.step(self._receive(stream, protocol, message))

    def _limit_fragments(self, stream: int) -> None:
        """End the association unless stream resets and abandoned messages have made room."""
        fragments = [each for inbound in self._inbound_streams.values() for each in inbound.reassembly]
        self._fragments, self._fragment_bytes = len(fragments), sum(len(each.user_data) for each in fragments)
        if self._fragments > MAX_FRAGMENTS or self._fragment_bytes > MAX_FRAGMENT_BYTES:
            self._note_flaw(stream, "The peer sends messages without an end, or far beyond the permitted size; closing")
            self.step(self.stop())

    def _acknowledge(self) -> None:
        last = self._last_received_tsn
        if last is None:  # there is no association yet
            self._sack_needed = self._sack_due = False
            return
        sack = SackChunk()
        sack.cumulative_tsn = last
        sack.advertised_rwnd = max(0, self._advertised_rwnd)
        sack.duplicates = self._sack_duplicates[: sctp_packet.MAX_DUPLICATES]
        if self._sack_misordered:
            sack.gaps = sctp_packet.gap_blocks(self._sack_misordered, last)
        self._sack_duplicates.clear()
        self._sack_needed = self._sack_due = False
        self._sacks.note_sent()
        self._put([sack])

    async def _send_sack(self) -> None:
        self._acknowledge()
