"""How far a transfer is: bytes, speed over the last seconds, and the time left. Pure: the time is an argument."""

from collections import deque
from typing import Final

SPAN_SECONDS: Final = 8.0


class Meter:
    """Totals of a transfer, and its speed."""

    def __init__(self) -> None:
        self.total = 0
        self.files_total = 0
        self.bytes = 0
        self.moved = 0  # of these, those that went over the connection
        self.files = 0
        self._samples: deque[tuple[float, int]] = deque()

    def begin(self, files: int, size: int) -> None:
        """Begin a transfer of so much."""
        self.files_total, self.total = files, size
        self.bytes = self.moved = self.files = 0
        self._samples.clear()

    def sample(self, now: float) -> None:
        """Note the present state at the time `now`, in seconds."""
        self._samples.append((now, self.moved))
        while len(self._samples) > 2 and self._samples[0][0] < now - SPAN_SECONDS:  # noqa: PLR2004  two make a speed
            self._samples.popleft()

    @property
    def bytes_per_second(self) -> float:
        """The speed over the last seconds."""
        if len(self._samples) < 2:  # noqa: PLR2004
            return 0.0
        (began, first), (now, last) = self._samples[0], self._samples[-1]
        return max(0.0, (last - first) / (now - began)) if now > began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The time left at this speed; None if nothing moves."""
        speed = self.bytes_per_second
        return max(0, self.total - self.bytes) / speed if speed else None
