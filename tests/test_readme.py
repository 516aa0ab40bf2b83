"""The README and the code, held together: neither has an option, event, key or number that the other lacks."""

import ast
import dataclasses
import enum
import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, get_args

import msgspec
import pytest
import typer
from prometheus_client.parser import text_string_to_metric_families

import sdpx
from sdpx import errors, events
from sdpx.cli import app, config_file
from sdpx.cli.config_defaults import options_of
from sdpx.events import Event, demo, peer, serve
from sdpx.ice_servers import DEFAULT_STUN
from sdpx.log import QUEUE_BYTES, QUEUE_LINES, Log
from sdpx.peer.diagnostics import diagnosis
from sdpx.peer.input import commands
from sdpx.peer.input.lines import MAX_LINE
from sdpx.protocol import messages
from sdpx.relay.core import pairing
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.stats import RelaySnapshot, RelayStats
from sdpx.relay.http.endpoints import operator_pages
from sdpx.relay.http.metrics import metrics_page
from tests.harness.log import LogRecorder
from tests.test_walls import PURE

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = Path(sdpx.__file__).parent
README: Final = (ROOT / "README.md").read_text()
JUSTFILE: Final = (ROOT / "Justfile").read_text()
KIB: Final = 1024
NOTHING: Final = RelaySnapshot(0, 0, 0, 0, 0, 0, 0)

Row = dict[str, str]

# ---- reading the README -----------------------------------------------------------------------------------------


def section(*path: str) -> str:
    """The text under a heading, with the headings below it; a path of headings says which of two with one name."""
    text = README
    for title in path:
        head = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
        assert head, f"README has no section {path}"
        rest = text[head.end() :]
        end = re.search(rf"^#{{1,{len(head[1])}}} ", rest, re.MULTILINE)
        text = rest[: end.start()] if end else rest
    return text


def table(*path: str) -> list[Row]:
    """The rows of a section's first table, by the names of its columns."""
    found = re.search(r"(?:^\|.*\|\n)+", section(*path), re.MULTILINE)
    assert found, f"README has no table in {path}"
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in found[0].splitlines()]
    return [dict(zip(head, row, strict=True)) for row in rows]


def codes(text: str) -> list[str]:
    """What a text sets in backticks."""
    return re.findall(r"`([^`]+)`", text)


def code(text: str) -> str:
    """The one thing that a cell sets in backticks."""
    (found,) = codes(text)
    return found


def paragraph(beginning: str) -> str:
    """The paragraph, from the line that begins so."""
    found = re.search(rf"^{re.escape(beginning)}.*?(?=\n\n|\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"README has no paragraph that begins with '{beginning}'"
    return found[0]


def sentence(beginning: str) -> str:
    """The text from these words to the end of their sentence."""
    found = re.search(rf"{re.escape(beginning)}.*?\.(?=\s)(?!\.)", README, re.DOTALL)
    assert found, f"README has no sentence with '{beginning}'"
    return found[0]


def blocks(language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


# ---- reading the code -------------------------------------------------------------------------------------------


def calls(*names: str, under: str = ".") -> Iterator[ast.Call]:
    """Every call of a function, class or method with one of these names."""
    for path in sorted(SOURCES.glob(f"{under}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and called(node) in names:
                yield node


def called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def strings(found: Iterator[ast.Call], position: int) -> set[str]:
    """The string literals that stand at this position of the calls' arguments; others are not ours to read."""
    words = set()
    for call in found:
        match call.args[position : position + 1]:
            case [ast.Constant(value=str(word))]:
                words.add(word)
    return words


def pairing_refusals() -> set[str]:
    """The codes that the lobby assigns to `code` before it refuses."""
    tree = ast.parse(inspect.getsource(pairing))
    return {
        word
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for word in [getattr(node.value.elts[0], "value", None)]
        if isinstance(word, str)
    }


def events_of(module: ModuleType) -> dict[str, type[Event]]:
    """The events that a module defines, by name."""
    classes = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Event)]
    own = [each for each in classes if each.__module__ == module.__name__ and not each.__name__.startswith("_")]
    return {each.name(): each for each in own if each is not Event}


# ---- the front door ---------------------------------------------------------------------------------------------


def test_the_two_commands_come_first_and_are_one_line_each() -> None:
    """A stranger pastes one line to see it work and one to run the tests; CI reads the second by its mark."""
    first, second, *_ = blocks("sh")
    assert README.index(second) < README.index("\n## ")
    for mark, block, recipe in (("demo", first, "demo"), ("tests", second, "test")):
        assert f"<!-- {mark} -->\n```sh\n{block}" in README
        assert block.count("\n") == 1
        assert block.endswith(f"/just {recipe}\n")


@pytest.mark.parametrize("block", blocks("sh"))
def test_a_shell_block_is_valid_shell(block: str) -> None:
    """What is there to be pasted parses as POSIX shell."""
    subprocess.run(["sh", "-n"], input=block, text=True, check=True)


def test_every_recipe_of_the_justfile_is_named_and_the_other_way_round() -> None:
    """`just --list` shows what the README tells of."""
    recipes = set(re.findall(r"^([a-z][\w-]*)(?: \*\w+)?:(?!=)", JUSTFILE, re.MULTILINE)) - {"default"}
    named = set(re.findall(r"\bjust ([a-z][a-z-]*)\b", README))
    assert named - {"lists"} == recipes


# ---- options ----------------------------------------------------------------------------------------------------


def command(name: str) -> Any:
    group: Any = typer.main.get_command(app.app)
    return group.commands[name]


def options(name: str) -> list[Any]:
    """What a command takes, but for arguments."""
    return [each for each in command(name).params if each.param_type_name == "option"]


def shown_default(option: Any) -> str:
    """An option's default as the README writes it."""
    value = DEFAULT_STUN.url if option.name == "stun" else option.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, enum.Enum):
        value = value.value
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def test_every_command_has_a_section_and_the_other_way_round() -> None:
    """No command is hidden, none is made up."""
    group: Any = typer.main.get_command(app.app)
    assert set(re.findall(r"^### `sdpx (\w+)`$", section("The commands"), re.MULTILINE)) == set(group.commands)


@pytest.mark.parametrize("name", ["serve", "peer", "demo", "bench", "token"])
def test_options_variables_and_defaults(name: str) -> None:
    """Each option with its variable and default, in the order of `--help`."""
    rows = table("The commands", f"`sdpx {name}`")
    written = [(code(row["option"]), code(row["environment"]), row["default"]) for row in rows]
    assert written == [(each.opts[0], each.envvar, shown_default(each)) for each in options(name)]


def test_the_levels_and_formats_of_the_log() -> None:
    """The choices of an option are those that its row names."""
    meanings = {code(row["option"]): row["meaning"] for row in table("The commands", "`sdpx serve`")}
    assert codes(meanings["--log-level"]) == [level.value for level in app.LogLevel] == list(events.LEVELS)
    assert codes(meanings["--log-format"]) == [form.value for form in app.LogFormat]


def test_no_variable_is_made_up() -> None:
    """What looks like an environment variable is one."""
    known = {option.envvar for name in ("serve", "peer", "demo", "bench", "token") for option in options(name)}
    known |= set(re.findall(r"SDPX_\w+", JUSTFILE))
    assert set(re.findall(r"SDPX_\w+", README)) <= known


def test_exit_statuses() -> None:
    """The table is `ExitStatus`."""
    rows = [(int(row["status"]), code(row["name"])) for row in table("The commands", "Exit status")]
    assert rows == [(status.value, status.name) for status in errors.ExitStatus]


def test_codes_of_the_error_event() -> None:
    """Every code that an `Ending` is raised with; the relay's own refusals are told by example."""
    kinds = [each.__name__ for each in vars(errors).values() if isinstance(each, type)]
    endings = [name for name in kinds if issubclass(getattr(errors, name), errors.Ending)]
    written = set(codes(sentence("The `code` of that event").split("is one of", 1)[1]))
    judged = {code(row["code"]) for row in table("The commands", "Verdicts")}
    assert (written - {"id_taken", "target_not_found"}) | judged == strings(calls(*endings), 0)


def test_verdicts_and_their_exit_statuses() -> None:
    """Every verdict that there is, with the status of its `Ending`."""
    rows = {code(row["code"]): int(row["status"]) for row in table("The commands", "Verdicts")}
    tree = ast.parse(inspect.getsource(diagnosis))
    reached = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and hasattr(errors, called(node)):
            (word,) = strings(iter([node]), 0)
            reached[word] = int(getattr(errors, called(node)).status)
    assert rows == reached


def test_commands_of_stdin_json() -> None:
    """Each command of the table is one, and each that is one is in the table."""
    rows = [code(row["command"]) for row in table("`sdpx peer`", "Commands")]
    made = [type(commands.parse_command(re.sub(r"TEXT|ID", '"AAAA"', row))) for row in rows]
    assert set(made) == set(get_args(commands.Command))
    assert set(re.findall(r'\{"\w+"', commands._FORMS)) == {row.split(":")[0] for row in rows}


# ---- the wire ---------------------------------------------------------------------------------------------------

WIRE: Final = "The wire protocol, version 1"
RELAYED: Final = set(get_args(messages.RelayedType))


def types(section_name: str) -> dict[str, str]:
    """The types of a wire table, each with the text of its keys."""
    return {kind: row["keys"] for row in table(WIRE, section_name) for kind in codes(row["type"])}


def test_types_and_keys_from_the_relay() -> None:
    """Each type that the relay sends, with its keys in their order."""
    written = {kind: codes(keys) for kind, keys in types("From the relay").items()}
    sent = {kind: list(struct.__struct_fields__) for kind, struct in messages._SERVER_TYPES.items()}
    assert written == sent | {kind: ["from_peer"] for kind in RELAYED}


def accepted_types() -> set[str]:
    """The types that the relay's parser has a case for."""
    tree = ast.parse(inspect.getsource(messages.parse))
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.MatchValue)]
    return {value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def client_keys() -> dict[str, dict[str, bool]]:
    """The keys of each type that a client sends, and whether they are optional."""
    written = {}
    for kind, text in types("From a client").items():
        keys = re.split(r"; ", text) if text else []
        written[kind] = {codes(key)[0]: "optional" in key or "as above" in key for key in keys}
    return written


def test_types_and_keys_from_a_client() -> None:
    """Each type that the relay takes, and each key that it looks at; `from_peer` is the relay's own."""
    assert client_keys().keys() == accepted_types() | {"ack"}
    assert {key for keys in client_keys().values() for key in keys} == (
        set(messages._Envelope.__struct_fields__) - {"type", "from_peer"}
    )


def test_an_ack_needs_its_key() -> None:
    """It is looked at where a client's numbers are, in front of all else."""
    assert client_keys()["ack"] == {"seq": False}
    assert messages.number_of('{"type":"ack","seq":3}') == messages.Ack(3)
    with pytest.raises(errors.Refusal, match="seq"):
        messages.number_of('{"type":"ack"}')


@pytest.mark.parametrize(("kind", "keys"), [(kind, keys) for kind, keys in client_keys().items() if kind != "ack"])
def test_the_keys_that_are_not_optional_are_needed(kind: str, keys: dict[str, bool]) -> None:
    """A frame of a type with the keys that it needs is taken; without any one of them it is refused."""
    values: dict[str, Any] = {"target_id": "bob", "sdp": "v=0", "candidate": None}
    needed = [key for key, optional in keys.items() if not optional]
    frame = {"type": kind} | {key: values[key] for key in needed}
    messages.parse(msgspec.json.encode(frame).decode())
    for key in needed:
        less = {name: value for name, value in frame.items() if name != key}
        with pytest.raises(errors.Refusal, match=key):
            messages.parse(msgspec.json.encode(less).decode())


def test_the_reasons_of_peer_disconnected() -> None:
    """Each word that a client may be told for the end of its pairing."""
    assert set(codes(sentence("The reasons: "))) == set(get_args(messages.DisconnectReason))


def test_error_codes() -> None:
    """Every code that a frame can be refused with; `id_taken` is an HTTP answer."""
    refused = strings(calls("Refusal"), 0) | pairing_refusals()
    assert {code(row["code"]) for row in table(WIRE, "Refusals")} == refused - {"id_taken"}


# Two free clients, two that are a pair: what `a` asks while it is paired or free, and all rules that stand against it.
PRECEDENCE: Final = [
    ("paired", "a", ["self_pair", "already_paired"]),
    ("paired", "nobody", ["already_paired", "target_not_found"]),
    ("paired", "b", ["already_paired", "target_already_paired"]),
    ("free", "a", ["self_pair"]),
    ("free", "nobody", ["target_not_found"]),
    ("free", "b", ["target_already_paired"]),
]


@pytest.mark.parametrize(("state", "target", "flaws"), PRECEDENCE)
def test_the_first_refusal_that_applies_is_sent(state: str, target: str, flaws: list[str]) -> None:
    """The order of the table is the relay's, and so are the sentences of the four pairing refusals."""
    order = {code(row["code"]): row["when"] for row in table(WIRE, "Refusals")}
    first = min(flaws, key=list(order).index)
    refusal = lobby_where(state)._why_not("a", target)
    assert refusal is not None
    assert (refusal.code, refusal.reason) == (first, order[first])


def lobby_where(state: str) -> pairing.PairingTable:
    """A lobby where `b` is paired: with `a`, or with somebody else."""
    here = pairing.PairingTable()
    for client_id in ("a", "b", "c"):
        here.join(client_id)
    here.take("b", messages.PairRequest("a" if state == "paired" else "c"))
    return here


def test_http_refusals() -> None:
    """Each status that the relay answers with, and the codes in its body."""
    text = paragraph("A connection that is refused before it opens").split("`{", 1)[1].split("Close codes")[0]
    written = {
        (int(status), word)
        for statuses, words in re.findall(r"(\d{3}(?: and \d{3})?) \(([^)]*)\)", text)
        for status in re.findall(r"\d{3}", statuses)
        for word in codes(words)
        if re.fullmatch(r"[a-z_]+", word)
    }
    assert written == {answer(call) for call in calls("HttpError", under="relay")}


def answer(call: ast.Call) -> tuple[int, str]:
    match call.args[:2]:
        case [ast.Constant(value=int(status)), ast.Constant(value=str(word))]:
            return status, word
    raise AssertionError(ast.unparse(call))


def test_close_codes() -> None:
    """Each close code that the relay gives by itself; 1007 is the WebSocket library's."""
    written = {int(number) for number in re.findall(r"\b[14]\d{3}\b", sentence("Close codes from the relay"))}
    given = {
        number
        for name, position in (("CloseReason", 1), ("Violation", 0))
        for call in calls(name, under="relay")
        for number in [getattr(call.args[position], "value", None)]
        if isinstance(number, int)
    }
    assert written == given - {1006} | {1007}


def test_what_from_peer_adds() -> None:
    """The bytes by which a relayed frame is longer than what came in."""
    text = '{"type":"offer","sdp":"v=0"}'
    frame = messages.parse(text)
    assert isinstance(frame, messages.PeerFrame)
    added = len(messages.mark_from_peer(frame)) - len(text)
    assert re.findall(r"up to (\d+) bytes longer", README) == [str(added)]


def test_names_and_numbers_in_the_text() -> None:
    """The sizes that prose gives are those of the code."""
    assert f"`{messages.PROTOCOL}`" in section(WIRE)
    assert messages.MAX_FRAME == MAX_LINE == 64 * KIB
    assert "64 KiB at most" in paragraph("Standard input")
    assert "64 KiB at most" in paragraph("One JSON object")
    assert f"{QUEUE_LINES:,}\nlines, {QUEUE_BYTES // KIB**2} MiB of long ones" in section("The log")


def test_limits() -> None:
    """The table is `Limits`, in its order."""
    rows = [(code(row["limit"]), float(row["value"])) for row in table(WIRE, "Limits of the relay")]
    assert rows == list(dataclasses.asdict(Limits()).items())


def test_pages() -> None:
    """Each page that plain HTTP is served, and what this is."""
    written = {code(row["path"]) for row in table("Running the relay", "Pages")}
    assert written == operator_pages(RelayStats(), lambda: NOTHING, bool).keys() | {"/"}


def test_metrics() -> None:
    """Each metric of the relay's, and those of the process that the text names."""
    families = list(text_string_to_metric_families(metrics_page(RelayStats(), NOTHING, "").body.decode()))
    written = {name for row in table("Running the relay", "Metrics") for name in codes(row["metric"])}
    assert written == {family.name for family in families if family.name.startswith("sdpx")}
    named = set(re.findall(r"`(process_\w+?)(?:_total)?`", README))
    assert named <= {family.name for family in families}


def test_labels_of_metrics() -> None:
    """The label that a family has is in its row, and nobody is promised another."""
    numbers = RelayStats()
    numbers.refusals["x"] = 1
    families = text_string_to_metric_families(metrics_page(numbers, NOTHING, "").body.decode())
    labels = {family.name: set().union(*(sample.labels for sample in family.samples)) - {"le"} for family in families}
    for row in table("Running the relay", "Metrics"):
        for name in codes(row["metric"]):
            assert labels[name] <= set(codes(row["what it counts"]))


# ---- the log ----------------------------------------------------------------------------------------------------

TABLES: Final = {"Both programs": events, "`sdpx serve`": serve, "`sdpx peer`": peer, "`sdpx demo`": demo}
# One event for each sentence of those that make it in code.
SPOKEN: Final[list[tuple[str, Event]]] = [
    ("`sdpx serve`", serve.Relayed("TYPE", "CLIENT_ID", "PEER_ID", 1)),
    ("`sdpx serve`", serve.RelayRefused("offer", "CLIENT_ID", None, "not_paired")),
    ("`sdpx serve`", serve.RelayRefused("offer", "CLIENT_ID", "PEER_ID", "peer_unreachable")),
    ("`sdpx peer`", peer.Paired("PEER_ID", is_initiator=True)),
    ("`sdpx peer`", peer.Paired("PEER_ID", is_initiator=False)),
    ("`sdpx peer`", peer.WebrtcStarted(is_initiator=True)),
    ("`sdpx peer`", peer.WebrtcStarted(is_initiator=False)),
    ("`sdpx peer`", peer.Reconnecting(1, 0.0, "relay_lost", "REASON")),
    ("`sdpx peer`", peer.ConnectionSummary("PEER_ID", True, {"PHASE": 1.0, "other": 2.0}, "LOCAL", "REMOTE", 1, 2)),
    ("`sdpx demo`", demo.DemoFinished(ok=True, phases={"PHASE": 1.0, "other": 2.0})),
    ("`sdpx demo`", demo.DemoFinished(ok=False, phases={})),
]


@pytest.mark.parametrize(("title", "module"), TABLES.items())
def test_events_levels_and_keys(title: str, module: ModuleType) -> None:
    """Each event with its level and its own keys in their order."""
    written = {code(row["event"]): (row["level"], codes(row["keys"])) for row in table("The log", title)}
    told: dict[str, tuple[str, list[str]]] = {
        name: (event.level, event.keys()) for name, event in events_of(module).items()
    }
    if "library" in told:
        told["library"] = ("the library's", ["logger"])
    assert written == told


@pytest.mark.parametrize(("title", "module"), TABLES.items())
def test_messages_of_events(title: str, module: ModuleType) -> None:
    """A sentence with a place for a key has that key in capitals."""
    written = {code(row["event"]): row["message"] for row in table("The log", title)}
    for name, event in events_of(module).items():
        if event.sentence:
            assert written[name] == re.sub(r"\{e\._?(\w+)\}", lambda key: key[1].upper(), event.sentence)
        else:
            assert name == "library" or any(type(spoken) is event for _, spoken in SPOKEN)


@pytest.mark.parametrize(("title", "event"), SPOKEN)
def test_messages_that_are_made_in_code(title: str, event: Event) -> None:
    """One of the sentences that the table gives for an event, dots standing for what is left out, is this one."""
    written = {code(row["event"]): row["message"] for row in table("The log", title)}[event.name()]
    said = event.message()
    parts = [re.split(r"\.\.\.|N ms", one) for one in written.split(" / ")]
    assert any(all(part.strip() in said for part in each) for each in parts)


def test_codes_of_negotiation_error() -> None:
    """Every code that something of the peer's can be found useless with."""
    text = sentence("`negotiation_error` has `type`").split("one of the codes", 1)[1]
    direct = strings(calls("NegotiationFailed", "_map_exceptions"), 0)
    assert set(codes(text)) == direct | strings(calls("_problem", "NegotiationError"), 1)


def test_codes_of_input_refused() -> None:
    """Every code that a line of the input can be refused with."""
    written = codes(sentence("An `input_rejected` has one of the codes"))
    assert set(written) - {"input_rejected"} == strings(calls("_refuse", "InputRejected", under="peer"), 0)


# ---- what is promised of safety ---------------------------------------------------------------------------------


def test_each_test_that_the_threat_model_names_exists() -> None:
    """A promise without a test is none."""
    tests = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    rows = table("Running the relay", "Threat model")
    assert len(rows) > 10
    for row in rows:
        named = codes(row["shown by"])
        assert named
        assert set(named) <= tests, row["threat"]


def test_the_configuration_file_can_be_read() -> None:
    """Each key in the example is an option of its command."""
    (example,) = blocks("toml")
    known = {name: options_of(command(name)) for name in ("serve", "peer", "demo", "bench", "token")}
    for name in ("serve", "peer"):
        assert config_file.read(example, name, known)


# ---- recipes and examples ---------------------------------------------------------------------------------------


def written_by(*happened: Event) -> bytes:
    sink = LogRecorder()
    log = Log(sink.put, lambda: 0.0, started=0.0)
    for event in happened:
        log.emit(event)
    log.forward(msgspec.json.decode(sink.lines[0]), "alice")
    return b"".join(sink.lines)


VERDICT: Final = peer.Diagnosis(
    "ice_failed",
    "bob",
    True,
    False,
    1.0,
    True,
    True,
    {"host": 1},
    {"host": 1},
    0,
    [],
    [],
    "failed",
    None,
    None,
    "No pair worked",
)
LOG: Final = written_by(
    serve.Paired("a", "b"),
    serve.Unpaired("a", "b", "left"),
    peer.ChannelOpen("chat"),
    peer.ChannelMessage(text="hello"),
    VERDICT,
)
# Each jq program of the README, with what it makes of LOG; `ts` is the epoch.
EPOCH: Final = "1970-01-01T00:00:00.000000Z"
RECIPES: Final = {
    "[.event, .message] | @tsv": "paired\tPairing successful: a <-> b",
    "[.who, .event, .message] | @tsv": "alice\tpaired\tPairing successful: a <-> b",
    'select(.event == "paired" or .event == "unpaired") | [.ts, .event, .client_id, .peer_id] | @tsv': (
        f"{EPOCH}\tunpaired\ta\tb"
    ),
    'select(.event == "channel_message") | .text': "hello",
    'last(inputs | select(.event == "channel_open") | .ms)': "0",
    'select(.event == "diagnosis") | .message': "No pair worked",
}


def recipes() -> dict[str, list[str]]:
    """The jq programs in the README's shell blocks, each with its options."""
    text = "".join(blocks("sh") + blocks("console"))
    return {program: options.split() for options, program in re.findall(r"\bjq ((?:-\S+ )*)'([^']*)'", text)}


def test_every_recipe_is_tried() -> None:
    """No jq program of the README goes without the test below."""
    assert recipes().keys() == RECIPES.keys()


@pytest.mark.parametrize("program", RECIPES)
def test_a_recipe_does_what_it_is_for(program: str) -> None:
    """jq, with the README's own options and program, makes of a log what the README promises."""
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("jq is not installed")
    done = subprocess.run([jq, *recipes()[program], program], input=LOG, capture_output=True, check=True)
    said = done.stdout.decode().splitlines()
    assert RECIPES[program] in [line.removesuffix(".000") for line in said]


def test_the_recipe_for_success_tells_failure_by_its_status() -> None:
    """Where no channel opened, jq's exit status says so; where one did, what comes behind it changes nothing."""
    jq = shutil.which("jq")
    if jq is None:
        pytest.skip("jq is not installed")
    (program,) = [program for program in recipes() if "channel_open" in program]
    without = written_by(peer.Connected("ws://x"))
    assert subprocess.run([jq, *recipes()[program], program], input=LOG, check=False).returncode == 0
    assert subprocess.run([jq, *recipes()[program], program], input=without, check=False).returncode != 0


def test_the_browser_client_speaks_the_wire() -> None:
    """The page sends nothing that the relay refuses and listens to nothing that it does not send."""
    (page,) = blocks("html")
    sent = re.findall(r'tell\(\{ type: "(\w+)"', page)
    heard = re.findall(r"^  (?:async )?(\w+)(?:\(|: \()", page[page.index("const on = {") :], re.MULTILINE)
    assert {"pair_request", *RELAYED} <= set(sent) <= accepted_types()
    assert {"your_id", "paired", "error", "peer_disconnected", *RELAYED} <= set(heard) <= set(messages._SERVER_TYPES)


# ---- how it is built --------------------------------------------------------------------------------------------


ROOMS: Final = {"relay", "relay.lane", "relay.trust", "bench", "peer"}


def mapped() -> set[str]:
    """The modules on the README's map; a room's line names what is in it."""
    (text,) = re.findall(r"^```text\n(cli .*?)^```$", README, re.MULTILINE | re.DOTALL)
    names: set[str] = set()
    for line in text.splitlines():
        left, right = re.split(r"  +", line, maxsplit=1)
        room = left.removesuffix("/").replace("/", ".")
        listed = right.split(": ")[0]
        names |= {f"{room}.{word}" for word in re.findall(r"\w+", listed)} if room in ROOMS else set()
        names |= {room} if left.endswith("/") else set(left.split(", "))
    return names


def test_the_map_has_every_module_and_no_other() -> None:
    """A module that is not on the map is not in the house."""
    paths = [path.relative_to(SOURCES).with_suffix("").parts for path in SOURCES.rglob("*.py")]
    modules = {".".join(part for part in parts if part != "__init__") for parts in paths}
    rooms = {"events.serve", "events.peer", "events.demo"}  # `events/` says it all
    assert mapped() == modules - {"", "__main__"} - rooms


def test_the_modules_that_are_called_pure_are_held_to_it() -> None:
    """What the README calls pure is what the test of the walls holds to it."""
    text = paragraph("Arrows run downward only.").split("are pure")[0]
    assert set(codes(text)) == {name for name in PURE if not name.startswith("events.")}
