"""Configuration file of `--config`: the options of the commands in TOML, under their names on the command line.

A table is named for a command, `[serve]`, and has its options; keys outside tables are for the command that reads the file.
Unknown keys and values of a wrong type are refused. The command line overrides the environment, and that overrides the file.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from sdpx.cli.options import COMMANDS
from sdpx.errors import describe_os_error
from sdpx.options import Option, did_you_mean, options_of, values_of
from sdpx.urls import MASK, mask_secrets

MAX_BYTES: Final = 1024 * 1024
_TYPE_NAMES: Final = {bool: "true or false", int: "a whole number", float: "a number"}


def load(path: str, command: str) -> dict[str, Any]:
    """Return the values that a file sets for a command, by the names of its options in code; raises `ValueError`."""
    try:
        with Path(path).open("rb") as file:
            return parse(file.read(MAX_BYTES + 1).decode("utf-8-sig"), command)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {describe_os_error(error)}") from None


def parse(text: str, command: str) -> dict[str, Any]:
    """Return the values that the text of a file sets for a command; all tables are checked. Raises `ValueError`."""
    if len(text) > MAX_BYTES:
        raise ValueError("larger than 1 MiB")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from None
    except (ValueError, RecursionError):
        raise ValueError("a number is too large, or lists are nested too deeply") from None
    tables = {name: value for name, value in found.items() if isinstance(value, dict)}
    for name in tables.keys() - COMMANDS.keys():
        raise ValueError(f"unknown table [{name}]; the commands are {', '.join(COMMANDS)}")
    values = {name: _values(f"[{name}] ", tables.get(name, {}), COMMANDS[name]) for name in COMMANDS}
    common = {key: value for key, value in found.items() if key not in tables}
    return _values("", common, COMMANDS[command]) | values[command]


def render(command: str, options: Any) -> str:
    """Return a file that sets the values of these options, with secrets masked; an option without a value is a comment."""
    values = values_of(options)
    lines = [f"[{command}]"]
    for key, declared in _options_in_file(type(options)).items():
        value = values[declared.name]
        lines.append(f"# {key} is not set" if value in (None, ()) else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _options_in_file(declarations: type) -> dict[str, Option]:
    return {each.flag[2:]: each for each in options_of(declarations) if each.in_file}


def _values(where: str, found: Mapping[str, Any], declarations: type) -> dict[str, Any]:
    known = _options_in_file(declarations)
    values: dict[str, Any] = {}
    for key, value in found.items():
        declared = known.get(key.replace("_", "-"))
        if declared is None:
            raise ValueError(f"{where}unknown option '{key}'{did_you_mean(key, known)}")
        if declared.name in values:
            raise ValueError(f"{where}'{key}' is set twice, with - and with _")
        try:
            values[declared.name] = _value(value, declared)
        except ValueError as error:
            raise ValueError(f"{where}'{key}': {error}") from None
    return values


def _value(value: Any, declared: Option) -> Any:
    """Return a value as its option has it; raises ValueError."""
    if declared.is_repeatable:
        value = value if isinstance(value, list) else [value]
    expected = list[declared.value_type] if declared.is_repeatable else declared.value_type  # type: ignore[name-defined]
    if declared.choices:
        declared.parse(value)
    try:
        converted = msgspec.convert(value, expected)
    except msgspec.ValidationError:
        kind = _TYPE_NAMES.get(declared.value_type, "a string")
        raise ValueError(f"not {kind}{', or a list of them' if declared.is_repeatable else ''}") from None
    if MASK in str(converted):
        raise ValueError(f"'{MASK}' is where --print-config hides a secret; put the secret in")
    if problem := declared.range_problem(converted):
        raise ValueError(problem)
    return converted


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int | float):
        return repr(value)
    return '"' + "".join(map(_escape, mask_secrets(value))) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() or ord(character) >= 1 << 16 else f"\\u{ord(character):04x}"
