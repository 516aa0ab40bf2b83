"""The messages of a pairing, over all its connections: sent and confirmed one way, received and written the other way.

An sdpx confirms each message when it has written it to its stdout. The messages in doubt at the end are those that it has
not confirmed, or those that the SCTP of another stack has not acknowledged.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from sdpx.concurrency import RepeatedEvent, wait_for_change, wait_while_changing
from sdpx.log import Log
from sdpx.peer.input import MessageSource
from sdpx.peer.message_transport import MessageTransport
from sdpx.peer.negotiation.confirmation import WINDOW, Message, Receipt, Unconfirmed, byte_length, size_of
from sdpx.peer.webrtc import events

CLOSING_SECONDS: Final = 0.05
# For messages to be written, and to be confirmed, before this side leaves. A message whose SACK was lost is sent again after
# SCTP's RTO.Min of 1 s (RFC 9260, 16).
CONFIRM_SECONDS: Final = 2.5
LABEL_SECONDS: Final = 1.0  # for the channel of a message to open


class Delivery:
    """Sends the messages of `source` over the connection of `transport()`, the present one, and notes those received."""

    def __init__(self, source: MessageSource, log: Log, transport: Callable[[], MessageTransport | None]) -> None:
        self._source = source
        self._log = log
        self._transport = transport
        self._unconfirmed = Unconfirmed()
        self._doubtful = (0, 0)  # messages, and bytes, that earlier connections have left unacknowledged
        self._is_taken = False  # the message that is being sent, by SCTP
        self._received = 0
        self._written = 0
        self._unreported = 0  # bytes written since the last receipt
        self._channel_opened = trio.Event()
        self.changed = RepeatedEvent()  # a message was confirmed or written, or a data channel opened or closed

    # ---- messages in doubt ----------------------------------------------------------------------------------------

    @property
    def in_doubt(self) -> tuple[int, int]:
        """How many sent messages, and bytes, the peer has not confirmed; if it does not confirm, its SCTP counts."""
        messages, size = self._unacknowledged
        return messages + len(self._unconfirmed), size + self._unconfirmed.size

    @property
    def _unacknowledged(self) -> tuple[int, int]:
        """How many messages, and bytes, SCTP has not acknowledged where the peer does not confirm."""
        messages, size = self._doubtful
        transport = self._transport()
        if transport is not None and not transport.confirms:
            more, more_bytes = transport.channels.unacknowledged()
            messages, size = messages + more, size + more_bytes
        return messages, size

    async def confirmed(self, is_over: Callable[[], bool], seconds: float) -> None:
        """Wait until nothing is in doubt, nothing has changed for `seconds`, or the pairing `is_over`."""

        def left() -> tuple[int, int] | None:
            return None if is_over() or not any(self.in_doubt) else self.in_doubt

        await wait_while_changing(left, self.changed.wait, seconds)

    # ---- connections ----------------------------------------------------------------------------------------------

    def on_channel_open(self) -> None:
        """Note an open data channel."""
        self.changed.set()
        self._channel_opened.set()

    def on_channel_closed(self, *, is_last: bool) -> None:
        """Note that a data channel is closed."""
        self.changed.set()
        if is_last:
            self._channel_opened = trio.Event()

    async def finish(self, transport: MessageTransport) -> None:
        """Give both sides a moment for confirmations before a connection is closed; keeps the count of those in doubt."""
        channels = transport.channels
        try:
            if channels.is_connected and not transport.trace.vanished:
                with trio.move_on_after(CONFIRM_SECONDS):
                    while self._written < self._received and channels.is_connected:
                        await wait_for_change(self.changed.wait)
                    if transport.confirms and channels.is_open:
                        await transport.send_receipt()
                    await self.confirmed(lambda: not channels.is_connected, CONFIRM_SECONDS)
        finally:
            self._doubtful = self._unacknowledged

    async def catch_up(self, transport: MessageTransport) -> None:
        """Send again the messages that an earlier connection has lost, if a receipt of the peer shows which these are."""
        if self._unconfirmed:
            if transport.both_sdpx:
                await transport.heartbeat_came.wait()
            if transport.first_receipt is None:
                self._doubtful, self._unconfirmed = self.in_doubt, Unconfirmed()
            else:
                for item in self._unconfirmed.missing(transport.first_receipt):
                    if not await transport.channels.send(*item):
                        break
        transport.caught_up.set()

    # ---- messages out ---------------------------------------------------------------------------------------------

    async def send_all(self) -> None:
        """Send each message once a channel is open, until there are no more."""
        while True:
            await self._channel_opened.wait()
            if self._unconfirmed.is_full:
                await self.changed.wait()
                continue
            item = await self._source.next()
            if item is None:
                return
            self._is_taken = False
            try:
                is_done = await self._send(item)
            except trio.Cancelled:
                if self._is_taken:
                    self._source.mark_idle()
                else:
                    self._source.unread(item)
                raise
            if not is_done:
                self._source.unread(item)
                await trio.sleep(CLOSING_SECONDS)  # the channel is being closed: its event comes soon

    async def _send(self, item: Message) -> bool:
        """Send a message, or reject it; False if the connection ended before SCTP had the whole message."""
        transport = self._transport()
        if transport is None:
            return False
        await transport.caught_up.wait()
        channels = transport.channels
        limit, size = channels.max_message_size, byte_length(item.data)
        if limit and size > limit:
            reason = f"A message of {size} bytes was not sent: the other side takes {limit}"
            self._source.reject("too_long", reason)
            return True
        with trio.move_on_after(LABEL_SECONDS):
            while channels.is_open and not channels.has(item.channel):
                await self.changed.wait()
        if channels.is_open and not channels.has(item.channel):
            self._source.reject("not_open", f"A message was not sent: no data channel '{item.channel}' is open")
            return True

        def on_taken() -> None:
            self._is_taken = True
            if transport.confirms:
                self._unconfirmed.add(item)

        is_sent = await channels.send(*item, on_taken)
        if is_sent:
            transport.note_sent(item.data)
        elif self._is_taken and transport.confirms:
            self._unconfirmed.take_back()
        return is_sent

    def on_receipt(self, receipt: Receipt) -> None:
        """Note a confirmation of the peer."""
        if self._unconfirmed.confirm(receipt):
            self.changed.set()

    # ---- messages in ----------------------------------------------------------------------------------------------

    def receipt(self) -> Receipt:
        """Return the counts for a heartbeat."""
        return Receipt(self._received, self._written)

    def on_received(self, message: events.MessageReceived, transport: MessageTransport) -> None:
        """Log a message of the peer, and confirm it when it is written."""
        self._received += 1
        transport.note_message(message.data, message.label, partial(self._on_written, size_of(message.data)))

    def _on_written(self, size: int) -> None:
        self._written += 1
        self._unreported += size
        self.changed.set()
        transport = self._transport()
        if transport is not None and (self._written == self._received or self._unreported >= WINDOW // 4):
            self._unreported = 0
            transport.receipt_due.set()
