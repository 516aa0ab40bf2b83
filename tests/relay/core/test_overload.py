"""Overload: which clients the relay disconnects when all together use too much memory."""

from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.core.overload import TARGET_SHARE, PartialMessageBudget, largest_buffers, slowest_readers

SIZES = st.lists(st.integers(0, 50), max_size=10)


def test_slowest_reader_is_the_one_with_most_bytes_for_the_longest_time() -> None:
    """Not the one with the most bytes, which may have come just now, nor the one that has been stalled for longest."""
    queues = [("new and large", 40, 9.9), ("old and small", 1, 0.0), ("old and large", 60, 5.0)]
    assert slowest_readers(queues, 101, 100, 10.0) == ["old and large"]


def test_stalled_readers_are_disconnected_down_to_the_target_share() -> None:
    """So that not every frame has to look at all clients."""
    queues = [(name, 20, 0.0) for name in "abcdef"]
    evicted = slowest_readers(queues, 120, 100, 10.0)
    assert 120 - 20 * len(evicted) <= 100 * TARGET_SHARE < 120 - 20 * (len(evicted) - 1)


def test_readers_that_pause_are_disconnected_only_down_to_the_limit() -> None:
    """A short pause is not a stall."""
    assert slowest_readers([(name, 20, 9.0) for name in "abcdef"], 120, 100, 10.0) == ["a"]


@given(SIZES, st.integers(1, 200))
def test_largest_buffers_bring_the_total_below_the_target_share(sizes: list[int], limit: int) -> None:
    """Those of one address: the largest first, and none while the total is within the limit."""
    total = sum(sizes)
    evicted = largest_buffers([(number, "a", size) for number, size in enumerate(sizes)], total, limit)
    if total <= limit:
        assert evicted == []
    else:
        assert total - sum(sizes[number] for number in evicted) <= limit * TARGET_SHARE
        kept = [size for number, size in enumerate(sizes) if number not in evicted]
        assert max(kept, default=0) <= min(sizes[number] for number in evicted)


def test_largest_buffer_of_the_address_with_most_bytes_is_evicted() -> None:
    """Not the largest of all, whose address has fewer."""
    buffers = [("large", "a", 30), *((f"small {number}", "b", 5 + number) for number in range(10))]
    assert largest_buffers(buffers, 125, 100) == [f"small {number}" for number in (9, 8, 7, 6)]


def test_largest_partial_message_is_disconnected() -> None:
    """As soon as all together are over the limit."""
    budget = PartialMessageBudget[str](10)
    assert [budget.update("a", 6, 0), budget.update("b", 4, 0)] == [None, None]
    assert budget.update("b", 5, 1) == "a"
    assert budget.update("a", 0, 1) is None
    assert budget.update("b", 11, 1) == "b"


def test_partial_message_that_has_waited_for_long_is_disconnected_before_a_larger_new_one() -> None:
    """A message is new when the one before has been completed."""
    budget = PartialMessageBudget[str](10)
    assert [budget.update("old", 4, 0), budget.update("busy", 3, 0), budget.update("busy", 2, 9)] == [None] * 3
    assert budget.update("busy", 7, 10) == "old"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=30), st.integers(0, 40))
def test_partial_message_budget_is_the_sum_of_the_clients(steps: list[tuple[str, int]], limit: int) -> None:
    """A client's size replaces its earlier one."""
    budget, model = PartialMessageBudget[str](limit), dict.fromkeys("abc", 0)
    for client, size in steps:
        model[client] = size
        largest = budget.update(client, size, 0)
        assert (largest is not None) == (sum(model.values()) > limit)
        assert largest is None or model[largest] == max(model.values())
