"""Heartbeats between two sdpx peers: when to send one, and when the peer has vanished. Pure: time is an argument.

Both sides send a beat per second on a data channel of their own; any message from the peer counts as a sign of life. After
three seconds without one the peer has vanished. A side that has been suspended itself (stopped, starved, asleep) waits one
second more, because the messages of that time are still unread.
"""

from enum import Enum, auto
from typing import Final

BEAT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 3.0
GRACE_SECONDS: Final = 1.0
LATE_SECONDS: Final = 0.5  # a check that comes this much later than asked for: this side was suspended


class HeartbeatAction(Enum):
    """The action that a check calls for."""

    NONE = auto()
    SEND = auto()
    VANISHED = auto()


class Heartbeat:
    """The heartbeat of one connection from the time `now` on, in seconds of any monotonic clock."""

    def __init__(self, now: float, silence: float = SILENCE_SECONDS) -> None:
        self._silence = silence
        self._beat_due = now
        self.last_received = now  # the peer's last sign of life
        self._vanished_at = now + self._silence

    def note_received(self, now: float) -> None:
        """Note a sign of life."""
        self.last_received = now
        self._vanished_at = now + self._silence

    @property
    def next_check(self) -> float:
        """When to call `check` again."""
        return min(self._beat_due, self._vanished_at)

    def check(self, now: float) -> HeartbeatAction:
        """Return the action at the time `now`."""
        if now - self.next_check > LATE_SECONDS:
            self._vanished_at = max(self._vanished_at, now + GRACE_SECONDS)
        if now >= self._vanished_at:
            return HeartbeatAction.VANISHED
        if now >= self._beat_due:
            self._beat_due = now + BEAT_SECONDS
            return HeartbeatAction.SEND
        return HeartbeatAction.NONE
