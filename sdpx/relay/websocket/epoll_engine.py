"""Who is told that a socket has bytes, or takes some, or that it is time: one task for all, or, without epoll, one for each."""

import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any, Final, Protocol

import trio

from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.timers import TimerTarget, TimerWheel

BATCH: Final = 64  # connections that are told at a time
SLICE_SECONDS: Final = 0.001  # a turn of Trio's own costs as much as several frames
CHECK: Final = 4  # connections after which the clock is looked at
LONG_SECONDS: Final = 0.01  # after which a batch is broken off: one read may bring thousands of frames


class PolledConnection(TimerTarget, Protocol):
    """A connection that wants to be told."""

    link: SocketStream

    def on_received(self, data: bytes, now: float) -> None:
        """Take what was received, which is nothing at the end or after an error; never raises. `now` is Trio's time."""

    def on_writable(self, now: float) -> None:
        """Write what waits; never raises."""


class ClosingConnection(Protocol):
    """A connection that is over, but for its last words."""

    def close_now(self) -> bool:
        """Say them and close the socket if nothing has to be waited for, or else return False; never raises."""

    async def close_gracefully(self) -> None:
        """Do the same, and wait for what there is to wait for."""


class Poller(Protocol):
    """Tells connections of their sockets, from `add` to `remove`."""

    def add(self, connection: PolledConnection) -> None:
        """Tell this connection when there is something to receive."""

    def want_write(self, connection: PolledConnection, *, wanted: bool) -> None:
        """Tell it, or no longer, when its socket takes something."""

    def wake(self, connection: PolledConnection, when: float) -> None:
        """Call its `on_timer` at `when`, and not at the time that was set before."""

    def batch(self) -> AbstractContextManager[None]:
        """Write what is done within at its end: whoever gets several frames, or reads for several clients, is woken once."""

    def flush_soon(self, connection: PolledConnection) -> None:
        """Call `on_writable` at the end of this batch, or now if there is none."""

    def close_soon(self, connection: ClosingConnection) -> None:
        """End it: at the end of this batch, or in a task of its own."""

    def remove(self, connection: PolledConnection) -> None:
        """Tell it nothing any more. It is called before the socket is closed, and may be called twice."""

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task for what has to wait."""


class BatchObserver(Protocol):
    """What also does its work for a batch at a time."""

    def begin_batch(self) -> None:
        """Begin one; nothing else runs until it ends."""

    def end_batch(self) -> None:
        """End it."""


class _BatchingPoller:
    """What both kinds have: alarms, and a batch at whose end is done what it led to, by whoever is `batched`, too."""

    def __init__(self, nursery: trio.Nursery, *batched: BatchObserver) -> None:
        self._nursery = nursery
        self._batched = batched
        self._alarms = TimerWheel()
        self._in_batch = False
        self._due: list[PolledConnection] = []
        self._over: list[ClosingConnection] = []
        nursery.start_soon(self._run_timers)

    def wake(self, connection: PolledConnection, when: float) -> None:
        """Call its `on_timer` at `when`, and not at the time that was set before."""
        self._alarms.set(connection, when, trio.current_time())

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write what is done within at its end."""
        self._begin_batch()
        try:
            yield
        finally:
            self._end_batch()

    def _begin_batch(self) -> None:
        self._in_batch = True
        for each in self._batched:
            each.begin_batch()

    def flush_soon(self, connection: PolledConnection) -> None:
        """Call `on_writable` at the end of this batch, or now if there is none."""
        if self._in_batch:
            self._due.append(connection)
        else:
            connection.on_writable(trio.current_time())

    def close_soon(self, connection: ClosingConnection) -> None:
        """End it: at the end of this batch, or in a task of its own."""
        if self._in_batch:
            self._over.append(connection)
        else:
            self.start_soon(connection.close_gracefully)

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task for what has to wait."""
        self._nursery.start_soon(function, *args)

    def _end_batch(self) -> None:
        """Write what it led to, and let go who is over: which may lead to more of both."""
        while self._due or self._over:
            now = trio.current_time()
            due, self._due = self._due, []
            for connection in due:
                connection.on_writable(now)
            over, self._over = self._over, []
            for ending in over:
                if not ending.close_now():
                    self.start_soon(ending.close_gracefully)
        self._in_batch = False
        for each in self._batched:
            each.end_batch()

    async def _run_timers(self) -> None:
        """Call whose time has come, for ever."""
        while True:
            await self._alarms.wait()
            now = trio.current_time()
            with self.batch():
                for sleeper in self._alarms.due(now):
                    sleeper.on_timer(now)


Received = tuple[int, PolledConnection, bytes]  # from which descriptor, whose it is, what


class EpollPoller(_BatchingPoller):
    """One epoll for all sockets, and one task that waits for it: a task switch for a batch, not for a frame.

    A batch is read, then taken, then what it led to is written: the processor keeps to one thing at a time, frames for one
    client leave together, and a receiver that is woken by the first has the next ones by the time it looks.
    """

    def __init__(self, nursery: trio.Nursery, *batched: BatchObserver) -> None:
        super().__init__(nursery, *batched)
        self._epoll = select.epoll()
        self._watched: dict[int, PolledConnection] = {}

    def add(self, connection: PolledConnection) -> None:
        """Tell this connection when there is something to receive."""
        descriptor = connection.link.socket.fileno()
        self._epoll.register(descriptor, select.EPOLLIN)  # may fail, and then nobody is watched
        self._watched[descriptor] = connection

    def want_write(self, connection: PolledConnection, *, wanted: bool) -> None:
        """Tell it, or no longer, when its socket takes something."""
        descriptor = connection.link.socket.fileno()
        if self._watched.get(descriptor) is connection:
            self._epoll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def remove(self, connection: PolledConnection) -> None:
        """Tell it nothing any more."""
        self._alarms.clear(connection)
        descriptor = connection.link.socket.fileno()
        if self._watched.get(descriptor) is connection:
            del self._watched[descriptor]
            self._epoll.unregister(descriptor)

    async def run(self) -> None:
        """Tell everybody, for ever; other tasks get their turn after `SLICE_SECONDS`, or one long read."""
        with self._epoll:
            left: list[Received] = []  # it has been read, so it is taken before anything is read again
            while True:
                if not left:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                now = trio.current_time()
                slice_ends = now + SLICE_SECONDS
                while now < slice_ends and (left or (events := self._epoll.poll(0, BATCH))):
                    self._begin_batch()
                    try:
                        left = self._take(left or self._receive(events, now), now)
                    finally:
                        self._end_batch()
                    now = trio.current_time()
                if left:
                    await trio.lowlevel.checkpoint()

    def _receive(self, events: list[tuple[int, int]], now: float) -> list[Received]:
        """Receive from all that have something, and write to those that can."""
        watched, received = self._watched, []
        for descriptor, flags in events:
            connection = watched.get(descriptor)
            if connection is None:
                continue  # one before it let it go
            if flags & select.EPOLLOUT:
                connection.on_writable(now)
            if flags != select.EPOLLOUT and (data := connection.link.receive_or_end()) is not None:
                received.append((descriptor, connection, data))
        return received

    def _take(self, received: list[Received], now: float) -> list[Received]:
        """Let everybody take what was received, for a while; returns what is left."""
        watched, long_after = self._watched, perf_counter() + LONG_SECONDS
        for count, (descriptor, connection, data) in enumerate(received, 1):
            if watched.get(descriptor) is connection:  # and none before it let it go
                connection.on_received(data, now)
            if not count % CHECK and perf_counter() > long_after:
                return received[count:]
        return []


class TaskPoller(_BatchingPoller):
    """A task for each socket, where there is no epoll; they live in the nursery that is given."""

    def __init__(self, nursery: trio.Nursery, *batched: BatchObserver) -> None:
        super().__init__(nursery, *batched)
        self._reading: dict[PolledConnection, trio.CancelScope] = {}
        self._writing: dict[PolledConnection, trio.CancelScope] = {}

    def add(self, connection: PolledConnection) -> None:
        """Tell this connection when there is something to receive."""
        scope = self._reading[connection] = trio.CancelScope()
        self.start_soon(self._read, connection, scope)

    def want_write(self, connection: PolledConnection, *, wanted: bool) -> None:
        """Tell it, or no longer, when its socket takes something."""
        if wanted and connection in self._reading and connection not in self._writing:
            scope = self._writing[connection] = trio.CancelScope()
            self.start_soon(self._write, connection, scope)
        elif not wanted and connection in self._writing:
            self._writing.pop(connection).cancel()

    def remove(self, connection: PolledConnection) -> None:
        """Tell it nothing any more."""
        self._alarms.clear(connection)
        if connection in self._reading:
            self.want_write(connection, wanted=False)
            self._reading.pop(connection).cancel()

    async def run(self) -> None:
        """Wait for ever: the tasks do the work."""
        await trio.sleep_forever()

    async def _read(self, connection: PolledConnection, scope: trio.CancelScope) -> None:
        with scope:
            while await _can(connection.link.wait_readable) and not scope.cancel_called:
                data = connection.link.receive_or_end()
                if data is not None:
                    connection.on_received(data, trio.current_time())

    async def _write(self, connection: PolledConnection, scope: trio.CancelScope) -> None:
        with scope:
            while await _can(connection.link.wait_writable) and not scope.cancel_called:
                connection.on_writable(trio.current_time())


async def _can(wait: Callable[[], Awaitable[None]]) -> bool:
    """Wait; False if the socket is gone."""
    try:
        await wait()
    except (OSError, trio.ClosedResourceError):
        return False
    return True
