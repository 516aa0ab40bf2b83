"""The log: events as JSON lines, or as aligned lines for a person.

- A line is made at once, in the task where it happened, and leaves through a bounded queue and one thread. A reader of
  stdout that is slow never slows the program: past the bound lines are counted, and one `log_dropped` tells of them.
- A reader that has gone away is noticed by the next write, or by `reader_is_gone` while nothing is written.
- Clock and sink are given from outside, so that a test decides what time it is and sees every line.
"""

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, Protocol

import msgspec

from sdpx.events import LEVELS, Event, Level, Library, LogDropped

Format = Literal["json", "text"]

QUEUE_LINES: Final = 10_000
QUEUE_BYTES: Final = 8 * 1024 * 1024
LONG_LINE: Final = QUEUE_BYTES // QUEUE_LINES  # shorter ones are bounded by their number alone
# After a batch the thread rests: a line that comes alone is written at once, and of a stream of them not each one wakes it.
REST_SECONDS: Final = 0.005
CLOSE_SECONDS: Final = 2.0

_LIBRARIES: Final = (
    "trio",
    "trio-websocket",
    "trio_websocket",
    "aiortc",
    "aioice",
    "libav",
    "asyncio",
    "trio-asyncio",
)
_COLOURS: Final = {"debug": "\x1b[2m", "info": "", "warning": "\x1b[33m", "error": "\x1b[31m"}
_RANK: Final[dict[Level, int]] = {level: rank for rank, level in enumerate(LEVELS)}
_MICROSECONDS: Final = tuple(f"{number:03}Z" for number in range(1000))  # how a timestamp ends
_encode = msgspec.json.Encoder().encode


class Sink(Protocol):
    """Where finished lines go."""

    def put(self, lines: Sequence[bytes]) -> int:
        """Take lines, one or more, as many as there is room for; returns how many those were. Never blocks."""


class Log:
    """Turns events into lines.

    `clock` returns seconds since the epoch. If `started` is given (same clock), every line ends with `ms`, the time since
    then: the form of `sdpx peer`.
    """

    def __init__(
        self,
        sink: Sink,
        clock: Callable[[], float],
        *,
        level: Level = "info",
        form: Format = "json",
        colour: bool = False,
        started: float | None = None,
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._threshold = LEVELS.index(level)
        self._render = self._json if form == "json" else self._text
        self._spells = form == "json" and started is None
        self._prerendered_heads: dict[type[Event], str] = {}  # of those that spell themselves, and are wanted
        self._tick = (-1.0, "")  # a millisecond, in seconds since the epoch, and how all lines in it begin
        self._batch_timestamp = ""  # the beginning of all lines of a batch
        self._batch: list[bytes] = []
        self._colour = colour
        self._started = started
        self._dropped = 0
        self.dropped_in_all = 0

    def emit(self, event: Event) -> None:
        """Write one event, if its level is wanted. Never blocks, never raises for a slow or lost reader."""
        kind = type(event)
        render = event.render() if kind in self._prerendered_heads else None
        if render is None:
            self._emit_any(event)
        else:
            self.emit_rendered(kind, render)

    def emit_rendered(self, kind: type[Event], render: str) -> bool:
        """Write an event of this kind, as `Event.render` would spell it; returns False if it has to be emitted instead."""
        head = self._prerendered_heads.get(kind)
        if head is None:
            return False
        if self._batch_timestamp:
            self._batch.append(f"{self._batch_timestamp}{head}{render}}}\n".encode())
        else:
            self._put([f"{self._timestamp(self._clock())}{head}{render}}}\n".encode()])
        return True

    def emit_from_thread(self, event: Event) -> None:
        """Write one event that happened in whatever thread: it goes with no batch."""
        if line := self._rendered(event):
            self._put([line])

    def _emit_any(self, event: Event) -> None:
        line = self._rendered(event)
        if line and self._batch_timestamp:
            self._batch.append(line)
        elif line:
            self._put([line])

    def _rendered(self, event: Event) -> bytes:
        """Return an event's line, or nothing if its level is not wanted."""
        level = event.severity()
        if _RANK[level] < self._threshold:
            return b""
        kind = type(event)
        if self._spells and kind.render is not Event.render:  # the next one is written on the short way
            self._prerendered_heads[kind] = _head(kind, level)
        return self._render(event, level)

    def begin_batch(self) -> None:
        """Let all lines from now until `end_batch` bear this moment, and leave together then: which has to be soon.

        A look at the clock, and a way through the queue, cost as much as the line itself.
        """
        self._batch_timestamp = self._timestamp(self._clock())

    def end_batch(self) -> None:
        """Let the lines of this batch leave."""
        if self._batch:
            lines, self._batch = self._batch, []
            self._put(lines)
        self._batch_timestamp = ""

    def forward(self, line: dict[str, Any], who: str) -> None:
        """Write a line of another sdpx program, with a `who` key behind the common ones."""
        common = {key: line.pop(key, "") for key in ("ts", "level", "event", "message")}
        if self._render == self._json:
            self._put([_encode(common | {"who": who} | line) + b"\n"])
        else:
            self._put([self._aligned(**common, own={"who": who} | line)])

    def _timestamp(self, now: float) -> str:
        """Return how a line of that moment begins."""
        tick, beginning = self._tick
        microseconds = int((now - tick) * 1_000_000 + 0.5)
        if not 0 <= microseconds < 1000:  # noqa: PLR2004
            milliseconds, microseconds = divmod(round(now * 1_000_000), 1000)
            beginning = f'{{"ts":"{_date(milliseconds // 1000)}.{milliseconds % 1000:03}'
            self._tick = milliseconds / 1000, beginning
        return beginning + _MICROSECONDS[microseconds]

    def _put(self, lines: Sequence[bytes]) -> None:
        if self._dropped and self._sink.put([self._render(LogDropped(self._dropped), LogDropped.level)]):
            self._dropped = 0
        lost = len(lines) - (0 if self._dropped else self._sink.put(lines))
        self._dropped += lost
        self.dropped_in_all += lost

    def _json(self, event: Event, level: Level) -> bytes:
        try:
            return self._line(event, level, event.message(), event.body())
        except UnicodeEncodeError:  # a command line or an operating system's message may hold what is no text
            own = {key: _text_of(value) for key, value in event.shown().items()}
            return self._line(event, level, _text_of(event.message()), own)

    def _line(self, event: Event, level: Level, message: Any, body: Any) -> bytes:
        now = self._clock()
        own = _encode(body)[1:-1]
        return b"%b%b%b%b%b%b}\n" % (
            (self._batch_timestamp or self._timestamp(now)).encode(),
            _head(type(event), level).encode(),
            _encode(message),
            b"," if own else b"",
            own,
            b"" if self._started is None else b',"ms":%.3f' % ((now - self._started) * 1000),
        )

    def _text(self, event: Event, level: Level) -> bytes:
        ts = timestamp(self._clock())
        return self._aligned(ts, level, event.name(), event.message(), event.shown())

    def _aligned(self, ts: str, level: str, event: str, message: str, own: dict[str, Any]) -> bytes:
        keys = " ".join(f"{key}={_encode(_text_of(value)).decode()}" for key, value in own.items())
        line = f"{ts[11:23]} {level:<7} {event:<21} {message}  {keys}"
        line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line).rstrip()
        colour = _COLOURS.get(level, "") if self._colour else ""
        return (f"{colour}{line}\x1b[0m\n" if colour else f"{line}\n").encode(errors="replace")


def _text_of(value: Any) -> Any:
    """Return the value; of a string, what UTF-8 can carry."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def timestamp(seconds: float) -> str:
    """Return `seconds` since the epoch as RFC 3339, UTC, with microseconds and `Z`."""
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_date(whole)}.{microseconds:06}Z"


def _date(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


@cache
def _head(kind: type[Event], level: Level) -> str:
    """Return what stands between a line's timestamp and its message."""
    return f'","level":"{level}","event":"{kind.name()}","message":'


class LibraryHandler(logging.Handler):
    """Brings what libraries log into the same form.

    What they call info is this program's debug. Their own debug level stays off: aiortc writes whole SDP bodies there.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record of a library as a `library` event."""
        level: Level = "debug"
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
        self._log.emit_from_thread(Library(record.name, _sentence(record), level))


def _sentence(record: logging.LogRecord) -> str:
    """Return the record's words, with the exception's type and words behind them: one line, never a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return record.getMessage() + (f" ({type(error).__name__}: {error})" if error else "")


def capture_libraries(log: Log) -> None:
    """Send what the libraries log to `log`, and nowhere else."""
    handler = LibraryHandler(log)
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def reader_is_gone(fd: int) -> bool:
    """Tell whether the reader of the pipe or socket `fd` has gone: an idle writer learns it in no other way."""
    poller = select.poll()
    poller.register(fd, 0)
    return any(flags & (select.POLLERR | select.POLLNVAL) for _, flags in poller.poll(0))


class ThreadSink:
    """A bounded queue of lines and the one thread that writes them to `fd`.

    `on_broken` is called once, in that thread, when nobody can ever read the lines again. The thread is a daemon, so that
    a reader that stalls for ever cannot hold the program's end up.

    Whoever logs takes no lock as a rule. Lines are only added behind the others, and only the thread takes away, from the
    front, as many as it has seen; each of these is one step of the interpreter's. So nothing is lost between them.
    """

    def __init__(self, fd: int, on_broken: Callable[[], None], max_lines: int = QUEUE_LINES) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._max_lines = max_lines
        self._lines: list[bytes] = []
        self._long_bytes = 0  # of the lines that are long; only with the lock
        self._changed = threading.Condition()
        self._is_waited_for = False
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="sdpx-log", daemon=True)
        self._thread.start()

    def put(self, lines: Sequence[bytes]) -> int:
        """Queue lines, as many as there is room for; returns how many those were."""
        if len(self._lines) + len(lines) > self._max_lines or len(max(lines, key=len)) > LONG_LINE:
            lines = self._fitting(lines)
        self._lines.extend(lines)
        self._wake()
        return len(lines)

    def _fitting(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """Return the first lines, as many as there is room for."""
        room = max(0, self._max_lines - len(self._lines))
        for count, line in enumerate(lines[:room]):
            if len(line) > LONG_LINE and not self._has_room(len(line)):
                return lines[:count]
        return lines[:room]

    def _wake(self) -> None:
        if self._is_waited_for:  # looked at behind the lines: the thread looks for lines behind setting it
            with self._changed:
                self._changed.notify()

    def _has_room(self, size: int) -> bool:
        """Count a long line, unless there are too many of them."""
        with self._changed:
            if self._long_bytes >= QUEUE_BYTES:
                return False
            self._long_bytes += size
            return True

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what is queued, for `seconds` at most, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _write_all(self) -> None:
        try:
            while batch := self._next_batch():
                _write(self._fd, batch)
                if not self._closing:
                    time.sleep(REST_SECONDS)
        except OSError:
            self._on_broken()
            while self._next_batch():
                pass

    def _next_batch(self) -> bytes:
        """Wait for lines and take them all; empty means that there will be none."""
        if not self._lines:
            self._wait()
        lines = self._lines.copy()
        del self._lines[: len(lines)]
        if self._long_bytes:
            with self._changed:
                self._long_bytes -= sum(len(line) for line in lines if len(line) > LONG_LINE)
        return b"".join(lines)

    def _wait(self) -> None:
        with self._changed:
            self._is_waited_for = True
            self._changed.wait_for(lambda: self._lines or self._closing)
            self._is_waited_for = False


def _write(fd: int, data: bytes) -> None:
    """Write all of `data`, also where somebody made the descriptor non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
