"""Connections before their WebSocket: pending connection -> request -> decision -> WebSocket, page or refusal.

A new connection waits on the epoll engine, without a task, until it sends something. A simple upgrade request at a relay
without authentication opens its WebSocket at once; every other request is read, decided and answered in a task. Without the
epoll engine each connection has a task from the start.

Each request has `handshake_timeout` to arrive. Pending connections are bounded, in all and per address: past a bound the
oldest one is closed (`EvictionQueue`). Connections whose request has been read, and which wait for the decision, have a
bound of their own.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from email.utils import formatdate
from typing import Final, NamedTuple

import trio
from msgspec import UNSET

from sdpx.concurrency import fail_after
from sdpx.events import Event, serve
from sdpx.relay.admission import Admission, Answer
from sdpx.relay.client import AcceptedUpgrade
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.rate_limit import EvictionQueue
from sdpx.relay.http.request import HttpRequest, Remote, RequestParser
from sdpx.relay.http.responses import STOPPING, TIMEOUT, TLS_REQUIRED, HttpError, HttpResponse
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


class Port(NamedTuple):
    """The differences between the port of the clients and the metrics port."""

    decide: Callable[[HttpRequest, Remote], Awaitable[AcceptedUpgrade | Answer]]
    pending: EvictionQueue[Pending]  # before the request, and while an answer is written
    undecided: EvictionQueue[Pending]  # while the webhook is asked


class Acceptor:
    """Accepts the connections of one relay and opens their WebSockets.

    With an `engine` connections over a `SocketStream` are served by the epoll engine, all others by trio-websocket.
    """

    def __init__(
        self, limits: Limits, relay: Relay, *, engine: EpollEngine | None = None, admission: Admission | None = None
    ) -> None:
        self._limits = limits
        self._relay = relay
        self._log = relay.log_event
        self._engine = engine
        self._admission = admission or Admission(relay)
        bounds = (limits.pending, limits.max_clients_per_ip)
        self._clients = Port(self._admission.decide, EvictionQueue(*bounds), EvictionQueue(*bounds))
        self._metrics = Port(self._admission.decide_metrics, EvictionQueue(*bounds), EvictionQueue(*bounds))
        self._turns = FrameTurns()

    @property
    def handshake_timeout(self) -> float:
        """Seconds that a new connection has to send its request."""
        return self._limits.close_timeout if self._admission.is_stopping else self._limits.handshake_timeout

    def stop(self) -> None:
        """Accept no client any more, shorten the deadline of pending connections, and stop the relay."""
        self._admission.is_stopping = True
        for pending in (*self._clients.pending, *self._clients.undecided):
            pending.deadline = trio.current_time() + self.handshake_timeout
        self._relay.stop()

    # ---- pending connections on the epoll engine

    def accept(self, streams: Iterable[SocketStream]) -> None:
        """Take new connections; raises only the exceptions of iterating over `streams`."""
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
        enter(self._clients.pending, pending, self._admission.pending_address(stream.remote))

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
        try:
            decision = self._admission.decide_simple(request, stream.remote)
            accepted = decision if isinstance(decision, AcceptedUpgrade) else None
            if accepted is not None and not _is_abandoned(stream, resumes=accepted.is_resumed):
                self._open_on_engine(self._engine, stream, accepted)
            elif accepted is None and (request or stream.handshake_error is not None):
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
                accepting, received = self._accept(stream, remote, port, received), b""  # or each frame would keep it
                accepted = await accepting
                if accepted is not None and _is_abandoned(stream, resumes=accepted.is_resumed):
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
            if self._admission.is_stopping:
                pending.deadline = trio.current_time() + self.handshake_timeout
            address = self._admission.pending_address(remote.shown)
            try:
                with counted(port.pending, pending, address):
                    reading, received = self._read_request(stream, received), b""
                    request = await reading
                if isinstance(request, HttpRequest) and self._relay.is_clustered:
                    request = None if _is_abandoned(stream, resumes="resume" in request.query) else request
                if isinstance(request, HttpRequest):
                    remote = self._admission.client_of(request, remote)
                    with counted(port.undecided, pending, remote.address):
                        answer = await port.decide(request, remote)
                else:
                    answer = STOPPING if request and self._admission.is_stopping else request
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

        Returns the request, the error that refuses it, or None if the client sent nothing. Raises `TlsHandshakeError`.
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

    # ---- logging

    def _no_request(self, remote: str, *, evicted: bool) -> Event:
        """Return the event for a connection that ends before it has sent a request."""
        reason = "too_many_connections" if evicted and not self._admission.is_stopping else "no_request"
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


def _is_abandoned(stream: trio.abc.Stream, *, resumes: bool) -> bool:
    """Return whether a client has closed a connection that `resumes`: it must not supersede that of a later attempt."""
    return resumes and isinstance(stream, SocketStream) and stream.is_abandoned
