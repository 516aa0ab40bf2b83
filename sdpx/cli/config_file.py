"""`--config FILE`: the options of a command in a TOML file, under the names that they have on the command line. Pure.

A table bears the name of a command, `[serve]`, and holds its options; keys above all tables are for whichever command reads the
file. What is unknown or of the wrong type is refused. The command line wins over the environment, and that over the file.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Literal
from urllib.parse import urlsplit

Kind = Literal["boolean", "integer", "number", "text"]
MASK: Final = "***"
_WANTED: Final[dict[Kind, str]] = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "text": "a text in quotes",
}
_TYPES: Final[dict[Kind, tuple[type, ...]]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "text": (str,),
}
_TURN_PASSWORD: Final = re.compile(r"^(turns?:[^:@]*:).*@", re.DOTALL)  # turn:USER:PASS@HOST


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command: its name in code, its key in a file, and what values it takes; several of them if it `repeats`.

    A number is from `least` to `most`, a text is one of `choices`, where there are any.
    """

    name: str
    key: str
    kind: Kind
    repeats: bool = False
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    def flaw(self, value: Any) -> str | None:
        """Return what a value would have to be that is not."""
        wrong = isinstance(value, bool) and self.kind != "boolean"
        if wrong or not isinstance(value, _TYPES[self.kind]):
            return _WANTED[self.kind] + (", or a list of them" if self.repeats else "")
        if isinstance(value, str) and MASK in value:
            return f"the value itself: '{MASK}' stands where --print-config hides a secret"
        if self.choices and value not in self.choices:
            return f"one of {', '.join(self.choices)}"
        return self._out_of_range(value) if isinstance(value, int | float) else None

    def _out_of_range(self, value: float) -> str | None:
        if self.least is not None and not value >= self.least:
            return f"{self.least:g} at least"
        return f"{self.most:g} at most" if self.most is not None and not value <= self.most else None


class BadConfig(Exception):
    """The file cannot be used: the sentence says which key, and why."""


def read(text: str, command: str, commands: Mapping[str, Sequence[Option]]) -> dict[str, Any]:
    """Return what a file sets for a command, by the options' names in code; raises `BadConfig`.

    All of the file is checked, the tables of other commands included.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig(f"it is no TOML: {error}") from None
    except (ValueError, RecursionError):
        raise BadConfig("it has a number, or lists in lists, beyond all bounds") from None
    tables = {name: value for name, value in found.items() if isinstance(value, dict)}
    for name in tables.keys() - commands.keys():
        raise BadConfig(f"it has a table [{name}], and there is no such command; there is {', '.join(commands)}")
    values = {name: _values(f"[{name}] ", tables.get(name, {}), commands[name]) for name in commands}
    common = {key: value for key, value in found.items() if key not in tables}
    return _values("", common, commands[command]) | values[command]


def show(command: str, options: Sequence[Option], values: Mapping[str, Any]) -> str:
    """Return a file that sets these values, by the options' names in code.

    What is not set is a comment. Passwords and queries of URLs are masked.
    """
    lines = [f"[{command}]"]
    for option in options:
        value = values[option.name]
        lines.append(f"# {option.key} is not set" if value in (None, [], ()) else f"{option.key} = {_written(value)}")
    return "\n".join(lines) + "\n"


def _values(where: str, found: Mapping[str, Any], options: Sequence[Option]) -> dict[str, Any]:
    known = {option.key: option for option in options}
    values: dict[str, Any] = {}
    for key, value in found.items():
        option = known.get(key.replace("_", "-"))
        if option is None:
            near = get_close_matches(key, known, n=1)
            raise BadConfig(f"{where}'{key}' is no option{f'; is it {near[0]!r}?' if near else ''}")
        if option.name in values:
            raise BadConfig(f"{where}'{key}' is there twice, with - and with _")
        values[option.name] = _value(f"{where}'{key}'", value, option)
    return values


def _value(where: str, value: Any, option: Option) -> Any:
    values = value if option.repeats and isinstance(value, list) else [value]
    for each in values:
        if flaw := option.flaw(each):
            raise BadConfig(f"{where} has to be {flaw}")
    return values if option.repeats else value


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    return _quoted(_masked(str(value)))


def _masked(text: str) -> str:
    """Return the text; of a URL with a password or a query, without them."""
    if _TURN_PASSWORD.match(text) or "://" not in text:  # a password may have :// in it
        return _TURN_PASSWORD.sub(rf"\1{MASK}@", text)
    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = f"{name}:{MASK}@{host}" if colon else f"{MASK}@{host}" if at else host
    query = "&".join(map(_masked_item, parts.query.split("&"))) if parts.query else ""
    return parts._replace(netloc=shown, query=query, fragment=MASK if parts.fragment else "").geturl()


def _masked_item(item: str) -> str:
    """Return an item of a query, of which only the name is shown; one without a name may be a credential by itself."""
    name, equals, _ = item.partition("=")
    return f"{name}={MASK}" if equals else MASK


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    return sign if sign.isprintable() or ord(sign) >= 1 << 16 else f"\\u{ord(sign):04x}"
