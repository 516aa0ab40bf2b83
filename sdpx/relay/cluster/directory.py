"""The directory of a cluster: the node of each client, the pairings, and the channels between the nodes.

- A node makes *calls*; the engine executes the calls of a node in order, each once, whatever happens to the connection. A call
  is atomic: of concurrent registrations and pairings one wins.
- The results of a call come as *entries* on the channel of each node that it concerns, also of the node that called. All
  entries of a node come in the order in which the engine made them, each once. A node's view of its clients follows from its
  entries alone; there is nothing to be ordered between an answer and an entry.
- A node that does not renew its lease in time is removed by another one, with its clients; its peers are notified. Its calls
  have no effect from then on: a node's name is the fence. It enters the cluster again under a new name.

`RedisDirectory` keeps all this in Redis or Valkey (scripts/*.lua); `MemoryDirectory` in this process, for nodes that share it.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Final, Literal, NamedTuple

from sdpx.relay.core.limits import Limits

Value = bytes | str | int
Status = Literal["joining", "joined", "degraded", "left"]

FRAME_SECONDS: Final = 5.0  # for which a frame waits while the engine cannot be reached
BATCH_FRAMES: Final = 256  # in one call
CHANNEL_ENTRIES: Final = 4096  # in the channel of a node, before frames are refused


class Entry(NamedTuple):
    """An entry of a channel: its type, the client that it concerns, and its data, in the form of scripts/*.lua."""

    kind: str
    client_id: str
    data: bytes


class OutgoingFrame(NamedTuple):
    """A frame on its way to the engine. `head` is the pairing, the frame's number and the length of its body."""

    receiver_id: str
    sender_id: str
    head: str
    body: bytes
    since: float

    @property
    def pairing(self) -> str:
        """The pairing to which the frame belongs."""
        return self.head.partition(" ")[0]


class Call:
    """One call; `number` is set when it is made first, and stays. The frames of a `send` can be voided until it is answered."""

    __slots__ = ("args", "frames", "number", "script")

    def __init__(self, script: str, args: tuple[Value, ...], frames: list[OutgoingFrame] | None = None) -> None:
        self.script = script
        self.args = args
        self.frames = frames
        self.number = 0

    def values(self) -> list[Value]:
        """Return the script's own arguments."""
        values: list[Value] = [*self.args]
        for frame in self.frames or ():
            values += frame[:4]
        return values


class Handler(NamedTuple):
    """The node's callbacks; none of them waits."""

    receive: Callable[[list[Entry]], None]
    joined: Callable[[str, int], None]  # (node, number of nodes): the node is in the cluster, for the first time
    degraded: Callable[[str], None]  # (reason): the engine cannot be reached
    restored: Callable[["Verdict"], None]  # it is back
    node_lost: Callable[[str, int], None]  # (node, clients): this node has removed another one


class Directory(ABC):
    """One node's side of the directory. The methods queue calls, which `run` makes; none of them waits."""

    def __init__(self, limits: Limits, lease: float, make_name: Callable[[], str]) -> None:
        self.node = make_name()
        self.nodes = 0
        self.status: Status = "joining"
        self.lease_end = inf  # by this node's clock, which is never later than the end by that of the engine
        self.engine_seconds: Callable[[float], None] = lambda _: None  # takes the time of each call, for the metrics
        self.queued_bytes = 0
        self._limits = limits
        self._lease = lease
        self._make_name = make_name
        self._epoch = ""
        self._last_number = self._last_answered = 0
        self._calls: deque[Call] = deque()  # not yet made
        self._unanswered: list[Call] = []

    # ---- clients and pairings

    def register(self, client_id: str, request: int) -> None:
        """Take an ID. Entries: `registered`, `taken` or `unavailable`, with the number of the request."""
        self._call("register", client_id, request)

    def unregister(self, client_id: str, reason: str) -> None:
        """Free an ID; the peer gets an `ended`."""
        self._call("unregister", client_id, reason)

    def pair(self, client_id: str, target_id: str, request: int) -> None:
        """Pair two clients. Entries: `both_paired` if both are here, else `paired` for each; `refused` with a code."""
        self._call("pair", client_id, target_id, request)

    def unpair(self, client_id: str, pairing: str, reason: str) -> None:
        """End a pairing; the peer gets an `ended`."""
        self._call("unpair", client_id, pairing, reason)

    # ---- frames

    def reserve(self, frame: OutgoingFrame) -> bool:
        """Count a frame that is to be sent, at once or later; returns False if too many bytes wait."""
        size = len(frame.body)
        if self.queued_bytes and self.queued_bytes + size > self._limits.max_queued_bytes:
            return False
        self.queued_bytes += size
        return True

    def hold(self, frames: Iterable[OutgoingFrame]) -> None:
        """Count frames again that were taken out of a call."""
        self.queued_bytes += sum([len(frame.body) for frame in frames])

    def release(self, frames: Iterable[OutgoingFrame]) -> None:
        """Count frames no more."""
        self.queued_bytes -= sum([len(frame.body) for frame in frames])

    def send(self, frame: OutgoingFrame) -> None:
        """Send a frame that was counted; the peer's node gets a `frame`."""
        last = self._calls[-1] if self._calls else None
        if last is not None and last.frames is not None and len(last.frames) < BATCH_FRAMES:
            last.frames.append(frame)
            return
        self._calls.append(Call("send", (CHANNEL_ENTRIES, self._limits.send_queue_frames), [frame]))
        self._wake()

    def notify(self, sender_id: str, pairing: str, receiver_id: str) -> None:
        """Notify the sender of an undelivered frame; its node gets an `unread`."""
        self._call("notify", sender_id, f"{pairing} {receiver_id}")

    def void_frames(self, is_void: Callable[[OutgoingFrame], bool]) -> list[OutgoingFrame]:
        """Replace these of the frames that wait by empty ones, which keep their numbers; returns them."""
        voided = []
        for call in (*self._unanswered, *self._calls):
            for at, frame in enumerate(call.frames or ()):
                if frame.body and is_void(frame):
                    assert call.frames is not None
                    voided.append(frame)
                    call.frames[at] = frame._replace(body=b"")
        self.release(voided)
        return voided

    # ---- sessions that move

    def ask(self, client_id: str, digest: str, last: int | None, request: int, asked: str = "") -> None:
        """Ask for a session, by the digest of its token; `asked` is the node that was asked before.

        Entries: `asked` for that node, or at once `claimed`; `denied`; `busy` if it went to another node meanwhile.
        """
        self._call("ask", client_id, digest, "-" if last is None else last, request, asked)

    def refer(self, client_id: str, digest: str, last: int | None, node: str, request: str) -> None:
        """Answer an `asked` for a session that this node does not give away: `claimed` if it was parked, `denied` or `busy`."""
        self._call("refer", client_id, digest, "-" if last is None else last, node, request)

    def freeze(self, client_id: str, node: str = "", request: str = "") -> None:
        """Let entries for a session wait from now on; a `frozen` on the own channel is behind all earlier ones."""
        self._call("freeze", client_id, node, request)

    def park(self, client_id: str, digests: str, session: bytes, pair: str) -> None:
        """Write the state of a frozen session. The node that claims it gets a `claimed`, and the entries that have waited."""
        self._call("park", client_id, digests, session, round(self._limits.resume_window * 1000), pair)

    def park_again(self, calls: Iterable[Call]) -> None:
        """Write the states of sessions again that an engine which has lost its data did not get."""
        for call in calls:
            client_id, digests, session, _, pair = call.args
            assert isinstance(session, bytes)
            self.restore([(str(client_id), str(pair))])
            self.freeze(str(client_id))
            self.park(str(client_id), str(digests), session, str(pair))

    # ---- after the engine has lost its data, or has removed this node

    def restore(self, clients: list[tuple[str, str]]) -> None:
        """Register clients with their pairings (`PAIRING PEER` or nothing) again. A `lost` for those whose ID is another's."""
        for start in range(0, len(clients), BATCH_FRAMES):
            self._call("restore", *(value for client in clients[start : start + BATCH_FRAMES] for value in client))

    def confirm(self, client_id: str, pairing: str, peer_id: str, sent: int) -> None:
        """Confirm a pairing: `confirmed`, and for the peer `resent`, or `ended`. `sent` is the last frame before the loss."""
        self._call("confirm", client_id, pairing, peer_id, sent)

    def drop_requests(self) -> None:
        """Drop the requests that have not been made."""
        self._calls = deque(call for call in self._calls if call.script not in ("register", "pair", "ask"))

    def take_calls(self) -> list[Call]:
        """Take out all calls that were not answered."""
        calls = [*self._unanswered, *self._calls]
        self._unanswered.clear()
        self._calls.clear()
        for call in calls:
            self.release(call.frames or ())
        return calls

    # ---- the connection to the engine

    @abstractmethod
    async def check(self) -> None:
        """Raise an `Ending` that names the reason if the engine cannot be used."""

    @abstractmethod
    async def run(self, handler: Handler) -> None:
        """Enter the cluster and stay in it, for ever; leaves it when cancelled. Raises an `Ending` if it cannot enter."""

    def leave(self) -> None:
        """Leave the cluster; the caller cancels `run` soon."""
        self.status = "left"
        self._call("leave", "closed")

    @property
    def is_idle(self) -> bool:
        """Whether every call is answered."""
        return not self._calls and not self._unanswered

    def _call(self, script: str, *args: Value) -> None:
        self._calls.append(Call(script, args))
        self._wake()

    @abstractmethod
    def _wake(self) -> None:
        """Have the calls made."""

    def _begin(self, limit: int) -> list[Call]:
        """Move the next calls to the unanswered ones, and number them."""
        while self._calls and len(self._unanswered) < limit:
            call = self._calls.popleft()
            self._last_number += 1
            call.number = self._last_number
            self._unanswered.append(call)
        return self._unanswered

    def _answered(self, call: Call) -> None:
        """Forget the first unanswered call, which has been executed."""
        self._unanswered.remove(call)
        self._last_answered = call.number
        self.release(call.frames or ())

    # ---- being in the cluster

    def _renewed(self, began: float) -> None:
        """Note that the engine has confirmed a renewal of the lease that began at this time."""
        self.lease_end = began + self._lease

    def _enter(self, handler: Handler, nodes: int) -> None:
        self.status, self.nodes = "joined", nodes
        handler.joined(self.node, nodes)

    def _degrade(self, handler: Handler, reason: str) -> None:
        if self.status == "joined":
            self.status = "degraded"
            handler.degraded(reason)

    def _verdict(self, epoch: str, flag: str) -> "Verdict":
        """Return the verdict in the answer to a renewal of the lease; a node that was removed has a new name from now on."""
        if flag == "fenced" and epoch == self._epoch:
            self.node = self._make_name()
            return REMOVED
        return FORGOTTEN if flag else UNCHANGED

    def _restore(self, handler: Handler, verdict: "Verdict", nodes: int) -> None:
        self.nodes = nodes
        if self.status == "degraded":
            self.status = "joined"
            handler.restored(verdict)


class Verdict(NamedTuple):
    """The state in which a node finds the engine: it knows the node, has lost its data, or has removed the node."""

    state: str  # for the log
    is_new: bool
    is_removed: bool
    reason: str


UNCHANGED: Final = Verdict("kept", is_new=False, is_removed=False, reason="")
FORGOTTEN: Final = Verdict("forgotten", is_new=True, is_removed=False, reason="The engine has lost its data")
REMOVED: Final = Verdict("removed", is_new=True, is_removed=True, reason="The lease was not renewed in time")
