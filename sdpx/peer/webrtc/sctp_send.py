"""Sending over aiortc's SCTP transport (RFC 9260, 6.1 and 6.3): packets that are built once, and T3 as a deadline."""

# ruff: noqa: SLF001  this module is about private parts

import time
from asyncio import TimerHandle  # noqa: TC003
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcsctptransport import (
    USERDATA_MAX_LENGTH,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
)

from sdpx.peer.webrtc import sctp_packet
from sdpx.peer.webrtc.sctp_packet import FIRST, LAST, TSN_MASK, UNORDERED
from sdpx.peer.webrtc.sctp_patch import WINDOW, FlowControlledTransport, OutboundChunk
from sdpx.peer.webrtc.sctp_policy import BurstPolicy

MIN_RTO_VARIANCE: Final = 0.2  # seconds on top of the round trip: a receiver may delay its SACK so long
RECOVERY_BURST: Final = 2  # packets
MAX_IN_FLIGHT: Final = 8192  # chunks


class SendingTransport(FlowControlledTransport):
    """The sending half of an SCTP transport, which respects the other side's receive window (RFC 9260, 6.2.1)."""

    _cwnd: int
    _local_tsn: int
    _ssthresh: int
    _partial_bytes_acked: int
    _fast_recovery_exit: int | None  # type: ignore[assignment]
    _forward_tsn_chunk: ForwardTsnChunk | None
    _sent_queue: deque[OutboundChunk]  # type: ignore[assignment]
    _outbound_queue: deque[OutboundChunk]  # type: ignore[assignment]
    _t3_handle: Any  # when T3 expires, by the clock of the loop; None while it is stopped

    def prepare(self, exempt_stream: int, on_flaw: Callable[[int, str], None]) -> None:
        """Begin, before the association is initiated."""
        super().prepare(exempt_stream, on_flaw)
        self.flows = 1  # associations that this one claims the share of
        self.retransmissions = self.timeouts = 0
        self._bursts = BurstPolicy()
        self._peer_window = WINDOW  # room for more, beyond the bytes in flight
        self._announced_window = WINDOW  # the other side's, in its last SACK
        self._ssthresh = WINDOW
        self._is_lossy = False  # some chunk is to be sent again
        self._is_partial = False  # some message may be abandoned (RFC 3758)
        self._known_gaps: dict[int, int] = {}  # blocks of the latest SACK: the last TSN by the first
        self._t3_timer: TimerHandle | None = None
        self._t3_failures = 0

    def _data_channel_send(self, channel: RTCDataChannel, data: bytes | str) -> None:
        if isinstance(data, str):
            protocol, payload = (WEBRTC_STRING, data.encode()) if data else (WEBRTC_STRING_EMPTY, b"\0")
        else:
            protocol, payload = (WEBRTC_BINARY, data) if data else (WEBRTC_BINARY_EMPTY, b"\0")
        if 0 < self._remote_max_message_size < len(payload):
            super()._data_channel_send(channel, data)  # raises
        channel._addBufferedAmount(len(payload))
        self._data_channel_queue.append((channel, protocol, payload))
        self._send_waiting()

    async def _data_channel_flush(self) -> None:
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Send chunks, and cut further messages into chunks, as far as the windows permit."""
        self._send_chunks()
        while (
            self._data_channel_queue and not self._outbound_queue and self._association_state == self.State.ESTABLISHED
        ):
            channel, protocol, payload = self._data_channel_queue.popleft()
            if channel.id is None:
                self._register(channel)
            assert channel.id is not None
            if protocol == WEBRTC_DCEP:
                self._cut(channel.id, protocol, payload)
            else:
                lifetime = channel.maxPacketLifeTime
                expiry = time.time() + lifetime / 1000 if lifetime else None
                self._cut(channel.id, protocol, payload, expiry, channel.maxRetransmits, ordered=channel.ordered)
                channel._addBufferedAmount(-len(payload))
            self._send_chunks()
        if self._reconfig_queue:  # a stream reset may have waited for the last message
            self.step(self._transmit_reconfig())

    def _register(self, channel: RTCDataChannel) -> None:
        number = self._data_channel_id
        assert number is not None
        while number in self._data_channels:
            number += 2
        self._data_channels[number] = channel
        channel._setId(number)

    async def _send(
        self,
        stream_id: int,
        pp_id: int,
        user_data: bytes,
        expiry: float | None = None,
        max_retransmits: int | None = None,
        ordered: bool = True,
    ) -> None:
        self._cut(stream_id, pp_id, user_data, expiry, max_retransmits, ordered=ordered)
        self._send_chunks()

    def _cut(
        self,
        stream: int,
        protocol: int,
        payload: bytes,
        expiry: float | None = None,
        max_retransmits: int | None = None,
        *,
        ordered: bool = True,
    ) -> None:
        """Cut a message into packets, and queue them."""
        self._is_partial = self._is_partial or expiry is not None or max_retransmits is not None
        header = sctp_packet.COMMON_HEADER.pack(self._local_port, self._remote_port or 0, self._remote_verification_tag)
        number = self._outbound_stream_seq.get(stream, 0) if ordered else 0
        flags = FIRST if ordered else FIRST | UNORDERED
        # The other side may close its connection once it has the last message, before a delayed SACK is due.
        last = LAST if self._data_channel_queue else LAST | sctp_packet.SACK_IMMEDIATELY
        for start in range(0, len(payload), USERDATA_MAX_LENGTH):
            part = payload[start : start + USERDATA_MAX_LENGTH]
            if start + USERDATA_MAX_LENGTH >= len(payload):
                flags |= last
            tsn = self._local_tsn
            packet = sctp_packet.seal(header, sctp_packet.data_chunk(flags, tsn, stream, number, protocol, part))
            chunk = OutboundChunk(
                packet, flags & ~sctp_packet.SACK_IMMEDIATELY, tsn, stream, number, protocol, len(part)
            )
            chunk._expiry, chunk._max_retransmits = expiry, max_retransmits
            self._outbound_queue.append(chunk)
            self._local_tsn = (tsn + 1) & TSN_MASK
            flags &= ~FIRST
        if ordered:
            self._outbound_stream_seq[stream] = (number + 1) & 0xFFFF

    async def _transmit(self) -> None:
        self._send_chunks()

    def _send_chunks(self) -> None:
        """Send the chunks that are to be sent again, then new ones, as far as the windows permit."""
        if self._forward_tsn_chunk is not None:
            self._put([self._forward_tsn_chunk])
            self._forward_tsn_chunk = None
            if self._t3_handle is None:
                self._t3_start()
        is_recovering = self._fast_recovery_exit is not None
        burst = RECOVERY_BURST if is_recovering else self._bursts.burst(self._cwnd // USERDATA_MAX_LENGTH)
        window = min(self._flight_size + burst * USERDATA_MAX_LENGTH, self._cwnd)
        chunks: list[Chunk] = []
        if self._is_lossy:
            self._is_lossy = self._send_again(window, chunks)
        queue, now = self._outbound_queue, 0.0
        while queue and not self._is_lossy and self._flight_size < window and self._has_room_for(queue[0]):
            now = now or time.time()
            chunk = queue.popleft()
            self._sent_queue.append(chunk)
            self._flight_size_increase(chunk)
            self._peer_window = max(0, self._peer_window - chunk._book_size)
            chunk._sent_count += 1
            chunk._sent_time = now
            chunks.append(chunk)
        if chunks:
            self._put(chunks)
            if self._t3_handle is None:
                self._t3_start()

    @property
    def _next_new_tsn(self) -> int:
        return self._outbound_queue[0].tsn if self._outbound_queue else self._local_tsn

    @property
    def _is_probing(self) -> bool:
        """Whether one chunk is in flight although the other side has announced that it has no room."""
        return self._announced_window < USERDATA_MAX_LENGTH and len(self._sent_queue) == 1

    def _has_room_for(self, chunk: DataChunk) -> bool:
        """Whether the other side has room for a new chunk; one may always be in flight, as a probe (RFC 9260, 6.1)."""
        if not self._flight_size:
            return True
        return chunk._book_size <= self._peer_window and len(self._sent_queue) < MAX_IN_FLIGHT

    def _send_again(self, window: int, chunks: list[Chunk]) -> bool:
        """Add the chunks that are to be sent again; whether there are more than the window permits."""
        for index, chunk in enumerate(self._sent_queue):
            if not chunk._retransmit:
                continue
            if self._fast_recovery_transmit:
                self._fast_recovery_transmit = False
            elif self._flight_size >= window:
                return True
            self._flight_size_increase(chunk)
            chunk._misses = 0
            chunk.resent_at = self._next_new_tsn
            chunk._retransmit = False
            chunk._sent_count += 1
            self.retransmissions += 1
            chunks.append(chunk)
            if index == 0:
                self._t3_restart()
        return False

    # ---- T3 (RFC 9260, 6.3) -----------------------------------------------------------------------------------------

    def _t3_start(self) -> None:
        self._t3_restart()

    def _t3_restart(self) -> None:
        now, delay = self._loop.time(), self._rto
        if self._srtt is not None and self._rttvar is not None:
            delay = min(delay, (self._srtt + max(4 * self._rttvar, MIN_RTO_VARIANCE)) * 2**self._t3_failures)
        self._t3_handle = now + delay
        if self._t3_timer is None or self._t3_timer.when() > self._t3_handle:
            self._set_t3_timer()

    def _set_t3_timer(self) -> None:
        if self._t3_timer is not None:
            self._t3_timer.cancel()
        self._t3_timer = self._loop.call_at(self._t3_handle, self._on_t3_timer)

    def _on_t3_timer(self) -> None:
        self._t3_timer = None
        if self._t3_handle is None:
            return
        if self._t3_handle > self._loop.time():
            self._set_t3_timer()
        else:
            self._t3_expired()

    def _t3_cancel(self) -> None:
        self._t3_handle = None

    def _t3_expired(self) -> None:
        self.timeouts += 1
        self._t3_failures = min(self._t3_failures + 1, 5)
        self._is_lossy = True
        self._known_gaps = {}
        self._bursts.note_loss()
        windows, was_probing = (self._cwnd, self._ssthresh), self._is_probing
        super()._t3_expired()
        if was_probing:  # a closed window is no congestion
            self._cwnd, self._ssthresh = windows
