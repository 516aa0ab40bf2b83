"""Import rules of the package: imports run downward, pure packages do no I/O, and only one package knows asyncio."""

import ast
import re
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import sdpx

ROOT: Final = Path(sdpx.__file__).parent
ASYNCIO: Final = {"asyncio", "trio_asyncio", "aiortc", "aioice", "av"}
WEBRTC: Final = "peer.webrtc"
# Packages and modules that decide: no I/O, no clock, no randomness, no task. Time and random numbers are arguments.
PURE: Final = (
    *("protocol", "errors", "events", "ice_servers", "ids", "options", "terminal", "urls", "peer.terminal"),
    *("cli.environment", "cli.usage", "remedies"),
    *("doctor.check", "doctor.network", "doctor.options", "doctor.stun", "doctor.view"),
    *("bench.options", "bench.data_report", "cli.checks", "cli.options"),
    *("relay.core", "relay.http.request", "relay.http.upgrade", "relay.http.responses"),
    *(
        "relay.websocket.fast_parser",
        "relay.websocket.close_reasons",
        "relay.websocket.mask",
        "relay.websocket.protocol",
        "relay.websocket.validator",
    ),
    *("relay.cluster.options", "relay.cluster.directory", "relay.cluster.effects"),
    *("relay.cluster.member", "relay.cluster.node"),
    *("relay.auth.options", "relay.auth.origins", "relay.auth.proxies", "relay.auth.tokens"),
    *("relay.auth.turn", "relay.options", "peer.options", "peer.commands", "peer.policy", "peer.negotiation"),
    *("peer.diagnostics.diagnosis", "peer.diagnostics.expectation", "peer.diagnostics.trace", "peer.webrtc.events"),
    *("peer.webrtc.sctp_packet", "peer.webrtc.sctp_policy"),
    *("peer.signaling.backoff", "peer.signaling.resume", "bench.accounting", "bench.report"),
    *("peer.transfer.frames", "peer.transfer.stream", "peer.transfer.records", "peer.transfer.intake"),
    *("peer.transfer.paths", "peer.transfer.meter", "peer.transfer.options", "peer.transfer.view"),
)
# Modules that a pure module may import besides pure modules of sdpx.
PURE_MAY_USE: Final = {
    *(
        "sdpx",
        "unicodedata",
        "abc",
        "msgspec",
        "h11",
        "websockets",
        "codecs",
        "textwrap",
        "google_crc32c",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "dataclasses",
        "difflib",
    ),
    *(
        "enum",
        "functools",
        "hashlib",
        "hmac",
        "http",
        "ipaddress",
        "json",
        "math",
        "operator",
        "re",
        "string",
        "struct",
        "types",
        "tomllib",
        "typing",
        "urllib",
    ),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the absolute name of every module that a file imports, also within functions."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return frozenset(found)


FILES: Final = {module_name(path): path for path in ROOT.rglob("*.py")}


def used_by(name: str) -> set[str]:
    """The modules of sdpx that a module imports."""
    found = {each.removeprefix("sdpx.") for each in imports(FILES[name]) if each.startswith("sdpx.")}
    return (found & FILES.keys()) - {name}


def top_level(name: str) -> set[str]:
    return {each.partition(".")[0] for each in imports(FILES[name])}


def within(name: str, *places: str) -> bool:
    """Whether a module is one of these places, or in one of these packages."""
    return any(name == place or name.startswith(f"{place}.") for place in places)


def test_only_one_package_imports_asyncio_and_aiortc() -> None:
    offenders = {name for name in FILES if not within(name, WEBRTC) and top_level(name) & ASYNCIO}
    assert offenders == set()
    used = {each for name in FILES if within(name, WEBRTC) for each in top_level(name)}
    assert used >= {"trio_asyncio", "aiortc", "asyncio"}, "the rule above would hold for an empty package, too"


def test_pure_modules_do_no_io() -> None:
    """Rules take time and randomness as arguments and return what to do."""
    pure = {name for name in FILES if within(name, *PURE)}
    assert all(any(within(name, place) for name in FILES) for place in PURE), "a place in PURE is not there any more"
    assert {name: top_level(name) - PURE_MAY_USE for name in pure if top_level(name) - PURE_MAY_USE} == {}
    packages = {name for name in FILES if FILES[name].name == "__init__.py"}
    impure = {name: used_by(name) - pure - packages for name in pure}
    assert {name: others for name, others in impure.items() if others} == {}


def test_modules_import_in_no_circle() -> None:
    graph = {name: used_by(name) - {"", name.partition(".")[0]} for name in FILES}
    assert list(TopologicalSorter(graph).static_order())


# Each package of the relay and of the peer, and what else of its program it may import; what is not named may import all.
LAYERS: Final = {
    "protocol": set[str](),
    "relay.core": set[str](),
    "relay.http": {"relay.core"},
    "relay.websocket": {"relay.core"},
    "relay.auth": {"relay.core", "relay.http"},
    "relay.cluster": {"relay.core"},
    "peer.negotiation": set[str](),
    "peer.diagnostics": {"peer.negotiation", "peer.options"},
    "peer.signaling": {"peer.options"},
    "peer.webrtc": {"peer.negotiation", "peer.diagnostics"},
}


def test_packages_import_downward() -> None:
    found = set[tuple[str, str]]()
    for layer, below in LAYERS.items():
        for name in FILES:
            if within(name, layer):
                program = {each for each in used_by(name) if within(each, "relay", "peer")} - {"relay", "peer"}
                found |= {(name, each) for each in program if not within(each, layer, *below, "relay.websocket.mask")}
    assert found == set()


def test_the_relay_and_the_peer_know_nothing_of_each_other() -> None:
    programs = ("relay", "peer")
    for own, other in (programs, programs[::-1]):
        assert {name for name in FILES if within(name, own) for each in used_by(name) if within(each, other)} == set()
    commands = ("cli", "demo", "bench")
    assert {
        name for name in FILES if within(name, *programs) for each in used_by(name) if within(each, *commands)
    } == set()


def test_the_bench_shares_frames_with_the_relay_and_nothing_else() -> None:
    """The bench measures any relay; the ends of a data channel are peers."""
    shared = {"relay.websocket.mask", "relay.websocket.fast_parser", "relay.listeners", "peer.options"}
    peers = ("bench.data_peer", "bench.data_meter", "bench.remote")
    files = [name for name in FILES if within(name, "bench") and not within(name, *peers)]
    used = {each for name in files for each in used_by(name) if within(each, "relay", "peer")}
    assert used <= shared


def test_help_imports_nothing_heavy() -> None:
    """`sdpx --help` needs Typer, the standard library and the declarations of the options."""
    reached, todo = set[str](), {"cli.app"}
    while todo:
        name = todo.pop()
        reached.add(name)
        tree = ast.parse(FILES[name].read_text())
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert {each.partition(".")[0] for each in names} <= {"typer", "sdpx", *sys.stdlib_module_names} - ASYNCIO
        todo |= {each.removeprefix("sdpx.") for each in names if each.startswith("sdpx.")} - reached
    assert reached >= {"relay.options", "peer.options", "bench.options"}


def test_no_exception_is_raised_in_an_except_star_clause() -> None:
    """Python before 3.11.4, as in Debian 12, would put it into a group, which `except Ending` does not catch.

    `map_exceptions` raises another exception in place of one that may come in a group.
    """
    found = set[str]()
    texts = {path: path.read_text() for path in [*ROOT.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]}
    for path, text in texts.items():
        for group in ast.walk(ast.parse(text)) if re.search(r"except\s*\*", text) else ():
            if isinstance(group, ast.TryStar):
                raised = [node for clause in group.handlers for node in ast.walk(clause) if isinstance(node, ast.Raise)]
                found |= {f"{path.name}:{node.lineno}" for node in raised}
    assert found == set()
