"""Rates and numbers: a burst passes, a flood does not, and 0 turns a limit off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.core.rate_limit import (
    ADDRESSES_KEPT,
    ATTEMPT_BURST,
    ClientRateLimit,
    ConnectionCounts,
    FailedAuthLimit,
    PendingHandshakes,
    TokenBucket,
    UnknownTargetLimit,
    network_of,
)


def quota_of(rate: float = 200, guesses: UnknownTargetLimit | None = None, address: str = "a") -> ClientRateLimit:
    return ClientRateLimit(rate, 0, guesses or UnknownTargetLimit(1), address)


def guess(quota: ClientRateLimit, now: float) -> bool:
    """Ask for somebody who is not here."""
    return quota.allows_pair_request(now, is_visible=False)


def test_a_burst_passes_and_then_the_rate() -> None:
    quota = quota_of(10)
    assert all(quota.allows(0) for _ in range(50))
    assert not quota.allows(0)
    assert quota.allows(0.1)
    assert not quota.allows(0.1)


def test_who_goes_on_regardless_is_exhausted() -> None:
    """Five seconds' worth of refusals, not one burst too many."""
    quota = quota_of(10)
    refused = 0
    while not quota.exhausted:
        refused += not quota.allows(0)
    assert refused == 51


def test_who_slows_down_is_never_exhausted() -> None:
    quota = quota_of(10)
    for moment in range(1000):
        quota.allows(moment / 9)
    assert not quota.exhausted


def test_no_rate_is_no_limit() -> None:
    quota = quota_of(0)
    assert all(quota.allows(0) for _ in range(10_000))


@given(st.lists(st.floats(0, 10), max_size=200), st.floats(0.1, 100), st.integers(1, 50))
def test_no_more_than_burst_and_rate_ever_pass(gaps: list[float], rate: float, burst: int) -> None:
    bucket, now, passed = TokenBucket(rate, burst, 0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now)
    assert passed <= burst + now * rate + 1e-6


def test_clients_are_counted_in_all_and_by_address() -> None:
    census = ConnectionCounts(limit=3, limit_per_address=2)
    for address in ("a", "b"):
        census.enter(address)
    assert (census.is_full, census.is_crowded("a")) == (False, False)
    census.enter("a")
    assert (census.is_full, census.is_crowded("a"), census.is_crowded("b")) == (True, True, False)
    census.leave("a")
    assert (census.is_full, census.is_crowded("a")) == (False, False)


def test_without_limits_nothing_is_full() -> None:
    census, pending = ConnectionCounts(0, 0), PendingHandshakes[int](0, 0)
    for number in range(100):
        census.enter("a")
        assert pending.enter(number, "a") is None
    assert (census.is_full, census.is_crowded("a")) == (False, False)


def test_the_oldest_of_an_address_makes_room() -> None:
    """Not another's, however old."""
    pending = PendingHandshakes[int](10, 2)
    assert [pending.enter(number, address) for number, address in enumerate("baab")] == [None] * 4
    assert pending.enter(4, "a") == 1
    pending.leave(1)
    assert pending.enter(5, "a") == 2


def test_the_oldest_of_all_makes_room() -> None:
    pending = PendingHandshakes[int](3, 2)
    assert [pending.enter(number, address) for number, address in enumerate("abcd")] == [None, None, None, 0]
    assert list(pending) == [0, 1, 2, 3]


def test_the_least_rate_lets_a_message_through() -> None:
    quota = quota_of(0.01)
    assert quota.allows(0)
    assert not quota.allows(0)
    assert not quota.exhausted


def test_who_has_left_makes_no_room() -> None:
    pending = PendingHandshakes[int](2, 1)
    for number in range(100):
        assert pending.enter(number, "a") is None
        pending.leave(number)
    assert list(pending) == []


def test_guesses_of_an_address_are_slowed() -> None:
    """Three of each client's own, twenty of the address, then one a second, however many clients it uses."""
    guesses = UnknownTargetLimit(1)
    clients = [quota_of(guesses=guesses) for _ in range(10)]
    assert sum(guess(client, 0) for client in clients for _ in range(100)) == 10 * 3 + 20
    assert sum(guess(client, 1) for client in clients for _ in range(100)) == 1


def test_another_address_is_not_slowed() -> None:
    guesses = UnknownTargetLimit(1)
    guesser, other = quota_of(guesses=guesses), quota_of(guesses=guesses, address="b")
    assert not all(guess(guesser, 0) for _ in range(100))
    assert all(guess(other, 0) for _ in range(23))


def test_who_asks_for_somebody_who_is_here_is_never_slowed() -> None:
    """Not even from the address of one who guesses."""
    guesses = UnknownTargetLimit(1)
    guesser, good = quota_of(guesses=guesses), quota_of(guesses=guesses)
    assert not all(guess(guesser, 0) for _ in range(100))
    assert all(good.allows_pair_request(0, is_visible=True) for _ in range(100))


def test_who_looks_for_somebody_every_five_seconds_is_never_slowed() -> None:
    guesses = UnknownTargetLimit(1)
    while guesses.take("a", 0):
        pass
    waiting = quota_of(guesses=guesses)
    assert all(guess(waiting, moment) for moment in range(0, 5000, 5))


def test_who_goes_on_guessing_is_exhausted() -> None:
    guesser = quota_of(10)
    while guess(guesser, 0):
        pass
    refused = 1
    while not guesser.exhausted:
        refused += not guess(guesser, 0)
    assert refused == 51


def test_what_is_kept_of_addresses_is_bounded() -> None:
    """The one that drew last is kept longest."""
    guesses = UnknownTargetLimit(1)
    while guesses.take("guesser", 0):
        pass
    for number in range(2 * ADDRESSES_KEPT):
        guesses.take(f"other {number}", 0)
        assert not guesses.take("guesser", 0)
    assert len(guesses._limit._buckets) == ADDRESSES_KEPT


def test_no_guess_rate_is_no_limit() -> None:
    quota = quota_of(guesses=UnknownTargetLimit(0))
    assert all(guess(quota, 0) for _ in range(10_000))


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
    ],
)
def test_one_address_is_what_one_host_has_at_will(host: str, network: str) -> None:
    assert network_of(host) == network


# ---- failed authentication


def test_failed_authentication_some_at_once_and_then_a_steady_rate() -> None:
    attempts = FailedAuthLimit(2)
    for _ in range(int(ATTEMPT_BURST)):
        assert attempts.may_try("a", 0)
        attempts.failed("a", 0)
    assert not attempts.may_try("a", 0)
    assert attempts.seconds_to_wait("a", 0) == 0.5
    assert attempts.may_try("a", 0.5)
    assert attempts.may_try("b", 0)


def test_failed_authentication_attempts_side_by_side_win_nothing() -> None:
    """They are below zero, and have to be waited for; but not for ever."""
    attempts = FailedAuthLimit(1)
    for _ in range(1000):
        attempts.failed("a", 0)
    assert attempts.seconds_to_wait("a", 0) == ATTEMPT_BURST + 1
    assert attempts.may_try("a", ATTEMPT_BURST + 1)


def test_failed_authentication_who_fails_seldom_never_notices() -> None:
    attempts = FailedAuthLimit(1)
    for second in range(1000):
        assert attempts.may_try("a", second)
        attempts.failed("a", second)


def test_failed_authentication_zero_is_no_limit() -> None:
    attempts = FailedAuthLimit(0)
    for _ in range(100):
        attempts.failed("a", 0)
    assert attempts.may_try("a", 0)
    assert attempts.seconds_to_wait("a", 0) == 0


def test_failed_authentication_what_is_kept_is_bounded() -> None:
    attempts = FailedAuthLimit(1)
    for number in range(ADDRESSES_KEPT * 2):
        attempts.failed(str(number), 0)
    assert len(attempts._limit._buckets) == ADDRESSES_KEPT
