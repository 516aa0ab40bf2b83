"""Notices that the process itself did not run: SIGSTOP, a paused virtual machine, a machine that is far too busy."""

from collections.abc import Callable
from math import inf
from typing import Final

import trio

from sdpx.events import Event, serve

TICK_SECONDS: Final = 1.0
JUMP_SECONDS: Final = 1.0  # by which a tick is late after a suspension


class SuspensionDetector:
    """Watches Trio's clock, which jumps when the process is suspended, and logs each jump to `log`. `run` is its task."""

    def __init__(self, log: Callable[[Event], None]) -> None:
        self._log = log
        self._ticked_at = inf
        self._resumed_at = -inf

    def resumed_at(self, now: float) -> float:
        """Return when the process was last found to have been suspended: silence before that is no client's fault.

        A timer asks before it judges a client, since it may be due before the tick is.
        """
        late = now - self._ticked_at - TICK_SECONDS
        if late > JUMP_SECONDS:
            self._ticked_at = self._resumed_at = now
            self._log(serve.ProcessSuspended(round((late + TICK_SECONDS) * 1000, 3)))
        return self._resumed_at

    async def run(self) -> None:
        """Look at the clock regularly, for ever."""
        while True:
            self._ticked_at = trio.current_time()
            await trio.sleep(TICK_SECONDS)
            self.resumed_at(trio.current_time())
