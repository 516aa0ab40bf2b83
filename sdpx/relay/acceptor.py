"""Connections before their WebSocket: pending connection -> request -> decision -> WebSocket, page or refusal.

A new connection waits on the epoll engine, without a task, until it sends something. A simple upgrade request at a relay
without authentication opens its WebSocket at once; every other request is read, decided and answered in a task. Without the
epoll engine each connection has a task from the start.

Each request has `handshake_timeout` to arrive. Pending connections are bounded, in all and per address: past a bound the
oldest one is closed (`EvictionQueue`). Connections whose request has been read, and which wait for the decision, have a
bound of their own.
"""

import os
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from email.utils import formatdate
from typing import Final, NamedTuple

import trio
from msgspec import UNSET
from msgspec.structs import replace

from sdpx.concurrency import fail_after
from sdpx.events import Event, serve
from sdpx.ids import make_id
from sdpx.relay.auth.authenticator import Authenticator
from sdpx.relay.auth.tokens import UNRESTRICTED, Grant
from sdpx.relay.client import AcceptedUpgrade
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.rate_limit import EvictionQueue
from sdpx.relay.http.endpoints import Readiness, operator_pages
from sdpx.relay.http.request import HttpRequest, Remote, RequestParser, host_of
from sdpx.relay.http.responses import (
    CROWDED,
    ENGINE_UNAVAILABLE,
    FULL,
    STOPPING,
    TIMEOUT,
    TLS_REQUIRED,
    HttpError,
    HttpResponse,
    id_taken,
)
from sdpx.relay.http.upgrade import Pages, Upgrade, parse_plain_request, parse_simple_upgrade, parse_upgrade
from sdpx.relay.monitor import Monitor
from sdpx.relay.pending import Pending, PendingConnection, counted, enter
from sdpx.relay.relay import Relay
from sdpx.relay.websocket.close_reasons import CANCELLED
from sdpx.relay.websocket.closing import send_and_linger
from sdpx.relay.websocket.epoll_connection import EpollConnection
from sdpx.relay.websocket.epoll_engine import EpollEngine
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.tls_stream import TlsHandshakeError, TlsRequiredError, TlsStream
from sdpx.relay.websocket.trio_websocket_engine import FrameTurns, TrioWebSocketConnection, ValidatingStream

READ_BYTES: Final = 16 * 1024
FORWARDED: Final = re.compile(rb"\r\n(?:x-forwarded-for|forwarded):", re.IGNORECASE)

Answer = HttpResponse | HttpError


class Port(NamedTuple):
    """The differences between the port of the clients and the metrics port."""

    decide: Callable[[HttpRequest, Remote], Awaitable[AcceptedUpgrade | Answer]]
    pending: EvictionQueue[Pending]  # before the request, and while an answer is written
    undecided: EvictionQueue[Pending]  # while the webhook is asked


class Acceptor:
    """Accepts the connections of one relay and opens their WebSockets.

    With an `engine` connections over a `SocketStream` are served by the epoll engine, all others by trio-websocket.
    `metrics_port` says that `/metrics` has a port of its own (`serve_metrics`) and is not served to clients. `site` has the
    pages for browsers, and `monitor` answers for the relay's numbers.
    """

    def __init__(
        self,
        limits: Limits,
        relay: Relay,
        *,
        engine: EpollEngine | None = None,
        authenticator: Authenticator | None = None,
        metrics_port: bool = False,
        site: Pages | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        self._limits = limits
        self._relay = relay
        self._log = relay.log_event
        self._engine = engine
        self._authenticator = authenticator
        self._metrics_pages = operator_pages(relay.stats, relay.snapshot, self._readiness)
        hidden = "/metrics" if metrics_port else None
        self._pages = {path: page for path, page in self._metrics_pages.items() if path != hidden} | dict(site or {})
        self._monitor = monitor
        bounds = (limits.pending, limits.max_clients_per_ip)
        self._clients = Port(self._answer, EvictionQueue(*bounds), EvictionQueue(*bounds))
        self._metrics = Port(self._decide_metrics, EvictionQueue(*bounds), EvictionQueue(*bounds))
        self._stopping = self._found_proxy = False
        self._turns = FrameTurns()

    @property
    def handshake_timeout(self) -> float:
        """Seconds that a new connection has to send its request."""
        return self._limits.close_timeout if self._stopping else self._limits.handshake_timeout

    def stop(self) -> None:
        """Accept no client any more, shorten the deadline of pending connections, and stop the relay."""
        self._stopping = True
        for pending in (*self._clients.pending, *self._clients.undecided):
            pending.deadline = trio.current_time() + self.handshake_timeout
        self._relay.stop()

    def _readiness(self) -> Readiness:
        return "draining" if self._stopping else "degraded" if self._relay.is_degraded else "ready"

    # ---- the decision

    async def _answer(self, request: HttpRequest, remote: Remote) -> AcceptedUpgrade | Answer:
        """Answer a request for the relay's numbers, or decide about another one."""
        answer = await self._monitor.answer(request, remote) if self._monitor is not None else None
        return answer if answer is not None else await self._decide(request, remote)

    async def _decide(self, request: HttpRequest, remote: Remote) -> AcceptedUpgrade | Answer:
        """Decide about a request, in the order of the protocol: what costs little comes before authentication."""
        upgrade = parse_upgrade(request, self._pages)
        if isinstance(upgrade, HttpResponse):
            return upgrade
        if self._stopping:
            return STOPPING
        if isinstance(upgrade, HttpError):
            return upgrade
        grant: Grant | HttpError = UNRESTRICTED
        if self._authenticator is not None:
            is_resuming = self._relay.find_session(upgrade.resume) is not None
            if not is_resuming and (refusal := self._capacity_refusal(remote)):
                return refusal
            grant = await self._authenticator.authenticate(request, remote)  # origin, attempts, token, webhook
        return (
            grant if isinstance(grant, HttpError) else await self._admit(upgrade, grant, remote, request.trailing_data)
        )

    async def _admit(
        self, upgrade: Upgrade, grant: Grant, remote: Remote, trailing_data: bytes
    ) -> AcceptedUpgrade | HttpError:
        """Return the upgrade with the ID that it gets, which no other client of the cluster has."""
        if not await self._relay.fetch_session(upgrade.resume, grant.client_id):
            return ENGINE_UNAVAILABLE
        accepted = self._reserve_id(upgrade, grant, remote, trailing_data)
        if not self._relay.is_clustered or isinstance(accepted, HttpError) or accepted.is_resumed:
            return accepted
        client_id = accepted.client_id or make_id(os.urandom)
        result = await self._relay.register(client_id)
        if result != "registered":
            return replace(id_taken(client_id) if result == "taken" else ENGINE_UNAVAILABLE, client_id=client_id)
        refusal = STOPPING if self._stopping else self._capacity_refusal(remote)
        if refusal is not None:
            self._relay.unregister(client_id)
            return replace(refusal, client_id=client_id)
        return replace(accepted, client_id=client_id)

    def _reserve_id(
        self, upgrade: Upgrade, grant: Grant, remote: Remote, trailing_data: bytes = b""
    ) -> AcceptedUpgrade | HttpError:
        """Return the upgrade with the ID that it gets; the caller opens it before any other task runs.

        A resumed session keeps its ID and its place among `max_clients`.
        """
        if self._stopping:
            return STOPPING
        resumed_id = self._relay.find_session(upgrade.resume, grant.client_id)
        client_id = resumed_id or grant.client_id or upgrade.client_id
        if resumed_id is None:
            if refusal := self._capacity_refusal(remote):
                return replace(refusal, client_id=client_id)
            if client_id is not None and self._relay.has_client(client_id):
                return id_taken(client_id)
        is_resumed = resumed_id is not None
        return AcceptedUpgrade(upgrade, client_id, is_resumed, grant, trailing_data, remote.shown, remote.address)

    def _capacity_refusal(self, remote: Remote) -> HttpError | None:
        if self._relay.counts.is_full:
            return FULL
        return CROWDED if self._relay.counts.is_crowded(remote.address) else None

    async def _decide_metrics(self, request: HttpRequest, _remote: Remote) -> Answer:
        return parse_plain_request(request, self._metrics_pages)

    # ---- pending connections on the epoll engine

    def accept(self, streams: Iterable[SocketStream]) -> None:
        """Take new connections; raises only what iterating over `streams` raises."""
        assert self._engine is not None
        with self._engine.batch():
            for stream in streams:
                self._relay.connection_opened()
                # Usually the request has arrived already. A TLS handshake is left to the engine, which limits its time.
                request = None if isinstance(stream, TlsStream) else stream.receive_or_end()
                if request is None:
                    self._wait_for_request(self._engine, stream)
                else:
                    self._take_request(stream, request)

    def _wait_for_request(self, engine: EpollEngine, stream: SocketStream) -> None:
        pending = PendingConnection(engine, stream, self._on_request, self._close_pending)
        try:
            engine.add(pending)
        except OSError as fault:  # the limits of epoll
            self._close(stream, serve.InternalError(stream.remote, repr((fault,))))
            return
        now = trio.current_time()
        engine.set_timer(pending, now + self.handshake_timeout, now)
        enter(self._clients.pending, pending, self._pending_address(stream.remote))

    def _on_request(self, pending: PendingConnection, request: bytes) -> None:
        """Handle the first bytes of a pending connection, which are empty at the end of its stream."""
        self._clients.pending.leave(pending)
        self._take_request(pending.link, request)

    def _close_pending(self, pending: PendingConnection, evicted: bool) -> None:
        """Close a connection that has sent nothing."""
        self._clients.pending.leave(pending)
        self._close(pending.link, self._no_request(pending.link.remote, evicted=evicted))

    def _take_request(self, stream: SocketStream, request: bytes) -> None:
        """Open the WebSocket that a simple request may have at once; leave other requests to a task. Never raises."""
        assert self._engine is not None
        decision: AcceptedUpgrade | HttpError | None = None
        try:
            is_plain = self._authenticator is None and not self._relay.is_clustered
            is_fast = is_plain and (self._found_proxy or not FORWARDED.search(request))
            if is_fast and (upgrade := parse_simple_upgrade(request)) is not None:
                decision = self._reserve_id(upgrade, UNRESTRICTED, Remote.of(stream.remote))
            if isinstance(decision, AcceptedUpgrade) and _is_given_up(stream, decision):
                self._close(stream, self._no_request(stream.remote, evicted=False))
            elif isinstance(decision, AcceptedUpgrade):
                self._open_on_engine(self._engine, stream, decision)
            elif request or stream.handshake_error is not None:
                self._engine.start_soon(self._serve, stream, self._clients, request)
            else:
                self._close(stream, self._no_request(stream.remote, evicted=False))
        except Exception as fault:  # noqa: BLE001  a fault in serving one client must not end the others
            self._close(stream, serve.InternalError(stream.remote, repr((fault,))))

    def _close(self, stream: SocketStream, event: Event) -> None:
        self._log(event)
        stream.close()
        self._relay.connection_closed()

    # ---- connections in a task

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection from its first byte; never raises. It may return while the engine serves on."""
        self._relay.connection_opened()
        await self._serve(stream, self._clients)

    async def serve_metrics(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to the metrics port; never raises."""
        await self._serve(stream, self._metrics)

    async def _serve(self, stream: trio.abc.Stream, port: Port, received: bytes = b"") -> None:
        """Serve a connection, of which `received` has been read, and close it, unless the engine serves it on."""
        is_on_engine = False
        remote = Remote.of(getattr(stream, "remote", "unknown"))
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(stream)
                accepted = await self._accept(stream, remote, port, received)
                if accepted is not None and _is_given_up(stream, accepted):
                    self._log(self._no_request(remote.shown, evicted=False))
                elif accepted is not None and self._engine is not None and isinstance(stream, SocketStream):
                    self._open_on_engine(self._engine, stream, accepted)
                    stack.pop_all()
                    is_on_engine = True
                elif accepted is not None:
                    await self._run_websocket(stream, accepted)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client closed the connection
        except* Exception as group:  # noqa: BLE001  a fault in serving one client must not end the others
            self._log(serve.InternalError(remote.shown, repr(group.exceptions)))
        finally:
            if port is self._clients and not is_on_engine:
                self._relay.connection_closed()

    async def _accept(
        self, stream: trio.abc.Stream, remote: Remote, port: Port, received: bytes
    ) -> AcceptedUpgrade | None:
        """Read a request, of which `received` has been read, and answer it; returns the upgrade if it is accepted."""
        answer: AcceptedUpgrade | Answer | None = None
        with trio.CancelScope() as pending:
            if self._stopping:
                pending.deadline = trio.current_time() + self.handshake_timeout
            address = self._pending_address(remote.shown)
            try:
                with counted(port.pending, pending, address):
                    request = await self._read_request(stream, received)
                if isinstance(request, HttpRequest) and self._relay.is_clustered and _is_late(stream, request):
                    request = None
                if isinstance(request, HttpRequest):
                    self._warn_of_proxy(request, remote)
                    if self._authenticator is not None:
                        remote = self._authenticator.client_behind(request, remote)
                    with counted(port.undecided, pending, remote.address):
                        answer = await port.decide(request, remote)
                else:
                    answer = STOPPING if request and self._stopping else request
                self._log_answer(answer, request, remote.shown)
                if not isinstance(answer, HttpResponse | HttpError):
                    return answer
                head_only = isinstance(request, HttpRequest) and request.method == b"HEAD"
                data = answer.render(head_only=head_only, date=formatdate(usegmt=True))
                with counted(port.pending, pending, address):
                    await send_and_linger(stream, data, self._limits.close_timeout)
            except TlsHandshakeError as failure:
                self._log(serve.TlsHandshakeFailed(remote.shown, str(failure)))
        if pending.cancelled_caught and answer is None:
            self._log(self._no_request(remote.shown, evicted=True))
        return None

    async def _read_request(self, stream: trio.abc.Stream, received: bytes) -> HttpRequest | HttpError | None:
        """Read a request, of which `received` has been read.

        Returns the request, what to answer instead, or None if the client sent nothing. Raises `TlsHandshakeError`.
        """
        parser = RequestParser(self._limits.head_bytes)

        async def read() -> HttpRequest | HttpError | None:
            nonlocal received
            data, received = received, b""  # after a suspension epoll may not have been asked, and has the rest
            while True:
                data = data or bytes(await stream.receive_some(READ_BYTES))
                if (request := parser.receive_data(data)) is not None or not data:
                    return request
                data = b""

        try:
            return await fail_after(self._limits.handshake_timeout, self._relay.handler.resumed_at, read)
        except TlsRequiredError:
            return TLS_REQUIRED
        except trio.TooSlowError:
            return TIMEOUT if parser.bytes_received else None

    # ---- opening

    def _open_on_engine(self, engine: EpollEngine, stream: SocketStream, accepted: AcceptedUpgrade) -> None:
        """Serve a client on the epoll engine, until `on_closed`."""
        relay, now = self._relay, trio.current_time()
        session = relay.open_session(accepted, now)
        connection = EpollConnection(
            self._limits, relay.handler, session, relay.queued, stream, accepted.trailing_data, engine
        )
        relay.connect(session, connection, accepted, now)
        connection.start(accepted.upgrade.response(), now)

    async def _run_websocket(self, stream: trio.abc.Stream, accepted: AcceptedUpgrade) -> None:
        """Serve a client by trio-websocket until its connection ends."""
        head, limits, relay, now = accepted.upgrade.head(), self._limits, self._relay, trio.current_time()
        session = relay.open_session(accepted, now)
        valid = ValidatingStream(stream, head, accepted.trailing_data, limits, relay.handler, session, self._turns)
        connection = TrioWebSocketConnection(limits, relay.handler, session, relay.queued, valid)
        try:
            relay.connect(session, connection, accepted, now)
            await connection.run(accepted.upgrade.subprotocol)
        finally:
            connection.end(CANCELLED)
            relay.release(session, connection)

    # ---- counting and logging

    def _pending_address(self, remote: str) -> str:
        """Return the address that a pending connection counts for: its socket's, where many clients share a proxy's address."""
        by_socket = self._authenticator is not None and self._authenticator.is_proxy(host_of(remote))
        return remote if by_socket else Remote.of(remote).address

    def _warn_of_proxy(self, request: HttpRequest, remote: Remote) -> None:
        """Log the first address that forwards the addresses of clients, but is not a trusted proxy."""
        is_forwarded = request.values(b"x-forwarded-for") or request.values(b"forwarded")
        host = host_of(remote.shown)
        if is_forwarded and not self._found_proxy and not (self._authenticator and self._authenticator.is_proxy(host)):
            self._found_proxy = True
            self._log(serve.ProxyNotTrusted(host))

    def _no_request(self, remote: str, *, evicted: bool) -> Event:
        """Return the event for a connection that ends before it has sent a request."""
        reason = "too_many_connections" if evicted and not self._stopping else "no_request"
        return serve.ConnectionRefused(remote, None, reason)

    def _log_answer(
        self, answer: AcceptedUpgrade | Answer | None, request: HttpRequest | HttpError | None, remote: str
    ) -> None:
        asked_id, path = (request.asked_id, request.path) if isinstance(request, HttpRequest) else (None, "")
        if answer is None:
            self._log(self._no_request(remote, evicted=False))
        elif isinstance(answer, HttpResponse):
            self._log(serve.HttpRequest(remote, path, answer.status))
        elif isinstance(answer, HttpError):
            detail = answer.message if answer.code in ("unauthorized", "origin") else UNSET
            client_id = asked_id or answer.client_id or UNSET
            self._log(serve.ConnectionRefused(remote, answer.status, answer.code, detail, client_id))


def _is_late(stream: trio.abc.Stream, request: HttpRequest) -> bool:
    """Return whether a client has closed its attempt to resume before the session is fetched from another node."""
    return "resume" in request.query and isinstance(stream, SocketStream) and stream.is_abandoned


def _is_given_up(stream: trio.abc.Stream, accepted: AcceptedUpgrade) -> bool:
    """Return whether a client has closed its attempt to resume: it must not supersede the connection of a later attempt."""
    return accepted.is_resumed and isinstance(stream, SocketStream) and stream.is_abandoned
