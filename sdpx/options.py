"""Options of the commands: one declaration holds the default, the help text, the range and the environment variable. Pure.

The options of a command are a frozen dataclass whose fields are made by `option`; a field with another dataclass as its type
adds the options of that one. The command line (sdpx/cli/signature.py), the configuration file and the tables of the
documentation are derived from these declarations.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin

from sdpx.urls import basic_authorization

T = TypeVar("T")

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]
OnLogFailure = Literal["serve", "exit"]


@dataclass(frozen=True, slots=True)
class Option:
    """A declared option; `kind` is the type of its field, `default` is `MISSING` where a value is required.

    `panel` is its group in `--help`. A number is from `minimum` to `maximum`. An argument or a one-shot option has no
    environment variable `env` and is not `in_file`.
    """

    name: str
    kind: Any
    default: Any
    help: str
    panel: str
    flag: str
    env: str | None
    metavar: str = ""
    minimum: float | None = None
    maximum: float | None = None
    is_argument: bool = False
    in_file: bool = True
    short: str = ""

    @property
    def value_type(self) -> Any:
        """The type of one value: without None, and of the items where the option is repeatable."""
        kinds = [each for each in get_args(self.kind) if each not in (NoneType, ...)]
        return kinds[0] if self.is_repeatable or NoneType in get_args(self.kind) else self.kind

    @property
    def is_repeatable(self) -> bool:
        """Whether the option takes several values."""
        return get_origin(self.kind) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that the option can have, where they are a fixed set."""
        return get_args(self.value_type)

    def parse(self, text: Any) -> Any:
        """Return the value that a word of the command line sets. Raises `ValueError` with the reason if it sets none."""
        if not isinstance(text, str):
            return text
        if self.choices and (lower := text.lower()) in self.choices:
            return lower
        if self.choices:
            raise ValueError(f"'{text}' is not one of {', '.join(self.choices)}{did_you_mean(text, self.choices)}")
        if self.value_type not in (int, float):
            return text
        try:
            number = self.value_type(text)
        except ValueError:
            kind = "a whole number" if self.value_type is int else "a number"
            raise ValueError(f"'{text}' is not {kind}") from None
        if problem := self.range_problem(number):
            raise ValueError(problem)
        return number

    def range_problem(self, value: Any) -> str | None:
        """Return the reason why a number is out of range."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        low, high = self.minimum, self.maximum
        if (low is None or value >= low) and (high is None or value <= high):
            return None
        return f"{value:.12g} is not {low} or more" if high is None else f"{value:.12g} is not from {low} to {high}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question with the most similar of the known words, or nothing if none is similar."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def option(
    default: T,
    help: str,  # noqa: A002  the name that command lines have for it
    panel: str,
    metavar: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    **more: Any,
) -> T:
    """Declare an option as a field of a dataclass; `more` sets other fields of `Option`.

    Flag and environment variable follow the field's name. `default` is `...` where a value is required.
    """
    details = {"help": help, "panel": panel, "metavar": metavar, "minimum": minimum, "maximum": maximum, **more}
    declared: Any = field(default=MISSING if default is ... else default, metadata=details)
    return declared  # type: ignore[no-any-return]


def options_of(declarations: type) -> Iterator[Option]:
    """Return the options that a dataclass declares, in the order of its fields."""
    for each in fields(declarations):
        if each.metadata:
            flag = each.metadata.get("flag", f"--{each.name.replace('_', '-')}")
            in_file = each.metadata.get("in_file", True)
            env = None if not in_file else f"SDPX_{flag[2:].replace('-', '_').upper()}"
            yield Option(each.name, each.type, each.default, **{"flag": flag, "env": env, **each.metadata})
        elif is_dataclass(each.type):
            yield from options_of(each.type)  # type: ignore[arg-type]


def build(declarations: type[T], values: Mapping[str, Any]) -> T:
    """Return the dataclass with these values of its options, by the names of their fields."""
    arguments: dict[str, Any] = {}
    for each in fields(declarations):  # type: ignore[arg-type]
        if each.metadata:
            value = values[each.name]
            arguments[each.name] = tuple(value or ()) if get_origin(each.type) is tuple else value
        elif is_dataclass(each.type):
            arguments[each.name] = build(each.type, values)  # type: ignore[arg-type]
    return declarations(**arguments)


def values_of(options: Any) -> dict[str, Any]:
    """Return the values of all options of a dataclass, by the names of their fields."""
    values: dict[str, Any] = {}
    for each in fields(options):
        value = getattr(options, each.name)
        values |= {each.name: value} if each.metadata else values_of(value) if is_dataclass(value) else {}
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFormatOptions:
    """Form of the log on stdout."""

    log_format: Format = option(
        "auto",
        "json: a JSON object per line; text: for reading; auto: text at a terminal, else json.",
        "Logging",
        "FORMAT",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """Content of the text at a terminal."""

    verbose: bool = option(False, "At a terminal: show every event, as a line of the log.", "Logging", short="-v")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions(LogFormatOptions):
    """Content of the log on stdout."""

    log_level: Level = option("info", "Lowest level that is logged: debug, info, warning or error.", "Logging", "LEVEL")
    log_sdp: bool = option(False, "Log SDP bodies, which contain ICE passwords.", "Logging")


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Options of a client of the relay: its token, and the verification of the relay's certificate."""

    token: str | None = option(
        None, "Token for a relay that requires one; safer in the environment.", "Network", "TOKEN"
    )
    cafile: str | None = option(None, "Trust only the certificate authorities in this file (PEM).", "TLS", "FILE")
    insecure: bool = option(False, "Do not verify the certificate of the relay; for tests.", "TLS")

    def authorization(self, url: str) -> str | None:
        """Return the Authorization header of a request: user and password of the URL, else the token (RFC 6750)."""
        return basic_authorization(url) or (None if self.token is None else f"Bearer {self.token.strip()}")


class BadOption(Exception):
    """An option has an unusable value; `problem` says why and quotes no secret."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem
