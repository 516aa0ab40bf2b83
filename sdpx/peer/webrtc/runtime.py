"""The asyncio loop that aiortc needs, and calls from Trio into it.

Importing aiortc takes a third of a second or more. A thread does it while the relay is dialled, so that a peer gets its ID
early; therefore this module imports asyncio only where it is used.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from sdpx.events.webrtc import WebrtcFeatureUnavailable
from sdpx.ice_servers import IceServer
from sdpx.log import Log

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

logger = logging.getLogger("aiortc")
T = TypeVar("T")
Job = Callable[[], Awaitable[None]]
QUEUE_BOUND: Final = 16


class WebRtcRuntime:
    """Runs jobs inside the loop, in a task each. `load` imports and returns the module `peer_connection`, in a thread."""

    def __init__(self, load: Callable[[], ModuleType], log: Log) -> None:
        self._load = load
        self._log = log
        self._send, self._receive = trio.open_memory_channel[Job](QUEUE_BOUND)
        self._loaded = trio.Event()
        self._module: ModuleType | None = None

    async def loaded(self) -> None:
        """Wait until aiortc is imported."""
        await self._loaded.wait()

    async def connect(self, servers: Sequence[IceServer], *, relay_only: bool, allow_loopback: bool) -> Any:
        """Return a new `PeerConnection` (see `peer_connection.connect`); for jobs only."""
        assert self._module is not None
        return await self._module.connect(servers, relay_only=relay_only, allow_loopback=allow_loopback)

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
        """Import aiortc, open the loop, and run jobs until cancelled. Logs the features that the installed versions lack."""
        self._module = await trio.to_thread.run_sync(self._load)
        for feature, (library, version) in self._module.unavailable_features().items():
            self._log.emit(WebrtcFeatureUnavailable(feature, library, version))
        async with asyncio_loop(), trio.open_nursery() as nursery:
            self._loaded.set()
            async for job in self._receive:
                nursery.start_soon(job)


@asynccontextmanager
async def open_webrtc_runtime(load: Callable[[], ModuleType], log: Log) -> AsyncIterator[WebRtcRuntime]:
    """Serve a runtime while the block runs."""
    runtime = WebRtcRuntime(load, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.serve)
        yield runtime
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def asyncio_loop() -> AsyncIterator[None]:
    """Run an asyncio loop while the block runs. An exception in a task that is not awaited is logged as a library's error."""
    import trio_asyncio  # noqa: PLC0415  see above

    def on_exception(_loop: "AbstractEventLoop", context: dict[str, Any]) -> None:
        logger.error("%s: %r", context.get("message"), context.get("exception"))

    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(on_exception)
        yield


async def in_asyncio(function: Callable[..., T], *args: object) -> T:
    """Call a synchronous function in the asyncio context; returns its result."""
    import trio_asyncio  # noqa: PLC0415

    async def call() -> T:
        return function(*args)

    result: T = await trio_asyncio.aio_as_trio(call)()
    return result
