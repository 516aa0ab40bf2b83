"""The data channel of a connection, and the heartbeat's beside it, for Trio. Part of the wall."""

import logging
from collections.abc import Callable
from typing import Final

import trio
from aiortc import RTCDataChannel, RTCPeerConnection
from aiortc.exceptions import InvalidStateError

from sdpx.peer.webrtc.asyncio_bridge import in_asyncio
from sdpx.peer.webrtc.events import Beat, ChannelClosed, ChannelOpened, Received, RtcEvent

logger = logging.getLogger("aiortc")

EARLY_MESSAGES: Final = 256
FINISH_SECONDS: Final = 5.0
HEARTBEAT_LABEL: Final = "sdpx.heartbeat"
HEARTBEAT_ID: Final = 1000  # of the stream on both sides, far from those that are given out one by one


class Channels:
    """The first data channel that opens, whoever made it. What happens to it goes to `emit`.

    `is_crowded` says that no more messages can be taken: the channel is closed then.
    """

    def __init__(self, emit: Callable[[RtcEvent], None], is_crowded: Callable[[], bool]) -> None:
        self._emit = emit
        self._is_crowded = is_crowded
        self._channel: RTCDataChannel | None = None
        self._channel_moved = trio.Event()
        self._early: list[str | bytes] = []
        self._heart: RTCDataChannel | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a data channel to send on."""
        return self._channel is not None

    def watch(self, channel: RTCDataChannel) -> None:
        """Heed a channel: one of this side's, or one that the peer announces."""
        channel.on("open", lambda: self._opened(channel))
        channel.on("close", lambda: self._closed(channel))
        channel.on("message", lambda data: self._received(channel, data))
        channel.on("bufferedamountlow", self._move)
        if channel.readyState == "open":  # a remote one may be, when it is announced
            self._opened(channel)

    def _opened(self, channel: RTCDataChannel) -> None:
        if self._channel is None:
            self._channel = channel
            self._emit(ChannelOpened(channel.label))
            early, self._early = self._early, []
            for data in early:
                self._received(channel, data)
            self._move()

    def _closed(self, channel: RTCDataChannel) -> None:
        if channel is self._channel:
            self._channel = None
            self._emit(ChannelClosed(channel.label))
            self._move()

    def _received(self, channel: RTCDataChannel, data: str | bytes) -> None:
        if self._channel is None and channel.readyState == "connecting" and len(self._early) < EARLY_MESSAGES:
            self._early.append(data)  # the peer may send before its acknowledgement of our channel (RFC 8832, 6)
        elif channel is not self._channel:
            return
        elif not self._is_crowded():
            self._emit(Received(data))
        else:  # a reliable channel that lost a message must not look as if nothing had happened
            logger.error("Messages came faster than they could be taken: the data channel is closed")
            channel.close()

    def _move(self) -> None:
        self._channel_moved.set()
        self._channel_moved = trio.Event()

    async def send(self, data: str | bytes) -> bool:
        """Send a message and wait until SCTP has taken it; False if the channel was not open, or closed before that."""
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return False
        try:
            await in_asyncio(channel.send, data)
        except InvalidStateError:  # it closed on the way into asyncio's world
            return False
        while channel.bufferedAmount and channel is self._channel:
            await self._channel_moved.wait()
        return not channel.bufferedAmount

    async def finish(self) -> None:
        """Close the data channel and wait, for a few seconds at most, until the peer has all that was sent.

        The reset of a stream is answered when all before it has arrived (RFC 8831, 6.7; RFC 6525, 5.2.2).
        """
        channel = self._channel
        if channel is not None:
            with trio.move_on_after(FINISH_SECONDS):
                await in_asyncio(channel.close)
                while channel is self._channel:
                    await self._channel_moved.wait()

    async def create_heartbeat(self, pc: RTCPeerConnection) -> None:
        """Create the second channel. It is agreed upon without a word (`negotiated`), so the other side does the same."""

        def create() -> None:
            self._heart = pc.createDataChannel(HEARTBEAT_LABEL, negotiated=True, id=HEARTBEAT_ID)
            self._heart.on("message", lambda _: self._emit(Beat()))

        await in_asyncio(create)

    async def beat(self) -> None:
        """Send a beat, if that channel is open."""

        def send() -> None:
            if self._heart is not None and self._heart.readyState == "open" and not self._heart.bufferedAmount:
                self._heart.send("")

        await in_asyncio(send)
