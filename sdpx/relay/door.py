"""The door: counts connections, reads each one's request, and answers by plain HTTP what is no WebSocket."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Protocol

import h11
import trio
from msgspec import UNSET, Struct

from sdpx.events import Event, serve
from sdpx.relay.farewell import say_last
from sdpx.relay.handshake import Upgrade, asked_id
from sdpx.relay.http import Head, Plain, read_head
from sdpx.relay.limits import Limits
from sdpx.relay.quota import Census, Pending, network_of
from sdpx.relay.responses import CROWDED, FULL, STOPPING, Answer, Page
from sdpx.relay.secure import TlsFailed
from sdpx.relay.trust.gate import Gate, Remote


class Visitor(Struct, frozen=True):
    """Somebody who asked for a WebSocket and may have one."""

    upgrade: Upgrade
    behind: bytes
    remote: str
    address: str


class Waiting(Hashable, Protocol):
    """Somebody at the door who has not asked for anything yet."""

    def crowd_out(self) -> None:
        """Make room for a newer one."""

    def hurry(self, deadline: float) -> None:
        """Ask by then, in Trio's time, or go."""


class _InTask:
    """Somebody at the door who is served by a task, in this scope."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.answered = False

    def crowd_out(self) -> None:
        """Make room for a newer one."""
        self.scope.cancel()

    def hurry(self, deadline: float) -> None:
        """Ask by then, or go."""
        self.scope.deadline = deadline


class Door:
    """One kind of port: `judge` decides about each request by its form, `tell` gets what is to be logged.

    `plain` may know a request at one look. `gate` says who may have a WebSocket, and may take its time; `settle` has the last
    word, and from then on nobody else is let in until this one is. `census` counts those that came in; those at the door are
    bounded, too.
    """

    def __init__(
        self,
        limits: Limits,
        census: Census,
        judge: Callable[[h11.Request | Upgrade], Upgrade | Page | Answer],
        tell: Callable[[Event], None],
        plain: Plain | None = None,
        gate: Gate | None = None,
        settle: Callable[[Upgrade], Upgrade | Answer] = lambda upgrade: upgrade,
    ) -> None:
        self._limits = limits
        self._census = census
        self._judge = judge
        self._tell = tell
        self._plain = plain if gate is None else None  # it looks at no header that the gate would ask for
        self._gate = gate
        self._settle = settle
        self._pending = Pending[Waiting](limits.pending, limits.max_clients_per_ip)
        self._stopping = False

    def stop(self) -> None:
        """Let nobody in any more; who asks at once is told, who says nothing cannot hold up the end."""
        self._stopping = True
        for waiting in self._pending:
            waiting.hurry(trio.current_time() + self.patience)

    @property
    def patience(self) -> float:
        """How many seconds somebody new has to ask for something."""
        return self._limits.close_seconds if self._stopping else self._limits.handshake_seconds

    def enter(self, waiting: Waiting, remote: str) -> Waiting | None:
        """Count somebody new; returns who has to make room."""
        shared = self._gate is not None and self._gate.is_proxy(host_of(remote))
        return self._pending.enter(waiting, remote if shared else address_of(remote))

    def leave(self, waiting: Waiting) -> None:
        """Count this one no more."""
        self._pending.leave(waiting)

    def admit_at_once(self, upgrade: Upgrade, remote: str) -> Visitor | None:
        """Return who is to get a WebSocket, or None if there is more to look at, or something to say, which takes its time."""
        address = address_of(remote)
        if self._gate is not None or self._stopping or self._no_room(address):
            return None
        verdict = self._settle(upgrade)
        return Visitor(verdict, b"", remote, address) if isinstance(verdict, Upgrade) else None

    def refuse_silent(self, remote: str, *, crowded: bool) -> None:
        """Log that somebody was cut, or went, without having asked for anything."""
        reason = "too_many_connections" if crowded and not self._stopping else "no_request"
        self._tell(serve.ConnectionRefused(remote, None, reason))

    async def admit(self, stream: trio.abc.Stream, remote: str, begun: bytes = b"") -> Visitor | None:
        """Read the request, of which `begun` has been read.

        Returns who is to get a WebSocket, or None once all is said. The caller closes the stream.
        """
        waiting = _InTask()
        with waiting.scope:
            if self._stopping:
                waiting.hurry(trio.current_time() + self.patience)
            if crowded_out := self.enter(waiting, remote):
                crowded_out.crowd_out()
            try:
                return await self._hear(stream, waiting, Remote(remote, address_of(remote)), begun)
            finally:
                self.leave(waiting)
        if not waiting.answered:
            self.refuse_silent(remote, crowded=True)
        return None

    async def _hear(self, stream: trio.abc.Stream, waiting: _InTask, remote: Remote, begun: bytes) -> Visitor | None:
        try:
            head = await read_head(stream, self._limits, self._plain, begun)
        except TlsFailed as failure:
            self._tell(serve.TlsRefused(remote.shown, str(failure)))
            return None
        if head is None:
            self.refuse_silent(remote.shown, crowded=False)
            return None
        verdict, remote = await self._verdict(head, remote)
        if isinstance(head, Head) and isinstance(verdict, Upgrade):
            return Visitor(verdict, head.behind, remote.shown, remote.address)
        assert not isinstance(verdict, Upgrade)
        self._tell(_told(verdict, head, remote.shown))
        waiting.answered = True
        request = head.request if isinstance(head, Head) else None
        head_only = isinstance(request, h11.Request) and request.method == b"HEAD"
        await say_last(stream, verdict.render(head_only=head_only), self._limits.close_seconds)
        return None

    async def _verdict(self, head: Head | Answer, remote: Remote) -> tuple[Upgrade | Page | Answer, Remote]:
        """Decide, and say who it was that asked."""
        verdict, remote, wanted = await self._look_at(head, remote)
        if isinstance(verdict, Answer) and wanted is not None:
            verdict = replace(verdict, client_id=wanted)
        return verdict, remote

    async def _look_at(self, head: Head | Answer, remote: Remote) -> tuple[Upgrade | Page | Answer, Remote, str | None]:
        """Decide, and say who it was that asked, and for which ID."""
        if isinstance(head, Answer):
            return STOPPING if self._stopping else head, remote, None
        wanted = _wanted(head.request)
        verdict = self._judge(head.request)
        if self._gate is not None and isinstance(head.request, h11.Request):
            remote = self._gate.client_behind(head.request, host_of(remote.shown)) or remote
            if isinstance(verdict, Upgrade) and not (self._stopping or self._is_full_for(verdict, remote.address)):
                verdict = await self._gate.check(head.request, verdict, remote)
        if self._stopping and not isinstance(verdict, Page):
            return STOPPING, remote, wanted
        if isinstance(verdict, Upgrade):
            wanted = verdict.client_id
            verdict = self._settle(verdict)
        if isinstance(verdict, Upgrade) and not verdict.returns:
            verdict = self._no_room(remote.address) or verdict
        return verdict, remote, wanted

    def _is_full_for(self, upgrade: Upgrade, address: str) -> bool:
        """Tell whether there is no room for this one; who returns has its place already."""
        if self._no_room(address) is None:
            return False
        settled = self._settle(upgrade)
        return not (isinstance(settled, Upgrade) and settled.returns)

    def _no_room(self, address: str) -> Answer | None:
        if self._census.is_full:
            return FULL
        return CROWDED if self._census.is_crowded(address) else None


def _wanted(request: h11.Request | Upgrade) -> str | None:
    return request.client_id if isinstance(request, Upgrade) else asked_id(request)


def _told(verdict: Page | Answer, head: Head | Answer, remote: str) -> Event:
    if isinstance(verdict, Answer):
        detail = verdict.message if verdict.code in ("unauthorized", "origin") else UNSET
        return serve.ConnectionRefused(remote, verdict.status, verdict.code, detail, verdict.client_id or UNSET)
    assert isinstance(head, Head)
    assert isinstance(head.request, h11.Request)
    path = head.request.target.partition(b"?")[0]  # what stands behind it may be a credential
    return serve.PageServed(remote, path.decode("ascii", "replace"), verdict.status)


def address_of(remote: str) -> str:
    """Return what counts as the address of a client at `host:port`."""
    return network_of(host_of(remote))


def host_of(remote: str) -> str:
    """Return the host of `host:port`."""
    return remote.rpartition(":")[0].strip("[]")
