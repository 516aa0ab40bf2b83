"""The data channels of a connection (RFC 8831, 8832) and the heartbeat channel beside it, for Trio."""

from collections.abc import Callable
from functools import partial
from typing import Final

import trio
from aiortc import RTCDataChannel, RTCPeerConnection

from sdpx.concurrency import RepeatedEvent
from sdpx.events import webrtc
from sdpx.peer.negotiation.confirmation import Receipt, parse_receipt, size_of
from sdpx.peer.webrtc import datagram_path, versions
from sdpx.peer.webrtc.binary_channel import BinaryChannel
from sdpx.peer.webrtc.events import HeartbeatReceived, MessageReceived, Overrun, RtcEvent
from sdpx.peer.webrtc.runtime import in_asyncio
from sdpx.peer.webrtc.sctp_ext import SctpTransport, upgrade

HELD_BYTES: Final = 8 * 1024 * 1024  # a sender that cannot be held back is cut off there
FINISH_SECONDS: Final = 5.0
HEARTBEAT_LABEL: Final = "sdpx.heartbeat"
HEARTBEAT_ID: Final = 1000  # the stream identifier on both sides, above those that DCEP assigns one by one


class DataChannels:
    """The channels of one connection, whichever side created them. The first one that is open is the default for messages.

    Events go to `emit`. A received message counts until it is released; the other side is held back meanwhile.
    """

    def __init__(self, pc: RTCPeerConnection, emit: Callable[[RtcEvent], None]) -> None:
        self._pc = pc
        self._emit = emit
        self._flow: SctpTransport | None = None
        self._held = 0
        self._overrun = False
        self._closed: dict[int | None, RTCDataChannel] = {}
        self._open: list[RTCDataChannel] = []
        self._changed = RepeatedEvent()
        self.max_message_size = 0  # of the other side (RFC 8841, 6.1); 0 is unlimited
        self._heartbeat: RTCDataChannel | None = None
        self._binary: dict[str | None, BinaryChannel] = {}
        pc.on("datachannel", self._watch)

    @property
    def is_open(self) -> bool:
        """Whether there is a data channel to send on."""
        return bool(self._open)

    @property
    def is_connected(self) -> bool:
        """Whether the SCTP association exists: the other side can acknowledge messages."""
        return self._pc.sctp is not None and self._pc.sctp.state == "connected"

    def has(self, label: str | None) -> bool:
        """Whether the channel for a message with this label is open."""
        return self._find(label) is not None

    def _find(self, label: str | None) -> RTCDataChannel | None:
        """Return the first open channel for messages, or the first one with this label."""
        if label is None and self._binary:
            return next((each for each in self._open if each.label not in self._binary), None)
        return next((each for each in self._open if label in (None, each.label)), None)

    def binary(self, label: str | None) -> BinaryChannel:
        """Return the channel with this label, or the first one for None; its messages are no events from now on."""
        if label not in self._binary:
            sizes = (lambda: self.max_message_size, lambda channel: self._unacknowledged_on(channel)[1])
            self._binary[label] = binary = BinaryChannel(self._release, *sizes)
            if (channel := self._find(label)) is not None:
                binary.attach(channel)
        return self._binary[label]

    def _binary_of(self, channel: RTCDataChannel) -> BinaryChannel | None:
        is_first = channel is next(iter(self._open), None)
        return self._binary.get(channel.label) or (self._binary.get(None) if is_first else None)

    def control_flow(self) -> None:
        """Begin to hold the other side back, once there is an SCTP transport; in the asyncio context."""
        if self._flow is None and self._pc.sctp is not None and versions.fits("flow_control"):
            on_flaw = lambda number, flaw: self._emit(webrtc.DataChannelError(number, flaw))  # noqa: E731
            self._flow = upgrade(self._pc.sctp, HEARTBEAT_ID, on_flaw)
            if versions.fits("datagram_batches"):
                datagram_path.open_path(self._flow)

    @property
    def last_packet(self) -> float:
        """When the other side's last packet came, of whatever kind; 0 if that is unknown."""
        return self._flow.last_packet if self._flow else 0.0

    async def create(self, label: str, number: int | None = None) -> None:
        """Create a data channel. Without one an offer has no m-line, and ICE never starts.

        With `number`, its stream identifier, the channel is negotiated: the other side creates it, too (W3C WebRTC, 6.2).
        """
        negotiated = number is not None
        self._watch(await in_asyncio(partial(self._pc.createDataChannel, label, negotiated=negotiated, id=number)))

    def _watch(self, channel: RTCDataChannel) -> None:
        channel.on("open", lambda: self._on_open(channel))
        channel.on("close", lambda: self._on_close(channel))
        channel.on("message", lambda data: self._on_message(channel, data))
        channel.on("bufferedamountlow", self._changed.set)
        if channel.readyState == "open":  # a remote channel may be open when it is announced
            self._on_open(channel)

    def _on_open(self, channel: RTCDataChannel) -> None:
        if channel not in self._open:
            self._open.append(channel)
            if (binary := self._binary_of(channel)) is not None:
                binary.attach(channel)
            self._emit(webrtc.ChannelOpen(channel.label, channel.id))
            self._changed.set()

    def _on_close(self, channel: RTCDataChannel) -> None:
        if channel in self._open:
            if (binary := self._binary_of(channel)) is not None:
                binary.detach()
            self._open.remove(channel)
            self._closed[channel.id] = channel  # its messages may still be acknowledged
            self._emit(webrtc.ChannelClosed(channel.label, channel.id))
            self._changed.set()

    def _on_message(self, channel: RTCDataChannel, data: str | bytes) -> None:
        if self._overrun or channel not in self._open:
            return
        self._held += size_of(data)
        if self._held > HELD_BYTES:
            self._overrun = True
            self._emit(Overrun())
            return
        if self._flow is not None:
            self._flow.hold(size_of(data))
        if self._binary and (binary := self._binary_of(channel)) is not None:
            binary.put(data)
            return
        self._emit(MessageReceived(data, None if channel is self._open[0] else channel.label))

    def release(self, data: str | bytes) -> None:
        """Note that a received message has been written."""
        self._release(size_of(data))

    def _release(self, size: int) -> None:
        self._held -= size
        if self._flow is not None:
            self._flow.release(size)

    def unacknowledged(self) -> tuple[int, int]:
        """Return how many messages, and bytes, the other side's SCTP has not acknowledged, as far as that is known."""
        channels = self._closed | {channel.id: channel for channel in self._open}
        counts = list(map(self._unacknowledged_on, channels.values()))
        return sum(each[0] for each in counts), sum(each[1] for each in counts)

    def _unacknowledged_on(self, channel: RTCDataChannel) -> tuple[int, int]:
        return self._flow.unacknowledged(channel.id) if self._flow else (0, channel.bufferedAmount)

    def stats(self) -> dict[str, float]:
        """Return the measurements of the path by SCTP; none without flow control."""
        return {} if self._flow is None else self._flow.stats()

    def set_flows(self, flows: int) -> None:
        """Claim the share of so many associations on a congested path."""
        if self._flow is not None:
            self._flow.flows = flows

    async def send(self, data: str | bytes, label: str | None = None, on_taken: Callable[[], object] = object) -> bool:
        """Send a message and wait until SCTP has sent it; False if the channel was not open, or closed before that.

        `on_taken` is called when SCTP has taken it: from then on it counts as `unacknowledged`.
        """
        await trio.lowlevel.checkpoint()  # none follows once SCTP has it: an answer may end the connection
        channel = self._find(label)
        if channel is None or channel.readyState != "open":
            return False
        channel.send(data)
        on_taken()
        while channel.bufferedAmount and channel in self._open:
            await self._changed.wait()
        return not channel.bufferedAmount

    async def finish(self) -> None:
        """Close all channels and wait, for `FINISH_SECONDS` at most, until the peer has all messages.

        A stream reset is answered after all earlier messages have arrived (RFC 8831, 6.7; RFC 6525, 5.2.2).
        """
        with trio.move_on_after(FINISH_SECONDS):
            for channel in list(self._open):
                channel.close()
            while self._open:
                await self._changed.wait()

    async def create_heartbeat(self) -> None:
        """Create the heartbeat channel. It is `negotiated` (W3C WebRTC, 6.2), so the peer has to create it, too."""

        def create() -> None:
            self._heartbeat = self._pc.createDataChannel(HEARTBEAT_LABEL, negotiated=True, id=HEARTBEAT_ID)
            self._heartbeat.on("message", lambda data: self._emit(HeartbeatReceived(parse_receipt(data))))

        await in_asyncio(create)

    async def send_beat(self, receipt: Receipt) -> None:
        """Send a heartbeat; SCTP's own if that channel is not open, or data is in its way."""
        channel = self._heartbeat
        if channel is not None and channel.readyState == "open" and not channel.bufferedAmount:
            channel.send(receipt.encode())
        elif self._flow is not None:
            self._flow.send_heartbeat()
