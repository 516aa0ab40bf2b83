"""PROTOCOL, Resume: exactly once, in order, across lost sockets, whatever breaks, whenever, on either side.

The rules of both ends with an unreliable world between them: `resume_world`. Each frame of A and B bears a number of the
test's own, so that what was sent can be compared with what arrived.
"""

import json
import random
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sdpx.peer.signaling.resume import ResumeResult
from sdpx.relay.core.limits import Limits
from tests.harness.examples import examples, sample
from tests.harness.resume_world import App, Frame, Socket, World

ALL_DAY = Limits(resume_window=1e9)
# What a sender may write besides: its own `seq`, plainly, escaped and twice, is not the relay's word.
EXTRAS = ["", ',"seq":1', ',"s\\u0065q":77', ',"seq":2,"x":{"seq":3},"seq":"4"', ',"from_peer":false,"seq":9']


def offer(number: int, extra: str = "") -> str:
    return f'{{"type":"offer","sdp":"{number}"{extra}}}'


def payloads(app: App) -> list[int]:
    return [int(frame["sdp"]) for frame in app.of("offer")]


def paired_world(*, b_numbered: bool, bounds: Limits = ALL_DAY, forgetful: bool = False) -> World:
    a, b = App("a", numbered=True, forgetful=forgetful), App("b", numbered=b_numbered, forgetful=forgetful)
    world = World([a, b], bounds)
    world.settle()
    world.apps[0].send({"type": "pair_request", "target_id": "b"})
    world.settle()
    return world


class Cuts(RuleBasedStateMachine):
    """A and B are paired, and their connections are lost. B may be a plain client, whose connection is not."""

    bounds: ClassVar[Limits] = ALL_DAY

    @initialize(b_numbered=st.booleans(), forgetful=st.booleans())
    def pair(self, b_numbered: bool, forgetful: bool) -> None:
        self.world = paired_world(b_numbered=b_numbered, bounds=self.bounds, forgetful=forgetful)
        self.a, self.b = self.world.apps
        self.sent: dict[App, list[int]] = {self.a: [], self.b: []}
        self.refused: dict[App, int] = {self.a: 0, self.b: 0}
        self.number = 0

    def app(self, first: bool) -> App:
        return self.a if first else self.b

    @rule(first=st.booleans(), extra=st.sampled_from(EXTRAS), times=st.integers(1, 4))
    def send(self, first: bool, extra: str, times: int) -> None:
        app = self.app(first)
        for _ in range(times):
            self.number += 1
            self.sent[app].append(self.number)
            app.send(offer(self.number, extra))

    @rule(first=st.booleans(), wrong=st.sampled_from(['{"type":"offer"}', '{"type":"x"}', '{"type":"unpair" "y"}']))
    def send_what_is_refused(self, first: bool, wrong: str) -> None:
        """Refused by the codec: each is answered by one error, across connections too."""
        self.refused[self.app(first)] += 1
        self.app(first).send(wrong)

    @rule(first=st.booleans())
    def send_to_an_unpaired_id(self, first: bool) -> None:
        """Refused by the pairing table."""
        self.refused[self.app(first)] += 1
        self.app(first).send({"type": "candidate", "candidate": None, "peer_id": "nobody"})

    @precondition(lambda self: self.world.sockets)
    @rule(data=st.data(), side=st.sampled_from(["relay", "client"]), times=st.integers(1, 6))
    def step(self, data: st.DataObject, side: str, times: int) -> None:
        socket = data.draw(st.sampled_from(self.world.sockets), "socket")
        for _ in range(times):
            self.world.step(socket, side)

    def breakable(self) -> list[Socket]:
        return [each for each in self.world.sockets if each.query and not each.is_cut]

    @precondition(lambda self: self.breakable())
    @rule(data=st.data(), up=st.integers(0, 8), down=st.integers(0, 8))
    def cut(self, data: st.DataObject, up: int, down: int) -> None:
        data.draw(st.sampled_from(self.breakable()), "socket").cut(up, down)

    @rule(first=st.booleans())
    def dial_again(self, first: bool) -> None:
        """The client gives up a connection that is open at the relay, or an attempt that the relay has not answered."""
        if self.app(first).numbered:
            self.world.dial(self.app(first))

    @rule(seconds=st.sampled_from([0.05, 0.1, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.relay.void)
    @rule(data=st.data())
    def client_tries_an_old_token(self, data: st.DataObject) -> None:
        """The token was revoked by a frame on a later connection."""
        token = data.draw(st.sampled_from(sorted(self.world.relay.void)), "token")
        assert self.world.relay.store.find(token, 0) is None

    @rule(token=st.text(max_size=50), last=st.none() | st.integers(0, 9))
    def client_guesses(self, token: str, last: int | None) -> None:
        assert self.world.relay.store.find(token, last) is None

    @invariant()
    def nothing_comes_twice_or_out_of_order(self) -> None:
        for app, other in ((self.a, self.b), (self.b, self.a)):
            received = payloads(app)
            assert received == self.sent[other][: len(received)]
            assert len(app.of("error")) <= self.refused[app]

    @invariant()
    def the_relay_keeps_what_it_counts(self) -> None:
        store = self.world.relay.store
        streams = [member.stream for member in self.world.relay.members.values() if member.stream is not None]
        assert store.total.bytes == sum(frame.data.__sizeof__() for each in streams for frame in each.unacknowledged())
        assert all(len(each) == each.sent - each.acked for each in streams)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.settle()
        self.check_the_end()

    def check_the_end(self) -> None:
        """All frames arrived, each refusal was answered once, nothing is kept, and no other message came."""
        for app, other in ((self.a, self.b), (self.b, self.a)):
            assert payloads(app) == self.sent[other]
            assert len(app.of("error")) == self.refused[app]
            assert len(app.of("paired")) == 1
            assert app.of("peer_disconnected") == []
            assert app.rules.confirmed == app.rules.sent
            assert set(app.results[1:]) <= {ResumeResult.RESUMED}
        assert self.world.relay.store.total.bytes == 0


TestCuts = Cuts.TestCase
TestCuts.settings = examples(1, stateful_step_count=50)


class Windows(Cuts):
    """The same with a short window and small bounds: undelivered frames are reported, and none is repeated."""

    bounds: ClassVar[Limits] = Limits(
        resume_window=3.0,
        send_queue_frames=40,
        send_queue_bytes=20_000,
        max_queued_bytes=8_000,
        max_suspended_sessions=1,
    )

    @rule(seconds=st.sampled_from([1.0, 2.9, 3.0, 5.0]))
    def much_time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(first=st.booleans())
    def ask(self, first: bool) -> None:
        """Request the pairing again."""
        self.refused[self.app(first)] += 1  # at most
        self.app(first).send({"type": "pair_request", "target_id": self.app(not first).client_id})

    @invariant()
    def nothing_comes_twice_or_out_of_order(self) -> None:
        """Received frames are a part of the sent ones: only an end of the pairing loses frames."""
        for app, other in ((self.a, self.b), (self.b, self.a)):
            received = payloads(app)
            assert received == sorted(set(received))
            assert set(received) <= set(self.sent[other])

    @invariant()
    def the_bounds_hold(self) -> None:
        store = self.world.relay.store
        assert store.suspended <= self.bounds.max_suspended_sessions
        assert store.total.bytes <= self.bounds.max_queued_bytes

    def check_the_end(self) -> None:
        """A client that was not notified of an end lost no frame; when all have left nothing is kept."""
        for app, other in ((self.a, self.b), (self.b, self.a)):
            told = app.of("peer_disconnected") or ResumeResult.EXPIRED in app.results
            assert told or set(self.sent[app]) <= set(payloads(other))
        relay = self.world.relay
        for member in list(relay.members.values()):
            relay.leave(member, "closed")
        assert (relay.store.total.bytes, relay.store.suspended, relay.store._by_digest) == (0, 0, {})


TestWindows = Windows.TestCase
TestWindows.settings = examples(1, stateful_step_count=50)


@pytest.mark.parametrize("seed", sample(range(4), 1))
@pytest.mark.parametrize("forgetful", [False, True])
def test_frames_arrive_exactly_once_over_a_thousand_lost_connections(seed: int, forgetful: bool) -> None:
    """Both clients lose connections at random, in both directions, while they send."""
    rng = random.Random(seed)
    world = paired_world(b_numbered=True, forgetful=forgetful)
    sent: dict[App, list[int]] = {app: [] for app in world.apps}
    cuts = number = 0
    while cuts < 1000:
        match rng.random():
            case chance if chance < 0.08:
                app = rng.choice(world.apps)
                number += 1
                sent[app].append(number)
                app.send(offer(number))
            case chance if chance < 0.95 and world.sockets:
                world.step(rng.choice(world.sockets), rng.choice(["relay", "client"]))
            case chance if chance < 0.98:
                world.pass_time(0.1 * rng.random())
            case _:
                fit = [socket for socket in world.sockets if not socket.is_cut]
                if fit:
                    cuts += 1
                    rng.choice(fit).cut(rng.randrange(6), rng.randrange(6))
    world.settle()
    a, b = world.apps
    assert payloads(b) == sent[a]
    assert payloads(a) == sent[b]
    assert min(len(sent[a]), len(sent[b])) > 1000
    assert world.relay.store.total.bytes == 0
    assert world.relay.store.totals.resumed > 100


def test_a_late_connection_attempt_does_not_lock_its_client_out() -> None:
    """The attempt takes the ID over for a moment: the client has the token of the connection that it displaced, and resumes."""
    world = paired_world(b_numbered=True)
    a = world.apps[0]
    late = world.dial(a)
    prompt = world.dial(a)
    world.step(prompt, "relay")
    world.step(prompt, "client")
    world.step(late, "relay")
    assert prompt.relay_closed == 4001
    world.settle()
    assert a.results == [ResumeResult.NEW, ResumeResult.RESUMED, ResumeResult.RESUMED]
    assert a.client_id == "a"


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("b_numbered", [True, False])
def test_seq_is_the_relays_for_numbered_receivers_and_the_senders_for_others(extra: str, b_numbered: bool) -> None:
    """A numbered receiver gets the key once, whatever the sender wrote; another one gets it as sent."""
    world = paired_world(b_numbered=b_numbered)
    a, b = world.apps
    a.send(offer(1, extra))
    while world.sockets[0].up:
        world.step(world.sockets[0], "relay")
    assert b.socket is not None
    text = b.socket.down[-1]
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    assert [value for key, value in pairs if key == "from_peer"] == [True]
    written: Frame = json.loads(offer(1, extra))
    arrived: Frame = json.loads(text)
    assert arrived.pop("client_seq") > 1
    if b_numbered:
        assert [value for key, value in pairs if key == "seq"] == [2]
        written["seq"] = 2
    assert arrived == written | {"from_peer": True}
    if b_numbered or not extra:
        assert text.startswith('{"type":"offer","sdp":"1"')
