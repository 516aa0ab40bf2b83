"""Helpers for Trio programs."""

from collections.abc import Callable
from typing import TypeVar

import trio

E = TypeVar("E", bound=BaseException)


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


async def wait_while(is_pending: Callable[[], object], changed: RepeatedEvent, seconds: float) -> None:
    """Wait until nothing is pending, or until `changed` is not set for `seconds`."""
    is_changing = True
    while is_pending() and is_changing:
        with trio.move_on_after(seconds) as scope:
            await changed.wait()
        is_changing = not scope.cancelled_caught


def leaf_exceptions(group: BaseExceptionGroup[E]) -> list[E]:
    """Return the exceptions that a group contains at any depth, in their order."""
    leaves: list[E] = []
    for error in group.exceptions:
        leaves += leaf_exceptions(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
