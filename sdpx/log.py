"""The log: events as JSON lines, as aligned text, or as what a person sees at a terminal (sdpx/terminal.py).

- A line is rendered in the task that emits the event, and leaves through a bounded queue and one thread, so a slow reader
  of stdout never blocks the program. Lines beyond the bound are counted, and a `log_dropped` event reports their number.
- The messages of a data channel are never dropped. Their number is bounded by their sender, which learns when each is written.
- A failed write (a full disk, a closed pipe) is reported with the number of lost lines; the lines after it are tried again.
- Control characters, line separators and bidirectional controls are escaped: received data cannot control a terminal,
  neither in a line nor in a `message` that another program prints.
- Clock and queue are arguments.
"""

import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import structs

from sdpx.concurrency import RepeatedEvent
from sdpx.events import LEVELS, Event, Library, LogDropped
from sdpx.log_sink import Kept
from sdpx.options import Format, Level
from sdpx.terminal import COLOUR_END, COLOURS, View, escape

# Queues finished lines without blocking, as many as there is room for, and returns the number of lines queued.
Put = Callable[[Sequence[bytes]], int]


_LIBRARIES: Final = ["trio", "trio-websocket", "trio_websocket", "aiortc", "aioice", "libav", "asyncio", "trio-asyncio"]
_RANK: Final[dict[Level, int]] = {level: rank for rank, level in enumerate(LEVELS)}
_MICROSECONDS: Final = tuple(f"{number:03}Z" for number in range(1000))  # the end of a timestamp
_PLAIN: Final = bytes(byte for byte in range(32, 127) if byte not in b'"\\')  # characters that are never escaped
_LAST: Final = frozenset('"0123456789')  # of a value: a float that is not finite ends otherwise
_encode = msgspec.json.Encoder().encode


class Log:
    """Renders events as lines.

    `clock` returns seconds since the epoch. With `started`, a time of the same clock, every line ends with `ms`, the
    milliseconds since then. With a `view`, its lines are written in place of one line for each event.
    """

    def __init__(
        self,
        put: Put,
        clock: Callable[[], float],
        *,
        level: Level = "info",
        form: Format = "json",
        colour: bool = False,
        started: float | None = None,
        view: View | None = None,
    ) -> None:
        self.view = view
        self._queue = put
        self._clock = clock
        self._threshold = _RANK[level]
        self.is_json = form == "json" and view is None  # or else the lines are for people
        self._timestamp_cache = (-1.0, "")  # a millisecond, in seconds since the epoch, and the start of its lines
        self._batch_timestamp = ""  # the start of all lines of the open batch
        self._batch: list[bytes] = []
        self._colour = colour
        self._started = started
        self._dropped = 0
        self.total_dropped = 0
        self._undelivered: deque[Callable[[], object]] = deque()
        self.progress = RepeatedEvent()  # set when messages are written

    def emit(self, event: Event) -> None:
        """Write an event, unless its level is below the threshold. Never blocks and never raises for a lost reader."""
        line = self._line(event)
        if line and self._batch_timestamp:
            self._batch.append(line)
        elif line:
            self._put([line])

    def head_of(self, kind: type[Event]) -> str:
        """Return the start of the lines of an event for `emit_rendered`; empty if `emit` has to be used, or does nothing."""
        is_shown = _RANK[kind.level] >= self._threshold
        return _head(kind, kind.level) if self.is_json and self._started is None and is_shown else ""

    def emit_rendered(self, line: str, last_value: int) -> None:
        """Write an event that is rendered as JSON, from its `head_of` on and up to its last value."""
        if self._batch_timestamp:
            self._batch.append(f"{self._batch_timestamp}{line}{last_value}}}\n".encode())
        else:
            self._put([f"{self._timestamp(self._clock())}{line}{last_value}}}\n".encode()])

    def emit_from_thread(self, event: Event) -> None:
        """Write an event from any thread; it does not join the open batch."""
        if line := self._line(event):
            self._put([line])

    def deliver(self, event: Event, on_written: Callable[[], object]) -> None:
        """Write an event that is never dropped; `on_written` is called when that is done, or below the threshold at once."""
        if line := self._line(event):
            self._undelivered.append(on_written)
            self._put([Kept(line)])
        else:
            on_written()

    @property
    def undelivered(self) -> int:
        """The number of delivered events that are not written yet."""
        return len(self._undelivered)

    def note_written(self, lines: int) -> None:
        """Note that the first delivered events are written."""
        for _ in range(lines):
            self._undelivered.popleft()()
        self.progress.set()

    def begin_batch(self) -> None:
        """Give all lines until `end_batch` one timestamp, and queue them together then; the caller must not wait meanwhile.

        Reading the clock and queueing cost as much as rendering a line.
        """
        self._batch_timestamp = self._timestamp(self._clock())

    def end_batch(self) -> None:
        """Queue the lines of the batch."""
        if self._batch:
            lines, self._batch = self._batch, []
            self._put(lines)
        self._batch_timestamp = ""

    def forward(self, line: dict[str, Any], who: str) -> None:
        """Write a line of another sdpx program, with a `who` key behind the common ones."""
        common = {key: line.pop(key, "") for key in ("ts", "level", "event", "message")}
        if self.view:
            drawn = self.view.draw(self.view.show_forwarded(common | {"who": who} | line), common["level"])
            self._put([drawn] if drawn else [])
        elif self.is_json:
            self._put([_encode(common | {"who": who} | line) + b"\n"])
        else:
            self._put([self._aligned(**common, own={"who": who} | line)])

    def draw_prompt(self) -> bool:
        """Draw the prompt of the view, if it is interactive; returns False if there is no view."""
        if self.view and self.view.interactive:
            self._put([self.view.draw("")])
        return self.view is not None

    def end(self) -> None:
        """Report the lines that were dropped last, and clear the prompt of the view: the program ends."""
        if self._dropped:
            self.deliver(LogDropped(self._dropped), int)
        if self.view and (line := self.view.end()):
            self._put([line])

    def count_dropped(self, lines: int) -> None:
        """Add lines that were queued and could not be written."""
        self.total_dropped += lines

    def _put(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        if self._dropped and self._queue([self._line(LogDropped(self._dropped))]):
            self._dropped = 0
        lost = len(lines) - (0 if self._dropped and not isinstance(lines[0], Kept) else self._queue(lines))
        self._dropped += lost
        self.total_dropped += lost

    def _line(self, event: Event) -> bytes:
        """Return an event's line, or nothing if its level is below the threshold."""
        level = event.severity()
        if _RANK[level] < self._threshold:
            return b""
        if self.is_json and (text := _simple_text(event)):
            ms = "" if self._started is None else f',"ms":{(self._clock() - self._started) * 1000:.3f}'
            return f"{self._batch_timestamp or self._timestamp(self._clock())}{text}{ms}}}\n".encode()
        if self.view:
            return self.view.draw(self.view.show(event, self._clock()), level)
        if not self.is_json:
            return self._aligned(timestamp(self._clock()), level, event.name(), event.message(), event.shown())
        try:
            return self._json(event, level, event.body())
        except UnicodeEncodeError:  # a command line or an operating system's message may contain lone surrogates
            return self._json(event, level, {key: _encodable(value) for key, value in event.shown().items()})

    def _json(self, event: Event, level: Level, body: Any) -> bytes:
        start = f"{self._batch_timestamp or self._timestamp(self._clock())}{_head(type(event), level)}".encode()
        message, own = _encode(escape(event.message())), _encode(body)[1:-1]
        if not own.isascii() or b"\x7f" in own:
            own = escape(own.decode()).encode()  # such characters occur within strings only
        ms = b"" if self._started is None else b',"ms":%.3f' % ((self._clock() - self._started) * 1000)
        return b"".join((start, message, b"," if own else b"", own, ms, b"}\n"))

    def _aligned(self, ts: str, level: str, event: str, message: str, own: dict[str, Any]) -> bytes:
        unsaid = ((key, value) for key, value in own.items() if key == "who" or not _is_said(value, message))
        keys = " ".join(f"{key}={_encode(_encodable(value)).decode()}" for key, value in unsaid)
        line = escape(f"{ts[11:23]} {level:<7} {event:<21} {message}  {keys}").rstrip()
        colour = COLOURS.get(level, "") if self._colour else ""
        return (f"{colour}{line}{COLOUR_END}\n" if colour else f"{line}\n").encode()

    def _timestamp(self, now: float) -> str:
        """Return the start of a JSON line of that moment."""
        cached, start = self._timestamp_cache
        microseconds = int((now - cached) * 1_000_000 + 0.5)
        if not 0 <= microseconds < 1000:  # noqa: PLR2004
            milliseconds, microseconds = divmod(round(now * 1_000_000), 1000)
            start = f'{{"ts":"{_date(milliseconds // 1000)}.{milliseconds % 1000:03}'
            self._timestamp_cache = milliseconds / 1000, start
        return start + _MICROSECONDS[microseconds]


def _is_said(value: Any, message: str) -> bool:
    """Return whether a value stands in the message already, as a word, or is empty."""
    text = str(value)
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", message) is not None or not text


def _encodable(value: Any) -> Any:
    """Return the value; in a string, characters that UTF-8 cannot encode are replaced."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def timestamp(seconds: float) -> str:
    """Return `seconds` since the epoch as RFC 3339, UTC, with microseconds and `Z`."""
    whole, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_date(whole)}.{microseconds:06}Z"


def _date(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


@cache
def _head(kind: type[Event], level: Level) -> str:
    """Return the part of a JSON line between timestamp and message."""
    return f'","level":"{level}","event":"{kind.name()}","message":'


def _simple_text(event: Event) -> str:
    """Return an event's JSON line from behind the timestamp to its last value, empty if it has to be encoded.

    One `%` operator renders most events of the relay in half the time that the encoder takes.
    """
    form, values, quotes = _simple_form(type(event))
    if not form:
        return ""
    text = form % values(event)
    needs_no_escape = text.encode(errors="surrogatepass").translate(None, _PLAIN) == quotes
    return text if needs_no_escape and text[-1] in _LAST else ""


@cache
def _simple_form(kind: type[Event]) -> tuple[str, Callable[[Event], Any], bytes]:
    """Return the form of an event's line for `_simple_text`, the function that gets its values, and its quotes.

    The form is empty unless all keys are strings and integers, or a float at the end, and the event defines nothing but them
    and its sentence.
    """
    types = [each.type for each in structs.fields(kind)]
    sentence, names, _ = kind.template()
    is_plain = (kind.message, kind.severity, kind.body) == (Event.message, Event.severity, Event.body)
    is_plain = is_plain and set(types[:-1]) <= {str, int} and set(types[-1:]) <= {str, int, float}
    if not (sentence and is_plain and len(kind.keys()) == len(types)):
        return "", attrgetter("level"), b""
    own = "".join(
        f',"{key}":' + ('"%s"' if each is str else "%s") for key, each in zip(kind.keys(), types, strict=True)
    )
    form = _head(kind, kind.level) + _encode(sentence).decode() + own
    return form, attrgetter(*names, *kind.keys()), b'"' * form.count('"')


class LibraryHandler(logging.Handler):
    """Writes the log records of libraries as `library` events, without tracebacks.

    Their level INFO becomes `debug`. Their DEBUG is disabled: aiortc writes whole SDP bodies there.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        level: Level = "debug"
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
        error = record.exc_info[1] if record.exc_info else None
        message = record.getMessage() + (f" ({type(error).__name__}: {error})" if error else "")
        self._log.emit_from_thread(Library(record.name, message, level))


def capture_libraries(log: Log) -> None:
    """Redirect the log records of all libraries to `log`."""
    handler = LibraryHandler(log)
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
