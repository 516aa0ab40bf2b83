"""Usage errors: one line in our words, with the nearest command, option or value."""

import re
from collections.abc import Sequence
from typing import Any

from sdpx.cli.options import COMMANDS, command_options
from sdpx.options import did_you_mean


def describe(error: Any, arguments: Sequence[str]) -> str:
    """Return a usage error of Typer as a line for stderr, and the way to the help."""
    command = next((word for word in arguments if word in COMMANDS), "")
    return f"sdpx: {_problem(error, command)}\nTry '{f'sdpx {command}'.rstrip()} --help'."


def _problem(error: Any, command: str) -> str:
    option = ascii(getattr(error, "option_name", ""))[1:-1]
    match type(error).__name__:
        case "NoSuchOption":
            return f"no such option: {option}{_instead_of(option, command)}"
        case "BadOptionUsage" if "requires an argument" in error.message:
            return f"{option} needs a value"
        case "MissingParameter":
            return f"{_hint(error)} is required"
        case "BadParameter":
            problem, _, is_boolean = error.message.partition("Input should be a valid boolean")
            return f"{_hint(error)}: {'the value is neither true nor false' if is_boolean else problem}"
    message = str(error.format_message())
    found = re.match(r"No such command '(.*?)'|Got unexpected extra argument.*? \((.*)\)", message)
    if found and found[1]:
        return f"no such command: {found[1]}{did_you_mean(found[1], COMMANDS)}"
    return f"unexpected argument: {found[2]}" if found else message


def _instead_of(option: str, command: str) -> str:
    options = command_options(command) if command else []
    if argument := next((each.metavar for each in options if each.is_argument and each.flag == option), None):
        return f"; it is an argument: sdpx {command} {argument}"
    return did_you_mean(option, [each.flag for each in options if not each.is_argument] or ["--version", "--help"])


def _hint(error: Any) -> str:
    """Return the option of an error, as it is written, and the environment variable if that set it."""
    if error.param_hint:
        return str(error.param_hint)
    source = error.ctx.get_parameter_source(error.param.name) if error.ctx else None
    variable = f" ({error.param.envvar})" if getattr(source, "name", "") == "ENVIRONMENT" else ""
    is_argument = error.param.param_type_name == "argument"
    return f"{error.param.metavar if is_argument else error.param.opts[0]}{variable}"
