"""A TCP load balancer: new connections go in turn to the backends that are ready."""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio

from tests.harness.http_get import http_get

CHECK_SECONDS: Final = 0.1
READ_BYTES: Final = 65536
BACKLOG: Final = 1024


class Balancer:
    """Forwards connections to local ports. `/readyz` of each backend is requested regularly; other answers than 200 exclude it.

    A backend that refuses a connection is excluded at once, and the connection goes to the next one. Existing connections are
    never moved.
    """

    def __init__(self, backends: Sequence[int]) -> None:
        self.port = 0
        self.ready: dict[int, bool] = dict.fromkeys(backends, True)
        self._turn = 0
        self._backend_of: dict[int, int] = {}  # by the client's port

    def backend_of(self, client_port: int) -> int | None:
        """Return the port of the backend to which the connection from this local port goes."""
        return self._backend_of.get(client_port)

    async def check_backends(self) -> None:
        """Request `/readyz` of each backend, again and again."""
        async with trio.open_nursery() as nursery:
            for port in self.ready:
                nursery.start_soon(self._check, port)

    async def _check(self, port: int) -> None:
        while True:
            status, _ = await http_get(port, "/readyz")
            self.ready[port] = status == 200
            await trio.sleep(CHECK_SECONDS)

    async def serve(self, listener: socket.socket) -> None:
        """Accept connections for ever; all that wait are accepted together."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listener)
                with suppress(BlockingIOError):
                    while True:
                        accepted, _ = listener.accept()
                        accepted.setblocking(False)
                        stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
                        nursery.start_soon(self._handle, stream)

    async def _handle(self, client: trio.SocketStream) -> None:
        """Forward one connection to its end; it is closed at once if no backend accepts it."""
        async with client:
            peer = client.socket.getpeername()[1]
            if (server := await self._connect(peer)) is None:
                return
            try:
                async with server, trio.open_nursery() as nursery:
                    nursery.start_soon(_forward, client, server, nursery.cancel_scope)
                    nursery.start_soon(_forward, server, client, nursery.cancel_scope)
            finally:
                self._backend_of.pop(peer, None)

    async def _connect(self, peer: int) -> trio.SocketStream | None:
        for _ in self.ready:
            ready = [port for port, is_ready in self.ready.items() if is_ready]
            if not ready:
                return None
            port = ready[self._turn % len(ready)]
            self._turn += 1
            try:
                server = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                self.ready[port] = False
                continue
            self._backend_of[peer] = port
            return server
        return None


async def _forward(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Forward one direction; its end is forwarded, and an error ends both directions."""
    try:
        while data := await source.receive_some(READ_BYTES):
            await sink.send_all(data)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        scope.cancel()


@asynccontextmanager
async def balancer(backends: Sequence[int]) -> AsyncIterator[Balancer]:
    """Run a balancer on a free port."""
    found = Balancer(backends)
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        listener.setblocking(False)
        found.port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.check_backends)
            nursery.start_soon(found.serve, listener)
            yield found
            nursery.cancel_scope.cancel()
