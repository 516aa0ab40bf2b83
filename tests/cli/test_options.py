"""Options: one declaration each, of which the command line and the environment are derived."""

import dataclasses
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sdpx.cli import app, commands
from sdpx.cli.options import COMMANDS, command_options
from sdpx.options import LogOptions, build, values_of
from sdpx.peer.options import PeerOptions
from sdpx.relay.options import ServeOptions

GROUP: Any = typer.main.get_command(app.command_line())


def run(*arguments: str, **variables: str) -> Any:
    return CliRunner().invoke(app.command_line(), arguments, env={"COLUMNS": "80", "TERMINAL_WIDTH": "200"} | variables)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options that a command was called with, instead of running it."""
    options: list[Any] = []

    def take(given: Any) -> int:
        options.append(given)
        return 0

    for command in COMMANDS:
        monkeypatch.setattr(commands, command, take)
    return options


def test_every_command_has_its_declarations() -> None:
    assert GROUP.commands.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_line_has_every_declared_option_with_its_default_and_variable(command: str) -> None:
    """And no other, but for --help."""
    declared = {each.name: each for each in command_options(command)}
    parameters = {each.name: each for each in GROUP.commands[command].params}
    assert parameters.keys() - {"help"} == declared.keys()
    for name, option in declared.items():
        default = None if option.default in ((), dataclasses.MISSING) else option.default
        assert parameters[name].default == default
        assert parameters[name].envvar == option.env
        assert parameters[name].help.startswith(option.help)


@pytest.mark.parametrize("command", COMMANDS)
def test_option_is_declared_once_in_a_command(command: str) -> None:
    options = command_options(command)
    assert len({each.flag for each in options}) == len({each.name for each in options}) == len(options)
    variables = [each.env for each in options if each.env is not None]
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize("command", COMMANDS)
def test_default_is_inside_its_range_and_among_its_choices(command: str) -> None:
    for option in command_options(command):
        assert option.range_problem(option.default) is None
        assert not option.choices or option.default in (None, *option.choices)


@pytest.mark.parametrize(("command", "options"), [("serve", ServeOptions()), ("peer", PeerOptions())])
def test_command_without_options_has_the_defaults_of_its_dataclass(
    command: str, options: LogOptions, taken: list[Any]
) -> None:
    """A program that builds its options itself gets the same values."""
    assert run(command).exit_code == 0
    assert values_of(options).items() <= values_of(taken[0]).items()


def test_options_come_from_flags_then_variables_then_the_file(tmp_path: Any, taken: list[Any]) -> None:
    path = tmp_path / "sdpx.toml"
    path.write_text("[serve]\nport = 1\nrate = 1\nmax-clients = 1\nturn-url = ['turn:f']\n")
    done = run(
        "serve", "--config", str(path), "--port", "3", SDPX_PORT="2", SDPX_RATE="2", SDPX_TURN_URL="turn:a turn:b"
    )
    assert done.exit_code == 0
    options = taken[0]
    assert (options.port, options.limits.rate, options.limits.max_clients) == (3, 2.0, 1)
    assert options.auth.turn_url == ("turn:a", "turn:b")


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["serve", "--port", "65536"], {}, ["--port", "65536 is not from 0 to 65535"]),
        (["serve", "--rate", "-1"], {}, ["--rate", "is not 0 or more"]),
        (["serve", "--rate", "nan"], {}, ["--rate", "is not 0 or more"]),
        (["serve"], {"SDPX_PORT": "x"}, ["--port", "'x' is not a whole number"]),
        (["serve"], {"SDPX_PORT": "-1"}, ["--port", "-1 is not from 0 to 65535"]),
        (["serve"], {"SDPX_ENGINE": "select"}, ["--engine", "'select'", "trio-websocket"]),
        (["peer"], {"SDPX_RECONNECT": "perhaps"}, ["--reconnect"]),
        (["bench", "--payload", "100"], {}, ["--payload", "100 is not from 128 to 1048576"]),
        (["token"], {}, ["--sub"]),
    ],
)
def test_bad_value_is_a_usage_error_that_names_the_option(
    arguments: list[str], variables: dict[str, str], words: list[str], taken: list[Any]
) -> None:
    done = run(*arguments, **variables)
    assert (done.exit_code, done.stdout, taken) == (2, "", [])
    assert all(word in done.stderr for word in words), done.stderr


def test_words_for_values_may_be_in_capitals(taken: list[Any]) -> None:
    """As in many environments: LOG_LEVEL=INFO."""
    assert run("serve", "--log-format", "JSON", SDPX_LOG_LEVEL="WARNING").exit_code == 0
    assert (taken[0].log_level, taken[0].log_format) == ("warning", "json")


def test_one_shot_options_have_no_environment_variable(taken: list[Any]) -> None:
    """An exported variable must not turn a relay into a checker."""
    assert run("serve", SDPX_CHECK="1", SDPX_PRINT_CONFIG="1").exit_code == 0
    assert not taken[0].check
    assert not taken[0].print_config
    assert {each.flag for each in command_options("serve") if each.env is None} == {"--check", "--print-config"}


def test_dataclass_is_rebuilt_from_its_values() -> None:
    options = ServeOptions(port=1, ice_server=("stun:s",), log_level="debug")
    assert build(ServeOptions, values_of(options)) == options


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_80_columns(command: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is cut off, and no word is broken: the columns leave room for the texts."""
    monkeypatch.setattr(sys.modules.get("typer.rich_utils", typer), "MAX_WIDTH", None, raising=False)
    done = CliRunner().invoke(app.command_line(), [*([command] if command else []), "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    for option in command_options(command) if command else ():
        assert option.flag in done.stdout or option.is_argument
        assert option.panel in done.stdout
        assert [word for word in option.help.split() if word not in done.stdout] == []


def test_shell_completion_knows_options_and_their_values() -> None:
    assert "--install-completion" in run("--help").stdout
    words = {"_SDPX_COMPLETE": "complete_bash", "COMP_WORDS": "sdpx peer --expect ", "COMP_CWORD": "3"}
    done = CliRunner().invoke(app.command_line(), [], env=words, prog_name="sdpx")
    assert done.stdout.split() == ["exchange", "connected", "channel", "message"]
