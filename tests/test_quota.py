"""Rates and numbers: a burst passes, a flood does not, and 0 turns a limit off."""

from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.quota import Census, Quota, TokenBucket


def test_a_burst_passes_and_then_the_rate() -> None:
    quota = Quota(10, now=0)
    assert all(quota.allows(0) for _ in range(50))
    assert not quota.allows(0)
    assert quota.allows(0.1)
    assert not quota.allows(0.1)


def test_who_goes_on_regardless_is_exhausted() -> None:
    """Five seconds' worth of refusals, not one burst too many."""
    quota = Quota(10, now=0)
    refused = 0
    while not quota.exhausted:
        refused += not quota.allows(0)
    assert refused == 51


def test_who_slows_down_is_never_exhausted() -> None:
    quota = Quota(10, now=0)
    for moment in range(1000):
        quota.allows(moment / 9)
    assert not quota.exhausted


def test_no_rate_is_no_limit() -> None:
    quota = Quota(0, now=0)
    assert all(quota.allows(0) for _ in range(10_000))


@given(st.lists(st.floats(0, 10), max_size=200), st.floats(0.1, 100), st.integers(1, 50))
def test_no_more_than_burst_and_rate_ever_pass(gaps: list[float], rate: float, burst: int) -> None:
    bucket, now, passed = TokenBucket(rate, burst, 0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now)
    assert passed <= burst + now * rate + 1e-6


def test_connections_are_counted_in_all_and_by_address() -> None:
    census = Census(limit=3, limit_per_address=2)
    for address in ("a", "a", "b"):
        census.enter(address)
    assert (census.is_full, census.is_crowded("a")) == (False, False)
    census.enter("a")
    assert (census.is_full, census.is_crowded("a"), census.is_crowded("b")) == (True, True, False)
    census.leave("a")
    assert (census.is_full, census.is_crowded("a")) == (False, False)


def test_without_limits_nothing_is_full() -> None:
    census = Census(0, 0)
    for _ in range(100):
        census.enter("a")
    assert (census.is_full, census.is_crowded("a")) == (False, False)
