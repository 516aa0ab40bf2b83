"""The data channel of a connection (RFC 8831, 8832) and the heartbeat channel beside it, for Trio."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio
from aiortc import RTCDataChannel, RTCPeerConnection
from aiortc.exceptions import InvalidStateError
from trio_asyncio import aio_as_trio

from sdpx.concurrency import RepeatedEvent
from sdpx.peer.negotiation.confirmation import Receipt, parse_receipt, size_of
from sdpx.peer.webrtc import aioice_ext
from sdpx.peer.webrtc.events import (
    ChannelClosed,
    ChannelOpened,
    HeartbeatReceived,
    MessageReceived,
    Overrun,
    RtcEvent,
)
from sdpx.peer.webrtc.runtime import in_asyncio
from sdpx.peer.webrtc.sctp_patch import SctpFlow

HELD_BYTES: Final = 8 * 1024 * 1024  # a sender that cannot be held back is cut off there
FINISH_SECONDS: Final = 5.0
HEARTBEAT_LABEL: Final = "sdpx.heartbeat"
HEARTBEAT_ID: Final = 1000  # the stream identifier on both sides, above those that DCEP assigns one by one


class DataChannels:
    """The channels of one connection. Its data channel is the first one to open, whichever side created it.

    Events go to `emit`. A received message counts until it is released; the other side is held back meanwhile.
    """

    def __init__(self, pc: RTCPeerConnection, emit: Callable[[RtcEvent], None]) -> None:
        self._pc = pc
        self._emit = emit
        self._flow: SctpFlow | None = None
        self._held = 0
        self._overrun = False
        self._doubtful = (0, 0)  # as the data channel was closed
        self._channel: RTCDataChannel | None = None
        self._changed = RepeatedEvent()
        self._early: list[str | bytes] = []
        self._heartbeat: RTCDataChannel | None = None
        pc.on("datachannel", self._watch)

    @property
    def is_open(self) -> bool:
        """Whether there is a data channel to send on."""
        return self._channel is not None

    def control_flow(self) -> None:
        """Begin to hold the other side back, once there is an SCTP transport; in the asyncio context."""
        if self._flow is None and self._pc.sctp is not None and aioice_ext.fits("flow_control"):
            self._flow = SctpFlow(self._pc.sctp, HEARTBEAT_ID)

    @property
    def last_packet(self) -> float:
        """When the other side's last packet came, of whatever kind; 0 if that is unknown."""
        return self._flow.last_packet if self._flow else 0.0

    async def create(self, label: str) -> None:
        """Create the data channel. Without one an offer has no m-line, and ICE never starts."""
        self._watch(await in_asyncio(self._pc.createDataChannel, label))

    def _watch(self, channel: RTCDataChannel) -> None:
        channel.on("open", lambda: self._on_open(channel))
        channel.on("close", lambda: self._on_close(channel))
        channel.on("message", lambda data: self._on_message(channel, data))
        channel.on("bufferedamountlow", self._changed.set)
        if channel.readyState == "open":  # a remote channel may be open when it is announced
            self._on_open(channel)

    def _on_open(self, channel: RTCDataChannel) -> None:
        if self._channel is None:
            self._channel = channel
            self._emit(ChannelOpened(channel.label))
            early, self._early = self._early, []
            for data in early:
                self._emit(MessageReceived(data))
            self._changed.set()

    def _on_close(self, channel: RTCDataChannel) -> None:
        if channel is self._channel:
            self._doubtful = self.unacknowledged()
            self._channel = None
            self._emit(ChannelClosed(channel.label))
            self._changed.set()

    def _on_message(self, channel: RTCDataChannel, data: str | bytes) -> None:
        is_early = self._channel is None and channel.readyState == "connecting"
        if self._overrun or not (is_early or channel is self._channel):
            return
        self._held += size_of(data)
        if self._held > HELD_BYTES:
            self._overrun = True
            self._emit(Overrun())
            return
        if self._flow is not None:
            self._flow.hold(size_of(data))
        if is_early:
            self._early.append(data)  # messages may arrive before the DATA_CHANNEL_ACK (RFC 8832, 6)
        else:
            self._emit(MessageReceived(data))

    def release(self, data: str | bytes) -> None:
        """Note that a received message has been written."""
        self._held -= size_of(data)
        if self._flow is not None:
            self._flow.release(size_of(data))

    def unacknowledged(self) -> tuple[int, int]:
        """Return how many messages, and bytes, the other side's SCTP has not acknowledged, as far as that is known."""
        channel = self._channel
        if channel is None:
            return self._doubtful
        return self._flow.unacknowledged(channel.id) if self._flow else (0, channel.bufferedAmount)

    async def send(self, data: str | bytes) -> bool:
        """Send a message and wait until SCTP has taken it; False if the channel was not open, or closed before that."""
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return False
        try:
            await in_asyncio(channel.send, data)
        except InvalidStateError:  # it has closed in the meantime
            return False
        while channel.bufferedAmount and channel is self._channel:
            await self._changed.wait()
        return not channel.bufferedAmount

    async def finish(self) -> None:
        """Close the data channel and wait, for `FINISH_SECONDS` at most, until the peer has all messages.

        A stream reset is answered after all earlier messages have arrived (RFC 8831, 6.7; RFC 6525, 5.2.2).
        """
        channel = self._channel
        if channel is not None:
            with trio.move_on_after(FINISH_SECONDS):
                await in_asyncio(channel.close)
                while channel is self._channel:
                    await self._changed.wait()

    async def create_heartbeat(self) -> None:
        """Create the heartbeat channel. It is `negotiated` (W3C WebRTC, 6.2), so the peer has to create it, too."""

        def create() -> None:
            self._heartbeat = self._pc.createDataChannel(HEARTBEAT_LABEL, negotiated=True, id=HEARTBEAT_ID)
            self._heartbeat.on("message", lambda data: self._emit(HeartbeatReceived(parse_receipt(data))))

        await in_asyncio(create)

    async def send_beat(self, receipt: Receipt) -> None:
        """Send a heartbeat, if that channel is open; if data is in its way, SCTP's own."""
        channel = self._heartbeat
        if channel is None or channel.readyState != "open":
            return
        if not channel.bufferedAmount:
            with suppress(InvalidStateError):  # it has closed in the meantime
                await in_asyncio(channel.send, receipt.encode())
        elif self._flow is not None:
            await aio_as_trio(self._flow.send_heartbeat)()
