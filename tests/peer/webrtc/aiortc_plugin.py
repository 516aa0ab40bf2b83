"""A pytest plugin that has aiortc's own tests of SCTP run against sdpx's transport in place of aiortc's."""

from typing import Any

import aiortc.rtcsctptransport as original

from sdpx.peer.webrtc import sctp_policy
from sdpx.peer.webrtc.sctp_ext import SctpTransport
from sdpx.peer.webrtc.sctp_packet import data_chunk
from sdpx.peer.webrtc.sctp_patch import WINDOW


class TransportUnderTest(SctpTransport):
    """The transport as it is constructed in the tests, which hand over chunks as objects."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.prepare(-1, lambda _stream, _flaw: None)

    async def _receive_data_chunk(self, chunk: original.DataChunk) -> None:
        fields = chunk.flags, chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data
        packet = data_chunk(*fields)
        self._on_data(packet, chunk.flags, 4, 16 + len(chunk.user_data))

    async def _receive_sack_chunk(self, chunk: original.SackChunk) -> None:
        # a SACK made without bytes has no window: aiortc never looks at it
        self._on_sack(chunk.cumulative_tsn, chunk.advertised_rwnd or WINDOW, chunk.gaps)

    def _send_chunks(self) -> None:
        if "_transmit" not in vars(self):  # a test replaces it by nothing
            super()._send_chunks()

    def _put(self, chunks: list[Any]) -> None:
        """Send the chunks that the packets hold: the tests replace `_send_chunk` and look at them."""
        super()._put([original.parse_packet(self._packet_of(chunk))[3][0] for chunk in chunks])


sctp_policy.SHORT_BURST = 4  # type: ignore[misc]  # of aiortc, which the tests count
original.RTCSctpTransport = TransportUnderTest  # type: ignore[misc, assignment]
