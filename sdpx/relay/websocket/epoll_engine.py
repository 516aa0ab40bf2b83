"""The epoll engine: one epoll for all sockets and one task that waits for it, so that a batch costs a task switch, not a frame.

A batch is read, then handled, then the resulting frames are written: the processor keeps to one thing at a time, frames for one
client leave together, and a receiver that is woken by the first has the next ones by the time it looks.

Why no frame can be lost, reordered or torn:

- **One reader.** The engine reads a socket that has bytes and gives them to its connection before it reads it again. From
  `recv` to the send queues that the frames end in there is no checkpoint, so no other task runs in between. A connection
  handles some frames in a turn. The rest of its bytes waits in the backlog, as do the bytes that a batch which takes too long
  has not come to, and its socket is not read again before they are handled. Bytes of an incomplete frame stay in the parser.
- **One order.** Where `FastParser` stops, at the first byte of a frame, `FrameParser` goes on, and `FastParser` never resumes.
- **One queue.** Every frame for a client is put into its send queue. Only `on_writable` takes frames out, at the end of a batch
  or when the socket has room again: from the front, and a frame only once all of it has left. A frame that left in part stays
  at the head with a count of the bytes written; the next write continues from there.
- **One end.** A connection's `end` takes effect once: from then on nothing is read or queued, and the relay is notified. At
  the end of the batch `close_now` closes a connection that was lost, or whose close frame can be answered at once. For all
  others `close_gracefully`, in a task, writes the rest of a frame that is half written, further frames as far as allowed, and
  the close frame, under deadlines. The senders of frames left in the queue are notified that they were not delivered.
- **One owner.** Only `close_now` and `close_gracefully` close the socket, once, after `remove`.

A connection has no task while nothing has to be waited for, which makes it small and quick to open. The batch makes it quick to
write to: waking a client that sleeps costs its sender more than all else, and one wake-up serves all frames of the batch.
"""

import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, Protocol

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.relay.websocket.socket_stream import READ_BYTES, SocketStream
from sdpx.relay.websocket.timers import TimerTarget, TimerWheel

BATCH: Final = 64  # sockets whose events are handled at a time
SLICE_SECONDS: Final = 0.001  # a turn of Trio's own costs as much as several frames
CHECK: Final = 4  # connections after which the clock is read
LONG_SECONDS: Final = 0.01  # after which a batch is broken off: each connection may take a millisecond
LARGE_BACKLOG: Final = 8 * 1024 * 1024  # bytes beyond which sockets are read in small pieces
SMALL_READ_BYTES: Final = 4096
HAS_EPOLL: Final = hasattr(select, "epoll")
EPOLLIN: Final = getattr(select, "EPOLLIN", 0)
EPOLLOUT: Final = getattr(select, "EPOLLOUT", 0)


class PolledConnection(TimerTarget, Protocol):
    """A connection whose socket the engine polls."""

    link: SocketStream

    def on_received(self, data: bytes, now: float) -> bytes:
        """Handle what was received: empty at the end of the stream or after an error. `now` is Trio's time. Never raises.

        Returns the bytes that it leaves for its next turn.
        """

    def on_writable(self, now: float) -> None:
        """Write what is queued; never raises."""


def _do_nothing() -> None:
    pass


class EpollEngine:
    """Polls connections from `add` to `remove`. `run` is its task; `nursery` gets the tasks of connections that have to wait.

    `begin_batch` and `end_batch` are called around each batch, in which no other task runs.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        begin_batch: Callable[[], None] = _do_nothing,
        end_batch: Callable[[], None] = _do_nothing,
    ) -> None:
        self._nursery = nursery
        self._on_batch_begun = begin_batch
        self._on_batch_ended = end_batch
        self._timers = TimerWheel()
        self._in_batch = False
        self._to_flush: list[PolledConnection] = []
        self._to_close: list[tuple[Callable[[], bool], Callable[[], Awaitable[None]]]] = []
        self._epoll = select.epoll()
        self._polled: dict[int, PolledConnection] = {}
        self._backlog: list[Received] = []  # has been read, and waits to be handled
        self._backlog_bytes = 0
        self._in_backlog: set[int] = set()  # descriptors
        self._backlog_grew = RepeatedEvent()

    def add(self, connection: PolledConnection) -> None:
        """Call this connection's `on_received` when its socket has bytes; raises `OSError` if epoll takes no more."""
        descriptor = connection.link.socket.fileno()
        self._epoll.register(descriptor, EPOLLIN)
        self._polled[descriptor] = connection

    def want_write(self, connection: PolledConnection, *, wanted: bool) -> None:
        """Call its `on_writable` when its socket has room, or stop doing so."""
        descriptor = connection.link.socket.fileno()
        if self._polled.get(descriptor) is connection:
            self._epoll.modify(descriptor, EPOLLIN | (EPOLLOUT if wanted else 0))

    def remove(self, connection: PolledConnection) -> None:
        """Call this connection no more. Comes before its socket is closed, and may come twice."""
        self._timers.clear(connection)
        descriptor = connection.link.socket.fileno()
        if self._polled.get(descriptor) is connection:
            del self._polled[descriptor]
            self._in_backlog.discard(descriptor)
            self._epoll.unregister(descriptor)

    def set_timer(self, connection: PolledConnection, when: float, now: float) -> None:
        """Call its `on_timer` at `when`, in place of the time that was set before."""
        self._timers.set(connection, when, now)

    def flush_soon(self, connection: PolledConnection) -> None:
        """Call `on_writable` at the end of this batch, or now if there is none."""
        if self._in_batch:
            self._to_flush.append(connection)
        else:
            connection.on_writable(trio.current_time())

    def close_soon(self, close_now: Callable[[], bool], close_gracefully: Callable[[], Awaitable[None]]) -> None:
        """Close a connection that has ended, at the end of this batch.

        `close_now` returns whether the socket is closed and never raises. If it is not, or there is no batch, a task is started
        for `close_gracefully`.
        """
        if self._in_batch:
            self._to_close.append((close_now, close_gracefully))
        else:
            self.start_soon(close_gracefully)

    def receive(self, connection: PolledConnection, now: float) -> bool:
        """Handle what waits in the socket of a connection that seems silent; returns whether there was anything."""
        descriptor = connection.link.socket.fileno()
        if descriptor in self._in_backlog:
            return True  # and has its turn later
        data = connection.link.receive_or_end()
        if data is not None:
            self._handle([(descriptor, connection, data)], now)
        return data is not None

    def put_off(self, connection: PolledConnection, data: bytes) -> None:
        """Call its `on_received` with these bytes, in its turn, before its socket is read again."""
        self._put_off([(connection.link.socket.fileno(), connection, data)])

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task for a connection that has to wait."""
        self._nursery.start_soon(function, *args)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write at the end of the block: a client that gets several frames in it is woken once."""
        self._begin_batch()
        try:
            yield
        finally:
            self._end_batch()

    def _begin_batch(self) -> None:
        self._in_batch = True
        self._on_batch_begun()

    def _end_batch(self) -> None:
        """Write what the batch led to and close what has ended, which may lead to more of both."""
        while self._to_flush or self._to_close:
            now = trio.current_time()
            to_flush, self._to_flush = self._to_flush, []
            for connection in to_flush:
                connection.on_writable(now)
            to_close, self._to_close = self._to_close, []
            for close_now, close_gracefully in to_close:
                if not close_now():
                    self.start_soon(close_gracefully)
        self._in_batch = False
        self._on_batch_ended()

    async def run(self) -> None:
        """Poll for ever; other tasks get their turn after `SLICE_SECONDS`, or one long batch."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_timers)
            nursery.start_soon(self._run_backlog)
            with self._epoll:
                await self._poll()

    async def _run_timers(self) -> None:
        while True:
            await self._timers.wait()
            now = trio.current_time()
            with self.batch():
                for target in self._timers.due(now):
                    target.on_timer(now)

    async def _poll(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            now = trio.current_time()
            slice_ends = now + SLICE_SECONDS
            has_received = True  # or else epoll goes on to report sockets of the backlog, which are not read
            while has_received and now < slice_ends and (events := self._epoll.poll(0, BATCH)):
                self._begin_batch()
                try:
                    received = self._receive(events, now)
                    has_received = bool(received)
                    self._handle(received, now)
                finally:
                    self._end_batch()
                now = trio.current_time()

    async def _run_backlog(self) -> None:
        """Let connections handle the bytes that they have left, each in its turn, between the batches of new bytes."""
        while True:
            while self._backlog:
                turn, self._backlog, self._backlog_bytes = self._backlog, [], 0
                self._in_backlog.clear()
                with self.batch():
                    self._handle(turn, trio.current_time())
                del turn  # which has the bytes, and connections that may end
                await trio.lowlevel.checkpoint()
            await self._backlog_grew.wait()

    def _receive(self, events: list[tuple[int, int]], now: float) -> "list[Received]":
        """Receive from readable sockets and write to writable ones, for `LONG_SECONDS`: TLS handshakes take long."""
        received: list[Received] = []
        polled, long_after = self._polled, perf_counter() + LONG_SECONDS
        in_backlog, size = self._in_backlog, READ_BYTES if self._backlog_bytes < LARGE_BACKLOG else SMALL_READ_BYTES
        for count, (descriptor, flags) in enumerate(events, 1):
            connection = polled.get(descriptor)
            if connection is None:
                continue  # removed by an earlier one of this batch
            if flags != EPOLLIN:
                if flags & EPOLLOUT:
                    connection.on_writable(now)
                if flags == EPOLLOUT:
                    continue
            if in_backlog and descriptor in in_backlog:
                continue
            if (data := connection.link.receive_or_end(size)) is not None:
                received.append((descriptor, connection, data))
            if not count % CHECK and perf_counter() > long_after:
                break  # epoll reports the others again
        return received

    def _handle(self, received: "list[Received]", now: float) -> None:
        """Let connections handle what was received, for `LONG_SECONDS`; put off what is left."""
        left: list[Received] = []
        polled, long_after = self._polled, perf_counter() + LONG_SECONDS
        for count, (descriptor, connection, data) in enumerate(received, 1):
            # An earlier connection of this batch may have removed this one.
            if polled.get(descriptor) is connection and (rest := connection.on_received(data, now)):
                left.append((descriptor, connection, rest))
            if not count % CHECK and perf_counter() > long_after:
                left[:0] = received[count:]
                break
        if left:
            self._put_off(left)

    def _put_off(self, left: "list[Received]") -> None:
        for descriptor, connection, data in left:
            if self._polled.get(descriptor) is connection:
                self._backlog.append((descriptor, connection, data))
                self._backlog_bytes += len(data)
                self._in_backlog.add(descriptor)
        self._backlog_grew.set()


Received = tuple[int, PolledConnection, bytes]  # descriptor, its connection, what it received
