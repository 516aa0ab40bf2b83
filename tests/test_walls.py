"""The walls of the house: who may import whom. Arrows run downward only, there are no circles, and the core is pure."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sdpx

ROOT = Path(sdpx.__file__).parent
WALLED = {"asyncio", "trio_asyncio", "aiortc", "aioice", "av"}
PURE = [
    "bench.ledger",
    "bench.report",
    "errors",
    "ice_servers",
    "ids",
    "messages",
    "lobby",
    "events",
    "events.serve",
    "events.peer",
    "events.demo",
    "relay.frames",
    "relay.handshake",
    "relay.host",
    "relay.lane.careful",
    "relay.lane.plain",
    "relay.lane.upgrade",
    "relay.limits",
    "relay.numbers",
    "relay.quota",
    "relay.responses",
    "relay.resume",
    "relay.stream",
    "relay.trust.attempts",
    "relay.trust.ice",
    "relay.trust.options",
    "relay.trust.origin",
    "relay.trust.proxy",
    "relay.trust.tokens",
    "relay.trust.turn",
    "config",
    "peer.resume",
    "peer.backoff",
    "peer.commands",
    "peer.evidence",
    "peer.expect",
    "peer.heartbeat",
    "peer.options",
    "peer.outcome",
    "peer.sdp",
    "peer.media",
    "peer.happenings",
    "peer.candidates",
    "peer.verdict",
]
# What a pure module may use: nothing that reads a clock, rolls dice, or touches a file, a socket or a task.
PURE_MAY_USE = {
    *("sdpx", "msgspec", "h11", "wsproto"),
    *(
        "base64",
        "binascii",
        "bisect",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "difflib",
        "hashlib",
        "hmac",
        "http",
        "ipaddress",
        "math",
        "re",
        "struct",
        "tomllib",
        "typing",
        "urllib",
    ),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its absolute name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = {module_name(path): path for path in ROOT.rglob("*.py")}


def uses(name: str) -> set[str]:
    """The modules of sdpx that a module imports."""
    found = {each.removeprefix("sdpx.") for each in imports(FILES[name]) if each.startswith("sdpx.")}
    return (found & FILES.keys()) - {name}


@pytest.mark.parametrize(
    "name", sorted(FILES.keys() - {"peer.rtc", "peer.bridge", "peer.channels", "peer.ice", "peer.dtls"})
)
def test_only_the_wall_imports_asyncio_and_aiortc(name: str) -> None:
    assert not {each.partition(".")[0] for each in imports(FILES[name])} & WALLED


def test_the_wall_is_there() -> None:
    """The test above would hold for an empty project too."""
    assert {each.partition(".")[0] for each in imports(FILES["peer.rtc"])} >= {"trio_asyncio", "aiortc"}
    assert {each.partition(".")[0] for each in imports(FILES["peer.bridge"])} >= {"trio_asyncio", "asyncio"}


@pytest.mark.parametrize("name", PURE)
def test_a_pure_module_imports_no_io(name: str) -> None:
    """Rules take time and randomness as arguments and return what to do."""
    foreign = {each.partition(".")[0] for each in imports(FILES[name])} - PURE_MAY_USE
    assert foreign == set()
    assert uses(name) <= set(PURE)


def test_there_are_no_circles() -> None:
    graph = {name: uses(name) - {"", name.partition(".")[0]} for name in FILES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.startswith("relay")))
def test_the_relay_does_not_know_the_peer(name: str) -> None:
    assert not {each for each in uses(name) if each.startswith(("peer.", "demo", "cli"))}


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.startswith("peer")))
def test_the_peer_does_not_know_the_relay(name: str) -> None:
    assert not {each for each in uses(name) if each.startswith(("relay.", "demo", "cli", "lobby"))}


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.startswith("bench")))
def test_the_load_knows_of_the_relay_only_how_frames_look(name: str) -> None:
    """It measures whatever relay there is: what it shares with ours is masks, frames and the limit of descriptors."""
    shared = {"relay.lane.mask", "relay.lane.plain", "relay.listeners"}
    assert {each for each in uses(name) if not each.startswith("bench")} <= {"errors", *shared}


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    """What `sdpx --help` needs: typer and the standard library."""
    top = ast.parse(FILES["cli"].read_text()).body
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {"typer", "sdpx", *sys.stdlib_module_names}
    assert {name for name in names if name.startswith("sdpx")} == {"sdpx"}
    top = ast.parse(FILES["trust_options"].read_text()).body
    assert {node.module for node in top if isinstance(node, ast.ImportFrom)} == {"typing"}
