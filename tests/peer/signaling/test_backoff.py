"""Delays between attempts: bounded exponential growth with jitter."""

from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.signaling.backoff import Backoff


@given(st.floats(0.01, 10), st.floats(1, 100), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=100))
def test_delays_grow_to_their_bound_and_are_half_random(first: float, longest: float, chances: list[float]) -> None:
    """A delay is between half of the backoff and the whole of it; a success starts the backoff again."""
    backoff = Backoff(first, longest)
    for number, chance in enumerate(chances):
        whole = min(longest, first * 2.0 ** min(number, 64))
        assert whole / 2 <= backoff.next(chance) <= whole
    backoff.reset()
    assert backoff.next(0.0) == min(longest, first) / 2


def test_an_immediate_attempt_does_not_lengthen_later_delays() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.next_immediate(), backoff.next(1.0), backoff.next(0.0)] == [0.0, 0.5, 0.5]
    assert backoff.attempts == 3
    assert [backoff.next(1.0, at_most=1.5) for _ in range(2)] == [1.5, 1.5]
    backoff.reset()
    assert backoff.next(1.0) == 0.5
