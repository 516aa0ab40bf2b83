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
from sdpx.relay.farewell import close_frame, say_last, text_frame
from sdpx.relay.limits import Limits
from sdpx.relay.outbox import Held, Outbox, Waiting
from sdpx.relay.tap import Tap

# Two reads for each 4 KiB offer cost a fifth of the throughput; 64 KiB is one read.
READ_BYTES: Final = 64 * 1024
LAST_BYTES: Final = 256 * 1024  # what a client that is let go may still be sent: answers, not whole outboxes
ABNORMAL: Final = 1006  # RFC 6455, 7.4.1: no close frame came
NO_UTF8: Final = 1007  # what the library finds wrong with a text
DEEP: Final = 64  # frames in an outbox
TURNS: Final = 4


@dataclass(frozen=True, slots=True)
class Departure:
    """How a client went: the word for its peer, the close code and the sentence for the client and the log."""

    reason: DepartureReason
    code: int
    text: str


SLOW: Final = Departure("slow", 1008, "You did not read what was sent to you")


class Connection:
    """A client's side of the relay.

    `on_frame` gets each text (or binary) frame, and returns how many frames wait in the fullest outbox that it put one into;
    `on_end` gets how the connection ends. Both are called without a checkpoint between the socket and them. `on_relayed` gets
    the seconds that a relayed frame took. `held` is shared by all outboxes.
    """

    def __init__(
        self,
        tap: Tap,
        limits: Limits,
        on_frame: Callable[[str | bytes], int],
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
        self._unsaid: Waiting | None = None
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
            self.outbox.close()  # first: what it held is not to be counted when others are told
            self._on_end(departure)
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
                if self.departure is None and self._on_frame(frame) > DEEP:
                    await _give_way()
        except ConnectionClosed as closed:
            self.end(self._departure_of(closed))

    async def _write(self, socket: WebSocketConnection) -> None:
        waiting = None
        try:
            while (waiting := await self.outbox.get()) is not None:
                await socket.send_message(waiting.text)
                if waiting.since is not None:
                    self._on_relayed(trio.current_time() - waiting.since)
        except ConnectionClosed:  # the reader hears it too, behind what came before, and ends the connection
            self._unsaid = waiting
        finally:
            self._flushed.set()

    def _departure_of(self, closed: ConnectionClosed) -> Departure:
        """Say why the library holds the socket for closed: the gate may know better."""
        if violation := self._tap.violation:
            return Departure("refused", violation.code, violation.text)
        if self._tap.late and not self._tap.client_closed:
            return SLOW
        if closed.reason is None:
            return Departure("closed", ABNORMAL, "")
        broken = closed.reason.code == NO_UTF8 and not self._tap.client_closed
        return Departure("refused" if broken else "closed", closed.reason.code, closed.reason.reason or "")

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
        if not self._flushed.is_set():
            return  # a frame is half written: nothing else can be said on this socket
        if self._tap.ended:
            if await self._tap.fall_silent():
                await say_last(self._tap.stream, self._last_words(departure), self._limits.close_seconds)
            return
        with trio.move_on_after(self._limits.close_seconds):
            await socket.aclose(departure.code, departure.text)

    def _last_words(self, departure: Departure) -> bytes:
        """Return the frames that the library could not send any more, and the close frame unless it answered the client's."""
        if self._tap.client_closed:
            return b""
        waiting = [self._unsaid] if self._unsaid else []
        waiting += self.outbox.take_all()
        return b"".join(text_frame(each.text) for each in waiting) + close_frame(departure.code, departure.text)


async def _give_way() -> None:
    """Let writers run: a frame takes them more turns than it takes a reader, and an outbox must not fill by that alone."""
    for _ in range(TURNS):
        await trio.lowlevel.checkpoint()
