"""Who has connected and not asked for anything yet: without a task each, for as long as a request is plain and comes whole."""

from collections.abc import Callable

import trio

from sdpx.relay.acceptor import AcceptedUpgrade, Acceptor
from sdpx.relay.http.simple_upgrade import parse_simple_upgrade
from sdpx.relay.websocket.epoll_engine import Poller
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.timers import NEVER


class PendingConnection:
    """A connection that has said nothing yet."""

    __slots__ = ("_doorstep", "link", "timer_at")

    def __init__(self, doorstep: "RequestReader", link: SocketStream) -> None:
        self._doorstep = doorstep
        self.link = link
        self.timer_at = NEVER

    def on_received(self, data: bytes, _now: float) -> None:
        """Hear what it asks for."""
        self._doorstep.hear(self, data)

    def on_writable(self, _now: float) -> None:
        """Say nothing: nothing was asked."""

    def on_timer(self, _now: float) -> None:
        """Lose patience."""
        self._doorstep.cut(self, crowded=False)

    def evict(self) -> None:
        """Make room for a newer one."""
        self._doorstep.cut(self, crowded=True)

    def set_deadline(self, deadline: float) -> None:
        """Give it no longer than that."""
        self._doorstep.set_deadline(self, deadline)


class RequestReader:
    """Reads the first bytes of each connection.

    Who asks plainly for a WebSocket, and may have one, goes to `welcome`. Others go to `at_leisure`, with the bytes that have
    been read, to be served in a task of their own. `failed` hears of faults of the relay's own, `gone` of who was cut.
    """

    def __init__(
        self,
        door: Acceptor,
        watch: Poller,
        welcome: Callable[[SocketStream, AcceptedUpgrade], None],
        at_leisure: Callable[[SocketStream, bytes], None],
        failed: Callable[[SocketStream, Exception], None],
        gone: Callable[[], None],
    ) -> None:
        self._door = door
        self._watch = watch
        self._welcome = welcome
        self._serve_in_task = at_leisure
        self._failed = failed
        self._gone = gone

    def greet(self, link: SocketStream) -> None:
        """Take a new connection; never raises. As a rule its request is there already."""
        request = link.receive_or_end()
        if request is not None:
            self._take(link, request)
            return
        caller = PendingConnection(self, link)
        try:
            self._watch.add(caller)
        except OSError as fault:  # epoll has its limits, too
            self._failed(link, fault)
            return
        self._watch.wake(caller, trio.current_time() + self._door.patience)
        if evicted := self._door.enter(caller, link.remote):
            evicted.evict()

    def hear(self, caller: PendingConnection, request: bytes) -> None:
        """Take what a caller says first."""
        self._forget(caller)
        self._take(caller.link, request)

    def set_deadline(self, caller: PendingConnection, deadline: float) -> None:
        """Give a caller no longer than until `deadline`."""
        self._watch.wake(caller, min(caller.timer_at, deadline))

    def cut(self, caller: PendingConnection, *, crowded: bool) -> None:
        """Let a caller go that has said nothing."""
        self._forget(caller)
        self._end(caller.link, crowded=crowded)

    def _forget(self, caller: PendingConnection) -> None:
        self._watch.remove(caller)
        self._door.leave(caller)

    def _end(self, link: SocketStream, *, crowded: bool) -> None:
        self._door.refuse_silent(link.remote, crowded=crowded)
        link.close()
        self._gone()

    def _take(self, link: SocketStream, request: bytes) -> None:
        try:
            upgrade = parse_simple_upgrade(request)
            visitor = upgrade and self._door.accept_now(upgrade, link.remote)
            if visitor:
                self._welcome(link, visitor)
            elif request:
                self._serve_in_task(link, request)
            else:
                self._end(link, crowded=False)
        except Exception as fault:  # noqa: BLE001  a fault in serving one client is not the others' business
            self._failed(link, fault)
