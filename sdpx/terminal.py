"""The view at a terminal, in place of log lines: the base of the views of `sdpx peer` and `sdpx demo`. Pure.

A view turns events into a few lines, and draws them above a prompt. The text being typed belongs to the terminal, and no
program can read it. Messages that come meanwhile are inserted above it, by sequences of the VT102 that leave its row as it is.
Other lines take its place on the screen; it is sent as it was typed all the same.
"""

import re
import textwrap
import unicodedata
from typing import Any, Final

from sdpx.events import Event
from sdpx.options import Level

COLOURS: Final = {"debug": "\x1b[2m", "info": "", "warning": "\x1b[33m", "error": "\x1b[31m"}
COLOUR_END: Final = "\x1b[0m"
_CLEAR_LINE: Final = "\r\x1b[K"
MAX_INSERTED_ROWS: Final = 12  # more might not fit on the screen
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """Return `text` with each character that may control a terminal or its line in the form of JSON (RFC 8259, 7)."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def wrapped(text: str, width: int) -> str:
    """Return a sentence in lines of this width, broken between words."""
    if len(text) <= width:
        return text
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


def rows_of(text: str, width: int) -> int:
    """Return the number of rows that a line takes on the screen."""
    if text.isascii():
        cells = len(text)
    else:
        cells = sum(
            2 if unicodedata.east_asian_width(each) in "WF" else not unicodedata.combining(each) for each in text
        )
    return max(1, -(-cells // width))


class View:
    """Lines for events. `prompt` is drawn behind them if the view is `interactive`: if a person can type and see it.

    A view that sets `inserts` has the next lines drawn above the text being typed, if the prompt stays the same.
    """

    def __init__(self, *, interactive: bool = False, colour: bool = False, width: int = 80) -> None:
        self.interactive = interactive
        self.width = width
        self.prompt = ""
        self.inserts = False
        self._shown_prompt = ""
        self._colour = colour

    def show(self, event: Event, now: float) -> str | None:  # noqa: ARG002  for views with durations
        """Return the lines for an event, in seconds `now`; "" if the prompt alone has to be drawn, None for nothing."""
        return wrapped(event.message(), self.width) if event.severity() in ("warning", "error") else None

    def show_forwarded(self, line: dict[str, Any]) -> str | None:
        """Return the lines for a log line of another sdpx program, with its `who`, as `show` does."""
        return line["message"] if line["level"] in ("warning", "error") else None

    def draw(self, lines: str | None, level: Level = "info") -> bytes:
        """Return the bytes to write for these lines."""
        if lines is None:
            return b""
        start = COLOURS[level] if self._colour else ""
        end = COLOUR_END if start else ""
        escaped = [escape(line) for line in lines.split("\n")] if lines else []
        drawn = "".join(f"{start}{line}{end}\n" for line in escaped)
        if not self.interactive:
            return drawn.encode()
        rows = sum(rows_of(line, self.width) for line in escaped)
        inserts, self.inserts = self.inserts, False
        if inserts and self.prompt == self._shown_prompt and rows <= MAX_INSERTED_ROWS:
            return _inserted(drawn, rows).encode()
        self._shown_prompt = self.prompt
        return f"{_CLEAR_LINE}{drawn}{self.prompt}".encode()

    def end(self) -> bytes:
        """Return the bytes to write at the end of the program, so that the prompt of the shell has its own line."""
        return _CLEAR_LINE.encode() if self.interactive else b""  # also the ^C of the terminal


def _inserted(drawn: str, rows: int) -> str:
    """Return lines with the sequences that insert them above the row of the cursor, which stays in its column."""
    make_room = "\x1bD" * rows + f"\x1b[{rows}A"  # down, at the bottom by scrolling, and up again
    return f"{make_room}\x1b7\r\x1b[{rows}L{drawn}\x1b8\x1b[{rows}B"


def milliseconds(label: str, seconds: float) -> str:
    """Return a line with a phase and its duration; durations stand below each other."""
    return f"{label:<16}{seconds * 1000:4.0f} ms" if len(label) <= 16 else f"{label}   {seconds * 1000:.0f} ms"  # noqa: PLR2004
