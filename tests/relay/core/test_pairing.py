"""The pairing table: rules by example, over interleavings, and against a model."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sdpx.events import Event, serve
from sdpx.protocol import codec
from sdpx.protocol.messages import DisconnectReason
from sdpx.protocol.messages import Frame as RelayedFrame
from sdpx.relay.core.pairing import Effect, PairingTable

Frame = dict[str, Any]


class TableHarness:
    """A pairing table and the messages that each client has received."""

    def __init__(self, *names: str) -> None:
        self.table = PairingTable()
        self.received: dict[str, list[Frame]] = {}
        self.log: list[Event] = []
        for name in names:
            self.join(name)

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Event):
                self.log.append(effect)
                continue
            self.received[effect.client_id].append(json.loads(codec.encode(effect.message)))

    def join(self, name: str) -> None:
        self.received[name] = []
        self._do(self.table.join(name))
        assert self.take_all(name) == [{"type": "your_id", "id": name}]

    def send(self, name: str, **frame: object) -> None:
        message = codec.parse(json.dumps(frame).encode())
        if not isinstance(message, RelayedFrame):
            self._do(self.table.handle(name, message))
            return
        receiver = self.table.route(name, message)
        if receiver is None:
            self._do(self.table.refuse_frame(name, message))
        else:
            self.received[receiver].append(json.loads(message.body + codec.FROM_PEER))

    def leave(self, name: str, reason: DisconnectReason = "closed") -> None:
        self._do(self.table.leave(name, reason))

    def shut_down(self) -> None:
        self._do(self.table.shut_down())

    def pair(self, name: str, target: str) -> None:
        self.send(name, type="pair_request", target_id=target)

    def take_all(self, name: str) -> list[Frame]:
        received, self.received[name] = self.received[name], []
        return received


def paired_table() -> TableHarness:
    harness = TableHarness("a", "b", "c")
    harness.pair("a", "b")
    harness.take_all("a")
    harness.take_all("b")
    harness.log.clear()
    return harness


def test_the_requesting_client_is_the_initiator() -> None:
    """Both clients are notified."""
    harness = TableHarness("a", "b")
    harness.pair("a", "b")
    assert harness.take_all("a") == [{"type": "paired", "peer_id": "b", "is_initiator": True}]
    assert harness.take_all("b") == [{"type": "paired", "peer_id": "a", "is_initiator": False}]
    assert harness.log == [serve.PairRequested("a", "b"), serve.Paired("a", "b")]


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
def test_a_pairing_is_refused_for_the_first_rule_that_forbids_it(
    client: str, target: str, code: str, message: str
) -> None:
    """In the protocol's order and words; only the requesting client gets the error."""
    harness = paired_table()
    harness.pair(client, target)
    answer = {"type": "error", "code": code, "message": message, "target_id": target, "in_reply_to": "pair_request"}
    assert harness.take_all(client) == [answer]
    assert not any(harness.received.values())
    assert harness.log[-1] == serve.PairRefused(client, target, code)


def test_a_frame_is_routed_to_the_peer_only() -> None:
    """Marked `from_peer`."""
    harness = paired_table()
    harness.send("a", type="offer", sdp="x", key=[1])
    assert harness.take_all("b") == [{"type": "offer", "sdp": "x", "key": [1], "from_peer": True}]
    assert not any(harness.received.values())


def test_a_frame_of_an_unpaired_client_is_refused() -> None:
    """And logged without a receiver."""
    harness = paired_table()
    harness.send("c", type="offer", sdp="x")
    [error] = harness.take_all("c")
    assert (error["code"], error["in_reply_to"]) == ("not_paired", "offer")
    assert harness.log == [serve.RelayRefused("offer", "c", None, "not_paired")]


def test_a_frame_that_names_another_client_is_refused() -> None:
    """A late candidate for the last peer never reaches the next one."""
    harness = paired_table()
    harness.send("a", type="candidate", candidate=None, peer_id="c")
    [error] = harness.take_all("a")
    assert (error["code"], error["in_reply_to"]) == ("peer_unreachable", "candidate")
    assert not any(harness.received.values())


def test_unpair_frees_both_clients() -> None:
    """Both can pair again."""
    harness = paired_table()
    harness.send("b", type="unpair")
    assert harness.take_all("b") == [{"type": "unpaired", "peer_id": "a"}]
    assert harness.take_all("a") == [{"type": "peer_disconnected", "peer_id": "b", "reason": "left"}]
    harness.pair("c", "a")
    assert harness.take_all("a") == [{"type": "paired", "peer_id": "c", "is_initiator": False}]


def test_unpair_without_a_peer_is_refused() -> None:
    """With `not_paired`."""
    harness = TableHarness("a")
    harness.send("a", type="unpair")
    [error] = harness.take_all("a")
    assert (error["code"], error["in_reply_to"]) == ("not_paired", "unpair")


@pytest.mark.parametrize("reason", ["closed", "timeout", "slow", "refused"])
def test_the_peer_is_notified_once_with_the_reason(reason: DisconnectReason) -> None:
    """When its peer leaves the table."""
    harness = paired_table()
    harness.leave("a", reason)
    assert harness.take_all("b") == [{"type": "peer_disconnected", "peer_id": "a", "reason": reason}]
    harness.pair("b", "a")
    assert harness.take_all("b")[0]["code"] == "target_not_found"


def test_both_clients_of_a_pair_are_notified_of_a_shutdown_once() -> None:
    """Clients without a peer are not."""
    harness = paired_table()
    harness.shut_down()
    for name in ("a", "b", "c"):
        if harness.table.peer_of(name) is None:
            harness.leave(name, "shutdown")
    assert [frame["reason"] for frame in harness.take_all("a") + harness.take_all("b")] == ["shutdown", "shutdown"]
    assert harness.take_all("c") == []


def test_an_id_is_in_the_table_from_join_to_leave() -> None:
    """An ID that has left can join again."""
    harness = TableHarness("a")
    assert "a" in harness.table
    harness.leave("a")
    assert "a" not in harness.table
    harness.join("a")


def test_a_long_target_id_is_shortened_in_the_log_only() -> None:
    """The error has all of it."""
    harness = TableHarness("a")
    harness.pair("a", "x" * 5000)
    assert harness.take_all("a")[0]["target_id"] == "x" * 5000
    assert harness.log[0] == serve.PairRequested("a", "x" * 64)


REQUESTS = [("a", "b"), ("b", "a"), ("c", "b")]


@pytest.mark.parametrize("order", list(permutations(REQUESTS)))
def test_concurrent_requests_make_one_pair_and_one_error_for_each_other_client(
    order: tuple[tuple[str, str], ...],
) -> None:
    """A asks B while B asks A and C asks B, in every order in which they can arrive."""
    harness = TableHarness("a", "b", "c")
    for client, target in order:
        harness.pair(client, target)
    received = [frame for name in harness.received for frame in harness.take_all(name)]
    assert sum(frame["type"] == "paired" for frame in received) == 2
    assert sum(frame["type"] == "error" for frame in received) == len(REQUESTS) - 1
    assert harness.table.pairs == 1


NAMES = st.sampled_from("abcdef")


class LobbyAgainstModel(RuleBasedStateMachine):
    """Clients come, pair, send, unpair and go in any order; a plain model gives the frames that each must receive."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = TableHarness()
        self.peers: dict[str, str | None] = {}
        self.sent = 0

    def expect(self, name: str, *kinds: str) -> list[Frame]:
        frames = self.harness.take_all(name)
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
            self.harness.join(name)
            self.peers[name] = None

    @rule(name=NAMES, asked=NAMES)
    def ask(self, name: str, asked: str) -> None:
        if name not in self.peers:
            return
        self.harness.pair(name, asked)
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
        self.harness.send(name, type="offer", sdp=str(self.sent), **to)
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
        self.harness.send(name, type="unpair")
        self.expect(name, "not_paired" if self.peers[name] is None else "unpaired")
        self.part(name, "left")

    @rule(name=NAMES, reason=st.sampled_from(["closed", "timeout", "slow", "refused"]))
    def go(self, name: str, reason: DisconnectReason) -> None:
        if name in self.peers:
            self.harness.leave(name, reason)
            self.part(name, reason)
            del self.peers[name]

    @invariant()
    def no_other_client_receives_anything(self) -> None:
        assert not any(self.harness.received.values())

    @invariant()
    def two_are_a_pair_or_they_are_not(self) -> None:
        for name, peer in self.peers.items():
            assert self.harness.table.peer_of(name) == peer
            assert peer is None or self.harness.table.peer_of(peer) == name
        assert len(self.harness.table) == len(self.peers)


TestLobbyAgainstModel = LobbyAgainstModel.TestCase
