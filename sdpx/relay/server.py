"""The relay: accepts connections, asks the lobby, and does what it says.

Between a frame that a client's reader took and the outboxes that it ends in there is no checkpoint: so frames keep their
order, and what the lobby decides is done before anybody else can ask it.
"""

import os
import resource
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from sdpx import messages
from sdpx.errors import CannotListen, Refusal
from sdpx.events import serve
from sdpx.ids import make_id
from sdpx.lobby import Deliver, Effect, Lobby
from sdpx.log import Log
from sdpx.program import Stop
from sdpx.relay.connection import Connection, Departure
from sdpx.relay.farewell import say_last
from sdpx.relay.frames import FrameGate, Violation
from sdpx.relay.handshake import Answer, Upgrade, judge
from sdpx.relay.http import Head, read_head
from sdpx.relay.limits import Limits
from sdpx.relay.quota import Census, Quota
from sdpx.relay.tap import Tap

BACKLOG: Final = 1024
PORT_TRIES: Final = 10
FULL: Final = Answer(
    503, "full", "The relay has as many clients as it may have; try again later", (("Retry-After", "30"),)
)
CROWDED: Final = Answer(429, "too_many_connections", "There are too many connections from your address")
TOO_FAST: Final = Violation(1008, "You sent too much, too fast, for too long")
STOPPING: Final = Answer(503, "shutting_down", "The relay is stopping; try again soon", (("Retry-After", "5"),))


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `sdpx serve` was asked for."""

    host: str = "127.0.0.1"
    port: int = 8765
    limits: Limits = field(default_factory=Limits)
    log_sdp: bool = False


class Relay:
    """All clients of one relay, and the lobby that they meet in."""

    def __init__(self, limits: Limits, log: Log, *, log_sdp: bool = False) -> None:
        self._limits = limits
        self._log = log
        self._lobby = Lobby(log_sdp=log_sdp)
        self._connections: dict[str, Connection] = {}
        self._census = Census(limits.max_clients, limits.max_clients_per_ip)
        self._reading: set[trio.CancelScope] = set()
        self._open = 0
        self._all_gone = trio.Event()
        self._stopping = False

    @property
    def clients(self) -> int:
        """How many clients have an ID now."""
        return len(self._lobby)

    async def handle(self, stream: trio.abc.Stream) -> None:
        """Serve one connection from its first byte to its last; never raises, whatever the client does."""
        remote = remote_of(stream)
        address = remote.rpartition(":")[0]
        self._open += 1
        self._census.enter(address)
        try:
            async with stream:
                await self._admit(stream, remote)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client went away in mid-sentence
        except* Exception as group:  # noqa: BLE001  a fault in serving one client is not the others' business
            self._log.emit(serve.ConnectionFailed(remote, repr(group.exceptions)))
        finally:
            self._census.leave(address)
            self._open -= 1
            if not self._open:
                self._all_gone.set()
                self._all_gone = trio.Event()

    def stop(self) -> None:
        """Tell every client that the relay stops, and end its connection once it has read that."""
        self._stopping = True
        for scope in self._reading:  # who asks at once is told; who says nothing cannot hold up the end
            scope.deadline = trio.current_time() + self._limits.close_seconds
        self._do(self._lobby.shut_down())
        for connection in list(self._connections.values()):
            connection.end(Departure("shutdown", 1001, "The relay is stopping; connect again soon"))

    async def all_gone(self) -> None:
        """Wait until no connection is open."""
        while self._open:
            await self._all_gone.wait()

    async def _admit(self, stream: trio.abc.Stream, remote: str) -> None:
        head = self._no_room(remote) or await self._read_head(stream)
        if head is None:
            self._log.emit(serve.ConnectionRefused(remote, None, "no_request"))
            return
        verdict = self._verdict(head)
        if isinstance(verdict, Answer):
            self._log.emit(serve.ConnectionRefused(remote, verdict.status, verdict.code))
            head_only = isinstance(head, Head) and head.request.method == b"HEAD"
            await say_last(stream, verdict.render(head_only=head_only), self._limits.close_seconds)
        elif isinstance(head, Head):
            await self._welcome(stream, head, verdict, remote)

    async def _read_head(self, stream: trio.abc.Stream) -> Head | Answer | None:
        with trio.CancelScope() as scope:
            self._reading.add(scope)
            try:
                return await read_head(stream, self._limits)
            finally:
                self._reading.discard(scope)
        return None

    def _no_room(self, remote: str) -> Answer | None:
        """Return the answer to a connection too many; it is not even read."""
        if self._census.is_full:
            return FULL
        return CROWDED if self._census.is_crowded(remote.rpartition(":")[0]) else None

    def _verdict(self, head: Head | Answer) -> Upgrade | Answer:
        if self._stopping:
            return STOPPING
        return judge(head.request, self._lobby.__contains__) if isinstance(head, Head) else head

    async def _welcome(self, stream: trio.abc.Stream, head: Head, upgrade: Upgrade, remote: str) -> None:
        client_id = upgrade.client_id or make_id(secrets.randbelow)
        quota = Quota(self._limits.rate, trio.current_time())
        gate = FrameGate(self._limits.frame_bytes, self._limits.frame_fragments)
        connection = Connection(
            Tap(stream, head.text, head.behind, gate, lambda count: _too_many(quota, count)),
            self._limits,
            on_frame=lambda frame: self._take(client_id, frame, quota),
            on_end=lambda departure: self._part(client_id, departure),
        )
        began = trio.current_time()
        joined = self._lobby.join(client_id)  # before the WebSocket opens: nobody else can take the name meanwhile
        self._connections[client_id] = connection
        self._log.emit(serve.ClientConnected(client_id, remote))
        self._do(joined)
        try:
            await connection.run(upgrade.subprotocol)
        finally:
            connection.end(Departure("closed", 1006, "The connection was cut"))
            departure = connection.departure
            assert departure is not None
            ms = round((trio.current_time() - began) * 1000, 3)
            self._log.emit(serve.ClientDisconnected(client_id, departure.code, departure.text, ms))

    def _take(self, client_id: str, frame: str | bytes, quota: Quota) -> None:
        allowed = quota.allows(trio.current_time())
        if quota.exhausted:
            self._connections[client_id].end(Departure("refused", TOO_FAST.code, TOO_FAST.text))
            return
        try:
            if isinstance(frame, bytes):
                raise messages.binary_refused()
            message = messages.parse(frame)
            if not allowed:
                raise messages.rate_limited(message)
            effects = self._lobby.take(client_id, message)
        except Refusal as refusal:
            effects = self._lobby.refuse(client_id, refusal)
        self._do(effects)

    def _part(self, client_id: str, departure: Departure) -> None:
        del self._connections[client_id]
        self._do(self._lobby.leave(client_id, departure.reason))

    def _do(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, Deliver):
                self._log.emit(effect.event)
                continue
            connection = self._connections.get(effect.client_id)  # gone: an effect before this one let it go
            if connection is not None and connection.post(effect.text) and effect.event is not None:
                self._log.emit(effect.event)


def _too_many(quota: Quota, control_frames: int) -> Violation | None:
    """Count control frames as messages: they cost as much. One over the rate is let pass, a flood is not."""
    quota.allows(trio.current_time(), control_frames)
    return TOO_FAST if quota.exhausted else None


async def run_server(options: ServeOptions, log: Log, stop: Stop) -> None:
    """Run a relay until `stop` is requested; raises `CannotListen` if its port cannot be opened."""
    _raise_file_limit()
    listeners = await open_listeners(options.host, options.port)
    relay = Relay(options.limits, log, log_sdp=options.log_sdp)
    async with trio.open_nursery() as accepting, trio.open_nursery() as clients:
        for listener in listeners:
            accepting.start_soon(_accept, listener, relay, clients)
            log.emit(_listening(listener))
        await stop.wait()
        began = trio.current_time()
        log.emit(serve.ServerStopping(stop.cause, relay.clients))
        relay.stop()
        with trio.move_on_after(options.limits.drain_seconds + 2 * options.limits.close_seconds):
            await relay.all_gone()
        accepting.cancel_scope.cancel()
        clients.cancel_scope.cancel()
    log.emit(serve.ServerStopped(round((trio.current_time() - began) * 1000, 3)))


def _raise_file_limit() -> None:
    """Let the relay have as many sockets as the system grants: the soft limit is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _accept(listener: trio.SocketListener, relay: Relay, clients: trio.Nursery) -> None:
    await trio.serve_listeners(relay.handle, [listener], handler_nursery=clients)


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on every address of `host`; with port 0 the port that the first one gets serves for all."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise CannotListen("cannot_listen", f"Cannot listen on '{host}': no such address here ({error})") from None
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    for tries_left in reversed(range(PORT_TRIES if port == 0 else 1)):
        try:
            return await _open_all(addresses, port)
        except OSError as error:
            if not tries_left:
                raise CannotListen("cannot_listen", f"Cannot listen on {host}:{port}: {error}") from None
    raise AssertionError


async def _open_all(addresses: Sequence[str], port: int) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    try:
        for address in addresses:
            listeners += await trio.open_tcp_listeners(port, host=address, backlog=BACKLOG)
            port = port or listeners[0].socket.getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def _listening(listener: trio.SocketListener) -> serve.ServerListening:
    host, port = listener.socket.getsockname()[:2]
    return serve.ServerListening(f"ws://{_bracketed(host)}:{port}", host, port, tls=False, pid=os.getpid())


def remote_of(stream: trio.abc.Stream) -> str:
    """Return a client's address, as `host:port`, or `unknown` where the socket has lost it."""
    try:
        host, port = stream.socket.getpeername()[:2]  # type: ignore[attr-defined]  # an AttributeError is caught
    except (OSError, AttributeError):
        return "unknown"
    return f"{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
