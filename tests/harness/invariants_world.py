"""Clients of a relay on narrow sockets, which number their messages: the world of the test of the five invariants."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from sdpx.concurrency import RepeatedEvent
from sdpx.relay.core.limits import Limits
from tests.harness.frames import CLOSE, PING, PONG, TEXT, FrameReader, frame, upgrade_request
from tests.harness.relay import RelayHarness
from tests.harness.socket_pair import reset

Frame = dict[str, Any]
RELAYED: Final = ("offer", "answer", "candidate")
NAMES: Final = "abcd"
BROAD: Final = 64
TURNS: Final = 20_000  # of the scheduler; an example takes a few thousand
SECONDS: Final = Limits(
    max_clients_per_ip=0,
    rate=0,
    handshake_timeout=3,
    write_timeout=2,
    ping_interval=5,
    idle_timeout=12,
    close_timeout=0.7,
)


class ClientSocket:
    """A client's end of a connection on which there is `room` for that many bytes to it: the relay waits while it is full."""

    def __init__(self, relay: RelayHarness, number: int, room: int) -> None:
        self._end, self._far_end = relay.connect_pair(room, f"client:{number}")  # the log says which client this is
        self._reading = True
        self._changed = RepeatedEvent()

    def put(self, data: bytes) -> None:
        """Send, at once."""
        with suppress(OSError):
            self._end.send_now(data)

    async def take(self) -> bytes:
        """Read, once it reads: all that is there; empty at the end."""
        try:
            while True:
                await self._end.wait_readable()
                if self._reading or self._end.is_closed:  # it may have been closed since
                    return self._end.receive_now() or b""
                await self._changed.wait()
        except (OSError, trio.ClosedResourceError):
            return b""

    def read(self, *, reading: bool) -> None:
        """Read from now on, or do not."""
        self._reading = reading
        self._changed.set()

    def close(self, *, is_reset: bool) -> None:
        """Close the socket without a close frame; a reset also discards bytes that the relay has not read yet."""
        if is_reset:
            reset(self._end, self._far_end)
        self._end.close()
        self.read(reading=True)  # the end, also if `take` was about to wait


@dataclass(frozen=True)
class Sent:
    """A frame that a client sent: a message, or an invalid text and the code of its error."""

    message: Frame = field(default_factory=dict)
    code: str | None = None

    @property
    def kind(self) -> str:
        return "refused" if self.code else str(self.message["type"])


@dataclass(eq=False)
class Connection:
    """One connection of a client: the messages that it sent and received, and its other actions."""

    name: str
    socket: ClientSocket
    sent: list[Sent] = field(default_factory=list)
    received: list[Frame] = field(default_factory=list)
    actions: set[str] = field(default_factory=set)
    status: int = 0
    closed: bool = False
    _reader: FrameReader = field(default_factory=FrameReader)

    def send(self, sent: Sent, text: str) -> None:
        """Send a text, and a ping that marks its position."""
        mark = json.dumps({"type": "ping", "t": len(self.sent)})
        self.sent.append(sent)
        self.socket.put(frame(TEXT, text.encode()) + frame(TEXT, mark.encode()))

    def perform(self, action: str) -> None:
        """Perform an action that must not affect other clients."""
        self.actions.add(action)
        match action:
            case "stop_reading" | "read_again":
                self.socket.read(reading=action == "read_again")
            case "vanish" | "reset":
                self.socket.close(is_reset=action == "reset")
                self.closed = True
            case _:
                self.socket.put(ACTION_FRAMES.get(action, b""))

    async def listen(self) -> None:
        """Read to the end, and answer pings unless mute."""
        while data := await self.socket.take():
            self._reader.data += data
            if self.status or self._read_head():
                self._on_frames()
        self.closed = True

    @property
    def finished(self) -> bool:
        """Whether the client is connected and has received the answer to its last message."""
        return not self.closed and {"type": "pong", "t": len(self.sent) - 1} in self.received

    @property
    def incomplete(self) -> bytes:
        """The incomplete frame at the end of the connection: a header of up to 4 bytes, then ASCII."""
        return bytes(self._reader.data)

    def _read_head(self) -> bool:
        if (head := self._reader.next_head()) is not None:
            self.status = int(head.split()[1])
        return self.status == 101

    def _on_frames(self) -> None:
        while (found := self._reader.next_frame()) is not None:
            opcode, payload = found
            if opcode == TEXT:
                self.received.append(json.loads(payload))
            elif opcode == PING and "mute" not in self.actions:
                self.socket.put(frame(PONG, payload))
            elif opcode == CLOSE:
                self.socket.put(frame(CLOSE, payload))
                self.closed = True


ACTION_FRAMES: Final = {
    "close": frame(CLOSE, (1000).to_bytes(2)),
    "bad_frame": b"\xff",
    "bad_utf8": frame(TEXT, b"\xff"),
    "too_big": frame(TEXT, bytes(65537)),
}


# ---- steps ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connect:
    """A client connects, unless it is connected."""

    name: str


@dataclass(frozen=True)
class Send:
    """A client sends a message `count` times, each with its own number."""

    name: str
    message: tuple[tuple[str, Any], ...]
    count: int = 1


@dataclass(frozen=True)
class SendInvalid:
    """A client sends an invalid text."""

    name: str
    text: str
    code: str


@dataclass(frozen=True)
class Perform:
    """A client performs an action other than a message."""

    name: str
    action: str


@dataclass(frozen=True)
class Wait:
    """Other tasks run: for some turns of the scheduler, until all are idle, or for a time."""

    turns: int = 0
    seconds: float = 0


Step = Connect | Send | SendInvalid | Perform | Wait


@dataclass
class Clients:
    """The relay and all connections so far; no other task runs during a step, except for `Wait`."""

    relay: RelayHarness
    room: int
    connections: list[Connection] = field(default_factory=list)
    numbers: int = 0

    def connected(self, name: str) -> Connection | None:
        return next(
            (connection for connection in self.connections if connection.name == name and not connection.closed), None
        )

    async def do(self, step: Step) -> None:
        if isinstance(step, Wait):
            await self._wait(step)
        elif isinstance(step, Connect):
            self.connect(step.name)
        elif (connection := self.connected(step.name)) is None:
            return
        elif isinstance(step, Perform):
            connection.perform(step.action)
        elif isinstance(step, SendInvalid):
            connection.send(Sent(code=step.code), step.text)
        else:
            for _ in range(step.count):
                self.send(connection, **dict(step.message))

    def connect(self, name: str) -> None:
        if self.connected(name) is None:
            connection = Connection(name, ClientSocket(self.relay, len(self.connections), self.room))
            self.connections.append(connection)
            self.relay.nursery.start_soon(connection.listen)
            connection.socket.put(upgrade_request(f"/?id={name}"))

    def send(self, connection: Connection, **message: Any) -> None:
        self.numbers += 1
        sent = Sent({**message, "number": self.numbers})
        connection.send(sent, json.dumps(sent.message))

    async def _wait(self, step: Wait) -> None:
        for _ in range(step.turns):
            await trio.lowlevel.checkpoint()
        if not step.turns:
            await wait_all_tasks_blocked()
        if step.seconds:
            await trio.sleep(step.seconds)


NAME: Final = st.sampled_from(NAMES)
PARTNER: Final = {"a": "b", "b": "a", "c": "d", "d": "c"}  # the usual target of a pair request
RELAYS: Final[list[Frame]] = [
    {"type": "offer", "sdp": "v=0", "x": [1, {"a": None}], "é": "\0"},
    {"type": "answer", "sdp": "", "from_peer": False},
    {"type": "candidate", "candidate": None},
    {"type": "candidate", "candidate": {"candidate": "x", "y": 1}, "from_peer": {"from_peer": 1}},
    {"type": "offer", "sdp": "v" * 400},
]
INVALID_TEXTS: Final = [
    ("{", "bad_json"),
    ("[]", "bad_message"),
    ('{"type":"offer"}', "bad_message"),
    ('{"type":"paired","peer_id":"a","is_initiator":true}', "unknown_type"),
]
ACTIONS: Final = ["stop_reading", "read_again", "close", "vanish", "reset", "mute", "bad_frame", "bad_utf8", "too_big"]


def _to(message: Frame, addressee: str | None) -> tuple[tuple[str, Any], ...]:
    return tuple((message if addressee is None else {**message, "peer_id": addressee}).items())


PAIR_REQUEST: Final = st.builds(
    lambda name, target: Send(name, (("type", "pair_request"), ("target_id", target[name]))),
    NAME,
    st.sampled_from([PARTNER, PARTNER, *(dict.fromkeys(NAMES, name) for name in f"{NAMES}z")]),
)
RELAY: Final = st.builds(
    lambda name, message, addressee, count: Send(name, _to(message, addressee.get(name)), count),
    NAME,
    st.sampled_from(RELAYS),
    st.sampled_from([{}, {}, PARTNER, PARTNER, dict.fromkeys(NAMES, "a"), dict.fromkeys(NAMES, "d")]),
    st.integers(1, 6),
)
STEP: Final[st.SearchStrategy[Step]] = st.one_of(
    st.builds(Connect, NAME),
    PAIR_REQUEST,
    PAIR_REQUEST,
    RELAY,
    RELAY,
    st.builds(lambda name: Send(name, (("type", "unpair"),)), NAME),
    st.builds(lambda name, invalid: SendInvalid(name, *invalid), NAME, st.sampled_from(INVALID_TEXTS)),
    st.builds(Perform, NAME, st.sampled_from(ACTIONS)),
    st.builds(Perform, NAME, st.sampled_from(["stop_reading", "read_again"])),
    st.builds(Wait, turns=st.integers(0, 12)),
    st.builds(Wait, seconds=st.sampled_from([0, 0.1, 0.7, 2, 5, 12])),
)
TWO_PAIRS: Final[list[Step]] = [
    *(Wait(), Send("a", (("type", "pair_request"), ("target_id", "b")))),
    *(Send("c", (("type", "pair_request"), ("target_id", "d"))), Wait()),
]
STEPS: Final = st.builds(
    list.__add__,
    st.sampled_from([TWO_PAIRS, TWO_PAIRS[:2], []]),
    st.integers(1, 60).flatmap(lambda count: st.lists(STEP, min_size=count, max_size=count)),
)


# ---- the pairings, read from the log ----------------------------------------------------------------------------


@dataclass(eq=False)
class Pairing:
    """Two paired connections, the one that ended the pairing, and the reason."""

    initiator: Connection
    other: Connection
    ended_by: Connection | None = None
    reason: str = ""

    def peer_of(self, connection: Connection) -> Connection:
        return self.other if connection is self.initiator else self.initiator

    def seen_by(self, connection: Connection) -> list[tuple[object, ...]]:
        """Return the messages about the pairing that one of the two must receive."""
        peer = self.peer_of(connection).name
        begin: tuple[object, ...] = ("paired", peer, connection is self.initiator)
        if self.ended_by is None or (self.ended_by is connection and self.reason != "left"):
            return [begin]
        if self.ended_by is connection:
            return [begin, ("unpaired", peer)]
        return [begin, ("peer_disconnected", peer, self.reason)]


def pairings_of(records: list[Frame], connections: list[Connection]) -> list[Pairing]:
    """Return all pairings in order, read from the log. No client is in two pairings at once."""
    present: dict[str, Connection] = {}
    paired: dict[Connection, Pairing] = {}
    pairings: list[Pairing] = []
    for record in records:
        if record["event"] == "client_connected":
            present[record["client_id"]] = connections[int(record["remote"].partition(":")[2])]
        elif record["event"] == "paired":
            pairing = Pairing(present[record["client_id"]], present[record["peer_id"]])
            assert not {pairing.initiator, pairing.other} & paired.keys(), "a client is in two pairs"
            paired[pairing.initiator] = paired[pairing.other] = pairing
            pairings.append(pairing)
        elif record["event"] == "unpaired":
            ended_by = present[record["client_id"]]
            pairing = paired.pop(ended_by)
            assert paired.pop(present[record["peer_id"]]) is pairing
            pairing.ended_by, pairing.reason = ended_by, record["reason"]
    return pairings


@dataclass
class Window:
    """The frames received between two marks, each with the pairing before it; and all pairings in this time."""

    frames: list[tuple[Frame, Pairing | None]] = field(default_factory=list)
    pairings: list[Pairing] = field(default_factory=list)


def windows_of(connection: Connection, pairings: list[Pairing]) -> list[Window]:
    """Divide the received frames at the marks. The last window is behind the last mark."""
    coming = iter([pairing for pairing in pairings if connection in (pairing.initiator, pairing.other)])
    now: Pairing | None = None
    windows = [Window()]
    for received in connection.received:
        if received["type"] == "pong":
            assert received["t"] == len(windows) - 1, "its own frames were answered out of order"
            windows.append(Window(pairings=[now] if now else []))
            continue
        windows[-1].frames.append((received, now))
        if received["type"] == "paired":
            now = next(coming)
            windows[-1].pairings.append(now)
        elif received["type"] in ("unpaired", "peer_disconnected"):
            now = None
    return windows
