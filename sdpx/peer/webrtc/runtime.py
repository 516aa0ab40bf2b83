"""Where pairings live: inside the asyncio loop that aiortc needs.

aiortc takes a third of a second and more to import. That is done in a thread beside the dialling of the relay, so that a
peer has its ID early.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from sdpx.peer.pair_session import PairSession

Life = Callable[[], Awaitable[None]]
WAITING: Final = 16
_Stack = tuple[type["PairSession"], Callable[[], AbstractAsyncContextManager[None]]]


class WebRtcRuntime:
    """Runs what is let in, once the stack is there. Whoever lets something in waits for its end itself."""

    def __init__(self) -> None:
        self._let_in, self._waiting = trio.open_memory_channel[Life](WAITING)
        self._loaded = trio.Event()
        self._pairing: type[PairSession] | None = None

    async def pair_session(self) -> type["PairSession"]:
        """Return the class of pairings, once it is imported."""
        await self._loaded.wait()
        assert self._pairing is not None
        return self._pairing

    async def run(self, life: Life) -> None:
        """Run `life` in a task inside the loop; returns at once."""
        await self._let_in.send(life)

    async def do(self, life: Life) -> None:
        """Run `life` inside the loop, and wait for its end."""
        ended = trio.Event()

        async def live() -> None:
            try:
                await life()
            finally:
                ended.set()

        await self.run(live)
        await ended.wait()

    async def keep(self) -> None:
        """Import the stack, open the loop, and let in what comes, until this is cancelled."""
        self._pairing, asyncio_loop = await trio.to_thread.run_sync(_import_stack)
        async with asyncio_loop(), trio.open_nursery() as nursery:
            self._loaded.set()
            async for life in self._waiting:
                nursery.start_soon(life)


@asynccontextmanager
async def open_webrtc_runtime() -> AsyncIterator[WebRtcRuntime]:
    """Keep a room while the block runs."""
    room = WebRtcRuntime()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(room.keep)
        yield room
        nursery.cancel_scope.cancel()


def _import_stack() -> _Stack:
    from sdpx.peer import pair_session  # noqa: PLC0415  imported in a thread
    from sdpx.peer.webrtc import peer_connection  # noqa: PLC0415

    return pair_session.PairSession, peer_connection.asyncio_loop
