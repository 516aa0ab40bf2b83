"""Thousands of concurrent pair requests over several nodes: each pairing is symmetric, and each contest has one winner."""

import random
from collections import Counter
from pathlib import Path
from typing import Any, Final

import trio

from sdpx.bench.accounting import percentile
from tests.cluster_soak.outcome import Outcome, Scale, nodes_and_engine
from tests.cluster_soak.traffic import wait_until
from tests.harness.resuming_client import ResumingClient

CLIENTS: Final = 60
REPLY_SECONDS: Final = 20.0
REFUSALS: Final = {"already_paired", "target_already_paired"}


class _Requester(ResumingClient):
    """A client that requests random pairings and ends those that it gets."""

    def __init__(self, port: int, name: str, record: "_Record") -> None:
        super().__init__(port, name)
        self.name = name
        self.peer: str | None = None
        self.replies: list[str] = []
        self._record = record

    def on_message(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "paired":
                self._paired(message["peer_id"], is_initiator=message["is_initiator"])
            case "unpaired" | "peer_disconnected":
                if self.peer != message["peer_id"]:
                    self._record.wrong.append(f"{self.name} lost {message['peer_id']} while its peer was {self.peer}")
                self.peer = None
            case "error" if message.get("in_reply_to") == "pair_request":
                self.replies.append(message["code"])
            case "error" if message["code"] != "not_paired":
                self._record.wrong.append(f"{self.name} received {message}")

    def _paired(self, peer: str, *, is_initiator: bool) -> None:
        if self.peer is not None:
            self._record.wrong.append(f"{self.name} was paired with {peer} and with {self.peer}")
        self.peer = peer
        if is_initiator:
            self.replies.append("paired")
            self._record.initiated[self.name, peer] += 1
        else:
            self._record.accepted[peer, self.name] += 1

    async def request(self, target: str, rng: random.Random) -> None:
        """Request one pairing, and end it if there is one."""
        replies = len(self.replies)
        began = trio.current_time()
        self.send({"type": "pair_request", "target_id": target})
        with trio.fail_after(REPLY_SECONDS):
            while len(self.replies) == replies:
                await self.changed.wait()
        self._record.milliseconds[int((trio.current_time() - began) * 1000)] += 1
        await trio.sleep(rng.random() * 0.02)
        if self.peer is not None and (self.replies[-1] == "paired" or rng.random() < 0.2):
            self.send({"type": "unpair"})
            with trio.fail_after(REPLY_SECONDS):
                while self.peer is not None:
                    await self.changed.wait()


class _Record:
    """The pairings as both sides were notified of them, keyed by the initiator and the receiver."""

    def __init__(self) -> None:
        self.initiated: Counter[tuple[str, str]] = Counter()
        self.accepted: Counter[tuple[str, str]] = Counter()
        self.milliseconds: Counter[int] = Counter()
        self.wrong: list[str] = []


async def pair_requests(folder: Path, scale: Scale) -> Outcome:
    """Let clients on all nodes request each other at random."""
    out = Outcome(f"Pair requests: {scale.nodes} nodes, {CLIENTS} clients, {scale.requests} concurrent requests")
    record = _Record()
    async with nodes_and_engine(folder, scale) as (nodes, _), trio.open_nursery() as nursery:
        ports = [node.port for node in nodes]
        clients = [_Requester(ports[k % len(ports)], f"c{k}", record) for k in range(CLIENTS)]
        for client in clients:
            nursery.start_soon(client.run)
        out.require(await wait_until(lambda: all(c.welcomed for c in clients), 30), "Not all clients were connected.")
        began = trio.current_time()

        async def work(client: _Requester, seed: int) -> None:
            rng = random.Random(seed)
            others = [each.name for each in clients if each is not client]
            for _ in range(-(-scale.requests // CLIENTS)):
                await client.request(rng.choice(others), rng)

        async with trio.open_nursery() as workers:
            for seed, client in enumerate(clients):
                workers.start_soon(work, client, seed)
        seconds = trio.current_time() - began
        names = {client.name: client for client in clients}

        def lonely() -> list[str]:
            return [c.name for c in clients if c.peer is not None and names[c.peer].peer != c.name]

        await wait_until(lambda: record.initiated == record.accepted and not lonely(), 5)
        nursery.cancel_scope.cancel()
    _report(out, record, Counter(reply for client in clients for reply in client.replies), seconds)
    out.require(not lonely(), f"The pairing of {lonely()} is not symmetric.")
    out.add_nodes(nodes)
    return out


def _report(out: Outcome, record: _Record, replies: Counter[str], seconds: float) -> None:
    out.row("requests answered", replies.total())
    out.row("replies", ", ".join(f"{code} {times}" for code, times in sorted(replies.items())))
    out.row("pairings", record.initiated.total())
    out.row(
        "time of a reply, p50, p99", f"{', '.join(str(percentile(record.milliseconds, s)) for s in (0.5, 0.99))} ms"
    )
    out.row("requests a second", f"{replies.total() / seconds:.0f}")
    same = record.initiated == record.accepted
    out.require(same, f"Sides differ: {(record.initiated - record.accepted) + (record.accepted - record.initiated)}.")
    out.require(replies.keys() <= REFUSALS | {"paired"}, f"Unexpected replies: {dict(replies)}.")
    out.wrong += record.wrong[:20]
