"""`--config FILE`: the same names as on the command line, nothing unknown, and what is printed can be read again."""

import tomllib
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from sdpx.cli import app
from sdpx.cli.config_defaults import options_of
from sdpx.cli.config_file import MASK, BadConfig, Option, read, show

SERVE = [
    Option("port", "port", "integer", least=0, most=65535),
    Option("rate", "rate", "number", least=0),
    Option("log_sdp", "log-sdp", "boolean"),
    Option("log_level", "log-level", "text", choices=("info", "debug")),
    Option("allow_origin", "allow-origin", "text", repeats=True),
]
PEER = [Option("id_", "id", "text"), Option("log_sdp", "log-sdp", "boolean")]
COMMANDS = {"serve": SERVE, "peer": PEER}


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
    ],
)
def test_a_file_sets_options_by_their_names(text: str, values: dict[str, Any]) -> None:
    """In the command's own table, or above all tables."""
    assert read(text, "serve", COMMANDS) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port", ["no TOML"]),
        ("port = 1\nport = 2", ["no TOML"]),
        ("prt = 1", ["'prt'", "'port'"]),
        ("id = 'x'", ["'id'"]),
        ("[peer]\nport = 1", ["[peer]", "'port'"]),
        ("[serv]\nport = 1", ["[serv]", "serve, peer"]),
        ("[serve]\nlog-sdp = true\nlog_sdp = true", ["log_sdp", "twice"]),
        (f"port = {'9' * 5000}", ["a number", "beyond all bounds"]),
        (f"port = {'[' * 5000}{']' * 5000}", ["lists in lists", "beyond all bounds"]),
        ("port = '1'", ["'port'", "a whole number"]),
        ("port = 1.5", ["'port'", "a whole number"]),
        ("port = true", ["'port'", "a whole number"]),
        ("port = [1]", ["'port'", "a whole number"]),
        ("port = -1", ["'port'", "0 at least"]),
        ("port = 65536", ["'port'", "65535 at most"]),
        ("rate = nan", ["'rate'", "at least"]),
        ("rate = '1'", ["'rate'", "a number"]),
        ("log-sdp = 1", ["'log-sdp'", "true or false"]),
        ("log-sdp = 'on'", ["'log-sdp'", "true or false"]),
        ("log-level = 'loud'", ["'log-level'", "one of info, debug"]),
        ("allow-origin = 'turn:u:***@h'", ["'allow-origin'", "the value itself", "--print-config"]),
        ("allow-origin = ['a', 1]", ["'allow-origin'", "a list"]),
        ("allow-origin = 2024-01-01", ["'allow-origin'", "a text"]),
        ("[serve.port]\nx = 1", ["'port'"]),
    ],
)
def test_what_is_wrong_is_refused_and_named(text: str, words: list[str]) -> None:
    with pytest.raises(BadConfig) as caught:
        read(text, "serve", COMMANDS)
    for word in words:
        assert word in str(caught.value)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.fixed_dictionaries(
        {
            "port": st.none() | st.integers(0, 65535),
            "rate": st.none() | st.floats(0, 1e300),
            "log_sdp": st.booleans(),
            "log_level": st.sampled_from(["info", "debug"]),
            "allow_origin": st.none() | st.lists(TEXTS.filter(lambda text: "://" not in text and MASK not in text)),
        }
    )
)
def test_what_is_shown_can_be_read_again(values: dict[str, Any]) -> None:
    set_ones = {name: value for name, value in values.items() if value is not None and value != []}
    assert read(show("serve", SERVE, values), "serve", COMMANDS) == set_ones


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:secret@h/x?k=secret&l=secret", f"https://u:{MASK}@h/x?k={MASK}&l={MASK}"),
        ("https://secret@h", f"https://{MASK}@h"),
        ("https://h/x?secret", f"https://h/x?{MASK}"),
        ("https://h/x?k=secret&secret", f"https://h/x?k={MASK}&{MASK}"),
        ("https://h/x#secret", f"https://h/x#{MASK}"),
        ("https://h/x", "https://h/x"),
        ("https://*.example.com", "https://*.example.com"),
        ("https://[::1", "https://[::1"),
        ("turn:u:secret@h:3478?transport=udp", f"turn:u:{MASK}@h:3478?transport=udp"),
        ("turn:u:sec://ret@h:3478", f"turn:u:{MASK}@h:3478"),
        ("turns:u:sec@://ret@h", f"turns:u:{MASK}@h"),
        ("turn:h:3478", "turn:h:3478"),
    ],
)
def test_what_is_secret_in_a_url_is_masked(url: str, shown: str) -> None:
    values = {option.name: None for option in SERVE} | {"allow_origin": [url]}
    assert tomllib.loads(show("serve", SERVE, values))["serve"]["allow-origin"] == [shown]


def test_every_option_of_every_command_can_be_in_a_file() -> None:
    """But for those that say what to do instead of how; and each has its type and range from the command line's."""
    group: Any = typer.main.get_command(app.app)
    for command in group.commands.values():
        known = {option.key: option for option in options_of(command)}
        keys = {param.opts[0][2:] for param in command.params if param.param_type_name == "option"}
        assert keys - known.keys() <= {"config", "check", "print-config", "help"}
    known = {option.key: option for option in options_of(group.commands["serve"])}
    assert known["port"] == Option("port", "port", "integer", least=0, most=65535)
    assert known["allow-origin"].repeats
    assert known["log-format"].choices == ("json", "text")
    assert known["log-sdp"].kind == "boolean"
    assert known["silence"].kind == "number"
