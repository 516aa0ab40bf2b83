"""A pipe to a program that is no sdpx: plain binary messages on the first data channel, without a window of its own.

SCTP's window holds a sender that respects it; one that does not is cut off (`receiver_overrun`). A data channel has no
half-close: the end of the input closes it, once the other side's SCTP has acknowledged all, unless the input was empty.
"""

from collections.abc import Callable
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
        self._sent = False
        self.received = 0  # messages that the program has taken

    async def serve(self, channel: "BinaryChannel", notify: Callable[[], None]) -> None:
        """Hold the channel until it closes; `notify` is called when it has opened or closed."""
        try:
            await channel.opened()
            self._channel = channel
            self._changed.set()
            notify()
            await self._closed.wait()
        except trio.BrokenResourceError:
            self._closed.set()
        finally:
            notify()

    @property
    def connected(self) -> bool:
        """Whether the channel is open."""
        return self._channel is not None and not self._closed.is_set()

    async def _opened(self) -> "BinaryChannel":
        while self._channel is None:
            await self._changed.wait()
        return self._channel

    async def send(self, data: bytes) -> None:
        """Send bytes, in messages as large as the other side takes. Raises the `Ending` if the channel is closed."""
        channel = await self._opened()
        try:
            for start in range(0, len(data), channel.max_message_size):
                self._sent = True
                await channel.send(data[start : start + channel.max_message_size])
        except trio.BrokenResourceError:
            reason = "The other side closed the data channel before all of the input was sent"
            raise Ending("not_sent", reason, ExitStatus.CHANNEL_LOST) from None

    async def end(self) -> None:
        """Close the channel, once the other side has all; not after an empty input."""
        channel = await self._opened()
        if self._sent:
            while channel.unacknowledged and not self._closed.is_set():  # noqa: ASYNC110  the channel has no event for it
                await trio.sleep(POLL_SECONDS)
            channel.close()

    async def receive(self) -> list[bytes]:
        """Return the messages that have come; none at the end."""
        channel = await self._opened()
        messages = await channel.receive()
        self.received += len(messages)
        if not messages:
            self._closed.set()
        return [each.encode() if isinstance(each, str) else each for each in messages]
