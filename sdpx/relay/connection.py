"""One client of the relay: a reader, a writer, a watch for silence, and one way to end.

- Only the writer writes frames, from the outbox; nobody else touches the socket, so nobody else can wait for it or tear
  a frame by being cancelled.
- However it ends, `Connection.end` is called first, at once and once: it tells the relay, which tells the peer, and only
  then is the socket closed, under a deadline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from sdpx.messages import DepartureReason
from sdpx.relay.farewell import close_frame, say_last
from sdpx.relay.limits import Limits
from sdpx.relay.outbox import Held, Outbox
from sdpx.relay.tap import Tap

# Two reads for each 4 KiB offer cost a fifth of the throughput; 64 KiB is one read.
READ_BYTES: Final = 64 * 1024
LAST_BYTES: Final = 256 * 1024  # what a client that is let go may still be sent: answers, not whole outboxes
ABNORMAL: Final = 1006  # RFC 6455, 7.4.1: no close frame came
BROKEN: Final = (1002, 1007)  # what the library finds wrong with a close frame, or with the UTF-8 of a text


@dataclass(frozen=True, slots=True)
class Departure:
    """How a client went: the word for its peer, the close code and the sentence for the client and the log."""

    reason: DepartureReason
    code: int
    text: str


SLOW: Final = Departure("slow", 1008, "You did not read what was sent to you")


class Connection:
    """A client's side of the relay.

    `on_frame` gets each text (or binary) frame and `on_end` how the connection ends; both are called without a checkpoint
    between the socket and them. `on_relayed` gets the seconds that a relayed frame took. `held` is shared by all outboxes.
    """

    def __init__(
        self,
        tap: Tap,
        limits: Limits,
        on_frame: Callable[[str | bytes], None],
        on_end: Callable[[Departure], None],
        on_relayed: Callable[[float], None],
        held: Held,
    ) -> None:
        self._tap = tap
        self._limits = limits
        self._on_frame = on_frame
        self._on_end = on_end
        self._on_relayed = on_relayed
        self.outbox = Outbox(limits.outbox_frames, limits.outbox_bytes, held)
        self._ended = trio.Event()
        self._flushed = trio.Event()
        self._torn = False
        self.departure: Departure | None = None

    def post(self, text: str, since: float | None = None) -> bool:
        """Queue a frame for this client; `since` is when the relay took it. One that lets its outbox fill is let go.

        Returns whether the frame was queued.
        """
        if self.outbox.put(text, since):
            return True
        self.end(SLOW)
        return False

    def end(self, departure: Departure) -> None:
        """End the connection, for this reason unless it has ended for another already."""
        if self.departure is None:
            self.departure = departure
            self._on_end(departure)
            self.outbox.close()
            if departure.reason == "slow" or (departure.reason != "shutdown" and self.outbox.bytes > LAST_BYTES):
                self.outbox.clear()  # its peer has been told; the close frame gets a chance to be read
            self._ended.set()

    async def run(self, subprotocol: str | None) -> None:
        """Open the WebSocket on the tap and serve it until it ends; returns with the stream closed."""
        try:
            async with trio.open_nursery() as nursery:
                socket = await self._open(nursery, subprotocol)
                if socket is not None:
                    nursery.start_soon(self._write, socket)
                    nursery.start_soon(self._read, socket)
                    nursery.start_soon(self._watch_silence, socket, nursery)
                    await self._ended.wait()
                    await self._close(socket)
                nursery.cancel_scope.cancel()
        finally:
            self.outbox.clear()

    async def _open(self, nursery: trio.Nursery, subprotocol: str | None) -> WebSocketConnection | None:
        with trio.move_on_after(self._limits.handshake_seconds):
            request = await wrap_server_stream(
                nursery, self._tap, max_message_size=self._limits.frame_bytes, receive_buffer_size=READ_BYTES
            )
            try:
                socket = await request.accept(subprotocol=subprotocol)
                self._tap.accepted()
                return socket  # noqa: TRY300
            except ConnectionClosed:
                pass
        self.end(Departure("closed", ABNORMAL, "The WebSocket did not open"))
        return None

    async def _read(self, socket: WebSocketConnection) -> None:
        try:
            while True:
                frame = await socket.get_message()
                if self.departure is None:
                    self._on_frame(frame)
        except ConnectionClosed as closed:
            self.end(self._departure_of(closed))

    async def _write(self, socket: WebSocketConnection) -> None:
        try:
            while (waiting := await self.outbox.get()) is not None:
                with trio.move_on_after(self._limits.write_seconds) as deadline:
                    await socket.send_message(waiting.text)
                if deadline.cancelled_caught:
                    self._torn = True
                    self.end(SLOW)
                    return
                if waiting.since is not None:
                    self._on_relayed(trio.current_time() - waiting.since)
        except ConnectionClosed:
            pass  # the reader hears it too, behind what came before, and ends the connection
        finally:
            self._flushed.set()

    def _departure_of(self, closed: ConnectionClosed) -> Departure:
        """Say why the library holds the socket for closed: the gate may know better."""
        if violation := self._tap.violation:
            return Departure("refused", violation.code, violation.text)
        if closed.reason is None:
            return Departure("closed", ABNORMAL, "")
        reason: DepartureReason = "refused" if closed.reason.code in BROKEN else "closed"
        return Departure(reason, closed.reason.code, closed.reason.reason or "")

    async def _watch_silence(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        """Ping a client that says nothing, and let one go that does not answer."""
        ping, limit = self._limits.ping_seconds, self._limits.silence_seconds
        while (silent := trio.current_time() - self._tap.last_heard) < limit:
            wake = self._tap.last_heard + ping
            if silent >= ping:
                nursery.start_soon(self._ping, socket)
                wake = min(trio.current_time() + ping, self._tap.last_heard + limit)
            await trio.sleep_until(wake)
        self.end(Departure("timeout", 1008, "You were silent for too long"))

    async def _ping(self, socket: WebSocketConnection) -> None:
        with trio.move_on_after(self._limits.silence_seconds):
            try:
                await socket.ping()
            except ConnectionClosed:
                return  # the reader hears it too, and ends the connection

    async def _close(self, socket: WebSocketConnection) -> None:
        """Write what waits in the outbox, then close the WebSocket: each under a deadline of its own."""
        departure = self.departure
        assert departure is not None
        flush = self._limits.drain_seconds if departure.reason == "shutdown" else self._limits.close_seconds
        with trio.move_on_after(flush):
            await self._flushed.wait()
        self._torn = self._torn or not self._flushed.is_set()
        if self._torn:
            return  # a frame is half written: nothing else can be said on this socket
        if self._tap.ended:
            last_words = close_frame(departure.code, departure.text)
            await say_last(self._tap.stream, last_words, self._limits.close_seconds)
            return
        with trio.move_on_after(self._limits.close_seconds):
            await socket.aclose(departure.code, departure.text)
