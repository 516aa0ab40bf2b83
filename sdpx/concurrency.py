"""Helpers for Trio programs."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import trio

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
POLL_SECONDS: Final = 0.05


class RepeatedEvent:
    """An event that can be set repeatedly: each `set` wakes the tasks that are waiting at that moment.

    `wait` does not return for an earlier `set`. A task checks its condition, and waits, without a checkpoint in between.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()

    def set(self) -> None:
        """Wake all waiting tasks; without one, do nothing."""
        self._waiting.unpark_all()

    async def wait(self) -> None:
        """Wait for the next `set`."""
        await self._waiting.park()


class FairSlots:
    """A number of slots for the tasks of several owners, which take turns, however many tasks one of them has."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[str, trio.lowlevel.ParkingLot] = {}  # by owner; the one whose turn is next comes first

    async def acquire(self, owner: str) -> None:
        """Wait for a slot, which `release` frees."""
        if self._free:
            self._free -= 1
        else:
            await self._waiting.setdefault(owner, trio.lowlevel.ParkingLot()).park()

    def release(self) -> None:
        """Give a slot to the task whose turn it is."""
        while self._waiting:
            owner = next(iter(self._waiting))
            tasks = self._waiting.pop(owner)
            is_taken = bool(tasks.unpark())  # no task is left where all have been cancelled
            if tasks:
                self._waiting[owner] = tasks
            if is_taken:
                return
        self._free += 1


async def wait_while_changing(
    value: Callable[[], object], change: Callable[[], Awaitable[None]], seconds: float
) -> None:
    """Wait until `value()` is false, or has not changed for `seconds`; checks it after each `change()` and regularly."""
    last, deadline = None, 0.0
    while present := value():
        if present != last:
            last, deadline = present, trio.current_time() + seconds
        elif trio.current_time() >= deadline:
            break
        await wait_for_change(change)


async def wait_for_change(change: Callable[[], Awaitable[None]]) -> None:
    """Wait for `change()`, for `POLL_SECONDS` at most: a value may also change without it."""
    with trio.move_on_after(POLL_SECONDS):
        await change()


async def fail_after(seconds: float, resumed_at: Callable[[float], float], attempt: Callable[[], Awaitable[T]]) -> T:
    """Await `attempt()`, which has `seconds`; raises `TooSlowError`.

    If the process was suspended meanwhile, `attempt` is cancelled and made again. `resumed_at(now)` is when it last was.
    """
    while True:
        began = trio.current_time()
        with trio.move_on_after(seconds):
            return await attempt()
        if resumed_at(trio.current_time()) < began:
            raise trio.TooSlowError


@contextmanager
def map_exceptions(
    kinds: type[Exception] | tuple[type[Exception], ...], make: Callable[[BaseExceptionGroup[Any]], BaseException]
) -> Iterator[None]:
    """Raise `make(group)` in place of the exceptions of these kinds, which come alone or in a group; others are raised, too.

    Python before 3.11.4 would put an exception that is raised in an `except*` clause into a group.
    """
    try:
        yield
    except BaseException as error:
        group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
        found, others = group.split(kinds)
        if found is None:
            raise
        made = make(found)
        raise (BaseExceptionGroup("", [made, others]) if others else made) from None


def leaf_exceptions(group: BaseExceptionGroup[E]) -> list[E]:
    """Return the exceptions that a group contains at any depth, in their order."""
    leaves: list[E] = []
    for error in group.exceptions:
        leaves += leaf_exceptions(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
