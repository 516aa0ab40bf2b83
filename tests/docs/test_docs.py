"""The documents agree with the code: generated parts, names, links, commands and examples."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from sdpx.log_sink import QUEUE_BYTES, QUEUE_LINES
from sdpx.peer.input import MAX_LINE
from sdpx.protocol import messages
from sdpx.relay.core.limits import Limits
from tests.docs import code, texts
from tests.docs.generate import DOCUMENTS, EXAMPLES, PART, PARTS, ROOT, generate

README: Final = (ROOT / "README.md").read_text()
JUSTFILE: Final = (ROOT / "Justfile").read_text()
TEXTS: Final = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}
PROSE: Final = {name: PART.sub("", text) for name, text in TEXTS.items()}


@cache
def sources() -> str:
    return " ".join(path.read_text() for path in [*code.MODULES.values(), *(ROOT / "tests").rglob("*.py")])


@cache
def words() -> set[str]:
    """The words of sdpx and its tests."""
    return set(re.findall(r"\w+", sources())) | code.event_names()


@cache
def other_options() -> set[str]:
    """The options of the programs behind the recipes, and those that every program has."""
    return {"--help", "--install-completion", "--init", *re.findall(r'add_argument\("(--[a-z-]+)"', sources())}


@pytest.fixture(scope="module", autouse=True)
def release_syntax_trees() -> Iterator[None]:
    """Release hundreds of thousands of objects, which each garbage collection of later tests would visit."""
    yield
    code.nodes_of.cache_clear()
    code.tree.cache_clear()


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks in these languages."""
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def inline(text: str) -> list[str]:
    """The words that prose sets as code."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("name", TEXTS)
def test_generated_parts_are_up_to_date(name: str) -> None:
    assert generate(TEXTS[name]) == TEXTS[name], f"{name} is out of date: run `just docs`"


def test_every_generated_part_is_in_a_document() -> None:
    used = {part[2] for text in TEXTS.values() for part in PART.finditer(text)}
    assert used == PARTS.keys()


def test_readme_is_short_and_links_every_document() -> None:
    assert README.count("\n") <= 200
    links = set(re.findall(r"\]\((sdpx/docs/[\w-]+\.md)", README))
    assert links == TEXTS.keys() - {"README.md"}


def test_test_and_demo_commands_are_single_lines_behind_their_marks() -> None:
    """CI reads the test command by its mark."""
    for mark, recipe in (("demo", "demo"), ("tests", "test")):
        (command,) = re.findall(rf"^<!-- {mark} -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
        assert command.endswith(f"/just {recipe}")


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", TEXTS[name]):
        if target.startswith(("http:", "https:")):
            continue
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading).replace(" ", "-").lower() for heading in headings}
        assert not anchor or anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("name", TEXTS)
def test_options_and_variables_in_prose_exist(name: str) -> None:
    given = [option for command in code.commands() for option in code.options(command)]
    named = {word for each in inline(PROSE[name]) for word in re.findall(r"--[a-z][\w-]*", each)}
    assert named <= {each for option in given for each in (*option.opts, *option.secondary_opts)} | other_options()
    variables = set(re.findall(r"SDPX_\w+", TEXTS[name]))
    assert variables <= {option.envvar for option in given} | set(re.findall(r"SDPX_\w+", JUSTFILE))


@pytest.mark.parametrize("name", PROSE)
def test_names_in_prose_exist(name: str) -> None:
    """A word in snake_case that prose sets as code is an event, a metric or a name in the code."""
    named = {word for word in inline(PROSE[name]) if re.fullmatch(r"[a-z]+(?:_[a-z0-9]+)+", word)}
    assert {word for word in named if not word.startswith(("process_", "test_"))} <= words()


def test_recipes_in_prose_exist() -> None:
    recipes = set(re.findall(r"^([a-z][\w-]*)(?: [*+]?\w+)*:(?!=)", JUSTFILE, re.MULTILINE))
    assert {word for text in PROSE.values() for word in re.findall(r"`just ([a-z-]+)", text)} <= recipes


@pytest.mark.parametrize("block", [each for text in TEXTS.values() for each in blocks(text, "sh", "bash", "console")])
def test_shell_blocks_are_valid(block: str) -> None:
    """Shell can parse them, and sdpx the options that they give."""
    script = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for line in re.findall(
        r"\bsdpx ((?:serve|peer|token|demo|bench|doctor|docs|recipe)\b[^|&;>}\n]*)", re.sub(r"</dev/null", "", script)
    ):
        command, *arguments = shlex.split(line)
        code.parse(command, arguments)


def test_the_configuration_example_is_valid() -> None:
    path = str(EXAMPLES["config.toml"])
    assert code.parse("serve", ["--config", path])["host"] == "0.0.0.0"
    assert code.parse("peer", ["--config", path])["url"] == "wss://relay.example.com"


def test_numbers_in_prose_are_those_of_the_code() -> None:
    assert (Limits().max_message_size, MAX_LINE) == (64 * 1024, 256 * 1024)
    assert f"{QUEUE_LINES:,} lines, or {QUEUE_BYTES >> 20} MiB," in PROSE["sdpx/docs/log-events.md"]
    assert f"`{messages.PROTOCOL}`" in PROSE["sdpx/docs/protocol.md"]
    quotes = [quote for text in texts.ERROR_CODES.values() for quote in re.findall("'([^']+)'", text)]
    assert set(quotes) <= code.literals("")


def test_tests_in_the_threat_model_exist() -> None:
    names = set(
        re.findall(r"def (test_\w+)", " ".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py")))
    )
    rows = re.findall(r"^\|.*`test_.*\|$", TEXTS["sdpx/docs/security.md"], re.MULTILINE)
    assert len(rows) > 10
    assert set(re.findall(r"`(test_\w+)`", "".join(rows))) <= names, "renamed tests: correct security.md"


def test_documents_name_no_path_of_a_machine() -> None:
    for text in (*TEXTS.values(), *(path.read_text() for path in EXAMPLES.values())):
        assert not re.search(r"/(?:home|root|Users|tmp)/", text)


def test_documents_are_in_the_wheel(tmp_path: Path) -> None:
    """setuptools copies them with the package."""
    source = tmp_path / "source"
    shutil.copytree(code.PACKAGE, source / "sdpx", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import setup; setup(script_args=['-q', 'build_py', '-d', 'out'])"
    subprocess.run([sys.executable, "-W", "ignore", "-c", build], cwd=source, check=True, capture_output=True)
    built = {path.name for path in (source / "out" / "sdpx" / "docs").rglob("*") if path.is_file()}
    assert built >= {path.name for path in (*DOCUMENTS[1:], *EXAMPLES.values())}


# ---- jq programs ------------------------------------------------------------------------------------------------

EVENTS: Final = [
    {"event": "paired", "message": "A pair", "client_id": "a", "peer_id": "b"},
    {"event": "unpaired", "message": "No pair", "client_id": "a", "peer_id": "b"},
    {"event": "channel_open", "message": "Open", "label": "chat"},
    {"event": "channel_message", "message": "A message", "text": "hello"},
    {"event": "diagnosis", "message": "No pair worked", "code": "ice_failed"},
]
# Each jq program of the documents, with a line of what it prints for EVENTS.
JQ: Final = {
    "[.event, .message] | @tsv": "paired\tA pair",
    "[.who, .event, .message] | @tsv": "alice\tpaired\tA pair",
    'select(.event == "paired" or .event == "unpaired") | [.ts, .event, .client_id, .peer_id] | @tsv': (
        "now\tunpaired\ta\tb"
    ),
    'select(.event == "channel_message") | .text': "hello",
    'last(inputs | select(.event == "channel_open") | .ms)': "1",
    'select(.event == "diagnosis") | .message': "No pair worked",
}


def jq_programs() -> dict[str, list[str]]:
    """The jq programs in shell blocks, each with its options."""
    text = "".join(each for document in TEXTS.values() for each in blocks(document, "sh", "console"))
    return {program: options.split() for options, program in re.findall(r"\bjq ((?:-\S+ )*)'([^']*)'", text)}


def run_jq(program: str, events: list[dict[str, str]]) -> subprocess.CompletedProcess[str]:
    lines = "".join(json.dumps({"ts": "now", "who": "alice", **event, "ms": 1}) + "\n" for event in events)
    command = ["jq", *jq_programs()[program], program]
    return subprocess.run(command, input=lines, text=True, capture_output=True, check=False)


def test_every_jq_program_is_tested() -> None:
    assert jq_programs().keys() == JQ.keys()


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize("program", JQ)
def test_jq_program_selects_its_events(program: str) -> None:
    assert JQ[program] in run_jq(program, EVENTS).stdout.splitlines()
    if "last(" in program:
        assert run_jq(program, EVENTS[:1]).returncode != 0, "the exit status tells that the event is missing"
