"""Who is told that a socket has bytes, or takes some: one task for all connections, or, without epoll, one for each."""

import select
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from sdpx.relay.link import Link

BATCH: Final = 64  # connections that are told at a time
SLICE_SECONDS: Final = 0.001  # a turn of Trio's own costs as much as several frames


class Watched(Protocol):
    """A connection that wants to be told."""

    link: Link

    def on_readable(self, now: float) -> None:
        """Take what there is to receive, or the error; never raises. `now` is Trio's time."""

    def on_writable(self) -> None:
        """Write what waits; never raises."""


class Watch(Protocol):
    """Tells connections of their sockets, from `add` to `remove`."""

    def add(self, connection: Watched) -> None:
        """Tell this connection when there is something to receive."""

    def want_write(self, connection: Watched, *, wanted: bool) -> None:
        """Tell it, or no longer, when its socket takes something."""

    def flush_soon(self, connection: Watched) -> None:
        """Call `on_writable` at the end of this batch, or now if there is none."""

    def remove(self, connection: Watched) -> None:
        """Tell it nothing any more. It is called before the socket is closed, and may be called twice."""


class SharedWatch:
    """One epoll for all sockets, and one task that waits for it: a task switch for a batch, not for a frame.

    What a batch leads to is written at its end: frames for one client leave together, and a receiver that is woken by the
    first has the next ones by the time it looks.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._in_batch = False
        self._due: list[Watched] = []

    def add(self, connection: Watched) -> None:
        """Tell this connection when there is something to receive."""
        descriptor = connection.link.socket.fileno()
        self._watched[descriptor] = connection
        self._epoll.register(descriptor, select.EPOLLIN)

    def want_write(self, connection: Watched, *, wanted: bool) -> None:
        """Tell it, or no longer, when its socket takes something."""
        descriptor = connection.link.socket.fileno()
        if self._watched.get(descriptor) is connection:
            self._epoll.modify(descriptor, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def remove(self, connection: Watched) -> None:
        """Tell it nothing any more."""
        descriptor = connection.link.socket.fileno()
        if self._watched.get(descriptor) is connection:
            del self._watched[descriptor]
            self._epoll.unregister(descriptor)

    def flush_soon(self, connection: Watched) -> None:
        """Call `on_writable` at the end of this batch, or now if there is none."""
        if self._in_batch:
            self._due.append(connection)
        else:
            connection.on_writable()

    async def run(self) -> None:
        """Tell everybody, for ever; other tasks get their turn every `SLICE_SECONDS` at the latest."""
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                now = trio.current_time()
                slice_ends = now + SLICE_SECONDS
                while now < slice_ends and (events := self._epoll.poll(0, BATCH)):
                    self._tell(events, now)
                    now = trio.current_time()

    def _tell(self, events: list[tuple[int, int]], now: float) -> None:
        self._in_batch = True
        for descriptor, flags in events:
            connection = self._watched.get(descriptor)
            if connection is None:
                continue  # one before it in this batch let it go
            if flags & select.EPOLLOUT:
                connection.on_writable()
            if flags & ~select.EPOLLOUT and self._watched.get(descriptor) is connection:
                connection.on_readable(now)
        self._in_batch = False
        due, self._due = self._due, []
        for connection in due:
            if self._watched.get(connection.link.socket.fileno()) is connection:
                connection.on_writable()


class TaskWatch:
    """A task for each socket, where there is no epoll; they live in the nursery that is given."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._reading: dict[Watched, trio.CancelScope] = {}
        self._writing: dict[Watched, trio.CancelScope] = {}

    def add(self, connection: Watched) -> None:
        """Tell this connection when there is something to receive."""
        scope = self._reading[connection] = trio.CancelScope()
        self._nursery.start_soon(self._read, connection, scope)

    def want_write(self, connection: Watched, *, wanted: bool) -> None:
        """Tell it, or no longer, when its socket takes something."""
        if wanted and connection in self._reading and connection not in self._writing:
            scope = self._writing[connection] = trio.CancelScope()
            self._nursery.start_soon(self._write, connection, scope)
        elif not wanted and connection in self._writing:
            self._writing.pop(connection).cancel()

    def flush_soon(self, connection: Watched) -> None:
        """Call `on_writable` now: there are no batches."""
        connection.on_writable()

    def remove(self, connection: Watched) -> None:
        """Tell it nothing any more."""
        if connection in self._reading:
            self.want_write(connection, wanted=False)
            self._reading.pop(connection).cancel()

    async def run(self) -> None:
        """Wait for ever: the tasks do the work."""
        await trio.sleep_forever()

    async def _read(self, connection: Watched, scope: trio.CancelScope) -> None:
        with scope:
            while await _can(connection.link.wait_readable) and not scope.cancel_called:
                connection.on_readable(trio.current_time())

    async def _write(self, connection: Watched, scope: trio.CancelScope) -> None:
        with scope:
            while await _can(connection.link.wait_writable) and not scope.cancel_called:
                connection.on_writable()


async def _can(wait: Callable[[], Awaitable[None]]) -> bool:
    """Wait; False if the socket is gone."""
    try:
        await wait()
    except (OSError, trio.ClosedResourceError):
        return False
    return True
