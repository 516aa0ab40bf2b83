"""Flow control and tolerance for aiortc's SCTP transport (RFC 9260), for the version in `versions.TESTED`.

aiortc hands each message over at once and always advertises its whole receive window, so it cannot hold a sender back. Here a
message counts against the window until it is released. New data that comes while the window is closed is dropped (RFC 9260,
6.2), and its sender sends it again later; the heartbeat channel and DCEP go on. `sctp_ext` adds the hot path.
"""

# ruff: noqa: SLF001  this module is about private parts
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from types import coroutine
from typing import Any, Final, Protocol

from aiortc import rtcsctptransport
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    SCTP_DATA_LAST_FRAG,
    WEBRTC_BINARY,
    WEBRTC_BINARY_EMPTY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    WEBRTC_STRING_EMPTY,
    Chunk,
    DataChunk,
    HeartbeatChunk,
    InitChunk,
    RTCSctpTransport,
    serialize_packet,
)

from sdpx.peer.webrtc import sctp_packet

# aiortc's own function never ends at a parameter of length 0, and takes all memory.
rtcsctptransport.decode_params = sctp_packet.parameters

WINDOW: Final = 2 * 1024 * 1024  # bytes of the receive window: 40 MB/s with a round trip of 50 ms
OPEN_BYTES: Final = 12  # of DATA_CHANNEL_OPEN without label and protocol (RFC 8832, 5.1)
HEARTBEAT_INFO: Final = (1, b"sdpx")  # RFC 9260, 3.3.5
MESSAGES: Final = (WEBRTC_STRING, WEBRTC_BINARY, WEBRTC_STRING_EMPTY, WEBRTC_BINARY_EMPTY)  # RFC 8831, 8
MAX_CHANNELS: Final = 256  # that exist at once
MAX_FLAWS: Final = 64  # that are reported


class PacketPath(Protocol):
    """A way to send packets at once that is faster than aiortc's."""

    def send(self, packets: list[bytes]) -> None:
        """Send packets, or drop them."""


class OutboundChunk(DataChunk):
    """A DATA chunk that is sent, with its packet."""

    __slots__ = (
        *("packet", "flags", "tsn", "stream_id", "stream_seq", "protocol", "_book_size", "_abandoned", "_acked"),
        *("_in_flight", "_retransmit", "_misses", "_sent_count", "_sent_time", "_expiry", "_max_retransmits"),
        "resent_at",
    )

    def __init__(self, packet: bytes, flags: int, tsn: int, stream: int, number: int, protocol: int, size: int) -> None:
        self.packet = packet
        self.flags, self.tsn, self.stream_id, self.stream_seq, self.protocol = flags, tsn, stream, number, protocol
        self._book_size = size
        self._abandoned = self._acked = self._in_flight = self._retransmit = False
        self._misses = self._sent_count = 0
        self._sent_time: float | None = None
        self._expiry: float | None = None
        self._max_retransmits: int | None = None
        self.resent_at: int | None = None  # the next new TSN, when it was last sent again

    @property
    def user_data(self) -> bytes:  # type: ignore[override]
        """The payload."""
        return self.packet[sctp_packet.PAYLOAD :][: self._book_size]


class FlowControlledTransport(RTCSctpTransport):
    """An SCTP transport with a receive window that the application opens, and counts of the messages that it has sent.

    Faulty messages of the other side, which end the connection in aiortc, are ignored. A message on a channel that the other
    side has not acknowledged acknowledges it, as in browsers.
    """

    _loop: AbstractEventLoop

    def prepare(self, exempt_stream: int, on_flaw: Callable[[int, str], None]) -> None:
        """Begin; data of `exempt_stream` is never dropped, and `on_flaw` gets the stream and the flaw of a faulty message."""
        self._exempt_stream = exempt_stream
        self._on_flaw = on_flaw
        self._flaws = 0
        self._held = 0
        self._advertised_rwnd = WINDOW
        self.path: PacketPath | None = None
        self.packets_sent = 0
        self.last_packet = 0.0  # when the other side's last packet came, by the clock of the loop

    def _put(self, chunks: list[Any]) -> None:
        """Send a packet for each chunk."""
        self.packets_sent += len(chunks)
        if self.path is not None:
            self.path.send([self._packet_of(chunk) for chunk in chunks])
        else:
            for chunk in chunks:
                self.step(self._send_chunk(chunk))

    def _packet_of(self, chunk: Chunk) -> bytes:
        if isinstance(chunk, OutboundChunk):
            return chunk.packet
        # aiortc forgets that an INIT has no tag (RFC 9260, 8.5.1) if it is sent again after that of the other side has come.
        tag = 0 if isinstance(chunk, InitChunk) else self._remote_verification_tag
        return serialize_packet(self._local_port, self._remote_port or 0, tag, chunk)

    async def _send_chunk(self, chunk: Chunk) -> None:
        if self.path is not None:
            self.path.send([self._packet_of(chunk)])
        else:
            await self.transport._send_data(self._packet_of(chunk))

    def hold(self, size: int) -> None:
        """Take `size` bytes off the window."""
        self._held += size
        self._advertised_rwnd -= size

    def release(self, size: int) -> None:
        """Give `size` bytes back to the window; the other side is notified when it is half open again."""
        was_narrow = self._advertised_rwnd < WINDOW // 2
        self._held -= size
        self._advertised_rwnd += size
        if was_narrow and self._advertised_rwnd >= WINDOW // 2 and self.state == "connected":
            self.step(self._send_sack())

    def _is_closed_to(self, stream: int, protocol: int) -> bool:
        """Whether the window is closed to new data; never to that of the heartbeat and of DCEP."""
        is_exempt = stream == self._exempt_stream or protocol == WEBRTC_DCEP
        return self._held > 0 and self._advertised_rwnd <= 0 and not is_exempt

    def send_heartbeat(self) -> None:
        """Send a HEARTBEAT chunk, which waits for no data and is always acknowledged (RFC 9260, 8.3)."""
        chunk = HeartbeatChunk()
        chunk.params.append(HEARTBEAT_INFO)
        if self.state == "connected":
            self.step(self._send_chunk(chunk))

    def step(self, todo: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine of aiortc up to its first wait, and the rest of it in a task; few of them ever wait."""
        try:
            waiting_for = todo.send(None)
        except (StopIteration, ConnectionError):  # the connection has been closed
            return
        self._loop.create_task(_finish(todo, waiting_for))

    def unacknowledged(self, stream: int | None) -> tuple[int, int]:
        """Return how many messages on this stream, and bytes, the other side has not acknowledged."""
        chunks = [each for each in (*self._sent_queue, *self._outbound_queue) if each.stream_id == stream]
        chunks = [each for each in chunks if each.protocol != WEBRTC_DCEP]
        waiting = [
            data for channel, kind, data in self._data_channel_queue if channel.id == stream and kind != WEBRTC_DCEP
        ]
        messages = sum(each.flags & SCTP_DATA_LAST_FRAG for each in chunks) + len(waiting)
        return messages, sum(each._book_size for each in chunks) + sum(map(len, waiting))

    async def _data_channel_receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        channel = self._data_channels.get(stream_id)
        is_heartbeat = (
            stream_id == self._exempt_stream and pp_id != WEBRTC_DCEP
        )  # it may come before its channel exists
        if flaw := self._flaw(pp_id, data, is_known=channel is not None or is_heartbeat):
            self._note_flaw(stream_id, flaw)
            return
        if pp_id != WEBRTC_DCEP and channel is not None and channel.readyState == "connecting":
            channel._setReadyState("open")
        await super()._data_channel_receive(stream_id, pp_id, data)

    def _note_flaw(self, stream: int, flaw: str) -> None:
        self._flaws += 1
        if self._flaws <= MAX_FLAWS:
            self._on_flaw(stream, flaw)

    def _flaw(self, kind: int, data: bytes, *, is_known: bool) -> str:
        """Return the flaw of a message (RFC 8831, 6.6 and 8); empty if nothing is."""
        if kind == WEBRTC_DCEP:
            return self._flaw_of_dcep(data, is_known=is_known)
        if kind not in MESSAGES:
            return f"The peer sent a message of an unknown type (PPID {kind}); it is ignored"
        if not is_known:
            return "The peer sent a message on a stream without a data channel; it is ignored"
        is_bad = kind == WEBRTC_STRING and not _is_utf8(data)
        return "The peer sent a text that is not UTF-8; it is ignored" if is_bad else ""

    def _flaw_of_dcep(self, data: bytes, *, is_known: bool) -> str:
        """Return the flaw of a message that opens a channel, or acknowledges it (RFC 8832, 5 and 6)."""
        if data[:1] == bytes([DATA_CHANNEL_ACK]):
            return "" if is_known else "The peer acknowledged a data channel that does not exist"
        if data[:1] != bytes([DATA_CHANNEL_OPEN]):
            return f"The peer sent a DCEP message of an unknown type ({data[:1].hex()}); it is ignored"
        if is_known:
            return "The peer opened a data channel that is open already"
        if len(self._data_channels) >= MAX_CHANNELS:
            return f"The peer opened more than {MAX_CHANNELS} data channels"
        label, protocol = (int.from_bytes(data[start : start + 2], "big") for start in (8, 10))
        if len(data) < OPEN_BYTES + label + protocol:
            return "The peer opened a data channel with a truncated message"
        texts = data[OPEN_BYTES : OPEN_BYTES + label], data[OPEN_BYTES + label :][:protocol]
        return "" if all(map(_is_utf8, texts)) else "The peer sent a label that is not UTF-8; it is ignored"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@coroutine
def _finish(todo: Coroutine[Any, Any, None], waiting_for: Any) -> Any:
    """Go on with a coroutine that waits for a future."""
    while True:
        try:
            result = yield waiting_for
        except BaseException as error:  # noqa: BLE001  a cancellation, too, is its own affair
            step: Callable[[], Any] = lambda error=error: todo.throw(error)  # type: ignore[misc]  # noqa: E731
        else:
            step = lambda result=result: todo.send(result)  # type: ignore[misc]  # noqa: E731
        try:
            waiting_for = step()
        except (StopIteration, ConnectionError):
            return None
