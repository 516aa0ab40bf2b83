"""A timer wheel: one task for the timers of all connections; a cleared timer costs at most an empty tick."""

from heapq import heappop, heappush
from math import ceil, inf
from typing import Final, Protocol

import trio

TICKS_PER_SECOND: Final = 64  # timers of one tick fire together, never early
# Timers further off are rounded up to a second: few ticks exist however far off they are, and cleared timers leave empty ones.
FAR_SECONDS: Final = 60.0
NEVER: Final = inf


class TimerTarget(Protocol):
    """An object with one timer. `timer_at` is `NEVER` at first and belongs to `TimerWheel`."""

    timer_at: float

    def on_timer(self, now: float) -> None:
        """Handle the timer; `now` is Trio's time. Never raises."""


class TimerWheel:
    """The timers of all targets, one each."""

    def __init__(self) -> None:
        self._targets: dict[float, set[TimerTarget]] = {}
        self._ticks: list[float] = []  # a heap of the keys
        self._scope = trio.CancelScope()

    def set(self, target: TimerTarget, when: float, now: float) -> None:
        """Let the target be due at `when`, in place of the time that was set before."""
        tick = ceil(when * TICKS_PER_SECOND) / TICKS_PER_SECOND if when - now < FAR_SECONDS else float(ceil(when))
        if tick == target.timer_at:
            return
        self.clear(target)
        target.timer_at = tick
        if tick not in self._targets:
            self._targets[tick] = set()
            heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._scope.deadline = tick
        self._targets[tick].add(target)

    def clear(self, target: TimerTarget) -> None:
        """Unset the target's timer."""
        if target.timer_at != NEVER:
            self._targets[target.timer_at].discard(target)
            target.timer_at = NEVER

    def due(self, now: float) -> list[TimerTarget]:
        """Return the targets that are due, and unset their timers."""
        due: list[TimerTarget] = []
        while self._ticks and self._ticks[0] <= now:
            due += self._targets.pop(heappop(self._ticks))
        for target in due:
            target.timer_at = NEVER
        return due

    async def wait(self) -> None:
        """Wait until a target is due."""
        with trio.CancelScope(deadline=self._ticks[0] if self._ticks else NEVER) as self._scope:
            await trio.sleep_forever()
