"""Connections that wait for their request, or for the decision on it: bounded in all and per address."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from sdpx.relay.core.rate_limit import EvictionQueue
from sdpx.relay.websocket.epoll_engine import EpollEngine
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.timers import NEVER


@dataclass(slots=True, eq=False, repr=False)
class PendingConnection:
    """A connection on the epoll engine that has sent nothing yet; `cancel` and `deadline` are those of a `trio.CancelScope`.

    `on_request` is called with its first bytes, which are empty at the end of the stream; `on_closed` if it has sent nothing in
    time, or is evicted (True).
    """

    _engine: EpollEngine
    link: SocketStream
    _on_request: Callable[["PendingConnection", bytes], None]
    _on_closed: Callable[["PendingConnection", bool], None]
    timer_at: float = NEVER

    def on_received(self, data: bytes, _now: float) -> bytes:
        """Handle the first bytes, which are empty at the end of the stream."""
        self._engine.remove(self)
        self._on_request(self, data)
        return b""

    def on_writable(self, _now: float) -> None:
        """No-op: there is nothing to write before the request."""

    def on_timer(self, now: float) -> None:
        """Handshake timeout: close the connection, unless its request waits in the socket."""
        if not self._engine.receive(self, now):
            self._engine.remove(self)
            self._on_closed(self, False)

    def cancel(self) -> None:
        """Close the connection to make room for a newer one."""
        self._engine.remove(self)
        self._on_closed(self, True)

    @property
    def deadline(self) -> float:
        """When the connection times out, in Trio's time."""
        return self.timer_at

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._engine.set_timer(self, min(self.timer_at, deadline), trio.current_time())


Pending = PendingConnection | trio.CancelScope  # of the task that reads the request


def enter(connections: EvictionQueue[Pending], pending: Pending, address: str) -> None:
    """Count a connection; evict one past a bound."""
    if evicted := connections.enter(pending, address):
        evicted.cancel()


@contextmanager
def counted(connections: EvictionQueue[Pending], pending: Pending, address: str) -> Iterator[None]:
    """Count a connection during a block."""
    enter(connections, pending, address)
    try:
        yield
    finally:
        connections.leave(pending)
