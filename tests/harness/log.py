"""A log in memory: the one sink that tests give to a `Log`, or fill with the lines of a process."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sdpx.concurrency import RepeatedEvent
from sdpx.log_sink import Kept

Line = dict[str, Any]


class LogRecorder:
    """Keeps lines, `room` of them, and lets a test wait for one."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.lines: list[bytes] = []
        self.room = room
        self.on_written: Callable[[int], object] | None = None  # called at once for lines that are never dropped
        self.changed = RepeatedEvent()
        self._records: list[Line] = []

    def put(self, lines: Sequence[bytes]) -> int:
        kept = isinstance(lines[0], Kept)
        taken = lines if kept else lines[: max(0, self.room - len(self.lines))]
        self.lines += taken
        self.changed.set()
        if kept and self.on_written is not None:
            self.on_written(len(taken))
        return len(taken)

    @property
    def records(self) -> list[Line]:
        """All lines, decoded."""
        new = self.lines[len(self._records) :]
        self._records += [msgspec.json.decode(line, type=Line) for line in new]
        return self._records

    @property
    def events(self) -> list[str]:
        """The names of all events."""
        return [record["event"] for record in self.records]

    def of(self, event: str) -> list[Line]:
        """Return the lines of this event."""
        return [record for record in self.records if record["event"] == event]

    def first(self, event: str, *, after: int = 0, **keys: object) -> Line | None:
        """Return the first line of this event with these keys, behind the first `after` lines."""
        matches = (each for each in self.records[after:] if each["event"] == event and keys.items() <= each.items())
        return next(matches, None)

    async def wait_for(self, event: str, *, after: int = 0, **keys: object) -> Line:
        """Wait for such a line, and return it."""
        while (line := self.first(event, after=after, **keys)) is None:
            after = len(self.records)
            await self.changed.wait()
        return line
