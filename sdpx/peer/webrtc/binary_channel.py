"""A data channel for bulk data: messages go to SCTP and come from it without an event, or a call into asyncio, for each."""

from collections.abc import Callable
from typing import Final

import trio
from aiortc import RTCDataChannel

from sdpx.concurrency import RepeatedEvent
from sdpx.peer.negotiation.confirmation import size_of

HIGH_WATER: Final = 1024 * 1024  # bytes that wait for SCTP
LOW_WATER: Final = HIGH_WATER // 4
MAX_MESSAGE: Final = 256 * 1024  # bytes; more would only delay other messages


class BinaryChannel:
    """The channel with one label, from before it opens until it is closed.

    A sender waits while `HIGH_WATER` is exceeded. Messages that are not taken count against SCTP's receive window.
    """

    def __init__(
        self,
        release: Callable[[int], None],
        max_message_size: Callable[[], int],
        unacknowledged: Callable[[RTCDataChannel], int] = lambda channel: channel.bufferedAmount,
    ) -> None:
        self._release = release
        self._max_message_size = max_message_size
        self._unacknowledged = unacknowledged
        self._channel: RTCDataChannel | None = None
        self._closed = False
        self._messages: list[bytes | str] = []
        self.unread = 0  # bytes that have come and were not taken, with a share for each message
        self._changed = RepeatedEvent()

    @property
    def max_message_size(self) -> int:
        """How many bytes a message may have."""
        return min(self._max_message_size() or MAX_MESSAGE, MAX_MESSAGE)

    @property
    def unacknowledged(self) -> int:
        """The bytes that the other side's SCTP has not acknowledged; 0 once the channel is closed."""
        return 0 if self._channel is None or self._closed else self._unacknowledged(self._channel)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._channel is not None and not self._closed and self._channel.readyState == "open"

    def attach(self, channel: RTCDataChannel) -> None:
        """Note that the channel is open."""
        self._channel = channel
        channel.bufferedAmountLowThreshold = LOW_WATER
        channel.on("bufferedamountlow", self._changed.set)
        self._changed.set()

    def detach(self) -> None:
        """Note that the channel is closed."""
        self._closed = True
        self._changed.set()

    def put(self, data: bytes | str) -> None:
        """Take a message that has come."""
        self._messages.append(data)
        self.unread += size_of(data)
        self._changed.set()

    async def opened(self) -> None:
        """Wait until the channel is open. Raises `trio.BrokenResourceError` if it closed before."""
        await trio.lowlevel.checkpoint()
        while self._channel is None and not self._closed:
            await self._changed.wait()
        self._require_open()

    def send_nowait(self, data: bytes | str) -> bool:
        """Hand a message over to SCTP; whether there is room for another one, else `writable` waits for it.

        Raises `trio.BrokenResourceError` if the channel is closed, and ValueError if the message is too large.
        """
        channel = self._require_open()
        if len(data) > self.max_message_size:
            raise ValueError(f"A message may have {self.max_message_size} bytes, not {len(data)}")
        channel.send(data)
        return channel.bufferedAmount < HIGH_WATER

    async def writable(self) -> None:
        """Wait until no more than `LOW_WATER` waits for SCTP. Raises `trio.BrokenResourceError` if the channel closes."""
        await trio.lowlevel.checkpoint()
        while self._require_open().bufferedAmount > LOW_WATER:
            await self._changed.wait()

    async def send(self, data: bytes | str) -> None:
        """Send a message, and wait while there is no room for another one."""
        if self.send_nowait(data):
            await trio.lowlevel.checkpoint()
        else:
            await self.writable()

    async def receive(self) -> list[bytes | str]:
        """Return all messages that have come, and wait for the first; none once the channel is closed."""
        await trio.lowlevel.checkpoint()
        while not self._messages and not self._closed:
            await self._changed.wait()
        messages, size = self._messages, self.unread
        self._messages, self.unread = [], 0
        self._release(size)
        return messages

    def close(self) -> None:
        """Close the channel, after the messages that were sent; from any task (aiortc needs one inside the asyncio loop)."""
        if (channel := self._channel) is not None and not self._closed:
            loop = channel.transport._loop  # noqa: SLF001
            assert loop is not None
            loop.call_soon(channel.close)

    def _require_open(self) -> RTCDataChannel:
        if self._channel is None or not self.is_open:
            raise trio.BrokenResourceError("the data channel is not open")
        return self._channel
