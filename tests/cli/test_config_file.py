"""Configuration file: the same names as on the command line, nothing unknown, and what is printed can be read again."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.cli.config_file import load, parse, render
from sdpx.cli.options import COMMANDS, ServeCommand
from sdpx.options import Option, build, options_of, values_of
from sdpx.peer.options import PeerOptions
from sdpx.urls import MASK


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("[serve]\nport = 1\n[peer]\nid = 'x'", {"port": 1}),
        ("port = 1", {"port": 1}),
        ("port = 1\nrate = 2\n[serve]\nport = 3", {"port": 3, "rate": 2}),
        ("log_sdp = true", {"log_sdp": True}),
        ("[serve]\nlog-sdp = false\nrate = 0.5", {"log_sdp": False, "rate": 0.5}),
        ("allow-origin = ['a', 'b']", {"allow_origin": ["a", "b"]}),
        ("allow-origin = 'a'", {"allow_origin": ["a"]}),
        ("log-level = 'debug'", {"log_level": "debug"}),
        ("metrics-port = 1", {"metrics_port": 1}),
    ],
)
def test_file_sets_options_by_their_names(text: str, values: dict[str, Any]) -> None:
    """In the command's own table, or outside all tables."""
    assert parse(text, "serve") == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port", ["not TOML"]),
        ("port = 1\nport = 2", ["not TOML"]),
        ("prt = 1", ["unknown option 'prt'", "did you mean port?"]),
        ("id = 'x'", ["'id'"]),
        ("check = true", ["unknown option 'check'"]),
        ("[peer]\nport = 1", ["[peer]", "'port'"]),
        ("[bench]\nurl = 'ws://h'", ["[bench]", "'url'"]),
        ("[serv]\nport = 1", ["[serv]", "serve, peer"]),
        ("[serve]\nlog-sdp = true\nlog_sdp = true", ["log_sdp", "twice"]),
        (f"port = {'9' * 5000}", ["number is too large"]),
        (f"port = {'[' * 5000}{']' * 5000}", ["nested too deeply"]),
        ("port = '1'", ["'port'", "a whole number"]),
        ("port = 1.5", ["'port'", "a whole number"]),
        ("port = true", ["'port'", "a whole number"]),
        ("port = [1]", ["'port'", "a whole number"]),
        ("port = -1", ["'port'", "-1 is not from 0 to 65535"]),
        ("port = 65536", ["'port'", "65536 is not from 0 to 65535"]),
        ("rate = nan", ["'rate'", "is not 0 or more"]),
        ("rate = '1'", ["'rate'", "a number"]),
        ("log-sdp = 1", ["'log-sdp'", "true or false"]),
        ("log-sdp = 'on'", ["'log-sdp'", "true or false"]),
        ("log-level = 'loud'", ["'log-level'", "'loud'", "is not one of debug, info, warning, error"]),
        ("allow-origin = 'turn:u:***@h'", ["'allow-origin'", "--print-config hides a secret"]),
        ("allow-origin = ['a', 1]", ["'allow-origin'", "a string"]),
        ("allow-origin = 2024-01-01", ["'allow-origin'", "a string"]),
        ("[serve.port]\nx = 1", ["'port'"]),
    ],
)
def test_bad_value_is_refused_with_its_key(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text, "serve")
    for word in words:
        assert word in str(caught.value)


def test_file_that_cannot_be_read_is_named(tmp_path: Any) -> None:
    for content in (None, b"\xff", b"#" * (1024 * 1024 + 1), b"prt = 1"):
        path = tmp_path / "sdpx.toml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path}: "):
            load(str(path), "serve")


TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "://" not in text and MASK not in text)


def values_for(declared: Option) -> st.SearchStrategy[Any]:
    """Any value that the option can have."""
    if declared.choices:
        return st.sampled_from(declared.choices)
    low, high = declared.minimum, declared.maximum
    kinds: dict[Any, st.SearchStrategy[Any]] = {bool: st.booleans(), str: TEXTS}
    if declared.value_type is int:
        return st.integers(int(low or 0), int(high or 1_000_000))
    if declared.value_type is float:
        return st.floats(low or 0, high or 1e300)
    one = kinds[declared.value_type]
    return st.lists(one).map(tuple) if declared.is_repeatable else one


ANY: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    command: {each.name: values_for(each) for each in options_of(COMMANDS[command])} for command in ("serve", "peer")
}


@pytest.mark.parametrize("command", ["serve", "peer"])
@given(data=st.data())
def test_printed_configuration_reads_back_as_the_same_options(command: str, data: st.DataObject) -> None:
    """All options of the command but one-shot ones, in their types and ranges."""
    options: Any = build(COMMANDS[command], data.draw(st.fixed_dictionaries(ANY[command])))
    read = parse(render(command, options), command)
    once = {each.name for each in options_of(COMMANDS[command]) if not each.in_file}
    expected = {name: value for name, value in values_of(options).items() if value != () and name not in once}
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()} == expected


def test_printed_configuration_masks_secrets_and_comments_what_is_not_set() -> None:
    text = render("peer", PeerOptions("wss://u:secret@h", turn=("turn:u:secret@h",)))
    values = tomllib.loads(text)["peer"]
    assert values["url"] == f"wss://u:{MASK}@h"
    assert values["turn"] == [f"turn:u:{MASK}@h"]
    assert "# pair is not set\n" in text
    assert "[serve]\n" in render("serve", ServeCommand())


def test_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Windows programs write one."""
    path = tmp_path / "sdpx.toml"
    path.write_bytes(b"\xef\xbb\xbfport = 1\n")
    assert load(str(path), "serve") == {"port": 1}
