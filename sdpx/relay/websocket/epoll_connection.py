"""One client's connection on the epoll engine: the data received, the frames sent, and its end.

- Only `on_writable` writes frames, from the front of the send queue, many in one write; a frame leaves the queue once all of
  it has been written. `_written` counts the bytes written of the first frame.
- `end` takes effect once: the relay is notified, and from then on nothing is read or queued. Then `close_now` or
  `close_gracefully` closes the socket.
- Nothing but `close_gracefully` waits; a connection has no task until it needs one for that.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from sdpx.relay.core.overload import QueuedBytes
from sdpx.relay.websocket.close_reasons import (
    ABNORMAL,
    CONNECTION_LOST,
    HANDSHAKE_ABORTED,
    IDLE_TIMEOUT,
    SLOW_CONSUMER,
    WRITE_TIMEOUT,
    CloseReason,
    flush_timeout,
    flushes_queue,
    from_violation,
)
from sdpx.relay.websocket.closing import close_frame, send_and_linger
from sdpx.relay.websocket.connection import Connection
from sdpx.relay.websocket.epoll_engine import EpollEngine
from sdpx.relay.websocket.fast_parser import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FastParser,
    frame,
    is_single_control_frame,
    single_text,
)
from sdpx.relay.websocket.mask import unmask
from sdpx.relay.websocket.protocol import FrameParser
from sdpx.relay.websocket.send_queue import QueuedFrame, size_of
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.timers import NEVER
from sdpx.relay.websocket.validator import INVALID_UTF8, close_code, validate_close

WRITE_BYTES: Final = 64 * 1024  # in one write
FLUSH_AT_FRAMES: Final = 64  # queued frames that do not wait for the end of the batch
TURN_FRAMES: Final = 64  # that are handled before other connections have their turn


@dataclass(slots=True, eq=False, repr=False)
class EpollConnection(Connection):
    """A connection over `link`, of which `_trailing_data` came with the request."""

    link: SocketStream
    _trailing_data: bytes
    _engine: EpollEngine
    _written: int = 0  # bytes of the first queued frame
    _may_write: bool = False  # not before the WebSocket is open, and not while the socket is full
    _opened: bool = False
    _fast_parser: FastParser | None = None  # for a client that does not send one whole frame at a time
    _parser: FrameParser | None = None
    _partial: int = 0  # bytes kept of an incomplete message
    _single_text_bytes: int = field(init=False)  # 0 while the next bytes do not begin a frame
    _last_received: float = 0.0
    _pinged_at: float = 0.0
    timer_at: float = NEVER
    _fault: Exception | None = None
    _close_reply: bytes = b""

    def __post_init__(self, total: QueuedBytes) -> None:
        Connection.__post_init__(self, total)  # `super()` does not know the class with slots
        self._single_text_bytes = self._limits.max_message_size

    # ---- sending

    def post(self, data: bytes, sender: object = None, since: float = 0.0) -> int:
        """Queue a WebSocket frame, and have it written soon; see `Connection`, which is not called, as this is the hot path."""
        depth = self.queue.put(data, sender, since)
        if not depth:
            self.end(SLOW_CONSUMER)
        elif self._may_write:
            if depth == 1:
                self._engine.flush_soon(self)
            elif depth >= FLUSH_AT_FRAMES:
                self.on_writable(trio.current_time())
        return depth

    def on_writable(self, now: float) -> None:
        """Write what is queued, as far as the socket accepts it."""
        if self.close_reason is not None:
            return
        queue, written = self.queue, self._written
        try:
            while frames := queue.frames:
                if len(frames) > 1:
                    frames = queue.peek(WRITE_BYTES)
                    data = b"".join([data for data, _, _ in frames])
                else:
                    data = frames[0][0]
                sent = self.link.send_now(data[written:] if written else data)
                if written + sent < len(data):
                    self._wait_for_room(frames, written + sent, now)
                    return
                queue.drop(len(frames), now)
                self._written = written = 0
                self._opened = True  # the response was written before the first frame
            if not self._may_write:
                self._may_write = True
                self._engine.want_write(self, wanted=False)
        except OSError:
            self._connection_lost()
        except Exception as fault:  # noqa: BLE001  the fault ends this connection, and the relay logs it
            self._fail(fault)

    def _wait_for_room(self, frames: list[QueuedFrame], written: int, now: float) -> None:
        """Drop the frames that are among the first `written` bytes of the queue; write the rest when the socket has room."""
        count = 0
        while written >= (size := len(frames[count][0])):
            written -= size
            count += 1
        if count:
            self.queue.drop(count, now)
            self._opened = True
        self._written = written
        self._engine.set_timer(self, min(self.timer_at, self.queue.last_progress + self._write_timeout), now)
        if self._may_write:
            self._may_write = False
            self._engine.want_write(self, wanted=True)

    # ---- receiving

    def on_received(self, data: bytes, now: float) -> bytes:
        """Handle what the socket had, or its end; returns what is left for the next turn."""
        try:
            if self._single_text_bytes and (text := single_text(data, self._single_text_bytes)) is not None:
                self._last_received = now
                if text.isascii():
                    self._handler.on_frame(self._session, text, now)
                else:
                    self._take_text(text, now)
            else:
                return self._take(data, now)
        except Exception as fault:  # noqa: BLE001  the fault ends this connection, and the relay logs it
            self._fail(fault)
        return b""

    def _fail(self, fault: Exception) -> None:
        self._fault = fault
        self.end(CONNECTION_LOST)

    def _take(self, data: bytes, now: float) -> bytes:
        if self._single_text_bytes and is_single_control_frame(data):
            self._last_received = now
            self._take_control(data[0], unmask(data[6:], data[2:6]), now)
        elif data:
            return self._take_any(data, now)
        else:
            self._connection_lost()
        return b""

    def _connection_lost(self) -> None:
        self.end(CONNECTION_LOST if self._opened else HANDSHAKE_ABORTED)

    def _take_any(self, data: bytes, now: float) -> bytes:
        rest, limits = b"", self._limits
        if self._parser is None:
            fast_parser = self._fast_parser = self._fast_parser or FastParser(limits.max_message_size)
            self._take_frames(fast_parser.feed(data, TURN_FRAMES), now)
            data, rest = fast_parser.unparsed, fast_parser.rest
        if data and self.close_reason is None:
            parser = self._parser = self._parser or FrameParser(limits.max_message_size, limits.max_fragments)
            self._take_frames(parser.feed(data, TURN_FRAMES), now)
            rest = parser.rest
            if parser.violation is not None:
                self.end(from_violation(parser.violation))
        partial = self._parser.unfinished if self._parser else self._fast_parser.partial if self._fast_parser else 0
        if partial != self._partial and self.close_reason is None:
            self._partial = partial
            self._handler.on_partial_message(self._session, partial)
        self._single_text_bytes = 0 if partial or self._parser else limits.max_message_size
        return rest

    def _take_frames(self, frames: Iterable[tuple[int, bytes]], now: float) -> None:
        for first, payload in frames:
            self._last_received = now
            if first == TEXT:
                self._take_text(payload, now)
            elif first == BINARY:
                self._handler.on_frame(self._session, None, now)
            else:
                self._take_control(first, payload, now)
            if self.close_reason is not None:
                break

    def _take_text(self, payload: bytes, now: float) -> None:
        try:
            payload.decode()
        except UnicodeDecodeError:
            self.end(from_violation(INVALID_UTF8))
        else:
            self._handler.on_frame(self._session, payload, now)

    def _take_control(self, first: int, payload: bytes, now: float) -> None:
        """Handle a frame that ends no message: a fragment only counts."""
        violation = validate_close(payload) if first == CLOSE else None
        if violation := violation or self._handler.on_non_message_frames(self._session, 1, now):
            self.end(from_violation(violation))
        elif first == CLOSE:
            self._close_reply = frame(CLOSE, payload)
            self.end(CloseReason("closed", close_code(payload), payload[2:].decode()))
        elif first == PING:
            self.post(frame(PONG, payload))

    # ---- opening, timeouts and closing

    def start(self, response: bytes, now: float) -> None:
        """Open the WebSocket by this response and serve it until it ends; never raises."""
        try:
            self._start(response, now)
        except Exception as fault:  # noqa: BLE001  the fault ends this connection, and the relay logs it
            self._fail(fault)

    def _start(self, response: bytes, now: float) -> None:
        self._last_received = self._pinged_at = now
        self.queue.prepend(response, now)
        self._engine.add(self)
        self._engine.set_timer(self, now + self._limits.ping_interval, now)
        self._may_write = True
        self._engine.flush_soon(self)
        trailing_data, self._trailing_data = self._trailing_data, b""
        if trailing_data and self.close_reason is None and (rest := self._take(trailing_data, now)):
            self._engine.put_off(self, rest)

    def on_timer(self, now: float) -> None:
        """Ping a silent client; end the connection of one that does not answer, or whose socket accepts nothing."""
        limits, queue, resumed_at = self._limits, self.queue, self._handler.resumed_at(now)
        if now >= max(self._last_received, resumed_at) + limits.idle_timeout:
            self._engine.receive(self, now)
            if self.close_reason is not None:
                return
        idle_at = max(self._last_received, resumed_at) + limits.idle_timeout
        slow_at = max(queue.last_progress, resumed_at) + self._write_timeout if queue.frames else idle_at
        ping_at = max(self._last_received, self._pinged_at) + limits.ping_interval
        if now >= idle_at:
            self.end(IDLE_TIMEOUT)
        elif queue.frames and now >= slow_at:
            self.end(WRITE_TIMEOUT if self._opened else HANDSHAKE_ABORTED)
        else:
            if now >= ping_at:
                self._pinged_at = now
                ping_at = now + limits.ping_interval
                self.post(frame(PING, b""))
            self._engine.set_timer(self, min(self.timer_at, idle_at, slow_at, ping_at), now)

    @property
    def _write_timeout(self) -> float:
        """The seconds for which the socket may accept nothing of a non-empty queue."""
        return self._limits.write_timeout if self._opened else self._limits.handshake_timeout

    def _stop_receiving(self) -> None:
        self._engine.remove(self)
        self._parser = self._fast_parser = None  # with the bytes of an incomplete message

    def _begin_closing(self, _close_reason: CloseReason) -> None:
        self._engine.close_soon(self.close_now, self.close_gracefully)

    def close_now(self) -> bool:
        """Close the socket if the connection is lost or the reply to a close frame is written."""
        assert self.close_reason is not None
        if self.close_reason.code != ABNORMAL and not (self._close_reply and not self._written and self._reply_now()):
            return False
        self._closed()
        return True

    def _reply_now(self) -> bool:
        """Write the reply to a close frame. Usually no data follows a close frame, so that closing causes no reset."""
        try:
            if self.link.receive_now():
                return False
            self._close_reply = self._close_reply[self.link.send_now(self._close_reply) :]
        except OSError:
            return True  # the client did not wait for the reply
        return not self._close_reply

    async def close_gracefully(self) -> None:
        """Write what still has to be written and the close frame, each under a deadline, and close the socket."""
        try:
            await self._flush_and_linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client closed the connection
        except Exception as fault:  # noqa: BLE001  the relay logs it
            self._fault = self._fault or fault
        finally:
            self._closed()

    async def _flush_and_linger(self) -> None:
        close_reason, limits = self.close_reason, self._limits
        assert close_reason is not None
        if close_reason.code == ABNORMAL:
            return
        unsent = self._unsent(close_reason)
        if unsent:
            with trio.move_on_after(flush_timeout(close_reason, limits)) as late:
                await self.link.send_all(unsent)
            if late.cancelled_caught:
                return  # a frame is half written: no close frame can follow it
        await send_and_linger(
            self.link, self._close_reply or close_frame(close_reason.code, close_reason.text), limits.close_timeout
        )

    def _unsent(self, close_reason: CloseReason) -> bytes:
        """Return the rest of a half-written frame and, if they are still to be written, the frames behind it."""
        written, queued = self._written, self.queue.take_all()
        count = len(queued)
        if not flushes_queue(close_reason, size_of(queued)):
            count = 1 if written else 0
        self._mark_undelivered(queued[count:])
        return b"".join([data for data, _, _ in queued[:count]])[written:]

    def _closed(self) -> None:
        self._mark_undelivered(self.queue.take_all())
        self.link.close()
        fault, self._fault = self._fault, None  # its traceback refers to this connection
        self._handler.on_closed(self._session, self, fault)
