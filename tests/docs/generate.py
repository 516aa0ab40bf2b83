"""The generated parts of the documents: Markdown tables between `<!-- generated: NAME -->` and `<!-- end -->`."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from sdpx import errors
from sdpx.cli.options import command_options, flags
from sdpx.events import Event
from sdpx.ice_servers import DEFAULT_STUN
from sdpx.options import Option
from sdpx.peer import commands as stdin_commands
from sdpx.protocol import messages
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.stats import ClusterSnapshot, RelaySnapshot, RelayStats
from sdpx.relay.http.metrics import metrics_page
from sdpx.remedies import REMEDIES
from tests.docs import code, texts
from tests.test_walls import PURE, within

ROOT: Final = Path(__file__).parent.parent.parent
DOCUMENTS: Final = (ROOT / "README.md", *sorted((code.PACKAGE / "docs").glob("*.md")))
PART: Final = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def generate(text: str) -> str:
    """Return a document with its generated parts as they have to be. Raises `KeyError` for an unknown part."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[3]}", text)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def quoted(words: Iterable[object]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def meanings(title: str, head: tuple[str, str], rows: Mapping[Any, str], found: Iterable[Any], under: str = "") -> str:
    """A table of codes and meanings; a code that is only assembled in the code has to be a literal there at least."""
    code.check_cover(title, rows, found, code.literals(under) if under else None)
    return table(head, ((f"`{each}`", meaning) for each, meaning in rows.items()))


# ---- command line -----------------------------------------------------------------------------------------------


def options(command: str) -> str:
    """The options of a command, a table for each panel of its `--help`."""
    panels: dict[str, list[tuple[str, ...]]] = {}
    for each in command_options(command):
        flag = f"{each.short}, {flags(each)}" if each.short else flags(each)
        name = each.metavar if each.is_argument else f"{flag} {each.metavar}".rstrip()
        row = (f"`{name}`", f"`{each.env}`" if each.env else "", _default(each), f"{each.help}{_range(each)}")
        panels.setdefault(each.panel, []).append(row)
    head = ("option", "environment", "default", "meaning")
    return "\n\n".join(f"**{panel}**\n\n{table(head, rows)}" for panel, rows in panels.items())


def _default(option: Option) -> str:
    value = DEFAULT_STUN.url if option.name == "stun" else option.default
    if value in (None, (), dataclasses.MISSING):
        return "required" if value is dataclasses.MISSING else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _range(option: Option) -> str:
    if option.choices:
        return f" Values: {quoted(option.choices)}."
    if option.minimum is None:
        return ""
    return f" Range: {option.minimum} " + ("or more." if option.maximum is None else f"to {option.maximum}.")


def exit_statuses() -> str:
    code.check_cover("EXIT_STATUSES", texts.EXIT_STATUSES, (int(status) for status in errors.ExitStatus))
    codes = code.ending_codes()
    rows = (
        (str(int(status)), f"`{status.name}`", texts.EXIT_STATUSES[status], quoted(sorted(codes[status])))
        for status in errors.ExitStatus
    )
    return table(("status", "name", "meaning", "codes of the `error` event"), rows)


def diagnoses() -> str:
    codes = code.ending_codes(under="peer.diagnostics")
    found = {each: status for status in range(5, 13) for each in codes[status]}
    code.check_cover("DIAGNOSES", texts.DIAGNOSES, found)
    rows = ((f"`{each}`", str(found[each]), text, REMEDIES[each].remedy) for each, text in texts.DIAGNOSES.items())
    return table(("code", "status", "meaning", "remedy"), rows)


def doctor_codes() -> str:
    """The codes that only `sdpx doctor` finds."""
    found = []
    for code_name, each in REMEDIES.items():
        if code_name not in texts.DIAGNOSES:
            status = errors.ExitStatus.WARNINGS if each.result == "warning" else each.status
            found.append((f"`{code_name}`", each.result, str(int(status)), each.remedy))
    return table(("code", "result", "status", "remedy"), found)


def commands() -> str:
    made = {type(stdin_commands.parse_command(re.sub("TEXT|ID|LABEL|PATH", '"AAAA"', form))) for form in texts.COMMANDS}
    code.check_cover("COMMANDS", made, get_args(stdin_commands.Command))
    return table(("command", "effect"), ((f"`{form}`", text) for form, text in texts.COMMANDS.items()))


# ---- wire -------------------------------------------------------------------------------------------------------


def server_messages() -> str:
    kinds = messages.SERVER_TYPES
    relayed = get_args(messages.RelayedType)
    code.check_cover("SERVER_MESSAGES", texts.SERVER_MESSAGES, kinds)
    rows = []
    for kind, text in texts.SERVER_MESSAGES.items():
        keys = "as sent, and `from_peer`" if kind in relayed else quoted(kinds[kind].__struct_fields__)
        rows.append((f"`{kind}`", keys, text))
    return table(("type", "keys", "meaning"), rows)


def client_messages() -> str:
    cases = [node.value for node in code.nodes("protocol") if isinstance(node, ast.MatchValue)]
    found = {case.value for case in cases if isinstance(case, ast.Constant) and isinstance(case.value, str)}
    code.check_cover("CLIENT_MESSAGES", texts.CLIENT_MESSAGES, found | {"ack"})
    rows = ((f"`{kind}`", *text) for kind, text in texts.CLIENT_MESSAGES.items())
    return table(("type", "keys", "reply"), rows)


def error_codes() -> str:
    found = code.arguments(code.calls("Refusal", under=""), 0, str) - {"id_taken"}
    return meanings("ERROR_CODES", ("code", "condition"), texts.ERROR_CODES, found, "relay.core")


def http_codes() -> str:
    found: dict[str, set[int]] = {}
    for call in code.calls("HttpError", under="relay"):
        (status,), (word,) = (code.arguments([call], place, kind) for place, kind in ((0, int), (1, str)))
        found.setdefault(word, set()).add(status)
    code.check_cover("HTTP_CODES", texts.HTTP_CODES, found)
    rows = (
        (f"`{each}`", ", ".join(map(str, sorted(found[each]))), meaning) for each, meaning in texts.HTTP_CODES.items()
    )
    return table(("code", "status", "condition"), rows)


def close_codes() -> str:
    found = code.arguments(code.calls("CloseReason", under="relay"), 1, int)
    found |= code.arguments(code.calls("Violation", under="relay"), 0, int)
    return meanings("CLOSE_CODES", ("code", "meaning"), texts.CLOSE_CODES, found, "relay")


def disconnect_reasons() -> str:
    return meanings(
        "DISCONNECT_REASONS", ("reason", "meaning"), texts.DISCONNECT_REASONS, get_args(messages.DisconnectReason)
    )


def limits() -> str:
    fields = dataclasses.fields(Limits)
    code.check_cover("LIMITS", texts.LIMITS, (field.name for field in fields))
    known = {option.name: option.opts[0] for option in code.options("serve")}
    rows = []
    for field in fields:
        option = f"`{known[field.name]}`" if field.name in known else ""
        rows.append((f"`{field.name}`", f"{field.default:.10g}", option, texts.LIMITS[field.name]))
    return table(("limit", "value", "option", "meaning"), rows)


# ---- log and metrics --------------------------------------------------------------------------------------------


class _Placeholder(str):
    """The name of a key in capitals, whatever the format."""

    __slots__ = ()

    def __format__(self, _spec: str) -> str:
        return str(self)

    def __truediv__(self, _divisor: int) -> "_Placeholder":
        """Milliseconds as seconds."""
        return _Placeholder(self.removesuffix("_MS"))


def event_table(module: str) -> str:
    """The events of a module of `sdpx.events`."""
    rows = []
    for event in code.event_modules()[module]:
        level = "the library's" if event.name() == "library" else event.level
        doc = " ".join(inspect.cleandoc(event.__doc__ or "").split())
        rows.append((f"`{event.name()}`", level, quoted(event.keys()), _message(event), doc))
    return table(("event", "level", "keys", "message", "meaning"), rows)


def _message(event: type[Event]) -> str:
    """The message with the names of the keys in capitals, each variant of it."""
    if event.sentence:
        return re.sub(r"\{e\._?(\w+)[^}]*\}", lambda key: key[1].upper(), event.sentence)
    fields = event.__struct_fields__
    values: dict[str, Any] = {name: _Placeholder(name.lstrip("_").upper()) for name in fields}
    values |= {"phases": {"PHASE": _Placeholder("N"), "...": _Placeholder("N")}} if "phases" in fields else {}
    variants = [values, values | texts.MESSAGE_VARIANTS.get(event.name(), {})]
    return " / ".join(dict.fromkeys(event(**each).message() for each in variants))


def negotiation_errors() -> str:
    found = code.arguments(code.calls("NegotiationFailed", "_map_exceptions", under="peer"), 0, str)
    found |= code.arguments(code.calls("NegotiationError", under="peer"), 1, str)
    return meanings("NEGOTIATION_ERRORS", ("code", "meaning"), texts.NEGOTIATION_ERRORS, found, "peer")


def input_rejections() -> str:
    found = code.arguments(code.calls("InputRejected", under="peer"), 0, str)
    return meanings("INPUT_REJECTIONS", ("code", "meaning"), texts.INPUT_REJECTIONS, found, "peer")


def metrics() -> str:
    numbers = RelayStats()
    numbers.refusals["bad_json"] = 1
    required = [each.name for each in msgspec.structs.fields(RelaySnapshot) if each.required]
    present = RelaySnapshot(**dict.fromkeys(required, 0), cluster=ClusterSnapshot(0, 0))  # type: ignore[arg-type]
    page = metrics_page(numbers, lambda: present, "", {}, 0).body.decode()
    rows = []
    for family in text_string_to_metric_families(page):
        if family.name.startswith("sdpx_"):
            found = [sample.labels for sample in family.samples if "le" not in sample.labels]
            labels = sorted(set().union(*found))
            values = [quoted(sorted(each[label] for each in found)) for label in labels if label in ("type", "reason")]
            name = f"{family.name}_total" if family.type == "counter" else family.name
            rows.append((f"`{name}`", family.type, ": ".join([quoted(labels), *values]), family.documentation))
    return table(("metric", "type", "labels", "meaning"), rows)


# ---- architecture -----------------------------------------------------------------------------------------------


def modules() -> str:
    """Each module with the first sentence of its docstring; a table for each package."""
    packages: dict[str, list[tuple[str, ...]]] = {}
    for name, path in code.MODULES.items():
        if path.name in ("__init__.py", "__main__.py") and not ast.get_docstring(code.tree(name)):
            continue
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        purpose = code.first_sentence(code.docstring(name))
        row = (f"`{path.name}`", "pure" if name and within(name, *PURE) else "", purpose)
        packages.setdefault(package, []).append(row)
    parts = []
    for package, rows in sorted(packages.items()):
        parts.append(f"**`sdpx/{package.replace('.', '/')}{'/' if package else ''}`**\n\n")
        parts[-1] += table(("module", "", "purpose"), rows)
    return "\n\n".join(parts)


LANGUAGES: Final = {".py": "python", ".mjs": "js", ".sh": "bash", ".conf": "nginx", ".toml": "toml", ".html": "html"}
EXAMPLES: Final = {path.name: path for path in sorted((code.PACKAGE / "docs" / "examples").iterdir()) if path.is_file()}


def example(name: str) -> str:
    """A file of the examples as a block of code."""
    path = EXAMPLES[name]
    return f"```{LANGUAGES.get(path.suffix, name.lower())}\n{path.read_text()}```"


def engine_invariants() -> str:
    """The proof in the docstring of the epoll engine."""
    return code.docstring("relay.websocket.epoll_engine").split("\n\n", 1)[1]


PARTS: Final[dict[str, Callable[[], str]]] = {
    **{f"options-{name}": partial(options, name) for name in code.commands()},
    **{f"events-{name or 'common'}": partial(event_table, name) for name in code.event_modules()},
    **{f"example-{name}": partial(example, name) for name in EXAMPLES},
    "exit-statuses": exit_statuses,
    "diagnoses": diagnoses,
    "doctor-codes": doctor_codes,
    "commands": commands,
    "server-messages": server_messages,
    "client-messages": client_messages,
    "error-codes": error_codes,
    "http-codes": http_codes,
    "close-codes": close_codes,
    "disconnect-reasons": disconnect_reasons,
    "limits": limits,
    "negotiation-errors": negotiation_errors,
    "input-rejections": input_rejections,
    "metrics": metrics,
    "modules": modules,
    "engine-invariants": engine_invariants,
}
