"""Remote candidates: the order in which ICE gets them, and when ICE is notified of their end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.candidates import MAX_EARLY, QUIET_SECONDS, RemoteCandidates
from sdpx.protocol.messages import CandidateInit

A, B, C = (CandidateInit(f"candidate:{name} 1 udp 1 192.0.2.1 1 typ host", "0") for name in "abc")


def test_early_candidates_follow_those_of_the_description() -> None:
    """ICE gets the candidates of the description, then the early ones, then each later one at once."""
    candidates = RemoteCandidates()
    assert candidates.add(B, 0) == candidates.add(C, 0) == []
    assert candidates.on_description([A], 1) == [A, B, C]
    assert candidates.add(A, 2) == [A]


@pytest.mark.parametrize("end", [None, CandidateInit(""), CandidateInit(" \r\n", "0"), CandidateInit("a=")])
def test_candidates_after_the_end_are_still_used(end: CandidateInit | None) -> None:
    """Null and an empty candidate both are the end; some stacks send it before their last candidates."""
    candidates = RemoteCandidates()
    assert candidates.add(end, 0) == []
    assert candidates.on_description([None], 1) == []
    assert candidates.add(A, 2) == [A]


def test_the_end_counts_after_a_quiet_time() -> None:
    candidates = RemoteCandidates()
    candidates.on_description([A], 0)
    assert candidates.end_of_candidates_in(100) is None
    candidates.add(None, 100)
    assert candidates.end_of_candidates_in(100) == QUIET_SECONDS
    candidates.add(B, 101)
    assert candidates.end_of_candidates_in(101 + QUIET_SECONDS / 2) == QUIET_SECONDS / 2
    assert candidates.end_of_candidates_in(101 + QUIET_SECONDS) == 0


def test_the_end_waits_for_name_resolution() -> None:
    candidates = RemoteCandidates()
    candidates.on_description([A, None], 0)
    candidates.count_resolving(1)
    assert candidates.end_of_candidates_in(100) is None
    candidates.count_resolving(-1)
    assert candidates.end_of_candidates_in(100) == 0


def test_the_end_is_reported_once() -> None:
    candidates = RemoteCandidates()
    candidates.on_description([None], 0)
    candidates.mark_ended()
    assert candidates.end_of_candidates_in(100) is None


def test_early_candidates_are_bounded() -> None:
    candidates = RemoteCandidates()
    for _ in range(MAX_EARLY):
        candidates.add(A, 0)
    with pytest.raises(ValueError, match="More than"):
        candidates.add(A, 0)
    assert len(candidates.on_description([], 0)) == MAX_EARLY


@given(st.lists(st.sampled_from([A, B, C, None])), st.integers(0, 30))
def test_no_candidate_is_lost_or_reordered(sent: list[CandidateInit | None], described_at: int) -> None:
    """The description may come at any time."""
    candidates = RemoteCandidates()
    came: list[CandidateInit] = []
    for number, each in enumerate(sent):
        if number == described_at:
            came += candidates.on_description([], 0)
        came += candidates.add(each, 0)
    if described_at >= len(sent):
        came += candidates.on_description([], 0)
    assert came == [each for each in sent if each is not None]
