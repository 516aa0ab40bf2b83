"""One client on the fast lane: what its socket brings, what it is sent, and how it ends."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha1
from typing import Final

import trio

from sdpx.protocol.messages import MARK
from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.closing import close_frame, send_and_linger
from sdpx.relay.websocket.epoll_engine import EpollEngine
from sdpx.relay.websocket.fast_parser import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    FastParser,
    frame,
    is_single_control_frame,
    single_text_frame,
    text_frame,
)
from sdpx.relay.websocket.handler import (
    ABNORMAL,
    CONNECTION_LOST,
    FINAL_FLUSH_BYTES,
    HANDSHAKE_ABORTED,
    IDLE_TIMEOUT,
    SLOW_CONSUMER,
    WRITE_TIMEOUT,
    CloseReason,
    ConnectionHandler,
    FrameSender,
    from_violation,
)
from sdpx.relay.websocket.mask import unmask
from sdpx.relay.websocket.protocol import CloseReceived, FrameParser, ParserEvent, PingReceived
from sdpx.relay.websocket.send_queue import QueuedBytes, SendQueue, Waiting, size_of
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.timers import NEVER
from sdpx.relay.websocket.validator import close_code, validate_close

WRITE_BYTES: Final = 64 * 1024  # that leave together
FLUSH_AT_FRAMES: Final = 64  # frames that wait for the end of a batch
MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
NO_UTF8: Final = CloseReason("refused", 1007, "A text message is UTF-8")


class EpollConnection:
    """A client's side of the relay: see `ClientConnection` for its verbs, `ConnectionHandler` for whom it tells. `held` all outboxes share.

    Nothing of it but `close_gracefully` waits, and it has no task until it needs one for that.
    """

    __slots__ = (
        "_behind",
        "_close_reply",
        "_fault",
        "_host",
        "_inbox",
        "_last_heard",
        "_limits",
        "_may_write",
        "_opened",
        "_parser",
        "_pinged_at",
        "_sole_bytes",
        "_unfinished",
        "_watch",
        "_written",
        "departure",
        "link",
        "lost",
        "outbox",
        "timer_at",
    )

    def __init__(
        self,
        link: SocketStream,
        behind: bytes,
        watch: EpollEngine,
        limits: Limits,
        host: ConnectionHandler,
        held: QueuedBytes,
    ) -> None:
        self.link = link
        self._behind = behind
        self._watch = watch
        self._limits = limits
        self._host = host
        self.outbox: SendQueue[bytes] = SendQueue(limits.send_queue_frames, limits.send_queue_bytes, held)
        self._written = 0  # bytes of the frame at the outbox's head that have left
        self._may_write = False  # not before the WebSocket is open, and not while the socket is full
        self._opened = False
        self._inbox: FastParser | None = None  # for who does not send one whole frame at a time
        self._parser: FrameParser | None = None
        self._unfinished = 0
        self._sole_bytes = (
            limits.max_message_size
        )  # of a text that comes alone; 0 while what comes does not begin a frame
        self._last_heard = self._pinged_at = trio.current_time()
        self.timer_at = NEVER
        self._fault: Exception | None = None
        self._close_reply = b""
        self.departure: CloseReason | None = None
        self.lost: tuple[FrameSender, ...] = ()

    # ---- out

    def begin_with(self, texts: Sequence[str]) -> None:
        """Queue what precedes all other frames, however much it is."""
        self.outbox.put_all(frame(TEXT, text.encode()) for text in texts)

    def post(self, text: str, sender: FrameSender | None = None, since: float = 0.0) -> int:
        """Queue a frame for this client, to leave at once or with the batch. Returns how many wait, 0 if it was not taken."""
        return self._send(frame(TEXT, text.encode()), sender, since) if self.departure is None else 0

    def relay(self, data: bytes, sender: FrameSender, since: float) -> int:
        """Queue a frame that came as `data`, marked."""
        marked = text_frame(data[:-1], MARK)
        if self._may_write and self.outbox.put_uncounted(marked, sender, since):  # as nearly always
            self._watch.flush_soon(self)
            return 1
        return self._send(marked, sender, since)

    def _send(self, data: bytes, sender: FrameSender | None = None, since: float = 0.0) -> int:
        """Queue a frame, and see to it that it leaves with the batch."""
        depth = self.outbox.put(data, sender, since)
        if not depth:
            self.end(SLOW_CONSUMER)
        elif self._may_write and depth == 1:
            self._watch.flush_soon(self)
        elif self._may_write and depth >= FLUSH_AT_FRAMES:
            self.on_writable(trio.current_time())
        return depth

    def on_writable(self, now: float) -> None:
        """Write what waits, as far as the socket takes it; what it does not take keeps all that comes behind waiting."""
        if self.departure is not None:
            return
        try:
            one = len(self.outbox.waiting) == 1 and not self._written
            if (self._write_one(now) if one else self._write_all(now)) != self._may_write:
                self._update_write_interest()
        except OSError:
            self._connection_lost()
        except Exception as fault:  # noqa: BLE001  it is this connection's own, and the relay hears of it
            self._fail(fault)

    def _update_write_interest(self) -> None:
        """Wait for it while it is full, under a deadline."""
        is_full = bool(self.outbox.waiting)
        self._may_write = not is_full
        self._watch.want_write(self, wanted=is_full)
        if is_full:
            self.outbox.count()
            self._watch.set_timer(self, min(self.timer_at, self.outbox.last_progress + self._patience))

    def _write_one(self, now: float) -> bool:
        """Write the only frame, as nearly always; returns whether the socket took it."""
        [(data, sender, since)] = self.outbox.waiting
        sent = self.link.send_now(data)
        if sent < len(data):
            self._written = sent
            return False
        self._opened = True  # the response came first
        if sender is not None:
            self._host.on_relayed(now - since)
        self.outbox.drop_all(now)
        return True

    def _write_all(self, now: float) -> bool:
        """Write frames, many together; returns whether the socket took all."""
        outbox = self.outbox
        while outbox.waiting:
            frames = outbox.first(WRITE_BYTES)
            data = b"".join([data for data, _, _ in frames])[self._written :]
            sent = self.link.send_now(data)
            whole = self._whole(frames, sent)
            self._opened = self._opened or bool(whole)
            for _, sender, since in whole:
                if sender is not None:
                    self._host.on_relayed(now - since)
            outbox.drop(len(whole), now)
            if sent < len(data):
                return False
        return True

    def _whole(self, frames: list[Waiting[bytes]], sent: int) -> list[Waiting[bytes]]:
        """Return those that have left whole, and note how much of the next one has."""
        left = self._written + sent
        for count, (data, _, _) in enumerate(frames):
            if left < len(data):
                self._written = left
                return frames[:count]
            left -= len(data)
        self._written = 0
        return frames

    # ---- in

    def on_received(self, data: bytes, now: float) -> None:
        """Take what the socket had, or its end."""
        try:
            if self._sole_bytes and (at := single_text_frame(data, self._sole_bytes)):
                self._last_heard = now
                self._take_text(unmask(data[at:], data[at - 4 : at]), now)
            else:
                self._take(data, now)
        except Exception as fault:  # noqa: BLE001  it is this connection's own, and the relay hears of it
            self._fail(fault)

    def _fail(self, fault: Exception) -> None:
        self._fault = fault
        self.end(CONNECTION_LOST)

    def _take(self, data: bytes, now: float) -> None:
        if self._sole_bytes and is_single_control_frame(data):
            self._last_heard = now
            self._take_control(data[0], unmask(data[6:], data[2:6]), now)
        elif data:
            self._take_any(data, now)
        else:
            self._connection_lost()

    def _connection_lost(self) -> None:
        self.end(CONNECTION_LOST if self._opened else HANDSHAKE_ABORTED)

    def _take_any(self, data: bytes, now: float) -> None:
        if self._parser is None:
            data = self._take_simple(data, now)
        if data and self.departure is None:
            self._parser = self._parser or FrameParser(self._limits.max_message_size, self._limits.max_fragments)
            self._take_parsed(self._parser, data, now)
        unfinished = self._parser.unfinished if self._parser else self._inbox.partial if self._inbox else 0
        if unfinished != self._unfinished and self.departure is None:
            self._unfinished = unfinished
            self._host.on_partial_message(unfinished)
        self._sole_bytes = 0 if unfinished or self._parser else self._limits.max_message_size

    def _take_simple(self, data: bytes, now: float) -> bytes:
        """Take plain frames; returns what begins with one that is not."""
        inbox = self._inbox = self._inbox or FastParser(self._limits.max_message_size, unmask)
        for first, payload in inbox.feed(data):
            self._last_heard = now
            if first == TEXT:
                self._take_text(payload, now)
            else:
                self._take_control(first, payload, now)
            if self.departure is not None:
                break
        return inbox.unparsed

    def _take_text(self, payload: bytes, now: float) -> None:
        if self._host.on_text(payload, now):
            return
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self.end(NO_UTF8)
            return
        self._host.on_frame(text, now)

    def _take_control(self, first: int, payload: bytes, now: float) -> None:
        flaw = validate_close(payload) if first == CLOSE else None
        if violation := flaw or self._host.on_non_message_frames(1, now):
            self.end(from_violation(violation))
        elif first == CLOSE:
            self._take_close(close_code(payload), payload[2:].decode(), frame(CLOSE, payload))
        elif first == PING:
            self._send(frame(PONG, payload))

    def _take_close(self, code: int, reason: str, echo: bytes) -> None:
        self._close_reply = echo
        self.end(CloseReason("closed", code, reason))

    def _take_parsed(self, parser: FrameParser, data: bytes, now: float) -> None:
        frames, extra_frames = parser.frames, parser.extra_frames
        parser.receive_data(data)
        if parser.frames > frames:
            self._last_heard = now
        if parser.extra_frames > extra_frames:
            violation = self._host.on_non_message_frames(parser.extra_frames - extra_frames, now)
            if violation and not parser.violation:
                self.end(from_violation(violation))
        for events in parser.events():
            if self.departure is not None:
                return
            self._take_event(events, now)

    def _take_event(self, events: ParserEvent, now: float) -> None:
        match events:
            case PingReceived(payload):
                self._send(frame(PONG, payload))
            case CloseReceived(code, reason):
                self._take_close(code, reason, close_frame(code, reason))
            case str() | bytes():
                self._host.on_frame(events, now)
            case violation:
                self.end(from_violation(violation))

    # ---- its life

    def start(self, key: str, subprotocol: str | None = None) -> None:
        """Open the WebSocket and serve it, until it ends; never raises."""
        try:
            self._start(accepted(key, subprotocol), trio.current_time())
        except Exception as fault:  # noqa: BLE001  it is this connection's own, and the relay hears of it
            self._fail(fault)

    def _start(self, response: bytes, now: float) -> None:
        waiting = [data for data, _, _ in self.outbox.take_all()]
        opening = [response, *waiting[:1]]
        self.outbox.put_all([b"".join(opening), *waiting[1:]])
        self._watch.add(self)
        self._watch.set_timer(self, now + self._limits.ping_interval)
        self._may_write = True
        self._watch.flush_soon(self)
        behind, self._behind = self._behind, b""
        if behind and self.departure is None:
            self._take(behind, now)

    def on_timer(self, now: float) -> None:
        """Ping a client that says nothing; let one go that does not answer, or does not read."""
        limits, outbox = self._limits, self.outbox
        gone_at = self._last_heard + limits.idle_timeout
        slow_at = outbox.last_progress + self._patience if outbox.bytes else gone_at
        ping_at = max(self._last_heard, self._pinged_at) + limits.ping_interval
        if now >= gone_at:
            self.end(IDLE_TIMEOUT)
        elif outbox.bytes and now >= slow_at:
            self.end(WRITE_TIMEOUT if self._opened else HANDSHAKE_ABORTED)
        else:
            if now >= ping_at:
                self._pinged_at = now
                ping_at = now + limits.ping_interval
                self._send(frame(PING, b""))
            self._watch.set_timer(self, min(self.timer_at, gone_at, slow_at, ping_at))

    @property
    def _patience(self) -> float:
        """How long the socket may take nothing of what waits."""
        return self._limits.write_timeout if self._opened else self._limits.handshake_timeout

    def end(self, departure: CloseReason) -> None:
        """End the connection, for this reason unless it has ended for another already."""
        if self.departure is None:
            self.departure = departure
            self._watch.remove(self)
            self.outbox.close()  # first: what it held is not to be counted when others are told
            self._host.on_disconnected(departure)
            self._watch.close_soon(self)

    def close_now(self) -> bool:
        """End it at once if nothing has to be waited for: who is gone hears nothing, who said goodbye hears the same."""
        departure = self.departure
        assert departure is not None
        if departure.code != ABNORMAL and not (self._close_reply and not self._written and self._answered_at_once()):
            return False
        self._closed()
        return True

    def _answered_at_once(self) -> bool:
        """Answer a client's close frame: as a rule it sends nothing behind it, so no reset is to be feared."""
        try:
            if self.link.receive_now():
                return False
            self._close_reply = self._close_reply[self.link.send_now(self._close_reply) :]
        except OSError:
            return True  # it did not wait for it
        return not self._close_reply

    async def close_gracefully(self) -> None:
        """Write what still has to be said, then the close frame: each under a deadline of its own."""
        try:
            await self._flush_and_linger()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away in mid-sentence
        except Exception as fault:  # noqa: BLE001  it is this connection's own, and the relay hears of it
            self._fault = self._fault or fault
        finally:
            self._closed()

    async def _flush_and_linger(self) -> None:
        departure = self.departure
        assert departure is not None
        if departure.code == ABNORMAL:
            return
        seconds = self._limits.drain_timeout if departure.reason == "shutdown" else self._limits.close_timeout
        unsaid = self._unsent(departure)
        if unsaid:
            with trio.move_on_after(seconds) as late:
                await self.link.send_all(unsaid)
            if late.cancelled_caught:
                return  # a frame is half written: nothing can be said behind it
        await send_and_linger(
            self.link, self._close_reply or close_frame(departure.code, departure.text), self._limits.close_timeout
        )

    def _unsent(self, departure: CloseReason) -> bytes:
        """Return what is left of the frame that is half written, and, where somebody may read them, those behind it."""
        written, waiting = self._written, self.outbox.take_all()
        much = departure.reason != "shutdown" and size_of(waiting) > FINAL_FLUSH_BYTES
        said = len(waiting)
        if departure.reason in ("slow", "closed") or much:
            said = 1 if written else 0
        self._mark_undelivered(waiting[said:])
        return b"".join([data for data, _, _ in waiting[:said]])[written:]

    def _mark_undelivered(self, waiting: list[Waiting[bytes]]) -> None:
        self.lost += tuple(sender for _, sender, _ in waiting if sender is not None)

    def _closed(self) -> None:
        self._mark_undelivered(self.outbox.take_all())
        self.link.close()
        self._host.on_closed(self._fault)


def accepted(key: str, subprotocol: str | None) -> bytes:
    """Return the response that opens a WebSocket (RFC 6455, 4.2.2)."""
    accept = b64encode(sha1(key.encode() + MAGIC, usedforsecurity=False).digest())
    protocol = b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode() if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, protocol)
    )
