"""Runs coroutines inside the asyncio loop that aiortc needs.

Importing aiortc takes a third of a second and more. A thread does it while the relay is dialled, so that a peer has its ID early.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Final

import trio

from sdpx.ice_servers import IceServer

if TYPE_CHECKING:
    from sdpx.peer.webrtc.peer_connection import PeerConnection

Job = Callable[[], Awaitable[None]]
QUEUE_BOUND: Final = 16


class WebRtcRuntime:
    """Runs jobs inside the loop, in a task each, once aiortc is imported."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Job](QUEUE_BOUND)
        self._loaded = trio.Event()
        self._stack: ModuleType | None = None

    async def loaded(self) -> None:
        """Wait until aiortc is imported."""
        await self._loaded.wait()

    async def connect(self, servers: Sequence[IceServer], *, relay_only: bool = False) -> "PeerConnection":
        """Return a new connection (see `peer_connection.connect`); for jobs only."""
        assert self._stack is not None
        connection: PeerConnection = await self._stack.connect(servers, relay_only=relay_only)
        return connection

    async def run(self, job: Job) -> None:
        """Start `job` in a task; returns at once."""
        await self._send.send(job)

    async def run_and_wait(self, job: Job) -> None:
        """Run `job` and wait for its end."""
        ended = trio.Event()

        async def run() -> None:
            try:
                await job()
            finally:
                ended.set()

        await self.run(run)
        await ended.wait()

    async def serve(self) -> None:
        """Import aiortc, open the loop, and run jobs until cancelled."""
        self._stack = await trio.to_thread.run_sync(_import_stack)
        async with self._stack.asyncio_loop(), trio.open_nursery() as nursery:
            self._loaded.set()
            async for job in self._receive:
                nursery.start_soon(job)


@asynccontextmanager
async def open_webrtc_runtime() -> AsyncIterator[WebRtcRuntime]:
    """Serve a runtime while the block runs."""
    runtime = WebRtcRuntime()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.serve)
        yield runtime
        nursery.cancel_scope.cancel()


def _import_stack() -> ModuleType:
    from sdpx.peer.webrtc import peer_connection  # noqa: PLC0415  imported in a thread

    return peer_connection
