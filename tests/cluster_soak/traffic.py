"""Pairs of sequenced clients that send each other numbered frames, whatever happens to their relay."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import trio

from sdpx.peer.signaling.resume import ResumeResult
from tests.cluster_soak.accounting import Direction, Figures
from tests.harness.resuming_client import ResumingClient

RELAYED: Final = ("offer", "answer")
REQUEST_SECONDS: Final = 5.0  # for the reply to a request; it is lost if the session is
RETRY_SECONDS: Final = 0.05
AWAY_SECONDS: Final = 0.25  # between two requests while there is no engine
AWAY: Final = "pair_request engine_unavailable"
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Notice:
    """The notification of a client about the end of its pairing, or of its session."""

    time: float
    reason: str


class ActiveClient(ResumingClient):
    """One client of a pair."""

    def __init__(self, port: int, name: str, kind: str, outgoing: Direction, incoming: Direction) -> None:
        super().__init__(port, name)
        self.name = name
        self.peer: str | None = None
        self.disconnects: list[Notice] = []  # `peer_disconnected`
        self.lost_sessions: list[Notice] = []
        self.errors: Counter[str] = Counter()
        self.violations: list[str] = []
        self.outgoing = outgoing
        self._incoming = incoming
        self._kind = kind

    def send_next(self, filler: str) -> None:
        """Send one numbered frame, if there is room for it."""
        if self.rules.has_room:
            number = self.outgoing.send(trio.current_time())
            self.send({"type": self._kind, "sdp": f"{number}:{filler}"})

    def on_message(self, message: dict[str, Any]) -> None:
        now = trio.current_time()
        match message["type"]:
            case "paired":
                if self.peer is not None:
                    self.violations.append(f"{self.name} was paired with {message['peer_id']} while it had a peer")
                self.peer = message["peer_id"]
            case "offer" | "answer":
                self._on_relayed(message["sdp"], now)
            case "peer_disconnected":
                if self.peer is None:
                    self.violations.append(f"{self.name} received peer_disconnected without a peer")
                self.disconnects.append(Notice(now, message["reason"]))
                self._end_pairing()
            case "error":
                reply_to = message.get("in_reply_to", "")
                self.errors[f"{reply_to} {message['code']}".strip()] += 1
                if reply_to in RELAYED or message["code"] == "peer_unreachable":
                    self.outgoing.refuse()

    def _on_relayed(self, sdp: str, now: float) -> None:
        number = sdp.partition(":")[0]
        if self.peer is None or not number.isdigit():
            self._incoming.alter()
        else:
            self._incoming.receive(int(number), now)

    def on_session(self, result: ResumeResult) -> None:
        if self.id != self.name:
            self.violations.append(f"{self.name} got the ID {self.id}")
        if result in {ResumeResult.EXPIRED, ResumeResult.INVALID}:
            self.lost_sessions.append(Notice(trio.current_time(), result.name.lower()))
            self._end_pairing()

    def _end_pairing(self) -> None:
        self.peer = None
        self.outgoing.end_pairing()


class ActivePair:
    """Two clients: the first requests the pairing whenever there is none, and both send frames while there is one."""

    def __init__(self, number: int, ports: Sequence[int], rate: float, size: int = 200) -> None:
        there, back = Direction(), Direction()
        self._rng = random.Random(number)
        self._period = 1 / rate
        self._filler = "x" * size
        self._is_active = True
        self.a = ActiveClient(ports[0], f"a{number}", "offer", there, back)
        self.b = ActiveClient(ports[1], f"b{number}", "answer", back, there)
        self._changed = self.b.changed = self.a.changed

    @property
    def clients(self) -> tuple[ActiveClient, ActiveClient]:
        return self.a, self.b

    def set_active(self, is_active: bool) -> None:
        """Stop sending, or go on."""
        self._is_active = is_active
        self._changed.set()

    @property
    def paired(self) -> bool:
        """Whether both clients know of the pairing."""
        return self.a.peer == self.b.name and self.b.peer == self.a.name

    @property
    def settled(self) -> bool:
        """Whether both clients are connected, paired and without pending frames."""
        idle = not any(client.outgoing.pending > 0 for client in self.clients)
        return self.paired and idle and self.a.welcomed and self.b.welcomed

    @property
    def notices(self) -> int:
        """How often one of the clients learned of the end of the pairing or of its session."""
        return sum(len(client.disconnects) + len(client.lost_sessions) for client in self.clients)

    async def run(self) -> None:
        """Connect both clients, pair them, and send frames for ever."""
        async with trio.open_nursery() as nursery:
            for client in self.clients:
                nursery.start_soon(client.run)
            while True:
                if self.a.peer is None and self.b.peer is None and self.a.welcomed and self.b.welcomed:
                    await self._request()
                elif self._is_active and self.paired:
                    for client in self.clients:
                        client.send_next(self._filler)
                    with trio.move_on_after(self._period * self._rng.uniform(0.5, 1.5)):
                        while self.paired:
                            await self._changed.wait()
                else:
                    await self._changed.wait()

    async def _request(self) -> None:
        """Request the pairing, and wait for the reply."""
        a = self.a
        errors, away = a.errors.total(), a.errors[AWAY]
        a.send({"type": "pair_request", "target_id": self.b.name})
        with trio.move_on_after(REQUEST_SECONDS):
            while a.peer is None and a.errors.total() == errors:
                await self._changed.wait()
        if a.peer is None:
            await trio.sleep(RETRY_SECONDS if a.errors[AWAY] == away else AWAY_SECONDS)


def total(pairs: Iterable[ActivePair]) -> Figures:
    """Return the sum of the figures of both directions of all pairs."""
    figures = Figures()
    for pair in pairs:
        for client in pair.clients:
            figures.add(client.outgoing.figures())
    return figures


async def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition is true; returns whether it was within the time."""
    with trio.move_on_after(seconds):
        while not condition():
            await trio.sleep(POLL_SECONDS)
        return True
    return False


async def wait_until_settled(pairs: Sequence[ActivePair], seconds: float, *, go_on: bool = True) -> bool:
    """Stop sending and wait until all pairs are settled; then they may go on. Returns whether they settled within the time."""
    for pair in pairs:
        pair.set_active(False)
    done = await wait_until(lambda: all(pair.settled for pair in pairs), seconds)
    for pair in pairs:
        pair.set_active(go_on)
    return done
