"""One client on the fast lane: what its socket brings, what it is sent, and how it ends."""

from base64 import b64encode
from hashlib import sha1
from typing import Final

import trio

from sdpx.relay.farewell import close_frame, say_last
from sdpx.relay.frames import close_code, flaw_in_close
from sdpx.relay.handshake import Upgrade
from sdpx.relay.host import ABNORMAL, GONE, LAST_BYTES, SILENT, SLOW, Client, Departure, Host, refused
from sdpx.relay.lane.careful import Closed, Engine, Found, Pinged
from sdpx.relay.lane.mask import unmask
from sdpx.relay.lane.plain import CLOSE, PING, PONG, TEXT, Inbox, frame
from sdpx.relay.lane.watch import Watch
from sdpx.relay.limits import Limits
from sdpx.relay.link import Link
from sdpx.relay.outbox import Held, Outbox, Waiting

WRITE_BYTES: Final = 64 * 1024  # that leave together
DEEP: Final = 64  # frames that wait for the end of a batch
MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
NEVER_OPEN: Final = Departure("closed", ABNORMAL, "The WebSocket did not open")
NO_UTF8: Final = Departure("refused", 1007, "A text message is UTF-8")


class LaneConnection:
    """A client's side of the relay: see `Client` for its verbs, `Host` for whom it tells. `held` all outboxes share.

    Nothing of it but `run` waits; `run` is the connection's own task.
    """

    def __init__(self, link: Link, behind: bytes, watch: Watch, limits: Limits, host: Host, held: Held) -> None:
        self.link = link
        self._behind = behind
        self._watch = watch
        self._limits = limits
        self._host = host
        self.outbox = Outbox[bytes](limits.outbox_frames, limits.outbox_bytes, held)
        self._written = 0  # bytes of the frame at the outbox's head that have left
        self._may_write = False  # not before the WebSocket is open, and not while the socket is full
        self._is_due = False
        self._opened = False
        self._inbox = Inbox(limits.frame_bytes, unmask)
        self._engine: Engine | None = None
        self._unfinished = 0
        self._last_heard = trio.current_time()
        self._pinged_at = self._last_heard
        self._alarm = trio.CancelScope()
        self._ended = trio.Event()
        self._fault: Exception | None = None
        self._echo = b""
        self.departure: Departure | None = None
        self.lost: list[Client] = []

    # ---- out

    def post(self, text: str, sender: Client | None = None, since: float = 0.0) -> bool:
        """Queue a frame for this client, to leave at once or with the batch. Returns whether it was taken."""
        return self.departure is None and self._send(frame(TEXT, text.encode()), sender, since)

    def _send(self, data: bytes, sender: Client | None = None, since: float = 0.0) -> bool:
        outbox = self.outbox
        if not outbox.put(data, sender, since):
            self.end(SLOW)
            return False
        if self._may_write:
            if len(outbox) >= DEEP:
                self.on_writable()
            elif not self._is_due:
                self._is_due = True
                self._watch.flush_soon(self)
        return True

    def on_writable(self) -> None:
        """Write what waits, as far as the socket takes it; what it does not take keeps all that comes behind waiting."""
        try:
            self._flush()
        except OSError:
            self.end(GONE)
        except Exception as fault:  # noqa: BLE001  it is this connection's own, and `run` raises it
            self._fail(fault)

    def _flush(self) -> None:
        self._is_due = False
        while self.outbox and self._write_some():
            pass
        if self._may_write == bool(self.outbox):
            self._may_write = not self.outbox
            self._watch.want_write(self, wanted=not self._may_write)
            if self.outbox:
                self._alarm.deadline = min(self._alarm.deadline, self.outbox.stalled_since + self._patience)

    def _write_some(self) -> bool:
        """Write the next frames, together; returns whether the socket took them all."""
        frames = self.outbox.first(WRITE_BYTES)
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self._written:
            data = data[self._written :]
        left = self._written + self.link.send_now(data)
        now = trio.current_time()
        for each in frames:
            if left < len(each):
                self._written = left
                return False
            left -= len(each)
            waiting = self.outbox.pop(now)
            if waiting.sender is not None:
                self._host.on_relayed(now - waiting.since)
        self._written = 0
        self._opened = True  # the response came first
        return True

    # ---- in

    def on_readable(self, now: float) -> None:
        """Take what the socket has, be it an error or the end."""
        try:
            data = self.link.receive_now()
        except OSError:
            data = b""
        if data is None:
            return
        try:
            if data:
                self._take(data, now)
            else:
                self.end(GONE)
        except Exception as fault:  # noqa: BLE001  it is this connection's own, and `run` raises it
            self._fail(fault)

    def _fail(self, fault: Exception) -> None:
        self._fault = fault
        self.end(GONE)

    def _take(self, data: bytes, now: float) -> None:
        if self._engine is None:
            data = self._take_plain(data, now)
        if data and self.departure is None:
            self._engine = self._engine or Engine(self._limits.frame_bytes, self._limits.frame_fragments)
            self._take_careful(self._engine, data, now)
        unfinished = self._inbox.partial if self._engine is None else self._engine.unfinished
        if unfinished != self._unfinished and self.departure is None:
            self._unfinished = unfinished
            self._host.on_unfinished(unfinished)

    def _take_plain(self, data: bytes, now: float) -> bytes:
        """Take plain frames; returns what begins with one that is not."""
        for first, payload in self._inbox.feed(data):
            self._last_heard = now
            if first == TEXT:
                self._take_text(payload, now)
            else:
                self._take_control(first, payload, now)
            if self.departure is not None:
                break
        return self._inbox.unusual

    def _take_text(self, payload: bytes, now: float) -> None:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self.end(NO_UTF8)
            return
        self._host.on_frame(text, now)

    def _take_control(self, first: int, payload: bytes, now: float) -> None:
        flaw = flaw_in_close(payload) if first == CLOSE else None
        if violation := flaw or self._host.on_extra(1, now):
            self.end(refused(violation))
        elif first == CLOSE:
            self._take_close(close_code(payload), payload[2:].decode())
        elif first == PING:
            self._send(frame(PONG, payload))

    def _take_close(self, code: int, reason: str) -> None:
        self._echo = close_frame(code, reason)
        self.end(Departure("closed", code, reason))

    def _take_careful(self, engine: Engine, data: bytes, now: float) -> None:
        frames, extra_frames = engine.frames, engine.extra_frames
        engine.look(data)
        if engine.frames > frames:
            self._last_heard = now
        if engine.extra_frames > extra_frames:
            violation = self._host.on_extra(engine.extra_frames - extra_frames, now)
            if violation and not engine.violation:
                self.end(refused(violation))
        for found in engine.found():
            if self.departure is not None:
                return
            self._take_found(found, now)

    def _take_found(self, found: Found, now: float) -> None:
        match found:
            case Pinged(payload):
                self._send(frame(PONG, payload))
            case Closed(code, reason):
                self._take_close(code, reason)
            case str() | bytes():
                self._host.on_frame(found, now)
            case violation:
                self.end(refused(violation))

    # ---- its life

    def end(self, departure: Departure) -> None:
        """End the connection, for this reason unless it has ended for another already."""
        if self.departure is None:
            self.departure = departure
            self._watch.remove(self)
            self.outbox.close()  # first: what it held is not to be counted when others are told
            self._ended.set()
            self._host.on_end(departure)

    async def run(self, upgrade: Upgrade) -> None:
        """Open the WebSocket and serve it until it ends. The caller closes the link."""
        try:
            opening = [
                accepted(upgrade.key, upgrade.subprotocol),
                *(waiting.data for waiting in self.outbox.take_all()),
            ]
            self._may_write = True
            self._watch.add(self)
            self._send(b"".join(opening))
            if self._behind and self.departure is None:
                self._take(self._behind, trio.current_time())
            await self._watch_over()
            await self._close()
        finally:
            self._watch.remove(self)
            self._lose(self.outbox.take_all())
        if self._fault is not None:
            raise self._fault

    async def _watch_over(self) -> None:
        """Ping a client that says nothing; let one go that does not answer, or does not read."""
        while self.departure is None:
            with trio.CancelScope(deadline=self._look()) as self._alarm:
                await self._ended.wait()

    def _look(self) -> float:
        """Do what is due, and return when to look again."""
        now, limits = trio.current_time(), self._limits
        gone_at = self._last_heard + limits.silence_seconds
        ping_at = max(self._last_heard, self._pinged_at) + limits.ping_seconds
        if now >= gone_at:
            self.end(SILENT)
        elif self.outbox and now >= self.outbox.stalled_since + self._patience:
            self.end(SLOW if self._opened else NEVER_OPEN)
        elif now >= ping_at:
            self._pinged_at = now
            ping_at = now + limits.ping_seconds
            self._send(frame(PING, b""))
        slow_at = self.outbox.stalled_since + self._patience if self.outbox else gone_at
        return min(gone_at, slow_at, ping_at)

    @property
    def _patience(self) -> float:
        """How long the socket may take nothing of what waits."""
        return self._limits.write_seconds if self._opened else self._limits.handshake_seconds

    async def _close(self) -> None:
        """Write what still has to be said, then the close frame: each under a deadline of its own."""
        departure = self.departure
        assert departure is not None
        if departure.code == ABNORMAL:
            return
        seconds = self._limits.drain_seconds if departure.reason == "shutdown" else self._limits.close_seconds
        unsaid = self._unsaid(departure)
        if unsaid:
            with trio.move_on_after(seconds) as late:
                await self.link.send_all(unsaid)
            if late.cancelled_caught:
                return  # a frame is half written: nothing can be said behind it
        words = self._echo or close_frame(departure.code, departure.text)
        left = words[self._answer_at_once() :]
        if left:
            await say_last(self.link, left, self._limits.close_seconds)

    def _answer_at_once(self) -> int:
        """Answer a client's close frame: it sends nothing behind it, so no reset is to be feared. Returns how much was sent."""
        try:
            return self.link.send_now(self._echo) if self._echo and self.link.receive_now() is None else 0
        except OSError:
            return len(self._echo)

    def _unsaid(self, departure: Departure) -> bytes:
        """Return what is left of the frame that is half written, and, where somebody may read them, those behind it."""
        written, waiting = self._written, self.outbox.take_all()
        much = departure.reason != "shutdown" and sum(each.size for each in waiting) > LAST_BYTES
        said = len(waiting)
        if departure.reason in ("slow", "closed") or much:
            said = 1 if written else 0
        self._lose(waiting[said:])
        return b"".join(each.data for each in waiting[:said])[written:]

    def _lose(self, waiting: list[Waiting[bytes]]) -> None:
        self.lost += [each.sender for each in waiting if each.sender is not None]


def accepted(key: str, subprotocol: str | None) -> bytes:
    """Return the response that opens a WebSocket (RFC 6455, 4.2.2)."""
    accept = b64encode(sha1(key.encode() + MAGIC, usedforsecurity=False).digest())
    protocol = b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode() if subprotocol else b""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, protocol)
    )
