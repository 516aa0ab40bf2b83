"""A short soak passes, and the accounting detects every fault."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.accounting import MARK, NO_RECEIVER, Accounting, Figures

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.e2e
def test_short_soak_passes() -> None:
    """Forty sessions with faults: no lost frame, no leak, status 0; progress is on stderr only."""
    command = [sys.executable, "-m", "tests.soak", "--sessions", "40", "--seed", "1", "--", "--log-level", "info"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(re.split(r"  +", line.strip()) for line in done.stdout.splitlines())
    assert figures["sessions"] == "40"
    assert int(figures["frames delivered"]) > 100
    for row in ("lost", "duplicates", "reordered", "altered or misdirected", "leaked clients", "leaked descriptors"):
        assert figures[row] == "0"
    assert done.stderr.startswith("Seed 1\n")


# ---- the accounting ---------------------------------------------------------------------------------------------


class Pair:
    """An accounting in which a and b are paired."""

    def __init__(self) -> None:
        self.accounting = Accounting("7")
        for who, peer in (("a", "b"), ("b", "a")):
            self.accounting.joined(who)
            self.accounting.paired(who, peer)

    def send(self, *numbers: int, receiver: str = "b") -> None:
        for number in numbers:
            self.accounting.sent("a", receiver, number, _text(number))

    def arrive(self, *numbers: int, receiver: str = "b") -> None:
        for number in numbers:
            self.accounting.received(receiver, _text(number)[:-1] + MARK)

    def check(self) -> Figures:
        return self.accounting.check()


def _text(number: int) -> str:
    return json.dumps({"type": "offer", "sender": "a", "number": number, "sdp": "v=0"})


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_delivered_frames_are_no_violation(pair: Pair) -> None:
    """Each frame is received once and in order."""
    pair.send(1, 2, 3)
    pair.arrive(1, 2, 3)
    assert pair.check() == Figures(sent=3, delivered=3)


def test_lost_frame_is_a_violation(pair: Pair) -> None:
    """Both clients are connected, and a frame is neither delivered nor reported."""
    pair.send(1, 2, 3)
    pair.arrive(1, 3)
    figures = pair.check()
    assert (figures.lost, figures.notified) == (1, 0)
    assert figures.violations == ["Session 7: 1 of the numbers [2] of a were lost, with 0 errors"]


def test_error_accounts_for_one_undelivered_frame(pair: Pair) -> None:
    pair.send(1, 2, 3)
    pair.arrive(1)
    pair.accounting.refused("a")
    figures = pair.check()
    assert (figures.lost, figures.notified) == (1, 1)


def test_frame_without_receiver_requires_an_error(pair: Pair) -> None:
    """A frame of an unpaired client is refused, not dropped."""
    pair.send(1, 2, receiver=NO_RECEIVER)
    pair.accounting.refused("a")
    assert pair.check().lost == 1


def test_error_for_a_delivered_frame_is_a_violation(pair: Pair) -> None:
    pair.send(1)
    pair.arrive(1)
    pair.accounting.refused("a")
    figures = pair.check()
    assert (figures.wrongly_notified, len(figures.violations)) == (1, 1)


def test_repeated_frame_is_a_violation(pair: Pair) -> None:
    pair.send(1, 2)
    pair.arrive(1, 2, 1)
    figures = pair.check()
    assert (figures.duplicates, figures.reordered, figures.lost) == (1, 0, 0)
    assert figures.violations == ["Session 7: b got number 1 of a twice"]


def test_reordered_frame_is_a_violation(pair: Pair) -> None:
    pair.send(1, 2, 3)
    pair.arrive(1, 3, 2)
    figures = pair.check()
    assert (figures.duplicates, figures.reordered, figures.lost) == (0, 1, 0)
    assert figures.violations == ["Session 7: b got number 2 of a behind 3"]


def test_altered_frame_is_a_violation(pair: Pair) -> None:
    pair.send(1)
    pair.accounting.received("b", _text(1).replace("v=0", "v=1")[:-1] + MARK)
    assert pair.check().altered == 1


def test_misdirected_frame_is_a_violation(pair: Pair) -> None:
    pair.accounting.joined("c")
    pair.send(1)
    pair.arrive(1, receiver="c")
    figures = pair.check()
    assert (figures.altered, figures.lost) == (1, 1)


def test_end_of_the_receiver_excuses_only_the_last_frames(pair: Pair) -> None:
    """A missing frame before a delivered one is a violation."""
    pair.send(1, 2, 3, 4)
    pair.arrive(1, 3)
    pair.accounting.disconnecting("b", "closed")
    pair.accounting.peer_disconnected("a", "b", "closed")
    figures = pair.check()
    assert (figures.lost, figures.notified) == (1, 1)


def test_frames_of_a_disconnected_sender_may_be_lost_unless_it_closed_in_order(pair: Pair) -> None:
    """Frames before a close frame are delivered."""
    pair.send(1)
    pair.accounting.disconnecting("a", "closed")
    pair.accounting.peer_disconnected("b", "a", "closed")
    assert pair.check() == Figures(sent=1, ended=1)
    orderly = Pair()
    orderly.send(1)
    orderly.accounting.disconnecting("a", "closed", in_order=True)
    orderly.accounting.peer_disconnected("b", "a", "closed")
    assert orderly.check().lost == 1


def test_missing_peer_disconnected_is_a_violation(pair: Pair) -> None:
    pair.accounting.disconnecting("b", "closed")
    assert pair.check().violations == ["Session 7: a was not notified that b ended"]


def test_second_peer_disconnected_is_a_violation(pair: Pair) -> None:
    pair.accounting.disconnecting("b", "closed")
    pair.accounting.peer_disconnected("a", "b", "closed")
    pair.accounting.peer_disconnected("a", "b", "closed")
    assert len(pair.check().violations) == 1


def test_wrong_reason_of_peer_disconnected_is_a_violation(pair: Pair) -> None:
    """A client that timed out did not close."""
    pair.accounting.disconnecting("b", "timeout")
    pair.accounting.peer_disconnected("a", "b", "closed")
    assert len(pair.check().violations) == 1


def test_clients_must_agree_on_the_end_of_a_pairing(pair: Pair) -> None:
    pair.accounting.unpaired("b", "a")
    violations = pair.check().violations
    assert any("is paired with" in each for each in violations)
    other = Pair()
    other.accounting.peer_disconnected("a", "b", "left")
    assert any("unpaired from a 0 times, with 1 notifications" in each for each in other.check().violations)
