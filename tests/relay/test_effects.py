"""Execution of effects: their order, where executing one causes others, and frames that are forwarded meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from sdpx.events import Event, serve
from sdpx.protocol.codec import FROM_PEER
from sdpx.protocol.messages import Pong
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.overload import QueuedBytes
from sdpx.relay.core.pairing import Send
from sdpx.relay.effects import EffectExecutor
from sdpx.relay.resume import ResumeManager
from sdpx.relay.websocket.fast_parser import payload_of
from tests.relay.test_delivery import session


@dataclass
class Connection:
    """A connection that keeps the frames that are posted, and calls `on_post` then."""

    _depth: int
    posted: list[bytes] = field(default_factory=list)
    on_post: Callable[[], object] = int

    def post(self, data: bytes, _sender: object = None, _since: float = 0.0) -> int:
        self.posted.append(payload_of(data))
        self.on_post()
        return self._depth


class Setup:
    """An executor for the clients `a` and `b`, and the events that it has logged."""

    def __init__(self, depth: int = 1) -> None:
        self.logged: list[Event] = []
        self.sessions = {name: session(name) for name in "ab"}
        self.connections = {name: Connection(depth) for name in "ab"}
        for name, connection in self.connections.items():
            self.sessions[name].connection = cast("Any", connection)
        resume = ResumeManager(Limits(), self.sessions, self.logged.append, lambda *_: None, lambda _: 0.0)
        self.executor = EffectExecutor(
            Limits().max_queued_bytes, self.sessions, resume, QueuedBytes(), self.logged.append
        )


FIRST, CAUSED = serve.Unpaired("a", "b", "left"), serve.Unpaired("b", "a", "slow")


def test_effects_that_an_effect_causes_are_executed_after_all_earlier_ones() -> None:
    setup = Setup()
    setup.connections["a"].on_post = lambda: setup.executor.execute([CAUSED])
    setup.executor.execute([Send("a", Pong()), FIRST])
    assert setup.logged == [FIRST, CAUSED]


def test_the_depth_is_that_of_the_fullest_queue() -> None:
    setup = Setup(depth=7)
    assert setup.executor.execute([FIRST, Send("a", Pong()), FIRST]) == 7


def test_a_message_for_a_removed_client_is_dropped() -> None:
    setup = Setup()
    assert setup.executor.execute([Send("c", Pong())]) == 0


@pytest.mark.parametrize(("depth", "accepted"), [(3, True), (0, False)])
def test_effects_of_a_forwarded_frame_wait_for_the_caller(depth: int, accepted: bool) -> None:
    """The caller logs the frame first."""
    setup = Setup(depth)
    connection = setup.connections["b"]
    connection.on_post = lambda: setup.executor.execute([CAUSED])
    body = b'{"type":"offer"'
    assert setup.executor.forward(setup.sessions["b"], body, None, setup.sessions["a"], 0.0) == (accepted, depth)
    assert connection.posted == [body + FROM_PEER]
    assert setup.logged == []
    setup.executor.execute_pending()
    assert setup.logged == [CAUSED]


def test_a_frame_that_an_effect_forwards_does_not_overtake_other_effects() -> None:
    setup = Setup()

    def forward() -> None:
        setup.executor.forward(setup.sessions["b"], b"{", None, None, 0.0)
        setup.executor.execute_pending()
        assert setup.logged == []

    setup.connections["a"].on_post = forward
    setup.connections["b"].on_post = lambda: setup.executor.execute([CAUSED])
    setup.executor.execute([Send("a", Pong()), FIRST])
    assert setup.logged == [FIRST, CAUSED]
