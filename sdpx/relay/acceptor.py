"""The door: counts connections, reads each one's request, and answers by plain HTTP what is no WebSocket."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Protocol

import h11
import trio
from msgspec import UNSET, Struct

from sdpx.events import Event, serve
from sdpx.relay.auth.authenticator import Authenticator, Remote
from sdpx.relay.auth.tls_stream import TlsHandshakeError
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.rate_limit import ConnectionCounts, PendingHandshakes, network_of
from sdpx.relay.http.request import Head, Plain, read_head
from sdpx.relay.http.responses import CROWDED, FULL, STOPPING, HttpError, HttpResponse
from sdpx.relay.http.upgrade import Upgrade, asked_id
from sdpx.relay.websocket.closing import send_and_linger


class AcceptedUpgrade(Struct, frozen=True):
    """Somebody who asked for a WebSocket and may have one."""

    upgrade: Upgrade
    behind: bytes
    remote: str
    address: str


class Waiting(Hashable, Protocol):
    """Somebody at the door who has not asked for anything yet."""

    def evict(self) -> None:
        """Make room for a newer one."""

    def set_deadline(self, deadline: float) -> None:
        """Ask by then, in Trio's time, or go."""


class PendingTask:
    """Somebody at the door who is served by a task, in this scope."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.answered = False

    def evict(self) -> None:
        """Make room for a newer one."""
        self.scope.cancel()

    def set_deadline(self, deadline: float) -> None:
        """Ask by then, or go."""
        self.scope.deadline = deadline


class Acceptor:
    """One kind of port: `parse_upgrade` decides about each request by its form, `tell` gets what is to be logged.

    `plain` may know a request at one look. `gate` says who may have a WebSocket, and may take its time; `settle` has the last
    word, and from then on nobody else is let in until this one is. `census` counts those that came in; those at the door are
    bounded, too.
    """

    def __init__(
        self,
        limits: Limits,
        census: ConnectionCounts,
        parse_upgrade: Callable[[h11.Request | Upgrade], Upgrade | HttpResponse | HttpError],
        tell: Callable[[Event], None],
        plain: Plain | None = None,
        gate: Authenticator | None = None,
        settle: Callable[[Upgrade], Upgrade | HttpError] = lambda upgrade: upgrade,
    ) -> None:
        self._limits = limits
        self._census = census
        self._parse_request = parse_upgrade
        self._tell = tell
        self._plain = plain if gate is None else None  # it looks at no header that the gate would ask for
        self._gate = gate
        self._settle = settle
        self._pending = PendingHandshakes[Waiting](limits.pending, limits.max_clients_per_ip)
        self._stopping = False

    def stop(self) -> None:
        """Let nobody in any more; who asks at once is told, who says nothing cannot hold up the end."""
        self._stopping = True
        for waiting in self._pending:
            waiting.set_deadline(trio.current_time() + self.patience)

    @property
    def patience(self) -> float:
        """How many seconds somebody new has to ask for something."""
        return self._limits.close_timeout if self._stopping else self._limits.handshake_timeout

    def enter(self, waiting: Waiting, remote: str) -> Waiting | None:
        """Count somebody new; returns who has to make room."""
        shared = self._gate is not None and self._gate.is_proxy(host_of(remote))
        return self._pending.enter(waiting, remote if shared else address_of(remote))

    def leave(self, waiting: Waiting) -> None:
        """Count this one no more."""
        self._pending.leave(waiting)

    def accept_now(self, upgrade: Upgrade, remote: str) -> AcceptedUpgrade | None:
        """Return who is to get a WebSocket, or None if there is more to look at, or something to say, which takes its time."""
        address = address_of(remote)
        if self._gate is not None or self._stopping or self._no_room(address):
            return None
        verdict = self._settle(upgrade)
        return AcceptedUpgrade(verdict, b"", remote, address) if isinstance(verdict, Upgrade) else None

    def refuse_silent(self, remote: str, *, crowded: bool) -> None:
        """Log that somebody was cut, or went, without having asked for anything."""
        reason = "too_many_connections" if crowded and not self._stopping else "no_request"
        self._tell(serve.ConnectionRefused(remote, None, reason))

    async def accept_upgrade(self, stream: trio.abc.Stream, remote: str, begun: bytes = b"") -> AcceptedUpgrade | None:
        """Read the request, of which `begun` has been read.

        Returns who is to get a WebSocket, or None once all is said. The caller closes the stream.
        """
        waiting = PendingTask()
        with waiting.scope:
            if self._stopping:
                waiting.set_deadline(trio.current_time() + self.patience)
            if evicted := self.enter(waiting, remote):
                evicted.evict()
            try:
                return await self._hear(stream, waiting, Remote(remote, address_of(remote)), begun)
            finally:
                self.leave(waiting)
        if not waiting.answered:
            self.refuse_silent(remote, crowded=True)
        return None

    async def _hear(
        self, stream: trio.abc.Stream, waiting: PendingTask, remote: Remote, begun: bytes
    ) -> AcceptedUpgrade | None:
        try:
            head = await read_head(stream, self._limits, self._plain, begun)
        except TlsHandshakeError as failure:
            self._tell(serve.TlsHandshakeFailed(remote.shown, str(failure)))
            return None
        if head is None:
            self.refuse_silent(remote.shown, crowded=False)
            return None
        verdict, remote = await self._verdict(head, remote)
        if isinstance(head, Head) and isinstance(verdict, Upgrade):
            return AcceptedUpgrade(verdict, head.behind, remote.shown, remote.address)
        assert not isinstance(verdict, Upgrade)
        self._tell(_told(verdict, head, remote.shown))
        waiting.answered = True
        request = head.request if isinstance(head, Head) else None
        head_only = isinstance(request, h11.Request) and request.method == b"HEAD"
        await send_and_linger(stream, verdict.render(head_only=head_only), self._limits.close_timeout)
        return None

    async def _verdict(
        self, head: Head | HttpError, remote: Remote
    ) -> tuple[Upgrade | HttpResponse | HttpError, Remote]:
        """Decide, and say who it was that asked."""
        verdict, remote, wanted = await self._look_at(head, remote)
        if isinstance(verdict, HttpError) and wanted is not None:
            verdict = replace(verdict, client_id=wanted)
        return verdict, remote

    async def _look_at(
        self, head: Head | HttpError, remote: Remote
    ) -> tuple[Upgrade | HttpResponse | HttpError, Remote, str | None]:
        """Decide, and say who it was that asked, and for which ID."""
        if isinstance(head, HttpError):
            return STOPPING if self._stopping else head, remote, None
        wanted = _wanted(head.request)
        verdict = self._parse_request(head.request)
        if self._gate is not None and isinstance(head.request, h11.Request):
            remote = self._gate.client_behind(head.request, host_of(remote.shown)) or remote
            if isinstance(verdict, Upgrade) and not (self._stopping or self._is_full_for(verdict, remote.address)):
                verdict = await self._gate.check(head.request, verdict, remote)
        if self._stopping and not isinstance(verdict, HttpResponse):
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

    def _no_room(self, address: str) -> HttpError | None:
        if self._census.is_full:
            return FULL
        return CROWDED if self._census.is_crowded(address) else None


def _wanted(request: h11.Request | Upgrade) -> str | None:
    return request.client_id if isinstance(request, Upgrade) else asked_id(request)


def _told(verdict: HttpResponse | HttpError, head: Head | HttpError, remote: str) -> Event:
    if isinstance(verdict, HttpError):
        detail = verdict.message if verdict.code in ("unauthorized", "origin") else UNSET
        return serve.ConnectionRefused(remote, verdict.status, verdict.code, detail, verdict.client_id or UNSET)
    assert isinstance(head, Head)
    assert isinstance(head.request, h11.Request)
    path = head.request.target.partition(b"?")[0]  # what stands behind it may be a credential
    return serve.HttpRequest(remote, path.decode("ascii", "replace"), verdict.status)


def address_of(remote: str) -> str:
    """Return what counts as the address of a client at `host:port`."""
    return network_of(host_of(remote))


def host_of(remote: str) -> str:
    """Return the host of `host:port`."""
    return remote.rpartition(":")[0].strip("[]")
