"""The lines of a log on their way to a descriptor: a bounded queue, and a thread that writes."""

import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

QUEUE_LINES: Final = 10_000
QUEUE_BYTES: Final = 8 * 1024 * 1024
LONG_LINE: Final = QUEUE_BYTES // QUEUE_LINES  # bytes; shorter lines are bounded by their number alone
WRITE_INTERVAL: Final = 0.005  # seconds between two writes: the thread wakes once for many lines, not for each
CLOSE_SECONDS: Final = 2.0
NEWLINE: Final = ord("\n")


class Kept(bytes):
    """A line that is never dropped."""


class ThreadSink:
    """A bounded queue of lines, and the thread that writes them to `fd`.

    Once a line was refused, all are until the thread has removed lines: then one `log_dropped` has their sum.
    A `Kept` line is always queued, and `on_written` is called in that thread with the number of such lines just written.
    `on_failure` is called there with the error and the number of lines lost each time that a write fails; the next
    lines are tried again, and `on_recovery` is called with the sum when a write succeeds. The thread is a daemon: a stalled
    reader cannot delay the program's exit.

    `put` usually takes no lock. It only appends; only the thread removes, from the front, as many lines as it has copied.
    Each of these is one atomic operation of the interpreter, so no line is lost.
    """

    def __init__(
        self,
        fd: int,
        on_failure: Callable[[OSError, int], object],
        max_lines: int = QUEUE_LINES,
        on_recovery: Callable[[int], object] = lambda _: None,
        on_written: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._fd = fd
        self._on_failure = on_failure
        self._on_recovery = on_recovery
        self._on_written = on_written
        self._kept = 0  # `Kept` lines that are queued; guarded by the lock
        self._lost = 0  # lines, since the last successful write
        self._max_lines = self._room = max_lines
        self._lines: list[bytes] = []
        self._rest = b""  # the rest of a line of which a part is written
        self._long_bytes = 0  # total size of the long lines; guarded by the lock
        self._changed = threading.Condition()
        self._is_waiting = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="sdpx-log", daemon=True)
        self._thread.start()

    def put(self, lines: Sequence[bytes]) -> int:
        """Queue one or more lines, as many as there is room for, and return their number. Never blocks."""
        if isinstance(lines[0], Kept):
            with self._changed:
                self._kept += len(lines)
        elif len(self._lines) - self._kept + len(lines) > self._room or len(max(lines, key=len)) > LONG_LINE:
            lines = self._fitting(lines)
        self._lines.extend(lines)
        if self._is_waiting:  # read after appending; the thread reads the lines after setting it
            with self._changed:
                self._changed.notify()
        return len(lines)

    def _fitting(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """Return the first lines, as many as there is room for; long ones are bounded by their total size as well."""
        with self._changed:
            if not self._lines:
                self._room = self._max_lines
            room = max(0, self._room - len(self._lines) + self._kept)
            for count, line in enumerate(lines[:room]):
                if len(line) > LONG_LINE:
                    if self._long_bytes >= QUEUE_BYTES:
                        room = count
                        break
                    self._long_bytes += len(line)
            if room < len(lines):
                self._room = 0
        return lines[:room]

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Write the queued lines, for `seconds` at most, and end the thread; returns whether it has done so."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while lines := self._next_lines():
            kept = sum(isinstance(line, Kept) for line in lines) if self._kept else 0
            if self._write(b"".join(lines)) and kept:
                self._on_written(kept)
            with self._changed:
                self._kept -= kept
            if not self._closing:
                time.sleep(WRITE_INTERVAL)

    def _write(self, batch: bytes) -> bool:
        """Write all of `batch`, also to a non-blocking descriptor; after a failure (False) all but a line begun is dropped."""
        view = memoryview(self._rest + batch)
        is_within = bool(self._rest)
        self._rest = b""
        while view:
            try:
                written = os.write(self._fd, view)
            except BlockingIOError:
                select.select([], [self._fd], [])
            except OSError as error:
                end = bytes(view).find(b"\n") + 1 if is_within else 0
                self._rest = bytes(view[:end])
                lost = bytes(view[end:]).count(b"\n")
                self._lost += lost
                self._on_failure(error, lost)
                return False
            else:
                is_within = view[written - 1] != NEWLINE
                view = view[written:]
        if self._lost:
            lost, self._lost = self._lost, 0
            self._on_recovery(lost)
        return True

    def _next_lines(self) -> list[bytes]:
        """Wait for lines and remove all of them; returns nothing once the sink is closed and empty."""
        if not self._lines:
            with self._changed:
                self._is_waiting = True
                self._changed.wait_for(lambda: self._lines or self._closing)
                self._is_waiting = False
        lines = self._lines.copy()
        del self._lines[: len(lines)]
        self._room = self._max_lines
        if self._long_bytes:
            with self._changed:
                self._long_bytes -= sum(
                    len(line) for line in lines if len(line) > LONG_LINE and not isinstance(line, Kept)
                )
        return lines
