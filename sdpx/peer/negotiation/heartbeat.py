"""When to say that one is alive, and when the other is not any more. Pure: time comes in, what to do goes out.

Both ends send a beat a second on a channel of their own; whatever comes over the connection is a sign of life. After three
seconds without one the peer has vanished. A side that has itself stood still (stopped, starved, asleep) may not blame the
other for it: what came meanwhile waits unread, so it gives one more second.
"""

from enum import Enum, auto
from typing import Final

BEAT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 3.0
GRACE_SECONDS: Final = 1.0
LATE_SECONDS: Final = 0.5  # a look that comes this much later than asked for: this side stood still


class Act(Enum):
    """What a look at the clock can call for."""

    NOTHING = auto()
    BEAT = auto()
    VANISHED = auto()


class Heartbeat:
    """The rules of one connection from the time `now` on, in seconds of any clock that never goes back."""

    def __init__(self, now: float) -> None:
        self._beat_due = now
        self._heard = now
        self._patient_until = now + SILENCE_SECONDS

    def heard(self, now: float) -> None:
        """Note a sign of life."""
        self._heard = now
        self._patient_until = now + SILENCE_SECONDS

    @property
    def last_heard(self) -> float:
        """When the last sign of life came; at first, when the watch began."""
        return self._heard

    @property
    def next_look(self) -> float:
        """When to call `look` again."""
        return min(self._beat_due, self._patient_until)

    def look(self, now: float) -> Act:
        """Return what to do at the time `now`."""
        if now - self.next_look > LATE_SECONDS:
            self._patient_until = max(self._patient_until, now + GRACE_SECONDS)
        if now >= self._patient_until:
            return Act.VANISHED
        if now >= self._beat_due:
            self._beat_due = now + BEAT_SECONDS
            return Act.BEAT
        return Act.NOTHING
