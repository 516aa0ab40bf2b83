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
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, Protocol

import msgspec

from sdpx.events import LEVELS, Event, Level, Library, LogDropped

Format = Literal["json", "text"]

QUEUE_LINES: Final = 10_000
QUEUE_BYTES: Final = 8 * 1024 * 1024
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
_encode = msgspec.json.Encoder().encode


class Sink(Protocol):
    """Where finished lines go. `put` never blocks; it returns False if the line had to be dropped."""

    def put(self, line: bytes) -> bool:
        """Take one line."""


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
        self._spelt_heads: dict[type[Event], str] = {}  # of those that spell themselves, and are wanted
        self._second = -1
        self._beginning = ""  # of all lines in that second
        self._colour = colour
        self._started = started
        self._dropped = 0
        self.dropped_in_all = 0

    def emit(self, event: Event) -> None:
        """Write one event, if its level is wanted. Never blocks, never raises for a slow or lost reader."""
        head = self._spelt_heads.get(type(event))
        spelt = event.spelt() if head is not None else None
        if spelt is None:
            self._emit_any(event)
            return
        line = f"{self._moment(self._clock())}{head}{spelt}}}\n".encode()
        if self._dropped or not self._sink.put(line):
            self._put(line)

    def _emit_any(self, event: Event) -> None:
        level = event.severity()
        if _RANK[level] < self._threshold:
            return
        kind = type(event)
        if self._spells and kind.spelt is not Event.spelt:  # the next one is written on the short way
            self._spelt_heads[kind] = _head(kind, level)
        self._put(self._render(event, level))

    def pass_on(self, line: dict[str, Any], who: str) -> None:
        """Write a line of another sdpx program, with a `who` key behind the common ones."""
        common = {key: line.pop(key, "") for key in ("ts", "level", "event", "message")}
        if self._render == self._json:
            self._put(_encode(common | {"who": who} | line) + b"\n")
        else:
            self._put(self._aligned(**common, own={"who": who} | line))

    def _moment(self, now: float) -> str:
        """Return how a line of that moment begins."""
        second, microseconds = divmod(round(now * 1_000_000), 1_000_000)
        if second != self._second:
            self._second = second
            self._beginning = f'{{"ts":"{_date(second)}.'
        return f"{self._beginning}{microseconds:06}Z"

    def _put(self, line: bytes) -> None:
        if self._dropped and self._sink.put(self._render(LogDropped(self._dropped), LogDropped.level)):
            self._dropped = 0
        if self._dropped or not self._sink.put(line):
            self._dropped += 1
            self.dropped_in_all += 1

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
            self._moment(now).encode(),
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
        self._log.emit(Library(record.name, _sentence(record), level))


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
    """

    def __init__(self, fd: int, on_broken: Callable[[], None], max_lines: int = QUEUE_LINES) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._max_lines = max_lines
        self._lines: list[bytes] = []
        self._bytes = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_waited_for = False
        self._closing = False
        self._thread = threading.Thread(target=self._write_all, name="sdpx-log", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> bool:
        """Queue one line; False if the queue is full."""
        with self._lock:  # that of `_changed`, without a call for it
            if len(self._lines) >= self._max_lines or self._bytes >= QUEUE_BYTES:
                return False
            self._lines.append(line)
            self._bytes += len(line)
            if self._is_waited_for:
                self._changed.notify()
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
        """Wait for lines and take them all; empty means that there will be none.

        The lock is held for no longer than it takes to lay hands on them: whoever logs must not wait for it.
        """
        with self._changed:
            self._is_waited_for = True
            self._changed.wait_for(lambda: self._lines or self._closing)
            self._is_waited_for = False
            lines, self._lines = self._lines, []
            self._bytes = 0
        return b"".join(lines)


def _write(fd: int, data: bytes) -> None:
    """Write all of `data`, also where somebody made the descriptor non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
