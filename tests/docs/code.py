"""Contents of the generated tables, read from the code: values of enums and dataclasses, events, and literals in the source."""

import ast
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import typer

import sdpx
from sdpx import errors, events
from sdpx.cli import app
from sdpx.events import ErrorEvent, Event, WarningEvent
from sdpx.peer.diagnostics import diagnosis
from sdpx.remedies import REMEDIES

PACKAGE: Final = Path(sdpx.__file__).parent
MODULES: Final = {
    ".".join(part for part in path.relative_to(PACKAGE).with_suffix("").parts if part != "__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "docs" not in path.relative_to(PACKAGE).parts
}


class StaleTableError(Exception):
    """A table of meanings does not cover exactly the codes in the code."""


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


@cache
def nodes_of(name: str) -> list[ast.AST]:
    return list(ast.walk(tree(name)))


def nodes(under: str) -> Iterator[ast.AST]:
    for name in MODULES:
        if f"{name}.".startswith(f"{under}." if under else ""):
            yield from nodes_of(name)


def literals(under: str) -> set[object]:
    """All constants in the modules under a package."""
    return {node.value for node in nodes(under) if isinstance(node, ast.Constant)}


def calls(*names: str, under: str) -> Iterator[ast.Call]:
    """All calls of functions, methods or classes with these names."""
    for node in nodes(under):
        if isinstance(node, ast.Call):
            function = node.func
            called = getattr(function, "id", None) or getattr(function, "attr", None)
            if called in names:
                yield node


def arguments(found: Iterable[ast.Call], position: int, kind: type) -> set[Any]:
    """The literals of a type at this position of the calls' arguments."""
    given = (call.args[position] for call in found if len(call.args) > position)
    return {node.value for node in given if isinstance(node, ast.Constant) and type(node.value) is kind}


def check_cover(title: str, table: Iterable[Any], found: Iterable[Any], possible: Iterable[Any] | None = None) -> None:
    """Raise `StaleTableError` unless the table has all that was found and nothing else; `possible` is what else it may have."""
    table, found = set(table), set(found)
    missing, unknown = found - table, table - (found if possible is None else found | set(possible))
    if missing or unknown:
        message = f"tests/docs/texts.py, {title}: add {sorted(map(str, missing))}, remove {sorted(map(str, unknown))}"
        raise StaleTableError(message)


@cache
def program() -> Any:
    """The program with its commands, as Click has it."""
    return typer.main.get_command(app.command_line())


def commands() -> Mapping[str, Any]:
    return {name: command for name, command in program().commands.items() if not command.hidden}


def parse(command: str, arguments: list[str]) -> Mapping[str, Any]:
    """The values of a command's options. Raises what Click raises for a usage error."""
    group = program().make_context("sdpx", [command])
    parameters: Mapping[str, Any] = commands()[command].make_context(command, arguments, parent=group).params
    return parameters


def options(command: str) -> list[Any]:
    """The visible options of a command, as Click has them."""
    return [
        each
        for each in commands()[command].params
        if each.param_type_name == "option" and not each.hidden and each.name != "help"
    ]


def ending_codes(under: str = "") -> dict[int, set[str]]:
    """The literal codes of each exit status: those of each `Ending`, and those of the diagnosis rules."""
    found: dict[int, set[str]] = {int(status): set() for status in errors.ExitStatus}
    for call in calls("Ending", under=under):
        status = ast.unparse(call.args[2]).removeprefix("ExitStatus.") if len(call.args) > 2 else "INTERNAL"
        if status in errors.ExitStatus.__members__:
            found[errors.ExitStatus[status]] |= arguments([call], 0, str)
    for rule in diagnosis.RULES:
        found[REMEDIES[rule.code].status].add(rule.code)
    return found


def event_modules() -> dict[str, list[type[Event]]]:
    """The events of each module of `sdpx.events`; those of the package itself and of `common` under ''."""
    found: dict[str, list[type[Event]]] = {}
    names = ["", *(each.name for each in pkgutil.iter_modules(events.__path__))]
    for name in names:
        module = importlib.import_module(f"sdpx.events.{name}" if name else "sdpx.events")
        for each in vars(module).values():
            own = isinstance(each, type) and each.__module__ == module.__name__ and not each.__name__.startswith("_")
            if own and issubclass(each, Event) and each not in (Event, ErrorEvent, WarningEvent):
                found.setdefault("" if name in ("", "common", "library") else name, []).append(each)
    return found


def event_names() -> set[str]:
    return {event.name() for group in event_modules().values() for event in group}


def docstring(module: str) -> str:
    doc = ast.get_docstring(tree(module))
    if not doc:
        message = f"{MODULES[module]} has no docstring"
        raise StaleTableError(message)
    return doc


def first_sentence(doc: str) -> str:
    paragraph = " ".join(doc.split("\n\n", maxsplit=1)[0].split())
    return paragraph.split(". ")[0].rstrip(".:")
