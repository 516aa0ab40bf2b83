"""Who has connected and not asked for anything yet: without a task each, for as long as a request is plain and comes whole."""

from collections.abc import Callable

import trio

from sdpx.relay.door import Door, Visitor
from sdpx.relay.lane.alarms import NEVER
from sdpx.relay.lane.upgrade import plain_upgrade
from sdpx.relay.lane.watch import Watch
from sdpx.relay.link import Link


class Caller:
    """A connection that has said nothing yet."""

    __slots__ = ("_doorstep", "alarm_at", "link")

    def __init__(self, doorstep: "Doorstep", link: Link) -> None:
        self._doorstep = doorstep
        self.link = link
        self.alarm_at = NEVER

    def on_received(self, data: bytes, _now: float) -> None:
        """Hear what it asks for."""
        self._doorstep.hear(self, data)

    def on_writable(self, _now: float) -> None:
        """Say nothing: nothing was asked."""

    def on_alarm(self, _now: float) -> None:
        """Lose patience."""
        self._doorstep.cut(self, crowded=False)

    def crowd_out(self) -> None:
        """Make room for a newer one."""
        self._doorstep.cut(self, crowded=True)

    def hurry(self, deadline: float) -> None:
        """Give it no longer than that."""
        self._doorstep.hurry(self, deadline)


class Doorstep:
    """Reads the first bytes of each connection.

    Who asks plainly for a WebSocket, and may have one, goes to `welcome`. Others go to `at_leisure`, with the bytes that have
    been read, to be served in a task of their own. `failed` hears of faults of the relay's own, `gone` of who was cut.
    """

    def __init__(
        self,
        door: Door,
        watch: Watch,
        welcome: Callable[[Link, Visitor], None],
        at_leisure: Callable[[Link, bytes], None],
        failed: Callable[[Link, Exception], None],
        gone: Callable[[], None],
    ) -> None:
        self._door = door
        self._watch = watch
        self._welcome = welcome
        self._at_leisure = at_leisure
        self._failed = failed
        self._gone = gone

    def greet(self, link: Link) -> None:
        """Take a new connection; never raises. As a rule its request is there already."""
        request = link.receive_or_end()
        if request is not None:
            self._take(link, request)
            return
        caller = Caller(self, link)
        try:
            self._watch.add(caller)
        except OSError as fault:  # epoll has its limits, too
            self._failed(link, fault)
            return
        self._watch.wake(caller, trio.current_time() + self._door.patience)
        if crowded_out := self._door.enter(caller, link.remote):
            crowded_out.crowd_out()

    def hear(self, caller: Caller, request: bytes) -> None:
        """Take what a caller says first."""
        self._forget(caller)
        self._take(caller.link, request)

    def hurry(self, caller: Caller, deadline: float) -> None:
        """Give a caller no longer than until `deadline`."""
        self._watch.wake(caller, min(caller.alarm_at, deadline))

    def cut(self, caller: Caller, *, crowded: bool) -> None:
        """Let a caller go that has said nothing."""
        self._forget(caller)
        self._end(caller.link, crowded=crowded)

    def _forget(self, caller: Caller) -> None:
        self._watch.remove(caller)
        self._door.leave(caller)

    def _end(self, link: Link, *, crowded: bool) -> None:
        self._door.refuse_silent(link.remote, crowded=crowded)
        link.close()
        self._gone()

    def _take(self, link: Link, request: bytes) -> None:
        try:
            upgrade = plain_upgrade(request)
            visitor = upgrade and self._door.admit_at_once(upgrade, link.remote)
            if visitor:
                self._welcome(link, visitor)
            elif request:
                self._at_leisure(link, request)
            else:
                self._end(link, crowded=False)
        except Exception as fault:  # noqa: BLE001  a fault in serving one client is not the others' business
            self._failed(link, fault)
