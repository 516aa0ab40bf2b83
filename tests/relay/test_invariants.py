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


class Wire:
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
        """Vanish; a reset also loses what the relay has not read yet."""
        if is_reset:
            reset(self._end, self._far_end)
        self._end.close()
        self._changed.set()


@dataclass(frozen=True)
class Sent:
    """What a client sent: a message, or a text that deserves an error with this code."""

    message: Frame = field(default_factory=dict)
    deserves: str | None = None

    @property
    def kind(self) -> str:
        return "refused" if self.deserves else str(self.message["type"])


@dataclass(eq=False)
class Life:
    """One connection of a client, from its request to its end: what it sent, what it heard, what it did wrong."""

    name: str
    wire: Wire
    sent: list[Sent] = field(default_factory=list)
    heard: list[Frame] = field(default_factory=list)
    deeds: set[str] = field(default_factory=set)
    status: int = 0
    over: bool = False
    _reader: FrameReader = field(default_factory=FrameReader)

    def say(self, sent: Sent, text: str) -> None:
        """Send a text, and the ping that marks where it was taken."""
        mark = json.dumps({"type": "ping", "t": len(self.sent)})
        self.sent.append(sent)
        self.wire.put(frame(TEXT, text.encode()) + frame(TEXT, mark.encode()))

    def act(self, deed: str) -> None:
        """Do something that other clients must not suffer from."""
        self.deeds.add(deed)
        match deed:
            case "stop_reading" | "read_again":
                self.wire.read(reading=deed == "read_again")
            case "vanish" | "reset":
                self.wire.close(is_reset=deed == "reset")
                self.over = True
            case _:
                self.wire.put(RUDE.get(deed, b""))

    async def listen(self) -> None:
        """Read to the end, and answer pings unless muted."""
        while data := await self.wire.take():
            self._reader.data += data
            if self.status or self._opens():
                self._hear()
        self.over = True

    @property
    def finished(self) -> bool:
        """Whether it is still there and has read the answer to the last thing that it sent."""
        return not self.over and {"type": "pong", "t": len(self.sent) - 1} in self.heard

    @property
    def left_over(self) -> bytes:
        """Whatever of a frame came before the end: its header has up to 4 bytes, and all texts here are ASCII."""
        return bytes(self._reader.data)

    def _opens(self) -> bool:
        if (head := self._reader.next_head()) is not None:
            self.status = int(head.split()[1])
        return self.status == 101

    def _hear(self) -> None:
        while (found := self._reader.next_frame()) is not None:
            opcode, payload = found
            if opcode == TEXT:
                self.heard.append(json.loads(payload))
            elif opcode == PING and "mute" not in self.deeds:
                self.wire.put(frame(PONG, payload))
            elif opcode == CLOSE:
                self.wire.put(frame(CLOSE, payload))
                self.over = True


RUDE: Final = {
    "close": frame(CLOSE, (1000).to_bytes(2)),
    "bad_frame": b"\xff",
    "bad_utf8": frame(TEXT, b"\xff"),
    "too_big": frame(TEXT, bytes(65537)),
}


# ---- what may happen --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Come:
    """A client connects, unless it is here."""

    name: str


@dataclass(frozen=True)
class Say:
    """A client sends a message, `count` times, each with a number of its own."""

    name: str
    message: tuple[tuple[str, Any], ...]
    count: int = 1


@dataclass(frozen=True)
class Blunder:
    """A client sends a text that deserves an error."""

    name: str
    text: str
    deserves: str


@dataclass(frozen=True)
class Act:
    """A client does something that is no message."""

    name: str
    deed: str


@dataclass(frozen=True)
class Wait:
    """Others get to run: for some turns of the scheduler, until all are idle, or for a time."""

    turns: int = 0
    seconds: float = 0


Step = Come | Say | Blunder | Act | Wait


@dataclass
class Scene:
    """The relay and the clients' lives so far; steps are done without letting anybody run, but for `Wait`."""

    relay: RelayHarness
    room: int
    lives: list[Life] = field(default_factory=list)
    numbers: int = 0

    def here(self, name: str) -> Life | None:
        return next((life for life in self.lives if life.name == name and not life.over), None)

    async def do(self, step: Step) -> None:
        if isinstance(step, Wait):
            await self._wait(step)
        elif isinstance(step, Come):
            self.come(step.name)
        elif (life := self.here(step.name)) is None:
            return
        elif isinstance(step, Act):
            life.act(step.deed)
        elif isinstance(step, Blunder):
            life.say(Sent(deserves=step.deserves), step.text)
        else:
            for _ in range(step.count):
                self.say(life, **dict(step.message))

    def come(self, name: str) -> None:
        if self.here(name) is None:
            life = Life(name, Wire(self.relay, len(self.lives), self.room))
            self.lives.append(life)
            self.relay.nursery.start_soon(life.listen)
            life.wire.put(upgrade_request(f"/?id={name}"))

    def say(self, life: Life, **message: Any) -> None:
        self.numbers += 1
        sent = Sent({**message, "number": self.numbers})
        life.say(sent, json.dumps(sent.message))

    async def _wait(self, step: Wait) -> None:
        for _ in range(step.turns):
            await trio.lowlevel.checkpoint()
        if not step.turns:
            await wait_all_tasks_blocked()
        if step.seconds:
            await trio.sleep(step.seconds)


NAME: Final = st.sampled_from(NAMES)
PARTNER: Final = {"a": "b", "b": "a", "c": "d", "d": "c"}  # of whom they mostly pair with
RELAYS: Final[list[Frame]] = [
    {"type": "offer", "sdp": "v=0", "x": [1, {"a": None}], "é": "\0"},
    {"type": "answer", "sdp": "", "from_peer": False},
    {"type": "candidate", "candidate": None},
    {"type": "candidate", "candidate": {"candidate": "x", "y": 1}, "from_peer": {"from_peer": 1}},
    {"type": "offer", "sdp": "v" * 400},
]
BLUNDERS: Final = [
    ("{", "bad_json"),
    ("[]", "bad_message"),
    ('{"type":"offer"}', "bad_message"),
    ('{"type":"paired","peer_id":"a","is_initiator":true}', "unknown_type"),
]
DEEDS: Final = ["stop_reading", "read_again", "close", "vanish", "reset", "mute", "bad_frame", "bad_utf8", "too_big"]


def _to(message: Frame, addressee: str | None) -> tuple[tuple[str, Any], ...]:
    return tuple((message if addressee is None else {**message, "peer_id": addressee}).items())


ASK: Final = st.builds(
    lambda name, asked: Say(name, (("type", "pair_request"), ("target_id", asked[name]))),
    NAME,
    st.sampled_from([PARTNER, PARTNER, *(dict.fromkeys(NAMES, name) for name in f"{NAMES}z")]),
)
RELAY: Final = st.builds(
    lambda name, message, addressee, count: Say(name, _to(message, addressee.get(name)), count),
    NAME,
    st.sampled_from(RELAYS),
    st.sampled_from([{}, {}, PARTNER, PARTNER, dict.fromkeys(NAMES, "a"), dict.fromkeys(NAMES, "d")]),
    st.integers(1, 6),
)
STEP: Final[st.SearchStrategy[Step]] = st.one_of(
    st.builds(Come, NAME),
    ASK,
    ASK,
    RELAY,
    RELAY,
    st.builds(lambda name: Say(name, (("type", "unpair"),)), NAME),
    st.builds(lambda name, blunder: Blunder(name, *blunder), NAME, st.sampled_from(BLUNDERS)),
    st.builds(Act, NAME, st.sampled_from(DEEDS)),
    st.builds(Act, NAME, st.sampled_from(["stop_reading", "read_again"])),
    st.builds(Wait, turns=st.integers(0, 12)),
    st.builds(Wait, seconds=st.sampled_from([0, 0.1, 0.7, 2, 5, 12])),
)
TWO_PAIRS: Final[list[Step]] = [
    *(Wait(), Say("a", (("type", "pair_request"), ("target_id", "b")))),
    *(Say("c", (("type", "pair_request"), ("target_id", "d"))), Wait()),
]
STEPS: Final = st.builds(
    list.__add__,
    st.sampled_from([TWO_PAIRS, TWO_PAIRS[:2], []]),
    st.integers(1, 60).flatmap(lambda count: st.lists(STEP, min_size=count, max_size=count)),
)


# ---- the story, as the relay's log tells it ---------------------------------------------------------------------


@dataclass(eq=False)
class PairSession:
    """Two lives that were a pair, and which of them ended it, and why."""

    initiator: Life
    other: Life
    ended_by: Life | None = None
    reason: str = ""

    def peer_of(self, life: Life) -> Life:
        return self.other if life is self.initiator else self.initiator

    def seen_by(self, life: Life) -> list[tuple[object, ...]]:
        """Return what one of the two has to hear of it."""
        peer = self.peer_of(life).name
        begin: tuple[object, ...] = ("paired", peer, life is self.initiator)
        if self.ended_by is None or (self.ended_by is life and self.reason != "left"):
            return [begin]
        if self.ended_by is life:
            return [begin, ("unpaired", peer)]
        return [begin, ("peer_disconnected", peer, self.reason)]


def pairings_of(records: list[Frame], lives: list[Life]) -> list[PairSession]:
    """Read the log: all pairings in order. Nobody is in two at once."""
    present: dict[str, Life] = {}
    paired: dict[Life, PairSession] = {}
    pairings: list[PairSession] = []
    for record in records:
        if record["event"] == "client_connected":
            present[record["client_id"]] = lives[int(record["remote"].partition(":")[2])]
        elif record["event"] == "paired":
            pairing = PairSession(present[record["client_id"]], present[record["peer_id"]])
            assert not {pairing.initiator, pairing.other} & paired.keys(), "a client is in two pairs"
            paired[pairing.initiator] = paired[pairing.other] = pairing
            pairings.append(pairing)
        elif record["event"] == "unpaired":
            leaver = present[record["client_id"]]
            pairing = paired.pop(leaver)
            assert paired.pop(present[record["peer_id"]]) is pairing
            pairing.ended_by, pairing.reason = leaver, record["reason"]
    return pairings


@dataclass
class Window:
    """What a client heard between two marks: each frame with the pairing before it; and all pairings that it was in."""

    frames: list[tuple[Frame, PairSession | None]] = field(default_factory=list)
    pairings: list[PairSession] = field(default_factory=list)


def windows_of(life: Life, pairings: list[PairSession]) -> list[Window]:
    """Cut what a client heard at its marks. The last window is what came behind the last one."""
    coming = iter([pairing for pairing in pairings if life in (pairing.initiator, pairing.other)])
    now: PairSession | None = None
    windows = [Window()]
    for heard in life.heard:
        if heard["type"] == "pong":
            assert heard["t"] == len(windows) - 1, "its own frames were answered out of order"
            windows.append(Window(pairings=[now] if now else []))
            continue
        windows[-1].frames.append((heard, now))
        if heard["type"] == "paired":
            now = next(coming)
            windows[-1].pairings.append(now)
        elif heard["type"] in ("unpaired", "peer_disconnected"):
            now = None
    return windows


# ---- the five invariants ----------------------------------------------------------------------------------------


@dataclass
class Expectations:
    """All that happened, and whether the invariants hold."""

    lives: list[Life]
    pairings: list[PairSession]
    small: bool

    def check(self) -> None:
        for life in self.lives:
            if life.status == 101:
                self.check_story(life)
                windows = windows_of(life, self.pairings)
                self.check_relayed(life, windows)
                for sent, window in zip(life.sent, windows[:-1], strict=False):
                    self.check_answer(life, sent, window)
            assert life.left_over[4:].isascii(), "a frame was written into another, half written one"
            excused = life.deeds or self.small or life.status == 409
            assert life.finished or excused, "somebody else's deeds cost a client its connection"
        for pairing in self.pairings:
            self.check_order(pairing, pairing.initiator)
            self.check_order(pairing, pairing.other)
            self.check_reason(pairing)

    def check_story(self, life: Life) -> None:
        """4, 5: each pairing begins once for both; its end is told once, to the other side; nothing else is told."""
        told = [
            tuple(heard[key] for key in ("type", "peer_id", "is_initiator", "reason") if key in heard)
            for heard in life.heard
            if heard["type"] in ("paired", "unpaired", "peer_disconnected")
        ]
        mine = [pairing for pairing in self.pairings if life in (pairing.initiator, pairing.other)]
        story = [scene for pairing in mine for scene in pairing.seen_by(life)]
        assert told == story[: len(told)]
        assert not life.finished or told == story
        assert [heard for heard in life.heard if heard["type"] == "your_id"] == life.heard[:1]

    def check_relayed(self, life: Life, windows: list[Window]) -> None:
        """1, 2: what arrives comes from the present peer, and is what that one sent, but for `from_peer`."""
        for heard, pairing in (found for window in windows for found in window.frames):
            if heard["type"] in RELAYED:
                assert pairing is not None, "a frame arrived outside a pairing"
                [sent] = [sent for sent in pairing.peer_of(life).sent if sent.message.get("number") == heard["number"]]
                assert heard == sent.message | {"from_peer": True}
                assert heard["from_peer"] is True
                assert _keys(heard) == _keys(sent.message)
                assert sent.message.get("peer_id") in (None, life.name)
            else:
                assert "from_peer" not in heard

    def check_order(self, pairing: PairSession, sender: Life) -> None:
        """1: what one sends to its peer within a pairing arrives in that order, each once, with nothing left out between."""
        receiver = pairing.peer_of(sender)
        arrived = list(self._arrived(receiver, pairing))
        meant = [
            sent.message["number"]
            for sent in sender.sent
            if sent.kind in RELAYED and sent.message.get("peer_id") in (None, receiver.name)
        ]
        start = meant.index(arrived[0]) if arrived else 0
        assert arrived == meant[start : start + len(arrived)]

    def check_answer(self, life: Life, sent: Sent, window: Window) -> None:
        """3, 4: each thing that a client sends has one answer, or, if it was for the peer, arrives or is told of."""
        answers = [
            (heard, pairing)
            for heard, pairing in window.frames
            if heard["type"] in ("error", "unpaired") or heard.get("is_initiator")
            if not _is_apology(heard)
        ]
        if sent.kind in RELAYED and not answers:
            self.check_delivered_or_told(life, sent, window)
            return
        [(answer, pairing)] = answers
        if sent.deserves:
            assert answer["code"] == sent.deserves
        elif answer["type"] == "error":
            assert answer["in_reply_to"] == sent.kind
            assert answer.get("target_id") == sent.message.get("target_id")
            assert answer["code"] in self._fair_codes(life, sent, pairing)
            assert sent.message.get("number") not in self._all_arrived(), "a refused frame arrived all the same"
        else:
            assert (sent.kind, answer["type"]) in {("pair_request", "paired"), ("unpair", "unpaired")}
            assert sent.message.get("target_id") in (None, answer["peer_id"])

    def check_delivered_or_told(self, life: Life, sent: Sent, window: Window) -> None:
        """3: its peer has it, or the pairing ended and whoever sent it heard of that, or ended it itself."""
        addressee = sent.message.get("peer_id")
        fitting = [p for p in window.pairings if addressee in (None, p.peer_of(life).name)]
        assert fitting, "a frame without a peer to go to was not refused"
        number = sent.message["number"]
        arrived = any(number in self._arrived(p.peer_of(life), p) for p in fitting)
        assert arrived or any(self._was_lost_fairly(life, p) for p in fitting), "a frame was dropped in silence"

    def _was_lost_fairly(self, life: Life, pairing: PairSession) -> bool:
        """Tell whether a frame can have gone with its receiver. That its sender was told is checked with the story."""
        return not pairing.peer_of(life).finished and (pairing.ended_by is not None or not life.finished)

    def _fair_codes(self, life: Life, sent: Sent, pairing: PairSession | None) -> set[str]:
        if sent.kind == "pair_request":
            if sent.message["target_id"] == life.name:
                return {"self_pair"}
            return {"already_paired"} if pairing else {"target_not_found", "target_already_paired"}
        if pairing is None:
            return {"not_paired"}
        return set() if sent.message.get("peer_id") in (None, pairing.peer_of(life).name) else {"peer_unreachable"}

    def check_reason(self, pairing: PairSession) -> None:
        """5: the other side hears why, and that is what happened."""
        leaver = pairing.ended_by
        if leaver is not None:
            assert pairing.reason in REASONS
            unpaired = {"unpair"} & {sent.kind for sent in leaver.sent}
            small = {"small"} if self.small else set()
            unopened = {"unopened"} if leaver.status != 101 else set()
            assert REASONS[pairing.reason] & (leaver.deeds | unpaired | small | unopened)

    def _arrived(self, receiver: Life, pairing: PairSession) -> Iterator[int]:
        """Yield the numbers of the frames that came to one side of a pairing."""
        for window in windows_of(receiver, self.pairings):
            for heard, during in window.frames:
                if during is pairing and heard["type"] in RELAYED:
                    yield heard["number"]

    def _all_arrived(self) -> Counter[int]:
        return Counter(heard["number"] for life in self.lives for heard in life.heard if heard["type"] in RELAYED)


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


def _is_apology(heard: Frame) -> bool:
    """Tell whether the relay says by itself that a former peer went before it had read all; it answers nothing."""
    return heard.get("code") == "peer_unreachable" and "in_reply_to" not in heard


class Patience(trio.abc.Instrument):
    """Ends a run in which somebody spins, so that the clock never moves on."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._turns = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._turns += 1
        if self._turns > TURNS:
            self.scope.cancel()


def run(steps: list[Step], room: int, send_queue_frames: int, *, engine: Engine) -> None:
    patience = Patience()

    async def patiently() -> None:
        with patience.scope:
            await act_out(steps, room, send_queue_frames, engine=engine)

    trio.run(patiently, clock=MockClock(autojump_threshold=0), instruments=[patience])
    assert not patience.scope.cancelled_caught, "a task spins"


async def act_out(steps: list[Step], room: int, send_queue_frames: int, *, engine: Engine) -> None:
    async with relay_harness(_limits(send_queue_frames), engine=engine) as relay:
        scene = Scene(relay, room)
        for name in NAMES:
            scene.come(name)
        for step in steps:
            await scene.do(step)
        await come_to_rest(scene)
        Expectations(scene.lives, pairings_of(relay.log.records, scene.lives), send_queue_frames < BROAD).check()
        await pair_again(scene)
        await all_leave(scene)
        assert relay.log.of("internal_error") == []


def _limits(send_queue_frames: int) -> Limits:
    kept = {name: getattr(SECONDS, name) for name in SECONDS.__slots__}
    return Limits(**{**kept, "send_queue_frames": send_queue_frames, "send_queue_bytes": send_queue_frames * 250})


async def come_to_rest(scene: Scene) -> None:
    """Let everybody read again, and what must time out do so; then each that is left marks where it is."""
    for life in scene.lives:
        if not life.over:
            life.wire.read(reading=True)
    await trio.sleep(3 * SECONDS.idle_timeout)
    for life in scene.lives:
        if not life.over:
            scene.say(life, type="unpair")
    await wait_all_tasks_blocked()
    for life in scene.lives:
        assert life.over or life.finished, "a client that is there and reads has no answer"
        assert life.over or "mute" not in life.deeds, "a client that answers no pings is still here"


async def pair_again(scene: Scene) -> None:
    """5: all that are left are free now, and can pair on the same connection, and be heard."""
    for name in NAMES:
        scene.come(name)
    await wait_all_tasks_blocked()
    a, b, c, d = (scene.here(name) for name in NAMES)
    for asker, asked in ((a, b), (c, d)):
        assert asker is not None
        assert asked is not None
        scene.say(asker, type="pair_request", target_id=asked.name)
        await wait_all_tasks_blocked()
        scene.say(asker, type="offer", sdp="again")
        await wait_all_tasks_blocked()
        assert asked.heard[-2] == {"type": "paired", "peer_id": asker.name, "is_initiator": False}
        assert asked.heard[-1] == asker.sent[-1].message | {"from_peer": True}


async def all_leave(scene: Scene) -> None:
    """Nothing is left of anybody."""
    for deed, name in zip(["close", "vanish", "bad_frame", "reset"], NAMES, strict=True):
        await scene.do(Act(name, deed))
    await trio.sleep(3 * SECONDS.idle_timeout)
    assert all(life.over for life in scene.lives)
    assert scene.relay.relay.clients == 0
    assert not scene.relay.nursery.child_tasks


STALLED_CLOSE: Final = [
    *(Wait(), Act("a", "stop_reading"), Blunder("a", "{", "bad_json"), Blunder("a", "{", "bad_json"), Wait()),
    *(Act("a", "close"), Wait(seconds=1), Act("a", "read_again")),
]
FULL_AND_PAIRED: Final = [
    *(Wait(), Act("a", "stop_reading"), Blunder("a", "{", "bad_json"), Wait(), Blunder("a", "{", "bad_json"), Wait()),
    Say("a", (("type", "pair_request"), ("target_id", "b"))),
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
