"""In what order a peer's candidates come to ICE, and when it hears of their end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.candidates import HELD, QUIET_SECONDS, RemoteCandidates
from sdpx.protocol.messages import CandidateInit

A, B, C = (CandidateInit(f"candidate:{name} 1 udp 1 192.0.2.1 1 typ host", "0") for name in "abc")


def test_candidates_wait_for_the_description_and_then_come_in_order() -> None:
    """Those of the description first, then those that came before it, then whatever follows."""
    candidates = RemoteCandidates()
    assert candidates.take(B, 0) == candidates.take(C, 0) == []
    assert candidates.opened([A], 1) == [A, B, C]
    assert candidates.take(A, 2) == [A]


@pytest.mark.parametrize("end", [None, CandidateInit(""), CandidateInit(" \r\n", "0"), CandidateInit("a=")])
def test_the_end_is_no_candidate_and_keeps_none_out(end: CandidateInit | None) -> None:
    """Null and an empty one are the same; some stacks say it in front of their last candidates."""
    candidates = RemoteCandidates()
    assert candidates.take(end, 0) == []
    assert candidates.opened([None], 1) == []
    assert candidates.take(A, 2) == [A]


def test_the_end_counts_once_it_is_quiet() -> None:
    candidates = RemoteCandidates()
    candidates.opened([A], 0)
    assert candidates.end_of_candidates_in(100) is None
    candidates.take(None, 100)
    assert candidates.end_of_candidates_in(100) == QUIET_SECONDS
    candidates.take(B, 101)
    assert candidates.end_of_candidates_in(101 + QUIET_SECONDS / 2) == QUIET_SECONDS / 2
    assert candidates.end_of_candidates_in(101 + QUIET_SECONDS) == 0


def test_the_end_waits_for_names_that_are_being_resolved() -> None:
    candidates = RemoteCandidates()
    candidates.opened([A, None], 0)
    candidates.resolving(1)
    assert candidates.end_of_candidates_in(100) is None
    candidates.resolving(-1)
    assert candidates.end_of_candidates_in(100) == 0


def test_the_end_is_told_once() -> None:
    candidates = RemoteCandidates()
    candidates.opened([None], 0)
    candidates.told()
    assert candidates.end_of_candidates_in(100) is None


def test_no_more_are_held_than_a_bound() -> None:
    candidates = RemoteCandidates()
    for _ in range(HELD):
        candidates.take(A, 0)
    with pytest.raises(ValueError, match="More than"):
        candidates.take(A, 0)
    assert len(candidates.opened([], 0)) == HELD


@given(st.lists(st.sampled_from([A, B, C, None])), st.integers(0, 30))
def test_nothing_is_lost_or_turned_round(sent: list[CandidateInit | None], opens_at: int) -> None:
    """Whenever the description comes."""
    candidates = RemoteCandidates()
    came: list[CandidateInit] = []
    for number, each in enumerate(sent):
        if number == opens_at:
            came += candidates.opened([], 0)
        came += candidates.take(each, 0)
    if opens_at >= len(sent):
        came += candidates.opened([], 0)
    assert came == [each for each in sent if each is not None]
