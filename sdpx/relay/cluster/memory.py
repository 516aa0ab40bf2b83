"""The directory in memory, for nodes in one process: the same rules as scripts/*.lua, call for call.

The nodes share a `MemoryEngine`; tests stop it, wipe it, and let calls and entries of nodes overtake each other.
"""

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Final

import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.relay.cluster.directory import Call, Directory, Entry, Handler, Value
from sdpx.relay.core.limits import Limits

MOVING: Final = "*"
GRACE_SECONDS: Final = 1.0


class MemoryEngine:
    """The state of all nodes; time is in seconds of `clock`. The attributes are the keys that scripts/common.lua names."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._wiped = 0
        self.is_reachable = True
        self.cut_off: set[str] = set()  # nodes that cannot reach it
        self.changed: dict[str, Callable[[], None]] = {}  # by node: its channel has entries
        self.wipe()

    def wipe(self) -> None:
        """Forget everything, as an engine that is restarted without its data."""
        self._wiped += 1
        self.epoch = ""
        self.nodes: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.owner: dict[str, str] = {}
        self.peer: dict[str, tuple[str, str]] = {}
        self.claim: dict[str, tuple[str, str]] = {}
        self.channels: dict[str, deque[Entry]] = {}
        self.waiting: dict[str, list[Entry]] = {}
        self.parked: dict[str, tuple[str, bytes, float]] = {}
        self._pairings = 0
        self._grace_until = self._last_beat = -inf

    def is_reachable_by(self, node: str) -> bool:
        """Return whether a node reaches the engine."""
        return self.is_reachable and node not in self.cut_off

    # ---- membership

    def join(self, node: str, number: int, lease: float, known_epoch: str) -> str:
        """Enter the cluster; returns the epoch."""
        now = self.clock()
        self.epoch = self.epoch or f"m{self._wiped}"
        if known_epoch not in ("", self.epoch) and self._grace_until == -inf:
            self._grace_until = now + GRACE_SECONDS
        for client_id in self._ids(node):
            del self.owner[client_id]
            self.peer.pop(client_id, None)
        self.channels[node] = deque()
        self.nodes[node], self.calls[node], self._last_beat = now + lease, number, now
        return self.epoch

    def beat(self, node: str, number: int, lease: float) -> tuple[str, str, list[tuple[str, int]]]:
        """Renew a lease; returns the epoch, perhaps `fenced` or `lost`, and the removed nodes with their number of clients."""
        now = self.clock()
        if node not in self.nodes:
            return self.epoch, "fenced", []
        if self.calls[node] < number:
            return self.epoch, "lost", []
        if now - self._last_beat > lease * 0.75:
            self.nodes = dict.fromkeys(self.nodes, now + lease)
        self._last_beat, self.nodes[node] = now, now + lease
        removed = []
        for each in [each for each, until in self.nodes.items() if until <= now]:
            removed.append((each, len(self._ids(each))))
            self._remove_node(each, "node_lost")
        for client_id in [each for each, (_, _, until) in self.parked.items() if until <= now]:
            self._drop(client_id, "closed")
        return self.epoch, "", removed

    def _remove_node(self, node: str, reason: str) -> None:
        del self.nodes[node], self.calls[node]
        for client_id in self._ids(node):
            self._drop(client_id, reason)
        del self.channels[node]

    # ---- calls

    def _leave(self, me: str, reason: str) -> None:
        self._remove_node(me, reason)

    def execute(self, node: str, call: Call) -> str:
        """Execute a call, unless the node is not in the cluster (`fenced`) or the call has been executed before."""
        if node not in self.nodes:
            return "fenced"
        if call.number <= self.calls[node]:
            return "repeated"
        self.calls[node] = call.number
        getattr(self, f"_{call.script}")(node, *call.values())
        return ""

    def _register(self, me: str, client_id: str, request: int) -> None:
        kind = "unavailable" if self.clock() < self._grace_until else "taken" if client_id in self.owner else ""
        if not kind:
            self.owner[client_id], kind = me, "registered"
        self._post(me, kind, client_id, request)

    def _unregister(self, me: str, client_id: str, reason: str) -> None:
        if self._is_of(client_id, me):
            self._drop(client_id, reason)

    def _pair(self, me: str, client_id: str, target_id: str, request: int) -> None:
        if not self._is_of(client_id, me):
            return
        if self.clock() < self._grace_until:
            code = "engine_unavailable"
        elif client_id in self.peer:
            code = "already_paired"
        elif target_id not in self.owner:
            code = "target_not_found"
        elif target_id in self.peer:
            code = "target_already_paired"
        else:
            self._pairings += 1
            pairing = f"{self.epoch}-{self._pairings}"
            self.peer[client_id], self.peer[target_id] = (pairing, target_id), (pairing, client_id)
            if self.owner[client_id] == self.owner[target_id] == me:
                self._post(me, "both_paired", client_id, request, pairing, target_id)
            else:
                self._deliver(client_id, "paired", request, pairing, target_id)
                self._deliver(target_id, "paired", 0, pairing, client_id)
            return
        self._deliver(client_id, "refused", request, code)

    def _unpair(self, _me: str, client_id: str, pairing: str, reason: str) -> None:
        self._part(client_id, reason, pairing)

    def _send(self, _me: str, channel: int, moving: int, *values: Any) -> None:
        frames = iter(values)
        for receiver, sender, head, body in zip(frames, frames, frames, frames, strict=True):
            receiver_id, sender_id, owner = str(receiver), str(sender), self.owner.get(str(receiver))
            if owner is None:
                continue
            is_moving = owner.startswith(MOVING)
            queued = len(self.waiting.get(receiver_id, ()) if is_moving else self.channels[owner])
            is_full = queued >= (moving if is_moving else channel)
            if is_full:
                self._deliver(sender_id, "unread", str(head).split(" ")[0], receiver_id)
            self._deliver(receiver_id, "frame", data=str(head).encode() + b"\n" + (b"" if is_full else body))

    def _notify(self, _me: str, sender_id: str, text: str) -> None:
        self._deliver(sender_id, "unread", text)

    def _ask(self, me: str, client_id: str, digest: str, last: Value, request: int, asked: str) -> None:
        owner = self.owner.get(client_id)
        if owner == MOVING and digest in self.parked[client_id][0]:
            self._transfer(client_id, me, str(request), self.parked[client_id][1])
        elif owner is None or owner == MOVING:
            self._post(me, "denied", client_id, request)
        elif (node := owner.removeprefix(MOVING)) != me and not asked:
            self._post(node, "asked", client_id, digest, last, me, request)
            self._post(me, "asking", client_id, request, node)
        elif node not in (me, asked):
            self._post(me, "busy", client_id, request)

    def _refer(self, me: str, client_id: str, digest: str, _last: Value, node: str, request: str) -> None:
        if node not in self.nodes:
            return
        owner = self.owner.get(client_id)
        if owner == MOVING and digest in self.parked[client_id][0]:
            self._transfer(client_id, node, request, self.parked[client_id][1])
        else:
            is_elsewhere = owner is not None and owner not in (MOVING, me, MOVING + me)
            self._post(node, "busy" if is_elsewhere else "denied", client_id, request)

    def _freeze(self, me: str, client_id: str, node: str, request: str) -> None:
        if node and self._is_of(client_id, me):
            self.claim[client_id] = node, request
        if self.owner.get(client_id) == me:
            self.owner[client_id] = MOVING + me
            self._post(me, "frozen", client_id)

    def _park(self, me: str, client_id: str, digests: str, session: bytes, window_ms: int, _pair: str) -> None:
        if self.owner.get(client_id) != MOVING + me:
            return
        node, request = self.claim.get(client_id, ("", ""))
        if node in self.nodes:
            self._transfer(client_id, node, request, session)
        else:
            self.owner[client_id] = MOVING
            self.claim.pop(client_id, None)
            self.parked[client_id] = digests, session, self.clock() + window_ms / 1000

    def _restore(self, me: str, *values: str) -> None:
        each = iter(values)
        for client_id, pair in zip(each, each, strict=True):
            if self.owner.get(client_id, me) != me:
                self._post(me, "lost", client_id)
                continue
            self.owner[client_id] = me
            if pair:
                pairing, _, peer_id = pair.partition(" ")
                self.peer[client_id] = pairing, peer_id

    def _confirm(self, me: str, client_id: str, pairing: str, peer_id: str, sent: int) -> None:
        if not self._is_of(client_id, me):
            return
        pair = self.peer.get(client_id), self.peer.get(peer_id)
        if pair == ((pairing, peer_id), (pairing, client_id)):
            self._deliver(client_id, "confirmed", pairing)
            self._deliver(peer_id, "resent", pairing, sent)
        else:
            self._part(client_id, "node_lost", pairing)
            self._deliver(client_id, "ended", pairing, "node_lost")

    # ---- shared by several calls

    def _ids(self, node: str) -> list[str]:
        return [client_id for client_id in self.owner if self._is_of(client_id, node)]

    def _is_of(self, client_id: str, node: str) -> bool:
        return self.owner.get(client_id) in (node, MOVING + node)

    def _post(self, node: str, kind: str, client_id: str, *words: Value, data: bytes = b"") -> None:
        self.channels[node].append(Entry(kind, client_id, data or " ".join(map(str, words)).encode()))
        if node in self.changed:
            self.changed[node]()

    def _deliver(self, client_id: str, kind: str, *words: Value, data: bytes = b"") -> None:
        owner = self.owner.get(client_id)
        if owner is None:
            return
        if owner.startswith(MOVING):
            entry = Entry(kind, client_id, data or " ".join(map(str, words)).encode())
            self.waiting.setdefault(client_id, []).append(entry)
        else:
            self._post(owner, kind, client_id, *words, data=data)

    def _part(self, client_id: str, reason: str, only: str = "") -> None:
        pairing, peer_id = self.peer.get(client_id, ("", ""))
        if not pairing or only not in ("", pairing):
            return
        del self.peer[client_id]
        if self.peer.get(peer_id) == (pairing, client_id):
            del self.peer[peer_id]
            self._deliver(peer_id, "ended", pairing, reason)

    def _drop(self, client_id: str, reason: str) -> None:
        self._part(client_id, reason)
        for kept in (self.owner, self.claim, self.waiting, self.parked):
            kept.pop(client_id, None)

    def _transfer(self, client_id: str, node: str, request: str, session: bytes) -> None:
        waiting = self.waiting.pop(client_id, [])
        self.owner[client_id] = node
        self._post(node, "claimed", client_id, data=f"{request} {len(waiting)}\n".encode() + session)
        for entry in waiting:
            self._post(node, entry.kind, client_id, data=entry.data)
        self.claim.pop(client_id, None)
        self.parked.pop(client_id, None)


class MemoryDirectory(Directory):
    """A node of a `MemoryEngine`."""

    def __init__(self, limits: Limits, engine: MemoryEngine, lease: float, make_name: Callable[[], str]) -> None:
        super().__init__(limits, lease, make_name)
        self._engine = engine
        self._changed = RepeatedEvent()

    async def check(self) -> None:
        """Do nothing: a dictionary can always be used."""

    async def run(self, handler: Handler) -> None:
        """Enter the cluster and stay in it, for ever."""
        if self.status == "joining":
            self.enter(handler)
        while True:
            self.beat(handler)
            with trio.move_on_after(self._lease / 4):
                while True:
                    while self._is_reachable and (self._calls or self._engine.channels.get(self.node)):
                        self.make_calls()
                        self.take_entries(handler)
                    await self._changed.wait()

    def enter(self, handler: Handler) -> None:
        """Enter the cluster."""
        self._join()
        self._enter(handler, len(self._engine.nodes))

    def beat(self, handler: Handler) -> None:
        """Renew the lease, and notice whether the engine is reachable."""
        engine = self._engine
        if self.status == "left":
            return
        if not self._is_reachable:
            self._degrade(handler, "The engine does not answer")
            return
        epoch, flag, removed = engine.beat(self.node, self._last_answered, self._lease)
        verdict = self._verdict(epoch, flag)
        if verdict.is_new:
            self._degrade(handler, verdict.reason)
            self._join()
        self._renewed(engine.clock())
        self._restore(handler, verdict, len(engine.nodes))
        for node, clients in removed:
            handler.node_lost(node, clients)

    @property
    def _is_reachable(self) -> bool:
        return self._engine.is_reachable_by(self.node)

    def _join(self) -> None:
        self._epoch = self._engine.join(self.node, self._last_number, self._lease, self._epoch)
        self._engine.changed[self.node] = self._wake
        self._renewed(self._engine.clock())

    def make_calls(self, limit: int = 1000) -> None:
        """Make the next calls."""
        for call in list(self._begin(limit)):
            if self._engine.execute(self.node, call) == "fenced":
                return
            self._answered(call)

    def take_entries(self, handler: Handler, limit: int = 1000) -> None:
        """Take the next entries of the channel."""
        channel = self._engine.channels.get(self.node, deque())
        entries = [channel.popleft() for _ in range(min(limit, len(channel)))]
        if entries:
            handler.receive(entries)

    def _wake(self) -> None:
        self._changed.set()
