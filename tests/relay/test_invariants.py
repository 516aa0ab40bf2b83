"""The five invariants of the protocol, on the real relay with send queues that fill, under any actions of its clients.

Each client numbers its messages and sends a `ping` with the number behind each, so that the `pong`s divide what it receives
into windows, one for each message that it sent: the messages in a window are the answer. The relay's log tells in which order
pairings began and ended; what each client received must agree with that order, up to where it stopped reading.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from tests.harness.examples import examples
from tests.harness.invariants_world import (
    BROAD,
    NAMES,
    RELAYED,
    SECONDS,
    STEPS,
    TURNS,
    Clients,
    Connection,
    Frame,
    Pairing,
    Perform,
    Send,
    SendInvalid,
    Sent,
    Step,
    Wait,
    Window,
    pairings_of,
    windows_of,
)
from tests.harness.relay import ENGINES, Engine, relay_harness

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


@pytest.mark.long
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
