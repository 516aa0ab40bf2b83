"""Session resumption on the wire: every frame exactly once and in order, wherever a connection to the relay breaks.

The clients (`resume_world`) follow the rules of `sdpx peer`; their sockets are socket pairs to a real `Relay`, on both engines.
A connection is cut at any byte, in either direction: by an end, by a reset, or in silence, so that the relay notices it much
later, or when the client comes back.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.peer.signaling.resume import ResumeResult
from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.socket_stream import SocketStream
from tests.harness.examples import examples, sample
from tests.harness.frames import CLOSE, PING, PONG, TEXT, FrameReader, frame, upgrade_request
from tests.harness.relay import ENGINES, Engine, RelayHarness, relay_harness
from tests.harness.resume_world import App, Socket
from tests.harness.socket_pair import reset, unread

ROOM = 400  # bytes on the way to a client: a frame or two
PATIENT = Limits(resume_window=3600, ping_interval=10_000, idle_timeout=20_000, write_timeout=10_000, rate=0)

# A name is free again once the relay has noticed the loss of the connection, and the window is over.
ENDS = replace(PATIENT, resume_window=3, ping_interval=1, idle_timeout=3)
TIGHT = replace(ENDS, send_queue_frames=40, send_queue_bytes=20_000, max_queued_bytes=8_000, max_suspended_sessions=1)


class Wire:
    """A client's socket on a connection to the relay."""

    def __init__(self, socket: Socket, link: SocketStream, far_end: SocketStream) -> None:
        self.socket = socket
        self.link = link
        self.far_end = far_end
        asked = "&".join(each for each in (socket.query, f"id={socket.name}" if socket.name else "") if each)
        self._going = bytearray(upgrade_request(f"/?{asked}"))
        self._reader = FrameReader()
        self._is_open = False

    def write(self, size: int) -> None:
        """Let so many bytes reach the relay."""
        while self.socket.up:
            self._going += frame(TEXT, self.socket.up.popleft().encode(), mask=bytes(4))
        if self.link.is_closed or self.socket.is_cut:
            return
        try:
            self.link.send_now(self._going[:size])
        except OSError:
            self._going.clear()
        del self._going[:size]

    def read(self) -> None:
        """Read what has arrived."""
        if self.link.is_closed or self.socket.is_cut:
            return
        data = self.link.receive_or_end()
        if data == b"":
            self.socket.is_cut = True
        self._parse(data or b"")

    def _parse(self, data: bytes) -> None:
        self._reader.data += data
        self._read_head()
        while self._is_open and (found := self._reader.next_frame()) is not None:
            self._on_frame(*found)

    def _read_head(self) -> None:
        if self._is_open or (head := self._reader.next_head()) is None:
            return
        self.socket.accepted = True
        self._is_open = " 101 " in head
        if not self._is_open:
            self.socket.refused = int(head.split()[1])

    def _on_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self.socket.down.append(payload.decode())
        elif opcode == CLOSE:
            self.socket.relay_closed = int.from_bytes(payload[:2])
        else:
            assert opcode == PING
            self._going += frame(PONG, payload)

    def cut(self, rng: random.Random) -> None:
        """Lose the connection: bytes in transit arrive in part, or not at all."""
        self.write(rng.randrange(200))
        if not self.link.is_closed:
            coming = self.link.receive_or_end() or b""
            self._parse(coming[: rng.randrange(len(coming) + 1)])
        self.socket.is_cut = True
        how = rng.random()
        if how < 0.35:
            reset(self.link, self.far_end)
        if how < 0.7:
            self.link.close()


class Conversation:
    """Two clients at a relay, and all their connections."""

    def __init__(self, relay: RelayHarness, rng: random.Random, *, b_numbered: bool, forgetful: bool) -> None:
        self._relay = relay
        self._dice = rng
        self.a = App("a", numbered=True, forgetful=forgetful)
        self.b = App("b", numbered=b_numbered, forgetful=forgetful)
        self.apps = [self.a, self.b]
        self.sent: dict[App, list[int]] = {app: [] for app in self.apps}
        self.refused: dict[App, int] = dict.fromkeys(self.apps, 0)
        self.wires: dict[App, Wire] = {}
        self.old: list[Wire] = []
        self.number = self.cuts = 0

    async def meet(self) -> None:
        await self.settle()
        self.a.send({"type": "pair_request", "target_id": "b"})
        await self.settle()

    def dial(self, app: App) -> None:
        if app in self.wires:
            self.old = [*self.old[-3:], self.wires[app]]
        room = self._dice.choice([ROOM, 1 << 20])
        self.wires[app] = Wire(app.dial(), *self._relay.connect_pair(room))

    def send(self, app: App) -> None:
        """Send a frame, or one that the codec or the pairing table refuses."""
        kind = self._dice.random()
        if kind < 0.8:
            self.number += 1
            self.sent[app].append(self.number)
            app.send(f'{{"type":"offer","sdp":"{self.number}","seq":7,"x":"{"x" * self._dice.randrange(300)}"}}')
            return
        self.refused[app] += 1
        app.send('{"type":"unpair" "y"}' if kind < 0.9 else {"type": "answer", "sdp": "", "peer_id": "nobody"})

    def take(self, app: App) -> None:
        """Let a client read all that has arrived, and connect again after the end of its connection."""
        wire = self.wires[app]
        wire.read()
        while wire.socket.down:
            app.read(trio.current_time())
        if wire.socket.accepted or wire.socket.is_cut:
            self._redial(app)

    def _redial(self, app: App) -> None:
        if app.gone():
            assert app.numbered or app.socket is None or not app.socket.welcomed
            self.dial(app)

    async def step(self) -> None:
        """Let one thing happen."""
        rng = self._dice
        app = rng.choice(self.apps)
        match rng.random():
            case chance if chance < 0.25:
                self.send(app)
            case chance if chance < 0.5:
                self.wires[app].write(rng.randrange(500))
            case chance if chance < 0.75:
                self.take(app)
            case chance if chance < 0.8 and self.old:
                rng.choice(self.old).write(500)
            case chance if chance < 0.85 and app.numbered and not self.wires[app].socket.is_cut:
                self.cuts += 1
                self.wires[app].cut(rng)
            case chance if chance < 0.87 and app.numbered:
                self.dial(app)  # it gives up a socket, or a dial that is not answered yet
            case chance if chance < 0.92:
                await self.pass_time(0.1 * rng.random())
        if rng.random() < 0.7:
            await wait_all_tasks_blocked()

    async def pass_time(self, seconds: float) -> None:
        await trio.sleep(seconds)
        for app in self.apps:
            app.tick(trio.current_time())

    async def settle(self) -> None:
        """Lose no more connections, and let all frames arrive."""
        for app in self.apps:
            if app.socket is None:
                self.dial(app)
        for _ in range(400):
            for app in self.apps:
                self.wires[app].write(1 << 20)
            await wait_all_tasks_blocked()
            for app in self.apps:
                self.take(app)
            await self.pass_time(0.05)
            if self._is_calm():
                return
        raise AssertionError("it does not come to rest")

    def _is_calm(self) -> bool:
        welcomed = all(app.socket is not None and app.socket.welcomed for app in self.apps)
        confirmed = all(app.rules.confirmed == app.rules.sent for app in self.apps if app.numbered)
        acked = all(app.rules.ack_due is None for app in self.apps if app.numbered)
        relays = self._relay.relays
        waiting = any(each._resume.snapshot().replay_buffer_bytes or each.queued.bytes for each in relays)
        under_way = any(unread(self.wires[app].link.socket) for app in self.apps)
        return welcomed and confirmed and acked and not waiting and not under_way

    def check_what_is_left(self) -> None:
        """Frames are missing only where a pairing ended; none is repeated or out of order."""
        for app, other in ((self.a, self.b), (self.b, self.a)):
            received = [int(each["sdp"]) for each in app.of("offer")]
            assert received == sorted(set(received))
            assert set(received) <= set(self.sent[other])
            told = other.of("peer_disconnected") or ResumeResult.EXPIRED in other.results
            assert told or set(received) == set(self.sent[other])

    async def all_go(self) -> None:
        """Reset every connection."""
        for wire in [*self.wires.values(), *self.old]:
            if not wire.link.is_closed:
                reset(wire.link, wire.far_end)
        await trio.sleep(60)

    def check_the_end(self) -> None:
        """All frames arrived once and in order, each refusal was answered once, no pairing ended, and nothing is kept."""
        for app, other in ((self.a, self.b), (self.b, self.a)):
            assert [int(each["sdp"]) for each in app.of("offer")] == self.sent[other]
            assert len(app.of("error")) == self.refused[app]
            assert len(app.of("paired")) == 1
            assert app.of("peer_disconnected") == []
            assert set(app.results[1:]) <= {ResumeResult.RESUMED}
        assert self._relay.clients == 2
        assert self._relay.log.of("internal_error") == []


async def _bounded_conversation(rng: random.Random, steps: int, *, engine: Engine) -> Conversation:
    async with relay_harness(TIGHT, engine=engine) as relay:
        conversation = Conversation(relay, rng, b_numbered=True, forgetful=rng.random() < 0.3)
        await conversation.meet()
        for _ in range(steps):
            await conversation.step()
            if rng.random() < 0.05:
                await conversation.pass_time(4 * rng.random())
            if rng.random() < 0.05:
                conversation.a.send({"type": "pair_request", "target_id": str(conversation.b.client_id)})
            away = relay.relay._resume.snapshot()
            assert away.clients <= TIGHT.max_suspended_sessions
            assert away.replay_buffer_bytes <= TIGHT.max_queued_bytes
        await conversation.settle()
        conversation.check_what_is_left()
        await conversation.all_go()
        away = relay.relay._resume.snapshot()
        assert (away.clients, away.replay_buffer_bytes, relay.relay.clients, relay.relay.counts.total) == (0, 0, 0, 0)
        assert relay.log.of("internal_error") == []
        return conversation


async def _converse(
    rng: random.Random, *, engine: Engine, goes_on: Callable[[Conversation, int], bool]
) -> Conversation:
    async with relay_harness(PATIENT, engine=engine) as relay:
        conversation = Conversation(relay, rng, b_numbered=rng.random() < 0.7, forgetful=rng.random() < 0.3)
        await conversation.meet()
        steps = 0
        while goes_on(conversation, steps):
            steps += 1
            await conversation.step()
        await conversation.settle()
        conversation.check_the_end()
        return conversation


# Hypothesis draws a seed and not the random numbers: how many numbers a conversation needs depends on the order in which
# runnable tasks run, which differs between runs, and Hypothesis demands that its own draws do not.
RNGS: Final = st.integers(0, 1 << 64).map(random.Random)


@pytest.mark.parametrize("engine", ENGINES)
@given(rng=RNGS, steps=st.integers(0, 150))
@examples(0.5)
def test_frames_are_lost_only_with_the_end_of_a_session(engine: Engine, rng: random.Random, steps: int) -> None:
    """With a short resume window and small bounds; at the end nothing is kept."""
    trio.run(partial(_bounded_conversation, rng, steps, engine=engine), clock=MockClock(autojump_threshold=0))


def run(rng: random.Random, *, engine: Engine, goes_on: Callable[[Conversation, int], bool]) -> Conversation:
    return trio.run(partial(_converse, rng, engine=engine, goes_on=goes_on), clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("engine", [*ENGINES, "cluster"])
@given(rng=RNGS, steps=st.integers(0, 120))
@examples(0.5)
def test_frames_arrive_exactly_once_wherever_a_connection_breaks(
    engine: Engine, rng: random.Random, steps: int
) -> None:
    """In order. In a cluster each connection is to the other node, so that the session moves."""
    run(rng, engine=engine, goes_on=lambda _, done: done < steps)


@pytest.mark.parametrize("engine", [*ENGINES, "cluster"])
@pytest.mark.parametrize("seed", sample(range(3), 1))
def test_frames_arrive_exactly_once_over_hundreds_of_connections(engine: Engine, seed: int) -> None:
    """In one long run."""
    conversation = run(random.Random(seed), engine=engine, goes_on=lambda conversation, _: conversation.cuts < 150)
    assert len(conversation.a.results) > 50
    assert min(map(len, conversation.sent.values())) > 100
    assert (len(conversation._relay.log.of("session_moved")) > 50) == (engine == "cluster")


def test_the_clients_of_these_tests_do_receive_frames() -> None:
    """The tests above would hold for clients that counted frames without receiving them."""
    conversation = run(random.Random(1), engine="epoll", goes_on=lambda _, done: done < 50)
    conversation.a.received.pop()
    with pytest.raises(AssertionError):
        conversation.check_the_end()
    assert json.dumps(conversation.a.received)
