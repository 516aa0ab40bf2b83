"""A TCP proxy that breaks connections: it resets them after any byte, or stops forwarding."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import trio

from tests.harness.tcp import reset

Direction = Literal["up", "down"]  # to the server, from the server


@dataclass(eq=False)
class ProxiedConnection:
    """A connection: the forwarded bytes of each direction, and the numbers of bytes after which it is reset."""

    client: trio.SocketStream
    server: trio.SocketStream
    ends: dict[Direction, int] = field(default_factory=dict)
    passed: dict[Direction, bytearray] = field(default_factory=lambda: {"up": bytearray(), "down": bytearray()})
    frozen: bool = False
    resumed: trio.Event = field(default_factory=trio.Event)

    def reset(self) -> None:
        """Reset both sides."""
        for stream in (self.client, self.server):
            reset(stream)

    async def pump(self, direction: Direction) -> None:
        source, target = (self.client, self.server) if direction == "up" else (self.server, self.client)
        try:
            while data := await source.receive_some(65536):
                if self.frozen:
                    await self.resumed.wait()
                end = self.ends.get(direction)
                whole = data if end is None else data[: max(0, end - len(self.passed[direction]))]
                self.passed[direction] += whole
                await target.send_all(whole)
                if end is not None and len(self.passed[direction]) >= end:
                    break
            else:
                await target.send_eof()
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.reset()


class BreakingProxy:
    """The proxy. `ends` has for each new connection the number of bytes in a direction after which it is reset."""

    def __init__(self, target: int, ends: Iterable[dict[Direction, int]] = ()) -> None:
        self.target = target
        self.ends = iter(ends)
        self.connections: list[ProxiedConnection] = []
        self.port = 0
        self.is_cut = False

    async def handle(self, client: trio.SocketStream) -> None:
        with client.socket:
            if self.is_cut:
                return
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self.target)
            except OSError:
                return
            with server.socket:
                await self._forward(ProxiedConnection(client, server, next(self.ends, {})))

    async def _forward(self, connection: ProxiedConnection) -> None:
        self.connections.append(connection)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.pump, "up")
                nursery.start_soon(connection.pump, "down")
        finally:
            connection.reset()
            self.connections.remove(connection)

    def cut(self) -> None:
        """Stop forwarding on existing connections, and close new ones at once, until `mend`."""
        self.is_cut = True
        self.freeze()

    def mend(self) -> None:
        """Forward new connections again; existing ones are reset."""
        self.is_cut = False
        self.reset()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def reset(self, which: Callable[[ProxiedConnection], bool] = lambda _: True) -> None:
        """Reset these connections."""
        for connection in filter(which, list(self.connections)):
            connection.reset()

    def freeze(self) -> None:
        """Stop forwarding on all existing connections; new ones are not affected."""
        for connection in self.connections:
            connection.frozen = True


@asynccontextmanager
async def breaking_proxy(target: int, ends: Iterable[dict[Direction, int]] = ()) -> AsyncIterator[BreakingProxy]:
    """Run a proxy for a local port."""
    proxy = BreakingProxy(target, ends)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, proxy.handle, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
