"""The events of the log: one class for each.

The class name in snake_case is the name of the event; its fields are the event's own keys, in order; `level` and `sentence`
are its level and message. A field that is UNSET is left out. Fields with a leading underscore come last and are not logged:
they only serve the message or the level.
"""

import re
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from string import Formatter
from typing import Any, ClassVar, get_args

from msgspec import UNSET, Struct

from sdpx.options import Level

LEVELS: tuple[Level, ...] = get_args(Level)


class Event(Struct, frozen=True):
    """An event of the log."""

    level: ClassVar[Level] = "info"
    sentence: ClassVar[str] = ""

    @classmethod
    @cache
    def name(cls) -> str:
        """Return the stable snake_case name."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    @cache
    def keys(cls) -> list[str]:
        """Return the names of the event's own keys, in their order."""
        return [field for field in cls.__struct_fields__ if not field.startswith("_")]

    def body(self) -> Any:
        """Return a value that encodes to the event's own keys: the event itself, unless it has private fields."""
        return self.shown() if _has_private_fields(type(self)) else self

    def shown(self) -> dict[str, Any]:
        """Return the event's own keys that are set, with their values."""
        return {key: value for key in self.keys() if (value := getattr(self, key)) is not UNSET}

    def message(self) -> str:
        """Return the human-readable sentence."""
        template, _, values = self.template()
        return template % values(self) if template else self.sentence.format(e=self)

    @classmethod
    @cache
    def template(cls) -> tuple[str, list[str], Callable[["Event"], Any]]:
        """Return the sentence for the `%` operator, which is faster than `format`, its keys, and the function that gets them.

        The template is empty for a sentence that formats or converts a value, or has none.
        """
        parts = list(Formatter().parse(cls.sentence))
        names = [name.removeprefix("e.") for _, name, _, _ in parts if name is not None]
        if not names or any(
            spec or conversion or not name.startswith("e.") for _, name, spec, conversion in parts if name
        ):
            return "", [], attrgetter("level")
        template = "".join(text.replace("%", "%%") + ("" if name is None else "%s") for text, name, _, _ in parts)
        return template, names, attrgetter(*names)

    def severity(self) -> Level:
        """Return the level of this event."""
        return self.level


class WarningEvent(Event, frozen=True):
    """An event of level `warning`."""

    level = "warning"


class ErrorEvent(Event, frozen=True):
    """An event of level `error`."""

    level = "error"


@cache
def _has_private_fields(kind: type[Event]) -> bool:
    return len(kind.keys()) < len(kind.__struct_fields__)


class Library(Event, frozen=True):
    """A log record of a library."""

    logger: str
    _message: str
    _level: Level

    def message(self) -> str:
        """Return the message of the record."""
        return self._message

    def severity(self) -> Level:
        """Return the level of the record."""
        return self._level


class LogDropped(WarningEvent, frozen=True):
    """Lines were dropped because stdout was not read fast enough, or could not be written."""

    sentence = "{e.count} log lines were dropped: stdout was not read fast enough, or could not be written"
    count: int


class Error(ErrorEvent, frozen=True):
    """The error that ended the program."""

    sentence = "{e.reason}"
    code: str
    reason: str
