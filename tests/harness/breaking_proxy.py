"""A TCP proxy that breaks what goes through it: it resets connections behind any byte, or lets them stand, passing nothing."""

import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import trio

Way = Literal["up", "down"]  # to the server, from the server
AT_ONCE: Final = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class Passage:
    """One connection: what went through so far, and behind how many bytes it breaks."""

    client: trio.SocketStream
    server: trio.SocketStream
    ends: dict[Way, int] = field(default_factory=dict)
    passed: dict[Way, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    frozen: bool = False
    thawed: trio.Event = field(default_factory=trio.Event)

    def reset(self) -> None:
        """Break it on both sides, without a goodbye of TCP's."""
        for stream in (self.client, self.server):
            if stream.socket.fileno() != -1:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                stream.socket.close()

    async def pump(self, way: Way) -> None:
        source, target = (self.client, self.server) if way == "up" else (self.server, self.client)
        try:
            while data := await source.receive_some(65536):
                if self.frozen:
                    await self.thawed.wait()
                end = self.ends.get(way)
                whole = data if end is None else data[: max(0, end - self.passed[way])]
                await target.send_all(whole)
                self.passed[way] += len(whole)
                if end is not None and self.passed[way] >= end:
                    break
            else:
                await target.send_eof()
                return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self.reset()


class Cutter:
    """The proxy: `ends` says for each connection that comes behind how many bytes of either way it breaks."""

    def __init__(self, target: int, ends: Iterable[dict[Way, int]] = ()) -> None:
        self.target = target
        self.ends = iter(ends)
        self.passages: list[Passage] = []
        self.port = 0

    async def handle(self, client: trio.SocketStream) -> None:
        with client.socket:
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self.target)
            except OSError:
                return
            with server.socket:
                await self._pass_on(Passage(client, server, next(self.ends, {})))

    async def _pass_on(self, passage: Passage) -> None:
        self.passages.append(passage)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(passage.pump, "up")
                nursery.start_soon(passage.pump, "down")
        finally:
            passage.reset()
            self.passages.remove(passage)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def cut(self, which: Callable[[Passage], bool] = lambda _: True) -> None:
        """Reset these connections."""
        for passage in filter(which, list(self.passages)):
            passage.reset()

    def freeze(self) -> None:
        """Let all connections that there are stand, and pass nothing on; those that come are not concerned."""
        for passage in self.passages:
            passage.frozen = True


@asynccontextmanager
async def cutting(target: int, ends: Iterable[dict[Way, int]] = ()) -> AsyncIterator[Cutter]:
    """Run a proxy in front of a port of this machine."""
    cutter = Cutter(target, ends)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        cutter.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, cutter.handle, [listener])
        yield cutter
        nursery.cancel_scope.cancel()
