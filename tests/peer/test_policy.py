"""The step that follows each end under every combination of `--pair`, `--once`, `--expect` and `--reconnect`, as tables."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from msgspec import UNSET

from sdpx.errors import Ending, ExitStatus
from sdpx.peer import policy
from sdpx.peer.diagnostics.diagnosis import Diagnosis
from sdpx.peer.diagnostics.expectation import EXPECTED, Expectation
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase
from sdpx.peer.policy import (
    NO_REPLY,
    RELAY_LOST,
    AskAgain,
    Departed,
    Detach,
    Failed,
    Finish,
    PairingState,
    Ready,
    SessionState,
    Step,
    Unpaired,
)
from sdpx.protocol.messages import ErrorFrame

STOPPED = Ending("relay_lost", "The connection to the relay was lost", ExitStatus.RELAY)
SILENT = Diagnosis(Ending("peer_silent", "The peer has been silent", ExitStatus.CHANNEL_LOST))
NO_REPLY_FROM_PEER = Diagnosis(Ending("no_answer", "No answer came", ExitStatus.NO_ANSWER), may_pass=False)
PHASES: tuple[Phase, ...] = ("exchange", "ice", "connected", "channel", "message")

# Each row is an end. Four columns without `--expect`, or with one that is met, and four with one that is not:
#                                no option, --once, --pair, --pair --once
# A number is the exit status that the program ends with; `ready`: it waits for the next pairing; `ask`: it requests that of
# `--pair` again; `*`: a diagnosis is logged; `.`: this cannot be.
NEVER_OPEN = """
left before a connection       | ready*  ready*  7*     7*     | 7*     7*     7*     7*
relay shuts down before one    | ready*  ready*  7*     7*     | 7*     7*     7*     7*
attempts failed before one     | ready   ready   8      8      | 8      8      8      8
unpaired by this side          | ready   ready   ready  ready  | ready  ready  ready  ready
"""
WAS_OPEN = """
channel closed by the peer     | ready   0       ready  0      | 12*    12*    12*    12*
left                           | ready   0       ready  0      | 12*    12*    12*    12*
socket lost                    | ready   0       ready  0      | 12*    12*    12*    12*
left, input unsent             | ready   12*     ready  12*    | 12*    12*    12*    12*
killed                         | .       12*     .      12*    | .      12*    .      12*
attempts failed after it       | ready   12      12     12     | 12     12     12     12
detached, channel closed       | ready   0       ready  0      | 12*    12*    12*    12*
detached, connection lost      | ready   12      ask    ask    | 12     12     12     12
unpaired by this side          | ready   ready   ready  ready  | ready  ready  ready  ready
"""
# The same without a relay to come: `--no-reconnect`, or a relay that refuses this peer. Only detached pairings are left then.
STOPPED_RELAY = """
detached, channel closed       | 3       0       3      0      | 12*    12*    12*    12*
detached, input unsent         | 3       12*     3      12*    | 12*    12*    12*    12*
detached, connection lost      | 3       12      12     12     | 12     12     12     12
unpaired by this side          | 3       3       3      3      | 3      3      3      3
"""
ENDS: dict[str, Departed | Failed | Unpaired] = {
    "left before a connection": Departed("left"),
    "relay shuts down before one": Departed("shutdown"),
    "attempts failed before one": Failed(NO_REPLY_FROM_PEER),
    "unpaired by this side": Unpaired(),
    "channel closed by the peer": Departed("closed"),
    "left": Departed("left"),
    "socket lost": Departed("timeout"),
    "left, input unsent": Departed("left", unsent=True),
    "killed": Departed("closed", killed=True),
    "attempts failed after it": Failed(SILENT),
    "detached, channel closed": Departed(RELAY_LOST),
    "detached, connection lost": Failed(SILENT),
    "detached, input unsent": Departed(RELAY_LOST, unsent=True),
}


@dataclass
class Row:
    end: str
    met: list[str]
    unmet: list[str]


def rows(table: str) -> list[Row]:
    cells = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return [Row(end, met.split(), unmet.split()) for end, met, unmet in cells]


def trace(*reached: Phase) -> ConnectionTrace:
    return ConnectionTrace("bob", is_initiator=True, reached_at=dict.fromkeys(reached, 0.1))


def expectations(progress: tuple[Phase, ...]) -> Iterator[bool]:
    """Yield for no `--expect`, and for each of its values, whether it is unmet after these phases."""
    for expected in (None, *EXPECTED):
        expectation = Expectation(expected)
        for phase in progress:
            expectation.reach(phase)
        yield expectation.is_unmet


def cell(step: Finish | Ready | AskAgain | Detach) -> str:
    """Spell a step as in the tables."""
    match step:
        case Finish(ending, diagnosis):
            return ("0" if ending is None else str(ending.status.value)) + "*" * (diagnosis is not None)
        case Ready(_, diagnosis):
            return "ready" + "*" * (diagnosis is not None)
        case AskAgain():
            return "ask"
        case Detach():
            return "detach"


def check(row: Row, progress: tuple[Phase, ...], stopped: Ending | None = None) -> None:
    end, was_open = ENDS[row.end], "channel" in progress
    pairing = PairingState(trace(*progress), was_open, detached=row.end.startswith("detached"))
    for unmet in expectations(progress):
        for column, (pair, once) in enumerate(product((False, True), repeat=2)):
            expected = (row.unmet if unmet else row.met)[column]
            session = SessionState(pair, once, unmet, stopped)
            if expected != ".":
                assert cell(policy.after_pairing(session, pairing, end)) == expected, session


@pytest.mark.parametrize("progress", [PHASES[:count] for count in range(3)])
@pytest.mark.parametrize("row", rows(NEVER_OPEN), ids=lambda row: row.end)
def test_an_end_before_the_channel_was_open(row: Row, progress: tuple[Phase, ...]) -> None:
    check(row, progress)


@pytest.mark.parametrize("progress", [PHASES[:4], PHASES])
@pytest.mark.parametrize("row", rows(WAS_OPEN), ids=lambda row: row.end)
def test_an_end_after_the_channel_was_open(row: Row, progress: tuple[Phase, ...]) -> None:
    check(row, progress)


@pytest.mark.parametrize("progress", [PHASES[:4], PHASES])
@pytest.mark.parametrize("row", rows(STOPPED_RELAY), ids=lambda row: row.end)
def test_an_end_after_the_relay_is_gone_for_good(row: Row, progress: tuple[Phase, ...]) -> None:
    check(row, progress, STOPPED)


def test_the_program_ends_with_the_reason_of_the_end() -> None:
    """The failure's own, the relay's, or the diagnosis of a departure; a `ready` names the relay's word."""
    open_pairing = PairingState(trace(*PHASES[:4]), was_open=True)
    failed = policy.after_pairing(SessionState(pair=True), open_pairing, Failed(SILENT))
    assert failed == Finish(SILENT.ending)
    assert policy.after_pairing(SessionState(stopped=STOPPED), open_pairing, Unpaired()) == Finish(STOPPED)
    assert policy.after_pairing(SessionState(), open_pairing, Departed("timeout")) == Ready("timeout")
    unsent = policy.after_pairing(SessionState(once=True), open_pairing, Departed("left", unsent=True))
    assert isinstance(unsent, Finish)
    assert unsent.ending is not None
    assert "input was left unsent" in unsent.ending.reason


@pytest.mark.parametrize("unmet", [False, True])
@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("pair", [False, True])
def test_the_relay_is_lost(pair: bool, once: bool, unmet: bool) -> None:
    """An open data channel continues; everything else ends, and the pairing of `--pair` is requested again."""
    session = SessionState(pair, once, unmet)
    channel_open = PairingState(trace(*PHASES[:4]), was_open=True, is_open=True)
    assert policy.after_relay_lost(session, channel_open) == Detach()
    otherwise = AskAgain(RELAY_LOST) if pair else Ready(RELAY_LOST)
    for pairing in (None, PairingState(trace()), PairingState(trace(*PHASES[:4]), was_open=True)):
        assert policy.after_relay_lost(session, pairing) == otherwise


@pytest.mark.parametrize(
    ("reason", "step"), [("left", None), ("closed", Detach()), ("timeout", Detach()), ("shutdown", Detach())]
)
def test_the_relay_reports_that_the_peer_has_left(reason: str, step: object) -> None:
    """A peer that left has ended the pairing; if it lost its socket, or if the relay stops, the channel continues."""
    pairing = PairingState(trace(*PHASES[:4]), was_open=True, is_open=True)
    assert policy.after_peer_disconnected(pairing, reason) == step
    assert policy.after_peer_disconnected(PairingState(trace()), reason) is None


@pytest.mark.parametrize(("detached", "is_open", "same_peer"), list(product((False, True), repeat=3)))
def test_a_new_pairing_is_declined_only_during_a_detached_one(detached: bool, is_open: bool, same_peer: bool) -> None:
    """Its channel is open, and the new pairing is with another peer."""
    present = PairingState(trace(*PHASES[:4]), was_open=True, is_open=is_open, detached=detached)
    assert policy.declines(present, same_peer=same_peer) is ((detached, is_open, same_peer) == (True, True, False))


@pytest.mark.parametrize(
    ("changes", "may_pass", "step"),
    [
        ({}, True, Step.RETRY),
        ({"awaits_offer": True}, True, Step.RETRY),
        ({}, False, Step.FAIL),
        ({"retries_left": 0}, True, Step.FAIL),
        ({"seconds_left": 0.0}, True, Step.FAIL),
        ({"detached": True}, True, Step.FAIL),
        ({"offers": False}, True, Step.FAIL),
        ({"offers": False, "awaits_offer": True}, True, Step.AWAIT_OFFER),
        ({"offers": False, "awaits_offer": True, "retries_left": 0}, True, Step.FAIL),
        ({"offers": False, "awaits_offer": True, "detached": True}, True, Step.FAIL),
        ({"offers": False, "awaits_offer": True}, False, Step.FAIL),
    ],
)
def test_an_attempt_failed(changes: dict[str, bool | float], may_pass: bool, step: Step) -> None:
    """The initiator offers again; the receiver waits for an offer only if the other side is known to send one."""
    values: dict[str, Any] = {
        "offers": True,
        "awaits_offer": False,
        "detached": False,
        "retries_left": 1,
        "seconds_left": 5.0,
    }
    assert policy.after_attempt(Diagnosis(SILENT.ending, may_pass), **(values | changes)) is step


@pytest.mark.parametrize(
    ("once", "unmet", "detached", "vanished", "step"),
    [
        (False, False, False, False, Step.CONTINUE),
        (False, True, False, False, Step.AWAIT_CHANNEL),
        (True, False, False, False, Step.END),
        (True, True, False, False, Step.END),
        (False, False, True, False, Step.END),
        (False, True, True, False, Step.END),
        *((once, unmet, detached, True, Step.CONTINUE) for once, unmet, detached in product((False, True), repeat=3)),
    ],
)
def test_the_channel_was_closed(once: bool, unmet: bool, detached: bool, vanished: bool, step: Step) -> None:
    """The pairing ends with it under `--once` and where the relay knows it no more; a peer that vanished closed nothing."""
    pairing = PairingState(trace(*PHASES[:4]), was_open=True, detached=detached)
    pairing.trace.vanished = vanished
    assert policy.after_channel_closed(pairing, once=once, unmet=unmet) is step


@pytest.mark.parametrize(
    ("code", "required", "reconnect", "status"),
    [
        ("target_not_found", True, True, 4),
        ("target_not_found", True, False, 4),
        ("target_not_found", False, True, None),
        (RELAY_LOST, True, True, None),
        (RELAY_LOST, False, False, None),
        (NO_REPLY, True, True, None),
        (NO_REPLY, False, True, None),
        (NO_REPLY, True, False, 3),
        (NO_REPLY, False, False, 3),
    ],
)
def test_a_request_was_refused(code: str, required: bool, reconnect: bool, status: int | None) -> None:
    """Only `--pair` makes a refusal an error; a relay without an answer is lost, and dialled again if that is allowed."""
    step = policy.after_refusal(ErrorFrame(code, "no", UNSET), target="bob", required=required, reconnect=reconnect)
    assert (None if step is None or step.ending is None else step.ending.status) == status


@pytest.mark.parametrize(
    ("connected", "target", "refused", "code"),
    [
        (False, None, False, "relay_unreachable"),
        (False, "bob", True, "relay_unreachable"),
        (True, "bob", True, "target_not_found"),
        (True, "bob", False, None),
        (True, None, True, None),
    ],
)
def test_no_pairing_came_within_the_time(connected: bool, target: str | None, refused: bool, code: str | None) -> None:
    """The relay's absence, or its last refusal, says more than that the time is over."""
    refusal = ErrorFrame("target_not_found", "no") if refused else None
    ending = policy.before_any_pairing(5, url="ws://relay.test", connected=connected, target=target, refusal=refusal)
    assert (None if ending is None else ending.code) == code
