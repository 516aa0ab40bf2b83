"""Who is to be called when: one task for all, and a call that is not wanted any more leaves nothing behind."""

from heapq import heappop, heappush
from math import ceil, inf
from typing import Final, Protocol

import trio

TICKS_PER_SECOND: Final = 64  # in a second: calls of one tick are made together, and never too early
# What is further off may be a second late, so that there are few ticks however far that is: who is cleared leaves an empty one.
FAR_SECONDS: Final = 60.0
NEVER: Final = inf


class TimerTarget(Protocol):
    """Somebody who wants to be called; `timer_at` is `NEVER` to begin with, and nobody else's business."""

    timer_at: float

    def on_timer(self, now: float) -> None:
        """Do what is due; `now` is Trio's time. Never raises."""


class TimerWheel:
    """Calls everybody at most once for each time that is set. `run` is its task."""

    def __init__(self) -> None:
        self._sleepers: dict[float, set[TimerTarget]] = {}
        self._times: list[float] = []  # a heap of the keys
        self._scope = trio.CancelScope()

    def set(self, sleeper: TimerTarget, when: float, now: float) -> None:
        """Call this one at `when`, and not at the time that was set before."""
        tick = ceil(when * TICKS_PER_SECOND) / TICKS_PER_SECOND if when - now < FAR_SECONDS else float(ceil(when))
        if tick == sleeper.timer_at:
            return
        self.clear(sleeper)
        sleeper.timer_at = tick
        if tick not in self._sleepers:
            self._sleepers[tick] = set()
            heappush(self._times, tick)
            if self._times[0] == tick:
                self._scope.deadline = tick
        self._sleepers[tick].add(sleeper)

    def clear(self, sleeper: TimerTarget) -> None:
        """Do not call this one."""
        if sleeper.timer_at != NEVER:
            self._sleepers[sleeper.timer_at].discard(sleeper)
            sleeper.timer_at = NEVER

    def due(self, now: float) -> list[TimerTarget]:
        """Return who is to be called now; they have no alarm any more."""
        due: list[TimerTarget] = []
        while self._times and self._times[0] <= now:
            due += self._sleepers.pop(heappop(self._times))
        for sleeper in due:
            sleeper.timer_at = NEVER
        return due

    async def wait(self) -> None:
        """Wait until somebody is due."""
        with trio.CancelScope(deadline=self._times[0] if self._times else NEVER) as self._scope:
            await trio.sleep_forever()
