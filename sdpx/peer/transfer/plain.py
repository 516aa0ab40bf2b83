"""A pipe to a program that is no sdpx: plain binary messages on the first data channel, without a window of its own.

SCTP's window holds a sender that respects it; one that does not is cut off (`receiver_overrun`). A data channel has no
half-close: the end of the input closes it, once the other side's SCTP has acknowledged all, unless the input was empty.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.errors import Ending, ExitStatus

if TYPE_CHECKING:
    from sdpx.peer.webrtc.binary_channel import BinaryChannel

POLL_SECONDS: Final = 0.05


class PlainChannel:
    """The data channel, from its opening to its end; it is never resumed."""

    def __init__(self) -> None:
        self._channel: BinaryChannel | None = None
        self._closed = trio.Event()
        self._changed = RepeatedEvent()
        self._send, self._outgoing = trio.open_memory_channel[bytes | None](0)
        self._has_sent = False
        self._is_sending = False  # data was taken over, and is not with SCTP yet
        self.received = 0  # messages that the program has taken

    async def serve(self, channel: "BinaryChannel", notify: Callable[[], None]) -> None:
        """Send over the channel until it closes; `notify` is called when it has opened or closed."""
        try:
            await channel.opened()
            self._channel = channel
            self._changed.set()
            notify()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._transmit, channel)
                await self._closed.wait()
                nursery.cancel_scope.cancel()
        except trio.BrokenResourceError:
            pass  # it has closed before it was open
        finally:
            self._closed.set()
            self._outgoing.close()  # wakes a sender
            notify()

    async def _transmit(self, channel: "BinaryChannel") -> None:
        """Send the bytes that the program hands over, in messages as large as the other side takes; None closes the channel."""
        try:
            async for data in self._outgoing:
                if data is None:
                    while channel.unacknowledged:  # noqa: ASYNC110  the channel has no event for it
                        await trio.sleep(POLL_SECONDS)
                    channel.close()
                    return
                self._is_sending = True
                for start in range(0, len(data), channel.max_message_size):
                    await channel.send(data[start : start + channel.max_message_size])
                self._is_sending = False
        except trio.BrokenResourceError:
            self._closed.set()

    @property
    def connected(self) -> bool:
        """Whether the channel is open."""
        return self._channel is not None and not self._closed.is_set()

    async def send(self, data: bytes) -> None:
        """Hand over bytes, once those before are with SCTP. Raises the `Ending` if the channel is closed."""
        self._has_sent = True
        await self._hand_over(data)

    async def end(self) -> None:
        """Close the channel, once the other side has all; not after an empty input. Raises the `Ending` if some is lost."""
        if self._has_sent:
            await self._hand_over(None)

    async def _hand_over(self, data: bytes | None) -> None:
        with suppress(trio.BrokenResourceError):  # the channel is closed
            await self._send.send(data)
            return
        if data is not None or self._is_sending:
            reason = "The other side closed the data channel before all of the input was sent"
            raise Ending("not_sent", reason, ExitStatus.CHANNEL_LOST)

    async def receive(self) -> list[bytes]:
        """Return the messages that have come; none at the end."""
        while self._channel is None:
            await self._changed.wait()
        messages = await self._channel.receive()
        self.received += len(messages)
        if not messages:
            self._closed.set()
        return [each.encode() if isinstance(each, str) else each for each in messages]
