"""The data channel of a connection (RFC 8831, 8832) and the heartbeat channel beside it, for Trio."""

import logging
from collections.abc import Callable
from typing import Final

import trio
from aiortc import RTCDataChannel, RTCPeerConnection
from aiortc.exceptions import InvalidStateError

from sdpx.concurrency import RepeatedEvent
from sdpx.peer.webrtc.events import ChannelClosed, ChannelOpened, HeartbeatReceived, MessageReceived, RtcEvent
from sdpx.peer.webrtc.runtime import in_asyncio

logger = logging.getLogger("aiortc")

EARLY_MESSAGES: Final = 256
FINISH_SECONDS: Final = 5.0
HEARTBEAT_LABEL: Final = "sdpx.heartbeat"
HEARTBEAT_ID: Final = 1000  # the stream identifier on both sides, above those that DCEP assigns one by one


class DataChannels:
    """The channels of one connection. Its data channel is the first one to open, whichever side created it.

    Events go to `emit`. `is_full` says that no more messages can be taken: the data channel is closed then.
    """

    def __init__(self, pc: RTCPeerConnection, emit: Callable[[RtcEvent], None], is_full: Callable[[], bool]) -> None:
        self._pc = pc
        self._emit = emit
        self._is_full = is_full
        self._channel: RTCDataChannel | None = None
        self._changed = RepeatedEvent()
        self._early: list[str | bytes] = []
        self._heartbeat: RTCDataChannel | None = None
        pc.on("datachannel", self._watch)

    @property
    def is_open(self) -> bool:
        """Whether there is a data channel to send on."""
        return self._channel is not None

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
                self._on_message(channel, data)
            self._changed.set()

    def _on_close(self, channel: RTCDataChannel) -> None:
        if channel is self._channel:
            self._channel = None
            self._emit(ChannelClosed(channel.label))
            self._changed.set()

    def _on_message(self, channel: RTCDataChannel, data: str | bytes) -> None:
        if self._channel is None and channel.readyState == "connecting" and len(self._early) < EARLY_MESSAGES:
            self._early.append(data)  # messages may arrive before the DATA_CHANNEL_ACK (RFC 8832, 6)
        elif channel is not self._channel:
            return
        elif not self._is_full():
            self._emit(MessageReceived(data))
        else:  # a reliable channel must not go on after the loss of a message
            logger.error("The data channel is closed: messages arrived faster than they were processed")
            channel.close()

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
            self._heartbeat.on("message", lambda _: self._emit(HeartbeatReceived()))

        await in_asyncio(create)

    async def send_beat(self) -> None:
        """Send a heartbeat, if that channel is open."""

        def send() -> None:
            channel = self._heartbeat
            if channel is not None and channel.readyState == "open" and not channel.bufferedAmount:
                channel.send("")

        await in_asyncio(send)
