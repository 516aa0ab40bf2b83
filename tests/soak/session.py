"""A session: two clients meet, talk, suffer this and that, one of them perhaps ends badly, and the books are closed."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio
from trio_websocket import HandshakeError

from tests.soak.account import Account, Figures
from tests.soak.client import Client, Stuck
from tests.soak.links import CONNECTION_LOST, Address, RawLink, SocketStream, library, raw

LONGEST: Final = 120.0  # seconds that a session may take
LIBRARY_SHARE: Final = 0.15  # of the clients that need not misbehave on the wire
TROUBLED_SHARE: Final = 0.6  # of the sessions have something happen in mid-talk
STRAY_SHARE: Final = 0.3  # of the sessions have a connection beside them that never becomes a client
Act = Callable[["Session", Client, Client], Awaitable[None]]
Stray = Callable[["Session"], Awaitable[None]]


class Session:
    """What the acts of a session need: its clients, its dice, its books."""

    def __init__(self, address: Address, name: str, seed: str) -> None:
        self.address = address
        self.rng = random.Random(seed)
        self.account = Account(name)
        self.faults: Counter[str] = Counter()
        self._links: list[SocketStream] = []
        self._clients: list[Client] = []
        self._nursery: trio.Nursery

    async def run(self, acts: dict[str, Act], endings: dict[str, Act], strays: dict[str, Stray]) -> Figures:
        """Play it, and return what the books show."""
        try:
            with trio.fail_after(LONGEST):
                async with trio.open_nursery() as self._nursery:
                    await self._play(acts, endings, strays)
                    self._nursery.cancel_scope.cancel()
        except* Stuck:
            pass  # the books have the sentence
        except* trio.TooSlowError:
            self.account.complain(f"it took more than {LONGEST:g} s")
        return self.account.figures

    async def _play(self, acts: dict[str, Act], endings: dict[str, Act], strays: dict[str, Stray]) -> None:
        ending = self.rng.choice(list(endings))
        troubles = self.rng.choices(list(acts), k=self.rng.randint(1, 2)) if self.rng.random() < TROUBLED_SHARE else []
        beside = self.rng.choices(list(strays)) if self.rng.random() < STRAY_SHARE else []
        self.faults.update([ending, *troubles, *beside])
        try:
            async with trio.open_nursery() as nursery:
                for each in beside:
                    nursery.start_soon(strays[each], self)
                await self._meet([acts[each] for each in troubles], endings[ending])
        finally:
            await self._dispose()

    async def _dispose(self) -> None:
        for client in self._clients:
            client.leave("closed")
        with trio.CancelScope(shield=True):
            for link in self._links:
                await link.dispose()

    async def _meet(self, troubles: Sequence[Act], ending: Act) -> None:
        a, b = await self.join(wild=True), await self.join()
        asks, asked = (a, b) if self.rng.random() < 0.5 else (b, a)
        await asks.pair(asked)
        for trouble in troubles:
            await self.converse(a, b)
            await trouble(self, *self.shuffled(a, b))
        await ending(self, a, b)
        await self.settle([a, b])

    @property
    def clients(self) -> int:
        """How many clients there were."""
        return len(self._clients)

    # ---- what acts are made of ----------------------------------------------------------------------------------

    async def join(self, *, wild: bool = False) -> Client:
        """Let a client connect; a wild one can break the rules of the wire, and has a small buffer."""
        try:
            if not wild and self.rng.random() < LIBRARY_SHARE:
                link: SocketStream = await library(self._nursery, self.address)
            else:
                link = await raw(self.address, self.rng, small=wild)
        except (OSError, HandshakeError, *CONNECTION_LOST) as error:
            self.account.complain(f"no WebSocket could be opened: {error!r}")
            raise Stuck from None
        self._links.append(link)
        client = Client(link, self.account)
        self._clients.append(client)
        self._nursery.start_soon(client.listen)
        await client.until(lambda: client.id, "its ID")
        return client

    def listen_again(self, client: Client) -> None:
        """Let one that stopped reading go on."""
        client.undeafen()
        self._nursery.start_soon(client.listen)

    def shuffled(self, a: Client, b: Client) -> tuple[Client, Client]:
        """Return the two in any order."""
        return (a, b) if self.rng.random() < 0.5 else (b, a)

    def raw_link(self, client: Client) -> RawLink:
        """Return the link of a client that was made wild."""
        assert isinstance(client.link, RawLink)
        return client.link

    async def pause(self, longest: float = 0.02) -> None:
        """Let some time pass, none included."""
        await trio.sleep(self.rng.choice((0.0, self.rng.random() * longest)))

    async def talk(self, speaker: Client, listener: Client, frames: int) -> None:
        """Send numbered frames, as long as the speaker is there."""
        for _ in range(frames):
            if speaker.leaving or speaker.over:
                return
            await speaker.tell(listener, self.rng)
            await self.pause(0.01)

    async def converse(self, a: Client, b: Client) -> None:
        """Let both talk at once."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.talk, a, b, self.rng.randint(0, 10))
            nursery.start_soon(self.talk, b, a, self.rng.randint(0, 10))

    async def settle(self, clients: Sequence[Client]) -> None:
        """Let all that is under way arrive, close the books, and then the connections that are left."""
        left = [client for client in clients if not client.leaving]
        await self.catch_up(left)
        self.account.settled()
        for client in left:
            if self.rng.random() < 0.5:
                await client.close()
            else:
                client.leave("closed")

    async def catch_up(self, clients: Sequence[Client]) -> None:
        """Let all that is under way among these clients arrive.

        After the first pongs all that they sent is taken, so what it leads to is queued; after the second it is heard.
        """
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.catch_up)

    async def told(self, survivor: Client) -> None:
        """Wait until the survivor has heard of the end of its pairing."""
        await survivor.until(lambda: survivor.peer is None, "peer_disconnected")


async def quietly(action: Awaitable[object]) -> None:
    """Do it, whether or not the other side is still there to see it."""
    with suppress(*CONNECTION_LOST):
        await action
