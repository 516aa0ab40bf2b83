"""The pairing rules, by example, over interleavings, and against a model."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sdpx.errors import Refusal
from sdpx.events import Event, serve
from sdpx.protocol import codec
from sdpx.protocol.messages import DisconnectReason
from sdpx.protocol.messages import Frame as RelayedFrame
from sdpx.relay.core.pairing import Effect, PairingTable

Frame = dict[str, Any]


class WebRtcRuntime:
    """A lobby, and what each client has heard."""

    def __init__(self, *names: str) -> None:
        self.lobby = PairingTable()
        self.heard: dict[str, list[Frame]] = {}
        self.log: list[Event] = []
        for name in names:
            self.join(name)

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Event):
                self.log.append(effect)
                continue
            self.heard[effect.client_id].append(json.loads(codec.encode(effect.message)))

    def join(self, name: str) -> None:
        self.heard[name] = []
        self._do(self.lobby.join(name))
        assert self.take_all(name) == [{"type": "your_id", "id": name}]

    def say(self, name: str, **frame: object) -> None:
        message = codec.parse(json.dumps(frame).encode())
        if not isinstance(message, RelayedFrame):
            self._do(self.lobby.handle(name, message))
            return
        receiver = self.lobby.route(name, message)
        if isinstance(receiver, Refusal):
            self._do(self.lobby.refuse_frame(name, message, receiver))
        else:
            self.heard[receiver].append(json.loads(message.body + codec.FROM_PEER))

    def leave(self, name: str, reason: DisconnectReason = "closed") -> None:
        self._do(self.lobby.leave(name, reason))

    def shut_down(self) -> None:
        self._do(self.lobby.shut_down())

    def pair(self, name: str, target: str) -> None:
        self.say(name, type="pair_request", target_id=target)

    def take_all(self, name: str) -> list[Frame]:
        heard, self.heard[name] = self.heard[name], []
        return heard


def paired_room() -> WebRtcRuntime:
    room = WebRtcRuntime("a", "b", "c")
    room.pair("a", "b")
    room.take_all("a")
    room.take_all("b")
    room.log.clear()
    return room


def test_the_one_that_asks_is_the_initiator() -> None:
    room = WebRtcRuntime("a", "b")
    room.pair("a", "b")
    assert room.take_all("a") == [{"type": "paired", "peer_id": "b", "is_initiator": True}]
    assert room.take_all("b") == [{"type": "paired", "peer_id": "a", "is_initiator": False}]
    assert room.log == [serve.PairRequested("a", "b"), serve.Paired("a", "b")]


@pytest.mark.parametrize(
    ("client", "target", "code", "message"),
    [
        ("c", "nobody", "target_not_found", "Target client not found"),
        ("c", "c", "self_pair", "You cannot pair with yourself"),
        ("c", "a", "target_already_paired", "Target client is already paired"),
        ("a", "c", "already_paired", "You are already paired"),
        ("a", "b", "already_paired", "You are already paired"),
        ("a", "a", "self_pair", "You cannot pair with yourself"),
        ("a", "nobody", "already_paired", "You are already paired"),
    ],
)
def test_a_pairing_is_refused_for_the_first_rule_against_it(client: str, target: str, code: str, message: str) -> None:
    """In the protocol's order, in its words, to the one that asked, and to nobody else."""
    room = paired_room()
    room.pair(client, target)
    answer = {"type": "error", "code": code, "message": message, "target_id": target, "in_reply_to": "pair_request"}
    assert room.take_all(client) == [answer]
    assert not any(room.heard.values())
    assert room.log[-1] == serve.PairRefused(client, target, code)


def test_a_frame_reaches_exactly_the_peer() -> None:
    room = paired_room()
    room.say("a", type="offer", sdp="x", key=[1])
    assert room.take_all("b") == [{"type": "offer", "sdp": "x", "key": [1], "from_peer": True}]
    assert not any(room.heard.values())


def test_a_frame_without_a_peer_is_refused() -> None:
    room = paired_room()
    room.say("c", type="offer", sdp="x")
    [error] = room.take_all("c")
    assert (error["code"], error["in_reply_to"]) == ("not_paired", "offer")
    assert room.log == [serve.RelayRefused("offer", "c", None, "not_paired")]


def test_a_frame_for_somebody_else_is_refused() -> None:
    """A late candidate for the last peer never reaches the next one."""
    room = paired_room()
    room.say("a", type="candidate", candidate=None, peer_id="c")
    [error] = room.take_all("a")
    assert (error["code"], error["in_reply_to"]) == ("peer_unreachable", "candidate")
    assert not any(room.heard.values())


def test_unpair_frees_both() -> None:
    room = paired_room()
    room.say("b", type="unpair")
    assert room.take_all("b") == [{"type": "unpaired", "peer_id": "a"}]
    assert room.take_all("a") == [{"type": "peer_disconnected", "peer_id": "b", "reason": "left"}]
    room.pair("c", "a")
    assert room.take_all("a") == [{"type": "paired", "peer_id": "c", "is_initiator": False}]


def test_unpair_without_a_peer_is_refused() -> None:
    room = WebRtcRuntime("a")
    room.say("a", type="unpair")
    [error] = room.take_all("a")
    assert (error["code"], error["in_reply_to"]) == ("not_paired", "unpair")


@pytest.mark.parametrize("reason", ["closed", "timeout", "slow", "refused"])
def test_the_peer_hears_once_that_and_why_a_client_left(reason: DisconnectReason) -> None:
    room = paired_room()
    room.leave("a", reason)
    assert room.take_all("b") == [{"type": "peer_disconnected", "peer_id": "a", "reason": reason}]
    room.pair("b", "a")
    assert room.take_all("b")[0]["code"] == "target_not_found"


def test_both_sides_hear_of_a_shutdown_once() -> None:
    room = paired_room()
    room.shut_down()
    for name in ("a", "b", "c"):
        if room.lobby.peer_of(name) is None:
            room.leave(name, "shutdown")
    assert [frame["reason"] for frame in room.take_all("a") + room.take_all("b")] == ["shutdown", "shutdown"]
    assert room.take_all("c") == []


def test_an_id_belongs_to_one_client_at_a_time() -> None:
    room = WebRtcRuntime("a")
    assert "a" in room.lobby
    room.leave("a")
    assert "a" not in room.lobby
    room.join("a")


def test_a_long_target_is_cut_in_the_log_and_whole_in_the_answer() -> None:
    room = WebRtcRuntime("a")
    room.pair("a", "x" * 5000)
    assert room.take_all("a")[0]["target_id"] == "x" * 5000
    assert room.log[0] == serve.PairRequested("a", "x" * 64)


REQUESTS = [("a", "b"), ("b", "a"), ("c", "b")]


@pytest.mark.parametrize("order", list(permutations(REQUESTS)))
def test_concurrent_requests_give_one_pairing_and_each_loser_one_error(order: tuple[tuple[str, str], ...]) -> None:
    """A asks B while B asks A and C asks B, in every order in which they can arrive."""
    room = WebRtcRuntime("a", "b", "c")
    for client, target in order:
        room.pair(client, target)
    heard = [frame for name in room.heard for frame in room.take_all(name)]
    assert sum(frame["type"] == "paired" for frame in heard) == 2
    assert sum(frame["type"] == "error" for frame in heard) == len(REQUESTS) - 1
    assert room.lobby.pairs == 1


NAMES = st.sampled_from("abcdef")


class LobbyAgainstModel(RuleBasedStateMachine):
    """Clients come, pair, send, unpair and go in any order; a plain model says what each must hear."""

    def __init__(self) -> None:
        super().__init__()
        self.room = WebRtcRuntime()
        self.peers: dict[str, str | None] = {}
        self.sent = 0

    def expect(self, name: str, *kinds: str) -> list[Frame]:
        frames = self.room.take_all(name)
        assert [frame.get("code", frame["type"]) for frame in frames] == list(kinds)
        return frames

    def part(self, name: str, reason: str) -> None:
        peer = self.peers[name]
        if peer is not None:
            [frame] = self.expect(peer, "peer_disconnected")
            assert (frame["peer_id"], frame["reason"]) == (name, reason)
            self.peers[name] = self.peers[peer] = None

    @rule(name=NAMES)
    def come(self, name: str) -> None:
        if name not in self.peers:
            self.room.join(name)
            self.peers[name] = None

    @rule(name=NAMES, asked=NAMES)
    def ask(self, name: str, asked: str) -> None:
        if name not in self.peers:
            return
        self.room.pair(name, asked)
        if asked == name:
            self.expect(name, "self_pair")
        elif self.peers[name] is not None:
            self.expect(name, "already_paired")
        elif asked not in self.peers:
            self.expect(name, "target_not_found")
        elif self.peers[asked] is not None:
            self.expect(name, "target_already_paired")
        else:
            assert self.expect(name, "paired")[0]["is_initiator"] is True
            assert self.expect(asked, "paired")[0]["is_initiator"] is False
            self.peers[name], self.peers[asked] = asked, name

    @rule(name=NAMES, addressee=st.none() | NAMES)
    def send(self, name: str, addressee: str | None) -> None:
        if name not in self.peers:
            return
        self.sent += 1
        to = {} if addressee is None else {"peer_id": addressee}
        self.room.say(name, type="offer", sdp=str(self.sent), **to)
        peer = self.peers[name]
        if peer is None:
            self.expect(name, "not_paired")
        elif addressee not in (None, peer):
            self.expect(name, "peer_unreachable")
        else:
            [frame] = self.expect(peer, "offer")
            assert frame == {"type": "offer", "sdp": str(self.sent), **to, "from_peer": True}

    @rule(name=NAMES)
    def unpair(self, name: str) -> None:
        if name not in self.peers:
            return
        self.room.say(name, type="unpair")
        self.expect(name, "not_paired" if self.peers[name] is None else "unpaired")
        self.part(name, "left")

    @rule(name=NAMES, reason=st.sampled_from(["closed", "timeout", "slow", "refused"]))
    def go(self, name: str, reason: DisconnectReason) -> None:
        if name in self.peers:
            self.room.leave(name, reason)
            self.part(name, reason)
            del self.peers[name]

    @invariant()
    def nobody_hears_anything_else(self) -> None:
        assert not any(self.room.heard.values())

    @invariant()
    def two_are_a_pair_or_they_are_not(self) -> None:
        for name, peer in self.peers.items():
            assert self.room.lobby.peer_of(name) == peer
            assert peer is None or self.room.lobby.peer_of(peer) == name
        assert len(self.room.lobby) == len(self.peers)


TestLobbyAgainstModel = LobbyAgainstModel.TestCase
