"""Rate limits: a burst passes, a flood does not, and 0 disables a limit."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.core.rate_limit import (
    ADDRESS_BURST,
    ADDRESSES_KEPT,
    AddressLimit,
    ClientRateLimit,
    ConnectionCounts,
    EvictionQueue,
    TokenBucket,
    network_of,
)


def rate_limit(rate: float = 200, unknown_targets: AddressLimit | None = None, address: str = "a") -> ClientRateLimit:
    return ClientRateLimit(rate, 0, unknown_targets or AddressLimit(1), address)


def guess(limit: ClientRateLimit, now: float) -> bool:
    """Request a pairing with an ID that is not connected."""
    return limit.allows_pair_request(now, is_visible=False)


def test_a_burst_passes_and_then_the_rate() -> None:
    """Five seconds' worth of messages at once."""
    limit = rate_limit(10)
    assert all(limit.allows(0) for _ in range(50))
    assert not limit.allows(0)
    assert limit.allows(0.1)
    assert not limit.allows(0.1)


def test_a_client_that_ignores_refusals_is_exhausted() -> None:
    """After five seconds' worth of refusals, not one burst."""
    limit = rate_limit(10)
    refused = 0
    while not limit.exhausted:
        refused += not limit.allows(0)
    assert refused == 51


def test_a_client_slightly_over_the_rate_is_not_exhausted() -> None:
    """However long it goes on."""
    limit = rate_limit(10)
    for moment in range(1000):
        limit.allows(moment / 9)
    assert not limit.exhausted


def test_a_rate_of_0_is_no_limit() -> None:
    """For the messages of a client."""
    limit = rate_limit(0)
    assert all(limit.allows(0) for _ in range(10_000))


@given(st.lists(st.floats(0, 10), max_size=200), st.floats(0.1, 100), st.integers(1, 50))
def test_a_token_bucket_passes_no_more_than_burst_and_rate(gaps: list[float], rate: float, burst: int) -> None:
    """Whatever the gaps."""
    bucket, now, passed = TokenBucket(rate, burst, 0), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now)
    assert passed <= burst + now * rate + 1e-6


def test_connections_are_counted_in_all_and_by_address() -> None:
    """Each with its own limit."""
    counts = ConnectionCounts(limit=3, limit_per_address=2)
    for address in ("a", "b"):
        counts.enter(address)
    assert (counts.is_full, counts.is_crowded("a")) == (False, False)
    counts.enter("a")
    assert (counts.is_full, counts.is_crowded("a"), counts.is_crowded("b")) == (True, True, False)
    counts.leave("a")
    assert (counts.is_full, counts.is_crowded("a")) == (False, False)


def test_a_limit_of_0_is_no_limit() -> None:
    """For connections and pending handshakes."""
    counts, pending = ConnectionCounts(0, 0), EvictionQueue[int](0, 0)
    for number in range(100):
        counts.enter("a")
        assert pending.enter(number, "a") is None
    assert (counts.is_full, counts.is_crowded("a")) == (False, False)


def test_the_oldest_pending_connection_of_an_address_is_evicted() -> None:
    """Not one of another address, however old."""
    pending = EvictionQueue[int](10, 2)
    assert [pending.enter(number, address) for number, address in enumerate("baab")] == [None] * 4
    assert pending.enter(4, "a") == 1
    pending.leave(1)
    assert pending.enter(5, "a") == 2


def test_the_oldest_pending_connection_is_evicted() -> None:
    """Past the limit in all."""
    pending = EvictionQueue[int](3, 2)
    assert [pending.enter(number, address) for number, address in enumerate("abcd")] == [None, None, None, 0]
    assert list(pending) == [0, 1, 2, 3]


def test_the_address_with_most_pending_connections_loses_its_oldest() -> None:
    """Past the limit in all; other addresses lose none, however old."""
    pending = EvictionQueue[int](4, 0)
    assert [pending.enter(number, address) for number, address in enumerate("abbbb")] == [None] * 4 + [1]
    pending.leave(1)
    assert pending.enter(5, "c") == 2
    pending.leave(2)
    assert pending.enter(6, "d") == 3
    pending.leave(3)
    assert pending.enter(7, "e") == 0


@given(st.lists(st.tuples(st.sampled_from("aaabbcd"), st.booleans()), max_size=60))
def test_evicted_connection_is_the_oldest_of_an_address_with_most(steps: list[tuple[str, bool]]) -> None:
    """Whatever comes and goes."""
    pending, held = EvictionQueue[int](5, 0), dict[int, str]()
    for number, (address, leaves) in enumerate(steps):
        if leaves and held:
            pending.leave(first := next(iter(held)))
            del held[first]
        held[number] = address
        evicted = pending.enter(number, address)
        assert (evicted is None) == (len(held) <= 5)
        if evicted is not None:
            counts = Counter(held.values())
            assert counts[held[evicted]] == max(counts.values())
            assert evicted == next(each for each in held if held[each] == held[evicted])
            pending.leave(evicted)
            del held[evicted]


def test_the_lowest_rate_passes_one_message() -> None:
    """And refusals do not exhaust the client at once."""
    limit = rate_limit(0.01)
    assert limit.allows(0)
    assert not limit.allows(0)
    assert not limit.exhausted


def test_a_connection_that_has_left_is_not_evicted() -> None:
    """The next oldest one is."""
    pending = EvictionQueue[int](2, 1)
    for number in range(100):
        assert pending.enter(number, "a") is None
        pending.leave(number)
    assert list(pending) == []


def test_pair_requests_for_unknown_ids_are_limited_by_address() -> None:
    """Three of each client's own, twenty of the address, then one a second, however many clients it uses."""
    unknown_targets = AddressLimit(1)
    clients = [rate_limit(unknown_targets=unknown_targets) for _ in range(10)]
    assert sum(guess(client, 0) for client in clients for _ in range(100)) == 10 * 3 + 20
    assert sum(guess(client, 1) for client in clients for _ in range(100)) == 1


def test_another_address_is_not_limited() -> None:
    """By the pair requests of the first one."""
    unknown_targets = AddressLimit(1)
    guessing, other = (
        rate_limit(unknown_targets=unknown_targets),
        rate_limit(unknown_targets=unknown_targets, address="b"),
    )
    assert not all(guess(guessing, 0) for _ in range(100))
    assert all(guess(other, 0) for _ in range(23))


def test_pair_requests_for_connected_ids_are_not_limited() -> None:
    """Not even from the address of a client that unknown_targets."""
    unknown_targets = AddressLimit(1)
    guessing, good = rate_limit(unknown_targets=unknown_targets), rate_limit(unknown_targets=unknown_targets)
    assert not all(guess(guessing, 0) for _ in range(100))
    assert all(good.allows_pair_request(0, is_visible=True) for _ in range(100))


def test_a_pair_request_every_five_seconds_is_not_limited() -> None:
    """A client may wait for its peer to connect."""
    unknown_targets = AddressLimit(1)
    while unknown_targets.take("a", 0):
        pass
    waiting = rate_limit(unknown_targets=unknown_targets)
    assert all(guess(waiting, moment) for moment in range(0, 5000, 5))


def test_a_client_that_goes_on_guessing_is_exhausted() -> None:
    """Its refusals count as those of messages."""
    guessing = rate_limit(10)
    while guess(guessing, 0):
        pass
    refused = 1
    while not guessing.exhausted:
        refused += not guess(guessing, 0)
    assert refused == 51


def test_remembered_addresses_are_bounded() -> None:
    """The address used last is kept longest."""
    unknown_targets = AddressLimit(1)
    while unknown_targets.take("guessing", 0):
        pass
    for number in range(2 * ADDRESSES_KEPT):
        unknown_targets.take(f"other {number}", 0)
        assert not unknown_targets.take("guessing", 0)
    assert len(unknown_targets._buckets) == ADDRESSES_KEPT


def test_an_unknown_target_rate_of_0_is_no_limit() -> None:
    """For pair requests."""
    limit = rate_limit(unknown_targets=AddressLimit(0))
    assert all(guess(limit, 0) for _ in range(10_000))


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
def test_an_ipv6_network_counts_as_one_address(host: str, network: str) -> None:
    """A /64, and an IPv4 address by itself."""
    assert network_of(host) == network


# ---- failed authentication


def test_failed_authentication_has_a_burst_and_then_a_rate() -> None:
    """By address."""
    attempts = AddressLimit(2)
    for _ in range(int(ADDRESS_BURST)):
        assert attempts.has("a", 0)
        attempts.force("a", 0)
    assert not attempts.has("a", 0)
    assert attempts.seconds_to_wait("a", 0) == 0.5
    assert attempts.has("a", 0.5)
    assert attempts.has("b", 0)


def test_concurrent_failed_attempts_count_below_zero() -> None:
    """So that they have to be waited for, but not for ever."""
    attempts = AddressLimit(1)
    for _ in range(1000):
        attempts.force("a", 0)
    assert attempts.seconds_to_wait("a", 0) == ADDRESS_BURST + 1
    assert attempts.has("a", ADDRESS_BURST + 1)


def test_occasional_failed_attempts_are_not_limited() -> None:
    """One a second at a rate of one a second."""
    attempts = AddressLimit(1)
    for second in range(1000):
        assert attempts.has("a", second)
        attempts.force("a", second)


def test_a_failed_authentication_rate_of_0_is_no_limit() -> None:
    """And nothing has to be waited for."""
    attempts = AddressLimit(0)
    for _ in range(100):
        attempts.force("a", 0)
    assert attempts.has("a", 0)
    assert attempts.seconds_to_wait("a", 0) == 0


def test_addresses_with_failed_attempts_are_bounded() -> None:
    """The latest are kept."""
    attempts = AddressLimit(1)
    for number in range(ADDRESSES_KEPT * 2):
        attempts.force(str(number), 0)
    assert len(attempts._buckets) == ADDRESSES_KEPT
