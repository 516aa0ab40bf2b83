"""One client of the relay, on trio-websocket: a reader, a writer, a watch for silence, and one way to end.

- Only the writer writes frames, from the outbox; nobody else touches the socket, so nobody else can wait for it or tear
  a frame by being cancelled.
- However it ends, `TrioWebSocketConnection.end` is called first, at once and once: it tells the relay, which tells the peer, and only
  then is the socket closed, under a deadline.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from sdpx.protocol.messages import MARK
from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.closing import close_frame, send_and_linger, text_frame
from sdpx.relay.websocket.handler import (
    ABNORMAL,
    CONNECTION_LOST,
    FINAL_FLUSH_BYTES,
    HANDSHAKE_ABORTED,
    IDLE_TIMEOUT,
    SLOW_CONSUMER,
    SUPERSEDED,
    WRITE_TIMEOUT,
    CloseReason,
    ConnectionHandler,
    FrameSender,
    from_violation,
)
from sdpx.relay.websocket.send_queue import QueuedBytes, SendQueue
from sdpx.relay.websocket.validating_stream import ValidatingStream

# Two reads for each 4 KiB offer cost a fifth of the throughput; 64 KiB is one read.
READ_BYTES: Final = 64 * 1024
NO_UTF8: Final = 1007  # what the library finds wrong with a text
FLUSH_AT_FRAMES: Final = 64  # frames in an outbox
TURNS: Final = 4
# A ping that is never answered stays in the library's books for ever: so there are only so many.
PINGS: Final = tuple(bytes([number]) for number in range(8))


class TrioWebSocketConnection:
    """A client's side of the relay: see `ClientConnection` for its verbs, `ConnectionHandler` for whom it tells. `held` all outboxes share."""

    def __init__(self, tap: ValidatingStream, limits: Limits, host: ConnectionHandler, held: QueuedBytes) -> None:
        self._tap = tap
        self._limits = limits
        self._host = host
        self.outbox = SendQueue[str](limits.send_queue_frames, limits.send_queue_bytes, held)
        self._pings = cycle(PINGS)
        self._ended = trio.Event()
        self._flushed = trio.Event()
        self.departure: CloseReason | None = None
        self.lost: list[FrameSender] = []

    def begin_with(self, texts: Sequence[str]) -> None:
        """Queue what precedes all other frames, however much it is."""
        self.outbox.put_all(texts)

    def post(self, text: str, sender: FrameSender | None = None, since: float = 0.0) -> int:
        """Queue a frame for this client. Returns how many wait, or 0 if it was not taken."""
        depth = self.outbox.put(text, sender, since)
        if not depth:
            self.end(SLOW_CONSUMER)
        return depth

    def relay(self, data: bytes, sender: FrameSender, since: float) -> int:
        """Queue a frame that came as `data`, marked."""
        return self.post((data[:-1] + MARK).decode(), sender, since)

    def end(self, departure: CloseReason) -> None:
        """End the connection, for this reason unless it has ended for another already."""
        if self.departure is None:
            self.departure = departure
            self.outbox.close()  # first: what it held is not to be counted when others are told
            self._host.on_disconnected(departure)
            too_much = departure.reason != "shutdown" and self.outbox.bytes > FINAL_FLUSH_BYTES
            if too_much or departure.reason == "slow" or departure == SUPERSEDED:
                self._lose_all()  # its peer has been told; the close frame gets a chance to be read
            self._ended.set()

    def _lose_all(self) -> None:
        self.lost += [sender for _, sender, _ in self.outbox.take_all() if sender is not None]

    async def run(self, subprotocol: str | None) -> None:
        """Open the WebSocket on the tap and serve it until it ends; the caller closes the stream."""
        try:
            async with trio.open_nursery() as nursery:
                socket = await self._open(nursery, subprotocol)
                if socket is not None:
                    nursery.start_soon(self._write, socket)
                    nursery.start_soon(self._read, socket)
                    nursery.start_soon(self._watch_silence, socket, nursery)
                    await self._ended.wait()
                    await self._flush()
                can_speak = socket is not None and await self._tap.fall_silent()
                nursery.cancel_scope.cancel()
            if can_speak:  # and the library does not read any more
                await send_and_linger(self._tap.stream, self._last_words(), self._limits.close_timeout)
        finally:
            self._lose_all()

    async def _open(self, nursery: trio.Nursery, subprotocol: str | None) -> WebSocketConnection | None:
        with trio.move_on_after(self._limits.handshake_timeout):
            request = await wrap_server_stream(
                nursery, self._tap, max_message_size=self._limits.max_message_size, receive_buffer_size=READ_BYTES
            )
            try:
                socket = await request.accept(subprotocol=subprotocol)
                self._tap.accepted()
                return socket  # noqa: TRY300
            except ConnectionClosed:
                pass
        self.end(HANDSHAKE_ABORTED)
        return None

    async def _read(self, socket: WebSocketConnection) -> None:
        try:
            while True:
                frame = await socket.get_message()
                if self.departure is None and self._host.on_frame(frame, trio.current_time()) > FLUSH_AT_FRAMES:
                    await _give_way()
        except ConnectionClosed as closed:
            self.end(self._departure_of(closed))

    async def _write(self, socket: WebSocketConnection) -> None:
        try:
            while (waiting := await self.outbox.get()) is not None:
                text, sender, since = waiting
                await socket.send_message(text)
                if waiting is self.outbox.head:
                    self.outbox.pop()
                if sender is not None:
                    self._host.on_relayed(trio.current_time() - since)
        except ConnectionClosed:
            pass  # the reader hears it too, behind what came before, and ends the connection
        finally:
            self._flushed.set()

    def _departure_of(self, closed: ConnectionClosed) -> CloseReason:
        """Say why the library holds the socket for closed: the gate may know better."""
        if violation := self._tap.violation:
            return from_violation(violation)
        if self._tap.late and not self._tap.client_closed:
            return WRITE_TIMEOUT
        if closed.reason is None:
            return CONNECTION_LOST
        by_client = self._tap.client_closed and closed.reason.code == self._tap.close_code
        broken = closed.reason.code == NO_UTF8 and not by_client
        return CloseReason("refused" if broken else "closed", closed.reason.code, closed.reason.reason or "")

    async def _watch_silence(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        """Ping a client that says nothing, and let one go that does not answer."""
        ping, limit = self._limits.ping_interval, self._limits.idle_timeout
        while (now := trio.current_time()) < (gone_at := self._tap.last_heard + limit):
            wake = self._tap.last_heard + ping
            if now >= wake:
                nursery.start_soon(self._ping, socket)
                wake = min(now + ping, gone_at)
            await trio.sleep_until(wake)
        self.end(IDLE_TIMEOUT)

    async def _ping(self, socket: WebSocketConnection) -> None:
        with trio.move_on_after(self._limits.idle_timeout):
            try:
                await socket.ping(next(self._pings))
            except ConnectionClosed:
                return  # the reader hears it too, and ends the connection
            except ValueError:
                return  # this one has not been answered yet

    async def _flush(self) -> None:
        """Let the writer write what waits in the outbox, for a while."""
        departure = self.departure
        assert departure is not None
        with trio.move_on_after(
            self._limits.drain_timeout if departure.reason == "shutdown" else self._limits.close_timeout
        ):
            await self._flushed.wait()

    def _last_words(self) -> bytes:
        """Return the frames that the library could not send any more, and the close frame, unless it answered the client's.

        The library closes without a word where it finds an error, and answers pings while it closes, which it then chokes on.
        """
        departure = self.departure
        assert departure is not None
        if departure.code == ABNORMAL or (departure.reason == "closed" and self._tap.client_closed):
            return b""
        waiting = b"".join(text_frame(text) for text, _, _ in self.outbox.take_all())
        return waiting + close_frame(departure.code, departure.text)


async def _give_way() -> None:
    """Let writers run: a frame takes them more turns than it takes a reader, and an outbox must not fill by that alone."""
    for _ in range(TURNS):
        await trio.lowlevel.checkpoint()
