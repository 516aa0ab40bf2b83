"""Between a command's options, as Typer has them, and a configuration file."""

from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

import typer

from sdpx.cli.config_file import BadConfig, Kind, Option, read, show

LARGEST: Final = 1024 * 1024
# What tells a command what to do instead of how is no configuration.
_NOT_IN_A_FILE: Final = frozenset({"config", "check", "print_config", "help"})
_KINDS: Final[dict[Any, Kind]] = {bool: "boolean", int: "integer", float: "number"}


def defaults_from(path: str, ctx: typer.Context) -> dict[str, Any]:
    """Return what the file sets for the command of this context; raises `typer.BadParameter`."""
    assert ctx.parent is not None
    group: Any = ctx.parent.command
    commands = {name: options_of(command) for name, command in group.commands.items()}
    try:
        return read(_text(path), str(ctx.info_name), commands)
    except BadConfig as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--config") from None


def shown(ctx: typer.Context) -> str:
    """Return the file that would set what is in force for this command."""
    values = {name: getattr(value, "value", value) for name, value in ctx.params.items()}
    return show(str(ctx.info_name), options_of(ctx.command), values)


def options_of(command: Any) -> list[Option]:
    """Return the options of a command that a file may set."""
    hints = get_type_hints(command.callback, include_extras=True)
    return [
        _option(param, hints[param.name])
        for param in command.params
        if param.param_type_name == "option" and param.name not in _NOT_IN_A_FILE
    ]


def _option(param: Any, hint: Any) -> Option:
    """Return an option as its type in the command's signature has it: `Annotated[T | None, typer.Option(...)]`."""
    declared, info = get_args(hint)
    kinds = [each for each in get_args(declared) or (declared,) if each is not NoneType]
    (kind,) = get_args(kinds[0]) or kinds
    choices = tuple(each.value for each in kind) if issubclass(kind, Enum) else ()
    key = param.opts[0].removeprefix("--")
    return Option(param.name, key, _KINDS.get(kind, "text"), param.multiple, info.min, info.max, choices)


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(LARGEST + 1).decode()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise typer.BadParameter(f"{path}: {reason}", param_hint="--config") from None
    if len(text) > LARGEST:
        raise typer.BadParameter(f"{path}: it is larger than 1 MiB", param_hint="--config")
    return text
