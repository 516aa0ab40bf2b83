"""Signatures that Typer makes a command line of, derived from the declarations of the options."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING
from typing import Annotated, Any

import typer

from sdpx.cli.options import COMMANDS, CONFIG, command_options, flags
from sdpx.options import BadOption, Option, build


def command_function(command: str) -> Callable[..., None]:
    """Return a function with the signature that Typer reads; it builds the options and runs the command."""

    def run(**values: Any) -> None:
        from sdpx.cli import commands  # noqa: PLC0415  `--help` does not need them

        try:
            status = getattr(commands, command)(build(COMMANDS[command], values))
        except BadOption as error:
            raise typer.BadParameter(error.problem, param_hint=error.option) from None
        raise typer.Exit(status)

    parameters = [_parameter(each) for each in command_options(command)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run


def _parameter(declared: Option) -> inspect.Parameter:
    """Return an option as a parameter of the signature that Typer reads."""
    kind: Any = bool if declared.value_type is bool else str  # `Option.parse` converts, with errors in our words
    kind = list[kind] | None if declared.is_repeatable else kind if declared.default is MISSING else kind | None
    shown: dict[str, Any] = {
        "help": declared.help,
        "metavar": declared.metavar,
        "envvar": declared.env,
        "show_envvar": False,
        "rich_help_panel": declared.panel,
        "callback": _use_config if declared is CONFIG else _parse(declared),
        "is_eager": declared is CONFIG,
    }
    if declared.choices:
        shown["autocompletion"] = lambda incomplete: [each for each in declared.choices if each.startswith(incomplete)]
    decls = [flags(declared), *([declared.short] if declared.short else [])]
    info = typer.Argument(**shown) if declared.is_argument else typer.Option(*decls, **shown)
    default = inspect.Parameter.empty if declared.default is MISSING else declared.default
    return inspect.Parameter(
        declared.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if default == () else default,
        annotation=Annotated[kind, info],
    )


def _parse(declared: Option) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        try:
            return declared.parse(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


def _use_config(ctx: typer.Context, path: str | None) -> str | None:
    """Take the values of a configuration file as defaults."""
    if path is not None:
        from sdpx.cli.config_file import load  # noqa: PLC0415  loads msgspec

        try:
            ctx.default_map = load(path, str(ctx.info_name))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--config") from None
    return path
