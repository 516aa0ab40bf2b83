"""A session: two clients pair and exchange frames with disturbances, one may disconnect, and the accounting is checked."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio
from trio_websocket import HandshakeError

from tests.soak.accounting import Accounting, Figures
from tests.soak.client import Client, SessionFailed
from tests.soak.connections import CONNECTION_LOST, Address, Connection, RawConnection, open_library, open_raw

SESSION_SECONDS: Final = 120.0  # seconds
LIBRARY_SHARE: Final = 0.15  # of the clients that need not send raw frames
DISTURBED_SHARE: Final = 0.6  # of the sessions have disturbances
INCOMPLETE_SHARE: Final = 0.3  # of the sessions have a connection beside them that does not complete its upgrade
Step = Callable[["Session", Client, Client], Awaitable[None]]
IncompleteConnection = Callable[["Session"], Awaitable[None]]


class Session:
    """The clients of a session, its random numbers and its accounting."""

    def __init__(self, address: Address, name: str, seed: str) -> None:
        self.address = address
        self.rng = random.Random(seed)
        self.accounting = Accounting(name)
        self.faults: Counter[str] = Counter()
        self._connections: list[Connection] = []
        self._clients: list[Client] = []
        self._nursery: trio.Nursery

    async def run(
        self, acts: dict[str, Step], endings: dict[str, Step], strays: dict[str, IncompleteConnection]
    ) -> Figures:
        """Run the session and return its figures."""
        try:
            with trio.fail_after(SESSION_SECONDS):
                async with trio.open_nursery() as self._nursery:
                    await self._run_steps(acts, endings, strays)
                    self._nursery.cancel_scope.cancel()
        except* SessionFailed:
            pass  # the accounting has the violation
        except* trio.TooSlowError:
            self.accounting.report(f"the session took more than {SESSION_SECONDS:g} s")
        return self.accounting.figures

    async def _run_steps(
        self, acts: dict[str, Step], endings: dict[str, Step], strays: dict[str, IncompleteConnection]
    ) -> None:
        ending = self.rng.choice(list(endings))
        disturbances = (
            self.rng.choices(list(acts), k=self.rng.randint(1, 2)) if self.rng.random() < DISTURBED_SHARE else []
        )
        beside = self.rng.choices(list(strays)) if self.rng.random() < INCOMPLETE_SHARE else []
        self.faults.update([ending, *disturbances, *beside])
        try:
            async with trio.open_nursery() as nursery:
                for each in beside:
                    nursery.start_soon(strays[each], self)
                await self._run_pair([acts[each] for each in disturbances], endings[ending])
        finally:
            await self._abort_all()

    async def _abort_all(self) -> None:
        for client in self._clients:
            client.expect_end("closed")
        with trio.CancelScope(shield=True):
            for connection in self._connections:
                await connection.abort()

    async def _run_pair(self, disturbances: Sequence[Step], ending: Step) -> None:
        a, b = await self.join(raw_bytes=True), await self.join()
        asks, asked = (a, b) if self.rng.random() < 0.5 else (b, a)
        await asks.pair(asked)
        for disturbance in disturbances:
            await self.exchange(a, b)
            await disturbance(self, *self.shuffled(a, b))
        await ending(self, a, b)
        await self.finish([a, b])

    @property
    def clients(self) -> int:
        """The number of clients."""
        return len(self._clients)

    async def join(self, *, raw_bytes: bool = False) -> Client:
        """Connect a client; one of `raw_bytes` can violate the protocol, and has a small receive buffer."""
        try:
            if not raw_bytes and self.rng.random() < LIBRARY_SHARE:
                connection: Connection = await open_library(self._nursery, self.address)
            else:
                connection = await open_raw(self.address, self.rng, small=raw_bytes)
        except (OSError, HandshakeError, *CONNECTION_LOST) as error:
            self.accounting.report(f"the WebSocket could not be opened: {error!r}")
            raise SessionFailed from None
        self._connections.append(connection)
        client = Client(connection, self.accounting)
        self._clients.append(client)
        self._nursery.start_soon(client.listen)
        await client.wait_until(lambda: client.id, "its ID")
        return client

    def resume_reading(self, client: Client) -> None:
        """Resume reading after `stop_reading`."""
        client._resume()
        self._nursery.start_soon(client.listen)

    def shuffled(self, a: Client, b: Client) -> tuple[Client, Client]:
        """Return both in random order."""
        return (a, b) if self.rng.random() < 0.5 else (b, a)

    def raw_connection(self, client: Client) -> RawConnection:
        """Return the connection of a client of `raw_bytes`."""
        assert isinstance(client.connection, RawConnection)
        return client.connection

    async def pause(self, longest: float = 0.02) -> None:
        """Wait for a random time, possibly none."""
        await trio.sleep(self.rng.choice((0.0, self.rng.random() * longest)))

    async def send_frames(self, sender: Client, receiver: Client, frames: int) -> None:
        """Send numbered frames while the sender is connected."""
        for _ in range(frames):
            if sender.leaving or sender.over:
                return
            await sender.send_frame(receiver, self.rng)
            await self.pause(0.01)

    async def exchange(self, a: Client, b: Client) -> None:
        """Let both clients send frames at the same time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.send_frames, a, b, self.rng.randint(0, 10))
            nursery.start_soon(self.send_frames, b, a, self.rng.randint(0, 10))

    async def finish(self, clients: Sequence[Client]) -> None:
        """Wait for pending frames, check the accounting, and close the remaining connections."""
        left = [client for client in clients if not client.leaving]
        await self.synchronize(left)
        self.accounting.check()
        for client in left:
            if self.rng.random() < 0.5:
                await client.close()
            else:
                client.expect_end("closed")

    async def synchronize(self, clients: Sequence[Client]) -> None:
        """Wait until all pending frames among these clients are received.

        After the first pongs the relay has handled all of their frames and queued the results; after the second they are
        received.
        """
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.synchronize)

    async def wait_until_unpaired(self, remaining: Client) -> None:
        """Wait until the remaining client is notified of the end of its pairing."""
        await remaining.wait_until(lambda: remaining.peer is None, "peer_disconnected")


async def ignore_loss(action: Awaitable[object]) -> None:
    """Await an action; a lost connection is not an error."""
    with suppress(*CONNECTION_LOST):
        await action
