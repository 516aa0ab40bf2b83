"""Flow control for aiortc's SCTP transport (RFC 9260), for the version in `aioice_ext.TESTED`.

aiortc hands each message over at once and always advertises its whole receive window, so it cannot hold a sender back. Here a
message counts against the window until it is released. New data that comes while the window is closed is dropped (RFC 9260,
6.2), and its sender sends it again later; the heartbeat channel and DCEP go on.
"""

# ruff: noqa: SLF001  private parts are what this module is about
import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from aiortc.rtcsctptransport import (
    DATA_CHANNEL_ACK,
    DATA_CHANNEL_OPEN,
    SCTP_DATA_LAST_FRAG,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    Chunk,
    DataChunk,
    HeartbeatChunk,
    RTCSctpTransport,
)

WINDOW: Final = 1024 * 1024  # bytes, as aiortc advertises it
OPEN_BYTES: Final = 12  # of DATA_CHANNEL_OPEN without label and protocol (RFC 8832, 5.1)
SACK_IMMEDIATELY: Final = 0x08  # RFC 7053, 3
HEARTBEAT_INFO: Final = (1, b"sdpx")  # RFC 9260, 3.3.5


class SctpFlow:
    """The receive window of one association, and what it has sent; data of `exempt_stream` is never dropped."""

    def __init__(self, sctp: RTCSctpTransport, exempt_stream: int) -> None:
        self._sctp: Any = sctp
        self._exempt_stream = exempt_stream
        self._held = 0
        self._handle_data = sctp._handle_data
        self._receive_data_chunk = sctp._receive_data_chunk
        self._send_chunk = sctp._send_chunk
        self.last_packet = 0.0  # when the other side's last packet came, by the clock of the loop
        vars(sctp).update(
            _handle_data=self._on_packet, _receive_data_chunk=self._on_data_chunk, _send_chunk=self._on_send_chunk
        )

    async def _on_packet(self, data: bytes) -> None:
        self.last_packet = self._sctp._loop.time()
        await self._handle_data(data)

    async def _on_data_chunk(self, chunk: DataChunk) -> None:
        is_control = chunk.stream_id == self._exempt_stream or chunk.protocol == WEBRTC_DCEP
        if self._held and self._sctp._advertised_rwnd <= 0 and not is_control:
            self._sctp._sack_needed = True
        else:
            await self._receive_data_chunk(chunk)

    async def _on_send_chunk(self, chunk: Chunk) -> None:
        # the other side may close its connection once it has the last message, before a delayed acknowledgement is due
        if isinstance(chunk, DataChunk) and not self._sctp._outbound_queue:
            chunk.flags |= SACK_IMMEDIATELY
        await self._send_chunk(chunk)

    def hold(self, size: int) -> None:
        """Take `size` bytes off the window."""
        self._held += size
        self._sctp._advertised_rwnd -= size

    def release(self, size: int) -> None:
        """Give `size` bytes back to the window; the other side is notified when it is half open again."""
        was_narrow = self._sctp._advertised_rwnd < WINDOW // 2
        self._held -= size
        self._sctp._advertised_rwnd += size
        if was_narrow and self._sctp._advertised_rwnd >= WINDOW // 2:
            self._sctp._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._send(self._sctp._send_sack)))

    async def send_heartbeat(self) -> None:
        """Send a HEARTBEAT chunk, which waits for no data and is always acknowledged (RFC 9260, 8.3)."""
        chunk = HeartbeatChunk()
        chunk.params.append(HEARTBEAT_INFO)
        await self._send(self._sctp._send_chunk, chunk)

    async def _send(self, send: Any, *args: object) -> None:
        with suppress(ConnectionError):  # it has been closed
            if self._sctp.state == "connected":
                await send(*args)

    def unacknowledged(self, stream: int | None) -> tuple[int, int]:
        """Return how many messages on this stream, and bytes, the other side has not acknowledged."""
        sctp = self._sctp
        chunks = [each for each in (*sctp._sent_queue, *sctp._outbound_queue) if each.stream_id == stream]
        chunks = [each for each in chunks if each.protocol != WEBRTC_DCEP]
        waiting = [
            data for channel, kind, data in sctp._data_channel_queue if channel.id == stream and kind != WEBRTC_DCEP
        ]
        messages = sum(each.flags & SCTP_DATA_LAST_FRAG for each in chunks) + len(waiting)
        return messages, sum(len(each.user_data) for each in chunks) + sum(map(len, waiting))


def tolerate(sctp: RTCSctpTransport, on_flaw: Callable[[int, str], None]) -> None:
    """Ignore faulty messages of the other side, which end the connection in aiortc; `on_flaw` gets the stream and the reason.

    A message on a channel that the other side has not acknowledged acknowledges it, as in browsers.
    """
    receive = sctp._data_channel_receive

    async def on_message(stream: int, kind: int, data: bytes) -> None:
        channel = sctp._data_channels.get(stream)
        if flaw := _flaw(kind, data, is_known=channel is not None):
            on_flaw(stream, flaw)
            return
        if kind != WEBRTC_DCEP and channel is not None and channel.readyState == "connecting":
            channel._setReadyState("open")
        await receive(stream, kind, data)

    vars(sctp)["_data_channel_receive"] = on_message


def _flaw(kind: int, data: bytes, *, is_known: bool) -> str:
    """Return what is wrong with a message (RFC 8832, 5 and 6; RFC 8831, 6.6); empty if nothing is."""
    message = data[:1] if kind == WEBRTC_DCEP else b""
    if message == bytes([DATA_CHANNEL_ACK]):
        return "" if is_known else "The peer acknowledged a data channel that does not exist"
    if message == bytes([DATA_CHANNEL_OPEN]):
        if is_known:
            return "The peer opened a data channel that is open already"
        label, protocol = (int.from_bytes(data[start : start + 2], "big") for start in (8, 10))
        if len(data) < OPEN_BYTES + label + protocol:
            return "The peer opened a data channel with a truncated message"
        texts = [data[OPEN_BYTES : OPEN_BYTES + label], data[OPEN_BYTES + label :][:protocol]]
    else:
        texts = [data] * (kind == WEBRTC_STRING)
    try:
        for text in texts:
            text.decode()
    except UnicodeDecodeError:
        return f"The peer sent a {'label' if message else 'text'} that is not UTF-8; it is ignored"
    return ""
