import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sdpx.concurrency import FairSlots, RepeatedEvent, fail_after, leaf_exceptions, map_exceptions


async def test_each_set_wakes_the_tasks_that_wait_at_that_moment(autojump_clock: trio.abc.Clock) -> None:
    event = RepeatedEvent()
    event.set()
    woken: list[str] = []

    async def wait(name: str) -> None:
        await event.wait()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        for expected in (["a"], ["a", "b"]):
            nursery.start_soon(wait, expected[-1])
            await wait_all_tasks_blocked()
            assert woken == expected[:-1], "an earlier set does not count"
            event.set()
            await wait_all_tasks_blocked()
            assert woken == expected


def test_leaf_exceptions_are_found_at_any_depth() -> None:
    a, b, c = ValueError("a"), KeyError("b"), OSError("c")
    group = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [a, ExceptionGroup("innermost", [b])]), c])
    assert leaf_exceptions(group) == [a, b, c]


async def test_a_suspension_takes_no_time_from_an_attempt(autojump_clock: trio.abc.Clock) -> None:
    """The attempt is made again, with all its time; without a further suspension it fails."""
    resumed, began = iter([5.0]), list[float]()

    async def attempt() -> None:
        began.append(trio.current_time())
        await trio.sleep_forever()

    start = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await fail_after(3, lambda _now: start + next(resumed, 0.0), attempt)
    assert [each - start for each in began] == [0, 3]
    assert trio.current_time() - start == 6


def test_mapped_exceptions_come_alone_whether_they_were_in_a_group_or_not() -> None:
    for raised in (KeyError("a"), ExceptionGroup("outer", [ExceptionGroup("inner", [KeyError("a")])])):
        with pytest.raises(ValueError, match="1 of them"), map_exceptions(KeyError, made):
            raise raised


def test_exceptions_beside_mapped_ones_are_kept() -> None:
    """A cancellation is not lost."""
    group = BaseExceptionGroup("", [KeyError("a"), KeyboardInterrupt()])
    with pytest.raises(BaseExceptionGroup) as caught, map_exceptions(KeyError, made):
        raise group
    assert {type(each) for each in leaf_exceptions(caught.value)} == {ValueError, KeyboardInterrupt}
    with pytest.raises(KeyboardInterrupt), map_exceptions(KeyError, made):
        raise KeyboardInterrupt


def made(group: BaseExceptionGroup[KeyError]) -> ValueError:
    return ValueError(f"{len(leaf_exceptions(group))} of them")


async def test_owners_take_turns_for_slots(autojump_clock: trio.abc.Clock) -> None:
    """However many tasks of one have come before; a task that was cancelled has no turn."""
    slots, served = FairSlots(1), []

    async def use(owner: str) -> None:
        await slots.acquire(owner)
        served.append(owner)
        await trio.sleep(1)
        slots.release()

    async with trio.open_nursery() as nursery:
        for owner in "aaaab":
            nursery.start_soon(use, owner)
            await wait_all_tasks_blocked()
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
            await slots.acquire("c")
    assert served == ["a", "a", "b", "a", "a"]
    await slots.acquire("d")  # none was lost
