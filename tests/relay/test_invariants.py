"""The five invariants of the protocol, on the real relay with send queues that fill, under any actions of its clients.

Each client numbers its messages and sends a `ping` with the number behind each, so that the `pong`s divide what it receives
into windows, one for each message that it sent: the messages in a window are the answer. The relay's log tells in which order
pairings began and ended; what each client received must agree with that order, up to where it stopped reading.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.concurrency import RepeatedEvent
from sdpx.relay.core.limits import Limits
from tests.harness.examples import examples
from tests.harness.frames import CLOSE, PING, PONG, TEXT, FrameReader, frame, upgrade_request
from tests.harness.relay import ENGINES, Engine, RelayHarness, relay_harness
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
                if self._reading:
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
        self._changed.set()


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


# ---- the five invariants ----------------------------------------------------------------------------------------


@dataclass
class Expectations:
    """The checks of the invariants."""

    connections: list[Connection]
    pairings: list[Pairing]
    small: bool

    def check(self) -> None:
        for connection in self.connections:
            if connection.status == 101:
                self.check_pairings(connection)
                windows = windows_of(connection, self.pairings)
                self.check_relayed(connection, windows)
                for sent, window in zip(connection.sent, windows[:-1], strict=False):
                    self.check_answer(connection, sent, window)
            assert connection.incomplete[4:].isascii(), "a frame was written into another, half written one"
            excused = connection.actions or self.small or connection.status == 409
            assert connection.finished or excused, "another client's action ended a connection"
        for pairing in self.pairings:
            self.check_order(pairing, pairing.initiator)
            self.check_order(pairing, pairing.other)
            self.check_reason(pairing)

    def check_pairings(self, connection: Connection) -> None:
        """4, 5: each pairing is reported once to both, and its end once to the other client; nothing else is reported."""
        reported = [
            tuple(received[key] for key in ("type", "peer_id", "is_initiator", "reason") if key in received)
            for received in connection.received
            if received["type"] in ("paired", "unpaired", "peer_disconnected")
        ]
        mine = [pairing for pairing in self.pairings if connection in (pairing.initiator, pairing.other)]
        expected = [event for pairing in mine for event in pairing.seen_by(connection)]
        assert reported == expected[: len(reported)]
        assert not connection.finished or reported == expected
        assert [received for received in connection.received if received["type"] == "your_id"] == connection.received[
            :1
        ]

    def check_relayed(self, connection: Connection, windows: list[Window]) -> None:
        """1, 2: a relayed frame comes from the current peer, and is unaltered except for `from_peer`."""
        for received, pairing in (found for window in windows for found in window.frames):
            if received["type"] in RELAYED:
                assert pairing is not None, "a frame arrived outside a pairing"
                [sent] = [
                    sent
                    for sent in pairing.peer_of(connection).sent
                    if sent.message.get("number") == received["number"]
                ]
                assert received == sent.message | {"from_peer": True}
                assert received["from_peer"] is True
                assert _keys(received) == _keys(sent.message)
                assert sent.message.get("peer_id") in (None, connection.name)
            else:
                assert "from_peer" not in received

    def check_order(self, pairing: Pairing, sender: Connection) -> None:
        """1: frames to a peer within a pairing arrive once, in order and without gaps."""
        receiver = pairing.peer_of(sender)
        arrived = list(self._arrived(receiver, pairing))
        sent_in_order = [
            sent.message["number"]
            for sent in sender.sent
            if sent.kind in RELAYED and sent.message.get("peer_id") in (None, receiver.name)
        ]
        start = sent_in_order.index(arrived[0]) if arrived else 0
        assert arrived == sent_in_order[start : start + len(arrived)]

    def check_answer(self, connection: Connection, sent: Sent, window: Window) -> None:
        """3, 4: each message has one answer, or, if it is for the peer, is delivered or reported."""
        answers = [
            (received, pairing)
            for received, pairing in window.frames
            if received["type"] in ("error", "unpaired") or received.get("is_initiator")
            if not _is_undelivered_report(received)
        ]
        if sent.kind in RELAYED and not answers:
            self.check_delivered_or_reported(connection, sent, window)
            return
        [(answer, pairing)] = answers
        if sent.code:
            assert answer["code"] == sent.code
        elif answer["type"] == "error":
            assert answer["in_reply_to"] == sent.kind
            assert answer.get("target_id") == sent.message.get("target_id")
            assert answer["code"] in self._possible_codes(connection, sent, pairing)
            assert sent.message.get("number") not in self._all_arrived(), "a refused frame was delivered"
        else:
            assert (sent.kind, answer["type"]) in {("pair_request", "paired"), ("unpair", "unpaired")}
            assert sent.message.get("target_id") in (None, answer["peer_id"])

    def check_delivered_or_reported(self, connection: Connection, sent: Sent, window: Window) -> None:
        """3: the peer received the frame, or the pairing ended and the sender was notified of that or ended it."""
        addressee = sent.message.get("peer_id")
        fitting = [p for p in window.pairings if addressee in (None, p.peer_of(connection).name)]
        assert fitting, "a frame without a peer to go to was not refused"
        number = sent.message["number"]
        arrived = any(number in self._arrived(p.peer_of(connection), p) for p in fitting)
        assert arrived or any(self._may_be_lost(connection, p) for p in fitting), "a frame was dropped in silence"

    def _may_be_lost(self, connection: Connection, pairing: Pairing) -> bool:
        """Return whether a frame may be lost with its receiver; `check_pairings` checks the notification of its sender."""
        return not pairing.peer_of(connection).finished and (pairing.ended_by is not None or not connection.finished)

    def _possible_codes(self, connection: Connection, sent: Sent, pairing: Pairing | None) -> set[str]:
        if sent.kind == "pair_request":
            if sent.message["target_id"] == connection.name:
                return {"self_pair"}
            return {"already_paired"} if pairing else {"target_not_found", "target_already_paired"}
        if pairing is None:
            return {"not_paired"}
        return (
            set() if sent.message.get("peer_id") in (None, pairing.peer_of(connection).name) else {"peer_unreachable"}
        )

    def check_reason(self, pairing: Pairing) -> None:
        """5: the other client receives the right reason."""
        ended_by = pairing.ended_by
        if ended_by is not None:
            assert pairing.reason in REASONS
            unpaired = {"unpair"} & {sent.kind for sent in ended_by.sent}
            small = {"small"} if self.small else set()
            unopened = {"unopened"} if ended_by.status != 101 else set()
            assert REASONS[pairing.reason] & (ended_by.actions | unpaired | small | unopened)

    def _arrived(self, receiver: Connection, pairing: Pairing) -> Iterator[int]:
        """Yield the numbers of the frames that one side of a pairing received."""
        for window in windows_of(receiver, self.pairings):
            for received, during in window.frames:
                if during is pairing and received["type"] in RELAYED:
                    yield received["number"]

    def _all_arrived(self) -> Counter[int]:
        return Counter(
            received["number"]
            for connection in self.connections
            for received in connection.received
            if received["type"] in RELAYED
        )


REASONS: Final[dict[str, set[str]]] = {
    "left": {"unpair"},
    "closed": {"close", "vanish", "reset", "unopened"},
    "refused": {"bad_frame", "bad_utf8", "too_big"},
    "timeout": {"mute", "stop_reading"},
    "slow": {"stop_reading", "small"},
}


def _keys(message: Frame) -> list[str]:
    return [key for key in message if key != "from_peer"]


# ---- the property -----------------------------------------------------------------------------------------------


def _is_undelivered_report(received: Frame) -> bool:
    """Return whether the relay reports frames that a former peer had not read; it is not an answer."""
    return received.get("code") == "peer_unreachable" and "in_reply_to" not in received


class SpinGuard(trio.abc.Instrument):
    """Ends a run in which a task spins, so that the clock never advances."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._turns = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._turns += 1
        if self._turns > TURNS:
            self.scope.cancel()


def run(steps: list[Step], room: int, send_queue_frames: int, *, engine: Engine) -> None:
    guard = SpinGuard()

    async def guarded() -> None:
        with guard.scope:
            await run_steps(steps, room, send_queue_frames, engine=engine)

    trio.run(guarded, clock=MockClock(autojump_threshold=0), instruments=[guard])
    assert not guard.scope.cancelled_caught, "a task spins"


async def run_steps(steps: list[Step], room: int, send_queue_frames: int, *, engine: Engine) -> None:
    async with relay_harness(_limits(send_queue_frames), engine=engine) as relay:
        clients = Clients(relay, room)
        for name in NAMES:
            clients.connect(name)
        for step in steps:
            await clients.do(step)
        await settle(clients)
        Expectations(
            clients.connections, pairings_of(relay.log.records, clients.connections), send_queue_frames < BROAD
        ).check()
        await pair_again(clients)
        await disconnect_all(clients)
        assert relay.log.of("internal_error") == []


def _limits(send_queue_frames: int) -> Limits:
    kept = {name: getattr(SECONDS, name) for name in SECONDS.__slots__}
    return Limits(**{**kept, "send_queue_frames": send_queue_frames, "send_queue_bytes": send_queue_frames * 250})


async def settle(clients: Clients) -> None:
    """Let all clients read and all timeouts expire; then each remaining client sends a mark."""
    for connection in clients.connections:
        if not connection.closed:
            connection.socket.read(reading=True)
    await trio.sleep(3 * SECONDS.idle_timeout)
    for connection in clients.connections:
        if not connection.closed:
            clients.send(connection, type="unpair")
    await wait_all_tasks_blocked()
    for connection in clients.connections:
        assert connection.closed or connection.finished, "a client that is there and reads has no answer"
        assert connection.closed or "mute" not in connection.actions, (
            "a client that answers no pings is still connected"
        )


async def pair_again(clients: Clients) -> None:
    """5: all remaining clients are unpaired, and can pair and relay on the same connection."""
    for name in NAMES:
        clients.connect(name)
    await wait_all_tasks_blocked()
    a, b, c, d = (clients.connected(name) for name in NAMES)
    for initiator, target in ((a, b), (c, d)):
        assert initiator is not None
        assert target is not None
        clients.send(initiator, type="pair_request", target_id=target.name)
        await wait_all_tasks_blocked()
        clients.send(initiator, type="offer", sdp="again")
        await wait_all_tasks_blocked()
        assert target.received[-2] == {"type": "paired", "peer_id": initiator.name, "is_initiator": False}
        assert target.received[-1] == initiator.sent[-1].message | {"from_peer": True}


async def disconnect_all(clients: Clients) -> None:
    """All clients disconnect, and no task or client is left."""
    for action, name in zip(["close", "vanish", "bad_frame", "reset"], NAMES, strict=True):
        await clients.do(Perform(name, action))
    await trio.sleep(3 * SECONDS.idle_timeout)
    assert all(connection.closed for connection in clients.connections)
    assert clients.relay.relay.clients == 0
    assert not clients.relay.nursery.child_tasks


STALLED_CLOSE: Final = [
    *(
        Wait(),
        Perform("a", "stop_reading"),
        SendInvalid("a", "{", "bad_json"),
        SendInvalid("a", "{", "bad_json"),
        Wait(),
    ),
    *(Perform("a", "close"), Wait(seconds=1), Perform("a", "read_again")),
]
FULL_AND_PAIRED: Final = [
    *(
        Wait(),
        Perform("a", "stop_reading"),
        SendInvalid("a", "{", "bad_json"),
        Wait(),
        SendInvalid("a", "{", "bad_json"),
        Wait(),
    ),
    Send("a", (("type", "pair_request"), ("target_id", "b"))),
]


@pytest.mark.parametrize("engine", ENGINES)
@examples(2)
@example(steps=STALLED_CLOSE, room=16, send_queue_frames=BROAD, order=None)
@example(steps=FULL_AND_PAIRED, room=16, send_queue_frames=3, order=None)
@given(
    steps=STEPS,
    room=st.sampled_from([16, 100, 700, 65536]),
    send_queue_frames=st.sampled_from([2, 3, 4, BROAD]),
    order=st.random_module(),
)
def test_the_five_invariants_hold_whatever_the_clients_do(
    engine: Engine, steps: list[Step], room: int, send_queue_frames: int, order: object
) -> None:
    """PROTOCOL, "What holds, always": also when outboxes fill, clients stall, and all of it happens at once."""
    run(steps, room, send_queue_frames, engine=engine)
