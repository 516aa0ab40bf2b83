"""What happened, as values: one class an event of the log (EVENTS, version 1).

The class name in snake_case is the event's name, its fields are the event's own keys in their order, `level` and
`sentence` are as the log shows them. A field that is UNSET is left out of the line; the last ones may begin
with an underscore: they only feed the sentence or the level.
"""

import re
from functools import cache
from typing import Any, ClassVar, Literal, get_args

from msgspec import UNSET, Struct

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)


class Event(Struct, frozen=True):
    """Something that happened and that the log tells."""

    level: ClassVar[Level] = "info"
    sentence: ClassVar[str] = ""

    @classmethod
    @cache
    def name(cls) -> str:
        """Return the stable snake_case name."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def keys(cls) -> list[str]:
        """Return the names of the event's own keys, in their order."""
        return [field for field in cls.__struct_fields__ if not field.startswith("_")]

    def body(self) -> Any:
        """Return what encodes to the event's own keys: the event itself, unless it has fields to hide."""
        hides = self.__struct_fields__ and self.__struct_fields__[-1].startswith("_")
        return self.shown() if hides else self

    def shown(self) -> dict[str, Any]:
        """Return the event's own keys with their values, without those that are unset."""
        return {key: value for key in self.keys() if (value := getattr(self, key)) is not UNSET}

    def message(self) -> str:
        """Return the sentence for a person."""
        return self.sentence.format(e=self)

    def render(self) -> str | None:
        """Return the message and the own keys as JSON, if the event can do so faster than an encoder."""
        return None

    def severity(self) -> Level:
        """Return the level of this very event."""
        return self.level


class Library(Event, frozen=True):
    """What a library that sdpx stands on had to say."""

    logger: str
    _message: str
    _level: Level

    def message(self) -> str:
        """Return the library's own words."""
        return self._message

    def severity(self) -> Level:
        """Return the library's own level."""
        return self._level


class LogDropped(Event, frozen=True):
    """Lines were lost because nobody read them in time."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "{e.count} log lines were dropped because stdout was not read in time"
    count: int


class Error(Event, frozen=True):
    """Whatever ended the program."""

    level: ClassVar[Level] = "error"
    sentence: ClassVar[str] = "{e.reason}"
    code: str
    reason: str
