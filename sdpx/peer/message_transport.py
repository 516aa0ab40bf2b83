"""The messages and heartbeats over one connection. A heartbeat is a sign of life, and contains a receipt."""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.diagnostics.trace import ConnectionTrace
from sdpx.peer.negotiation.confirmation import Receipt, byte_length
from sdpx.peer.negotiation.heartbeat import Heartbeat, HeartbeatAction

if TYPE_CHECKING:
    from sdpx.peer.webrtc.peer_connection import PeerConnection

RECEIPT_SECONDS: Final = 0.02  # between two receipts


class MessageTransport:
    """Logs messages over `pc`, sends heartbeats, and watches for a silent peer; `receipt` returns the counts of this side."""

    def __init__(self, pc: "PeerConnection", trace: ConnectionTrace, log: Log, receipt: Callable[[], Receipt]) -> None:
        self.channels = pc.channels
        self.trace = trace
        self._log = log
        self._receipt = receipt
        self.both_sdpx = False
        self.caught_up = trio.Event()  # the messages that earlier connections lost were sent again
        self._heartbeat: Heartbeat | None = None
        self.first_receipt: Receipt | None = None
        self.heartbeat_came = trio.Event()  # the first heartbeat of the peer
        self.receipt_due = trio.Event()

    @property
    def has_heartbeat(self) -> bool:
        """Whether heartbeats are sent."""
        return self._heartbeat is not None

    def start_heartbeat(self, silence: float) -> None:
        """Begin: a peer that is silent for that many seconds has vanished."""
        self._heartbeat = Heartbeat(trio.current_time(), silence)

    async def run_heartbeat(self) -> float:
        """Send heartbeats until the peer has vanished; returns the time of its last sign of life."""
        heartbeat = self._heartbeat
        assert heartbeat is not None
        while True:
            with trio.move_on_at(heartbeat.next_check):
                await self.receipt_due.wait()
            if self.receipt_due.is_set():
                self.receipt_due = trio.Event()
                await self.send_receipt()
                await trio.sleep(RECEIPT_SECONDS)
                continue
            if self.channels.last_packet > heartbeat.last_received:
                heartbeat.note_received(self.channels.last_packet)
            action = heartbeat.check(trio.current_time())
            if action is HeartbeatAction.SEND:
                await self.send_receipt()
            elif action is HeartbeatAction.VANISHED:
                return heartbeat.last_received

    async def send_receipt(self) -> None:
        """Send a heartbeat with the present counts."""
        await self.channels.send_beat(self._receipt())

    def note_alive(self) -> None:
        """Note that something came from the peer."""
        if self._heartbeat is not None:
            self._heartbeat.note_received(trio.current_time())

    def note_heartbeat(self, receipt: Receipt | None) -> None:
        """Note a heartbeat; the first one shows whether the peer confirms messages, and how many it has received before."""
        self.note_alive()
        if not self.heartbeat_came.is_set():
            self.first_receipt = receipt
            self.heartbeat_came.set()

    @property
    def confirms(self) -> bool:
        """Whether the peer confirms messages: an sdpx whose heartbeats have counts, or have not come yet."""
        return self.both_sdpx and (self.first_receipt is not None or not self.heartbeat_came.is_set())

    def note_message(self, data: str | bytes, label: str | None, on_written: Callable[[], None]) -> None:
        """Note a message of the peer; `on_written` is called when it is written to the log."""
        self.note_alive()
        self.trace.bytes_received += byte_length(data)
        channel = UNSET if label is None else label
        event = (
            peer.ChannelMessage(text=data, channel=channel)
            if isinstance(data, str)
            else peer.ChannelMessage(bytes=len(data), base64=base64.b64encode(data).decode(), channel=channel)
        )

        def release() -> None:
            self.channels.release(data)
            on_written()

        self._log.deliver(event, release)

    def note_sent(self, data: str | bytes) -> None:
        """Note a message that was sent."""
        self.trace.bytes_sent += byte_length(data)
        self._log.emit(peer.ChannelMessageSent(byte_length(data)))
