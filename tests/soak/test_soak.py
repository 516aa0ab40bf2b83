"""The soak itself: a short one holds, and its books can show a fault."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.account import MARK, NOBODY, Account, Figures

ROOT = Path(__file__).parents[2]


@pytest.mark.e2e
def test_a_short_soak_holds() -> None:
    """Forty sessions with faults: nothing lost, nothing leaked, status 0; progress stays off stdout."""
    command = [sys.executable, "-m", "tests.soak", "--sessions", "40", "--seed", "1", "--", "--log-level", "info"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(re.split(r"  +", line.strip()) for line in done.stdout.splitlines())
    assert figures["sessions"] == "40"
    assert int(figures["frames delivered"]) > 100
    for nothing in ("lost", "duplicates", "reordered", "altered or astray", "leaked clients", "leaked descriptors"):
        assert figures[nothing] == "0"
    assert done.stderr.startswith("Seed 1\n")


# ---- the accountant ---------------------------------------------------------------------------------------------


class Pair:
    """Books in which a and b are a pair."""

    def __init__(self) -> None:
        self.account = Account("7")
        for who, peer in (("a", "b"), ("b", "a")):
            self.account.joined(who)
            self.account.paired(who, peer)

    def send(self, *numbers: int, receiver: str = "b") -> None:
        for number in numbers:
            self.account.sent("a", receiver, number, _text(number))

    def arrive(self, *numbers: int, receiver: str = "b") -> None:
        for number in numbers:
            self.account.received(receiver, _text(number)[:-1] + MARK)

    def settled(self) -> Figures:
        return self.account.settled()


def _text(number: int) -> str:
    return json.dumps({"type": "offer", "sender": "a", "number": number, "sdp": "v=0"})


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_all_delivered(pair: Pair) -> None:
    """Each frame once, in order: no complaint."""
    pair.send(1, 2, 3)
    pair.arrive(1, 2, 3)
    assert pair.settled() == Figures(sent=3, delivered=3)


def test_a_lost_frame(pair: Pair) -> None:
    """Both are here, and one frame is neither delivered nor told of."""
    pair.send(1, 2, 3)
    pair.arrive(1, 3)
    figures = pair.settled()
    assert (figures.lost, figures.told) == (1, 0)
    assert figures.complaints == ["Session 7: 1 of the numbers [2] of a were lost, and it heard of 0"]


def test_a_frame_that_the_sender_was_told_of(pair: Pair) -> None:
    """An error accounts for one frame and for no second."""
    pair.send(1, 2, 3)
    pair.arrive(1)
    pair.account.refused("a")
    figures = pair.settled()
    assert (figures.lost, figures.told) == (1, 1)


def test_a_frame_for_nobody_needs_its_error(pair: Pair) -> None:
    """What is sent without a peer is refused, and not dropped."""
    pair.send(1, 2, receiver=NOBODY)
    pair.account.refused("a")
    assert pair.settled().lost == 1


def test_an_error_too_many(pair: Pair) -> None:
    """A sender is not told of a frame that arrived."""
    pair.send(1)
    pair.arrive(1)
    pair.account.refused("a")
    figures = pair.settled()
    assert (figures.wrongly_told, len(figures.complaints)) == (1, 1)


def test_a_duplicate(pair: Pair) -> None:
    """The same frame twice."""
    pair.send(1, 2)
    pair.arrive(1, 2, 1)
    figures = pair.settled()
    assert (figures.duplicates, figures.reordered, figures.lost) == (1, 0, 0)
    assert figures.complaints == ["Session 7: b got number 1 of a twice"]


def test_a_reordering(pair: Pair) -> None:
    """A frame behind a later one."""
    pair.send(1, 2, 3)
    pair.arrive(1, 3, 2)
    figures = pair.settled()
    assert (figures.duplicates, figures.reordered, figures.lost) == (0, 1, 0)
    assert figures.complaints == ["Session 7: b got number 2 of a behind 3"]


def test_an_altered_frame(pair: Pair) -> None:
    """A frame that is not what was sent, with the relay's mark."""
    pair.send(1)
    pair.account.received("b", _text(1).replace("v=0", "v=1")[:-1] + MARK)
    assert pair.settled().altered == 1


def test_a_frame_that_went_astray(pair: Pair) -> None:
    """A frame that came to somebody else."""
    pair.account.joined("c")
    pair.send(1)
    pair.arrive(1, receiver="c")
    figures = pair.settled()
    assert (figures.altered, figures.lost) == (1, 1)


def test_the_end_of_the_receiver_excuses_the_last_frames_but_no_gap(pair: Pair) -> None:
    """What lies in front of a frame that arrived was not cut off by the end."""
    pair.send(1, 2, 3, 4)
    pair.arrive(1, 3)
    pair.account.ending("b", "closed")
    pair.account.peer_disconnected("a", "b", "closed")
    figures = pair.settled()
    assert (figures.lost, figures.told) == (1, 1)


def test_a_sender_that_ended_itself_is_owed_nothing_unless_it_closed_in_order(pair: Pair) -> None:
    """What stands in front of a close frame arrives."""
    pair.send(1)
    pair.account.ending("a", "closed")
    pair.account.peer_disconnected("b", "a", "closed")
    assert pair.settled() == Figures(sent=1, ended=1)
    orderly = Pair()
    orderly.send(1)
    orderly.account.ending("a", "closed", in_order=True)
    orderly.account.peer_disconnected("b", "a", "closed")
    assert orderly.settled().lost == 1


def test_an_end_that_nobody_told(pair: Pair) -> None:
    """The peer of a client that ended believes to be paired."""
    pair.account.ending("b", "closed")
    assert pair.settled().complaints == ["Session 7: a never heard that b ended"]


def test_an_end_that_was_told_twice(pair: Pair) -> None:
    """`peer_disconnected` comes once."""
    pair.account.ending("b", "closed")
    pair.account.peer_disconnected("a", "b", "closed")
    pair.account.peer_disconnected("a", "b", "closed")
    assert len(pair.settled().complaints) == 1


def test_an_end_for_the_wrong_reason(pair: Pair) -> None:
    """A client that vanished did not leave."""
    pair.account.ending("b", "timeout")
    pair.account.peer_disconnected("a", "b", "closed")
    assert len(pair.settled().complaints) == 1


def test_a_parting_that_one_side_never_saw(pair: Pair) -> None:
    """Who has left, and who was left, agree."""
    pair.account.unpaired("b", "a")
    complaints = pair.settled().complaints
    assert any("believes to be paired" in each for each in complaints)
    other = Pair()
    other.account.peer_disconnected("a", "b", "left")
    assert any("was left by b 0 times and heard of 1" in each for each in other.settled().complaints)
