"""Two links that connections in memory join, and cut."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import trio

from sdpx.peer.transfer.link import Link
from tests.harness.binary_channels import MemoryChannel, channel_pair

_NUMBERS = count()
DEADLOCK_SECONDS = 3600.0  # the autojump clock is there at once when all tasks wait for each other


def new_link(role: str = "pipe", *, restarts: bool = False) -> Link:
    return Link(role, lambda: f"{role}-{next(_NUMBERS)}", restarts=restarts)


class Connections:
    """The present connection between two links."""

    def __init__(self, nursery: trio.Nursery, a: Link, b: Link) -> None:
        self.nursery = nursery
        self.links = [a, b]
        self.channels: tuple[MemoryChannel, MemoryChannel] | None = None

    async def connect(self) -> None:
        self.channels = channel_pair()
        for link, channel in zip(self.links, self.channels, strict=True):
            self.nursery.start_soon(link.serve, channel)
        for link in self.links:
            await link.wait_until(lambda link=link: link.connected)  # type: ignore[misc]

    async def cut(self) -> None:
        assert self.channels is not None
        self.channels[0].cut()
        for link in self.links:
            await link.wait_until(lambda link=link: not link.connected)  # type: ignore[misc]

    async def reconnect(self) -> None:
        await self.cut()
        await self.connect()


@asynccontextmanager
async def linked(a: Link, b: Link) -> AsyncIterator[Connections]:
    """Join two links for the block; a deadlock between them is a `trio.TooSlowError`."""
    with trio.fail_after(DEADLOCK_SECONDS):
        async with trio.open_nursery() as nursery:
            connections = Connections(nursery, a, b)
            await connections.connect()
            yield connections
            nursery.cancel_scope.cancel()
