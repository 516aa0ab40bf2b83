"""The door: counts connections, reads each one's request, and answers by plain HTTP what is no WebSocket."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import h11
import trio

from sdpx.events import Event, serve
from sdpx.relay.farewell import say_last
from sdpx.relay.handshake import Upgrade
from sdpx.relay.http import Head, read_head
from sdpx.relay.limits import Limits
from sdpx.relay.quota import Census, network_of
from sdpx.relay.responses import CROWDED, FULL, STOPPING, Answer, Page

# Connections that are read although there are too many already: health has to be told just then.
RESERVE: Final = 64


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who asked for a WebSocket and may have one."""

    head: Head
    upgrade: Upgrade
    remote: str


class Door:
    """One kind of port: `judge` decides about each request, `tell` gets what is to be logged."""

    def __init__(
        self,
        limits: Limits,
        census: Census,
        judge: Callable[[h11.Request], Upgrade | Page | Answer],
        tell: Callable[[Event], None],
    ) -> None:
        self._limits = limits
        self._census = census
        self._judge = judge
        self._tell = tell
        self._reading: set[trio.CancelScope] = set()
        self._stopping = False

    def stop(self) -> None:
        """Let nobody in any more; who asks at once is told, who says nothing cannot hold up the end."""
        self._stopping = True
        for scope in self._reading:
            scope.deadline = trio.current_time() + self._limits.close_seconds

    async def admit(self, stream: trio.abc.Stream, remote: str) -> Visitor | None:
        """Read the request; returns who is to get a WebSocket, or None once all is said. The caller closes the stream."""
        head = self._no_room(remote, RESERVE) or await self._read_head(stream)
        if head is None:
            self._tell(serve.ConnectionRefused(remote, None, "no_request"))
            return None
        verdict = self._verdict(head, remote)
        if isinstance(head, Head) and isinstance(verdict, Upgrade):
            return Visitor(head, verdict, remote)
        assert not isinstance(verdict, Upgrade)
        self._tell(_told(verdict, head, remote))
        head_only = isinstance(head, Head) and head.request.method == b"HEAD"
        await say_last(stream, verdict.render(head_only=head_only), self._limits.close_seconds)
        return None

    def _no_room(self, remote: str, reserve: int = 0) -> Answer | None:
        if self._census.is_full(reserve):
            return FULL
        return CROWDED if self._census.is_crowded(address_of(remote), reserve) else None

    async def _read_head(self, stream: trio.abc.Stream) -> Head | Answer | None:
        with trio.CancelScope() as scope:
            self._reading.add(scope)
            try:
                return await read_head(stream, self._limits)
            finally:
                self._reading.discard(scope)
        return None

    def _verdict(self, head: Head | Answer, remote: str) -> Upgrade | Page | Answer:
        verdict = self._judge(head.request) if isinstance(head, Head) else head
        if self._stopping and not isinstance(verdict, Page):
            return STOPPING
        return (isinstance(verdict, Upgrade) and self._no_room(remote)) or verdict


def _told(verdict: Page | Answer, head: Head | Answer, remote: str) -> Event:
    if isinstance(verdict, Answer):
        return serve.ConnectionRefused(remote, verdict.status, verdict.code)
    assert isinstance(head, Head)
    return serve.PageServed(remote, head.request.target.decode("ascii", "replace"), verdict.status)


def address_of(remote: str) -> str:
    """Return what counts as the address of a client at `host:port`."""
    return network_of(remote.rpartition(":")[0].strip("[]"))
