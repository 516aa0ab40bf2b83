"""One client's connection on trio-websocket: a reader, a writer, an idle timer, and one way to end.

- Only the writer writes frames, from the send queue; no other task touches the socket, so that none has to wait for it or
  leaves half a frame on it when it is cancelled.
- `end` comes first, once and without waiting: it notifies the relay, and the relay the peer. Then the socket is closed, under a
  deadline.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.close_reasons import (
    ABNORMAL,
    CONNECTION_LOST,
    HANDSHAKE_ABORTED,
    IDLE_TIMEOUT,
    WRITE_TIMEOUT,
    CloseReason,
    flush_timeout,
    flushes_queue,
    from_violation,
)
from sdpx.relay.websocket.closing import close_frame, send_and_linger
from sdpx.relay.websocket.connection import Connection, ConnectionHandler
from sdpx.relay.websocket.fast_parser import payload_of
from sdpx.relay.websocket.validator import INVALID_UTF8, FrameValidator

# Two reads for each 4 KiB offer cost a fifth of the throughput. The rest of a larger frame is read in its turn.
READ_BYTES: Final = 16 * 1024
TURN_BYTES: Final = 64 * 1024
LAST_PIECE_BYTES: Final = 16
FLUSH_AT_FRAMES: Final = 64  # frames in a send queue for which the reader gives way
TURN_FRAMES: Final = 8  # that the library gets in a turn
TURNS: Final = 4
# The library keeps a ping that is never answered for ever: so there are only so many.
PINGS: Final = tuple(bytes([number]) for number in range(8))


class FrameTurns:
    """Lets connections that have received more than a frame of usual size go on one by one, each in a turn of Trio's loop.

    Otherwise all of them would have such data at the same stage of its way, which takes time and memory.
    """

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self._is_taken = False

    async def wait(self) -> None:
        """Wait for the turn of a connection."""
        if self._is_taken:
            await self._waiting.park()
        self._is_taken = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._is_taken = bool(self._waiting.unpark())


@dataclass(slots=True, eq=False, repr=False)
class TrioWebSocketConnection(Connection):
    """A connection over a stream that validates the client's frames."""

    _stream: "ValidatingStream"
    _pings: Iterator[bytes] = field(default_factory=partial(cycle, PINGS))
    _ended: trio.Event = field(default_factory=trio.Event)
    _flushed: trio.Event = field(default_factory=trio.Event)

    def _stop_receiving(self) -> None:
        self._stream.report_partial = False

    def _begin_closing(self, close_reason: CloseReason) -> None:
        if not flushes_queue(close_reason, self.queue.size):
            self._mark_undelivered(self.queue.take_all())
        self._ended.set()

    async def run(self, subprotocol: str | None) -> None:
        """Open the WebSocket and serve it until it ends; the caller closes the stream."""
        try:
            async with trio.open_nursery() as nursery:
                socket = await self._open(nursery, subprotocol)
                if socket is not None:
                    nursery.start_soon(self._write, socket)
                    nursery.start_soon(self._read, socket)
                    nursery.start_soon(self._run_idle_timer, socket, nursery)
                    await self._ended.wait()
                    await self._flush()
                is_whole = socket is not None and await self._stream.finish_sending()
                nursery.cancel_scope.cancel()
            if is_whole:  # and the library does not read any more
                await send_and_linger(self._stream.stream, self._final_bytes(), self._limits.close_timeout)
        finally:
            self._mark_undelivered(self.queue.take_all())

    async def _open(self, nursery: trio.Nursery, subprotocol: str | None) -> WebSocketConnection | None:
        with trio.move_on_after(self._limits.handshake_timeout):
            request = await wrap_server_stream(
                nursery, self._stream, max_message_size=self._limits.max_message_size, receive_buffer_size=READ_BYTES
            )
            try:
                socket = await request.accept(subprotocol=subprotocol)
                self._stream.accepted()
                return socket  # noqa: TRY300
            except ConnectionClosed:
                pass
        self.end(HANDSHAKE_ABORTED)
        return None

    async def _read(self, socket: WebSocketConnection) -> None:
        try:
            while True:
                if self._take(await socket.get_message()) > FLUSH_AT_FRAMES:
                    await _give_way()
        except ConnectionClosed as closed:
            self.end(self._close_reason_of(closed))

    def _take(self, message: str | bytes) -> int:
        """Pass a message on; a task that waits for the next one must not keep it."""
        if self.close_reason is not None:
            return 0
        text = message.encode() if isinstance(message, str) else None
        return self._handler.on_frame(self._session, text, trio.current_time())

    async def _write(self, socket: WebSocketConnection) -> None:
        try:
            while await self.queue.wait():
                await self._write_first(socket)
        except ConnectionClosed:
            pass  # the reader gets it as well, behind the messages that came before, and ends the connection
        finally:
            self._flushed.set()

    async def _write_first(self, socket: WebSocketConnection) -> None:
        [(data, _, _)] = self.queue.peek(0)
        await socket.send_message(payload_of(data).decode())
        self.queue.drop(1, trio.current_time())

    def _close_reason_of(self, closed: ConnectionClosed) -> CloseReason:
        """Return why the connection closed: the validating stream may know a reason that the library does not."""
        if violation := self._stream.validator.violation:
            return from_violation(violation)
        if self._stream.late and not self._stream.validator.closed:
            return WRITE_TIMEOUT
        if closed.reason is None:
            return CONNECTION_LOST
        by_client = self._stream.validator.closed and closed.reason.code == self._stream.validator.close_code
        broken = closed.reason.code == INVALID_UTF8.code and not by_client
        return CloseReason("refused" if broken else "closed", closed.reason.code, closed.reason.reason or "")

    async def _run_idle_timer(self, socket: WebSocketConnection, nursery: trio.Nursery) -> None:
        """Ping a silent client; end the connection of one that does not answer, or whose socket accepts nothing."""
        ping, stream = self._limits.ping_interval, self._stream
        while True:
            now = trio.current_time()
            if now >= self._idle_at(now):
                await _give_way()  # to the reader: bytes may wait in the socket
            if now >= (idle_at := self._idle_at(now)):
                break
            wake = stream.last_received + ping
            if now >= wake:
                nursery.start_soon(self._ping, socket)
                wake = min(now + ping, idle_at)
            slow_at = max(stream.send_began, self._handler.resumed_at(now)) + self._limits.write_timeout
            if now >= slow_at:
                stream.stop_send()
            with trio.CancelScope(deadline=min(wake, slow_at) if now < slow_at else wake) as stream.timer:
                await trio.sleep_forever()
        self.end(IDLE_TIMEOUT)

    def _idle_at(self, now: float) -> float:
        return max(self._stream.last_received, self._handler.resumed_at(now)) + self._limits.idle_timeout

    async def _ping(self, socket: WebSocketConnection) -> None:
        with trio.move_on_after(self._limits.idle_timeout):
            try:
                await socket.ping(next(self._pings))
            except ConnectionClosed:
                return  # the reader gets it as well, and ends the connection
            except ValueError:
                return  # a ping with this payload is still unanswered

    async def _flush(self) -> None:
        """Let the writer write the queued frames, under a deadline."""
        close_reason = self.close_reason
        assert close_reason is not None
        with trio.move_on_after(flush_timeout(close_reason, self._limits)):
            await self._flushed.wait()

    def _final_bytes(self) -> bytes:
        """Return the frames that the library could not send, and the close frame, unless the library answered the client's.

        The library closes without a close frame where it finds an error, and fails on pings that it answers while it closes.
        """
        close_reason = self.close_reason
        assert close_reason is not None
        if close_reason.code == ABNORMAL or (close_reason.reason == "closed" and self._stream.validator.closed):
            return b""
        frames = b"".join([data for data, _, _ in self.queue.take_all()])
        return frames + close_frame(close_reason.code, close_reason.text)


@dataclass(eq=False, repr=False)
class ValidatingStream(trio.abc.Stream):
    """The stream between a socket and the library: passes a request's head on to the library, then whole, valid frames.

    A frame that breaks a rule, and all bytes behind it, never reach the library, for which the stream ends there; the
    `validator` has the reason. `last_received` is when the client last completed a frame.

    The library closes this stream and not `stream`, which is still needed for the close frame that the library does not send
    where it finds an error of its own. `stop_send` ends a send that takes too long: `timer` ends `write_timeout` after its
    begin at the latest. All sends have `close_timeout` once the client has sent its close frame. A send that is not completed
    leaves the stream `torn`, and nothing more can be sent. `late` says that it was out of time.
    """

    stream: trio.abc.Stream
    _head: bytes
    _trailing_data: bytes
    _limits: Limits
    _handler: ConnectionHandler
    _session: object
    _turns: FrameTurns
    validator: FrameValidator = field(init=False)
    report_partial: bool = True
    _last_piece: bytes = b""  # of whole frames
    _partial: bytearray = field(default_factory=bytearray)
    _reported: int = 0
    _accepted: trio.Event = field(default_factory=trio.Event)
    _closed: bool = False
    _send_until: float = math.inf
    _sending: trio.CancelScope = field(default_factory=trio.CancelScope)
    _sent: trio.Event = field(default_factory=trio.Event)
    torn: bool = False
    late: bool = False
    last_received: float = field(default_factory=trio.current_time)
    send_began: float = math.inf
    timer: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self.validator = FrameValidator(self._limits.max_message_size, self._limits.max_fragments)
        self._sent.set()

    def accepted(self) -> None:
        """Pass on frames: the WebSocket is open. The library would leave earlier frames until its next read."""
        self._accepted.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the request's head, then whole, valid frames; empty at the end."""
        if self._head:
            head, self._head = self._head, b""
            return head
        await self._accepted.wait()
        if self._last_piece:
            piece, self._last_piece = self._last_piece, b""
            return piece
        while self.validator.violation is None and not self.validator.closed:
            max_frames, max_bytes = 1, READ_BYTES
            if self._trailing_data or self.validator.payload_left:  # the client sends much, and may not be the only one
                await self._turns.wait()
                max_frames, max_bytes = TURN_FRAMES, min(TURN_BYTES, max(READ_BYTES, self.validator.payload_left))
            data, self._trailing_data = self._trailing_data, b""
            self._check_open()
            data = data or bytes(await self.stream.receive_some(max_bytes))
            if not data or (data := self._whole_frames(data, max_frames)):
                return data
        return b""

    def _whole_frames(self, data: bytes, max_frames: int) -> bytes:
        """Return the frames that these bytes complete, and keep the rest."""
        now, frames, extra_frames = trio.current_time(), self.validator.frames, self.validator.extra_frames
        valid = self.validator.validate(data, max_frames)
        self._partial += data[:valid]
        self._trailing_data = data[valid:]
        if self.validator.frames > frames:
            self.last_received = now
        if self.validator.extra_frames > extra_frames and self.validator.violation is None:
            self.validator.violation = self._handler.on_non_message_frames(
                self._session, self.validator.extra_frames - extra_frames, now
            )
            if self.validator.violation:
                return b""
        if self.validator.closed:
            self._limit_sends()
        return self._take_whole()

    def _take_whole(self) -> bytes:
        end = len(self._partial) - (0 if self.validator.violation else self.validator.partial)
        if end > READ_BYTES:  # the library keeps the last piece until the next one comes: a small one costs little
            self._last_piece = bytes(self._partial[end - LAST_PIECE_BYTES : end])
        whole = bytes(self._partial[: end - len(self._last_piece)])
        del self._partial[:end]
        # The library keeps fragments as text, in which one character may make all of them take four bytes each.
        unfinished = len(self._partial) + 4 * self.validator.kept
        if unfinished != self._reported and self.report_partial:
            self._reported = unfinished
            self._handler.on_partial_message(self._session, unfinished)
        return whole

    def _limit_sends(self) -> None:
        """Limit the time of all sends from now on to `close_timeout`."""
        self._send_until = min(self._send_until, trio.current_time() + self._limits.close_timeout)
        self._sending.deadline = min(self._sending.deadline, self._send_until)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; raises `BrokenResourceError` when it has taken too long."""
        self._check_open()
        self.send_began = trio.current_time()
        self.timer.deadline = min(self.timer.deadline, self.send_began + self._limits.write_timeout)
        self._sending = trio.CancelScope(deadline=self._send_until)
        self._sent = trio.Event()
        whole = False
        try:
            with self._sending:
                await self.stream.send_all(data)
                whole = True
        finally:
            self.send_began = math.inf
            self.torn = self.torn or not whole
            self._sent.set()
        if not whole:
            self.late = True
            raise trio.BrokenResourceError("the client did not read in time")

    def stop_send(self) -> None:
        """End the present send; its stream is torn."""
        self._sending.cancel()

    async def finish_sending(self) -> bool:
        """Refuse further sends of the library; wait for the current one, and return whether all were completed."""
        self._closed = True
        self._limit_sends()
        await self._sent.wait()
        return not self.torn

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Refuse all further use by the library."""
        self._closed = True
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed or self.torn:
            raise trio.ClosedResourceError


async def _give_way() -> None:
    """Let other tasks run: a writer needs more checkpoints for a frame than a reader, whose queue must not fill by that."""
    for _ in range(TURNS):
        await trio.lowlevel.checkpoint()
