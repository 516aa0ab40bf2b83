"""Options of every command, and their rows in the documentation. Pure.

The options of the relay, the peer and the measurement are declared beside these programs; the others are declared here.
"""

from dataclasses import MISSING, dataclass
from typing import Final, NamedTuple, get_args

from sdpx.bench.options import BenchOptions
from sdpx.options import LogFormatOptions, Option, Panel, option, options_of
from sdpx.peer.options import PeerOptions
from sdpx.relay.options import ServeOptions


@dataclass(frozen=True, slots=True)
class ServeCommand(ServeOptions):
    """Options of `sdpx serve`, with those that replace serving."""

    check: bool = option(False, "Check the options and all files, and exit.", "Configuration", in_file=False)
    print_config: bool = option(
        False, "Print the options in force, in the form that --config reads, and exit.", "Configuration", in_file=False
    )


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Options of `sdpx token`."""

    sub: str = option(..., "Client ID that the token is for.", "Authentication", "ID")  # type: ignore[assignment]
    auth_secret_file: str | None = option(
        None, "File with the shared secret, the same as the relay's.", "Authentication", "FILE"
    )
    ttl: str = option("1h", "Lifetime of the token: 90s, 15m, 1h, 7d.", "Authentication", "TIME")
    pair: tuple[str, ...] = option(
        (),
        "ID that the client may request a pairing with, * for any characters; repeatable; default: any.",
        "Authentication",
        "ID",
        env="SDPX_TOKEN_PAIR",
    )
    auth_audience: str | None = option(None, "Audience of the token ('aud').", "Authentication", "NAME")


@dataclass(frozen=True, slots=True)
class DemoOptions(LogFormatOptions):
    """Options of `sdpx demo`."""

    timeout: float = option(30.0, "Time for the whole demonstration.", "Timeouts", "SECONDS", 1, 3600)


COMMANDS: Final[dict[str, type]] = {
    "serve": ServeCommand,
    "peer": PeerOptions,
    "token": TokenOptions,
    "demo": DemoOptions,
    "bench": BenchOptions,
}
CONFIG: Final = Option(
    "config",
    str | None,
    None,
    "Read options from this TOML file; flags and environment variables override it.",
    "Configuration",
    "--config",
    "SDPX_CONFIG",
    metavar="FILE",
    in_file=False,
)
_PANELS: Final = get_args(Panel)


def command_options(command: str) -> list[Option]:
    """Return the options of a command, panel by panel."""
    return sorted([*options_of(COMMANDS[command]), CONFIG], key=lambda each: _PANELS.index(each.panel))


def flags(declared: Option) -> str:
    """Return the spelling of an option: both forms of a flag that is on by default."""
    return f"{declared.flag}/--no-{declared.flag[2:]}" if declared.default is True else declared.flag


class OptionRow(NamedTuple):
    """An option as the documentation lists it."""

    option: str
    env: str
    default: str
    range: str
    help: str
    panel: str


def option_rows(command: str) -> list[OptionRow]:
    """Return the options of a command as rows of a table, panel by panel."""
    return [_row(declared) for declared in command_options(command)]


def _row(declared: Option) -> OptionRow:
    name = declared.metavar if declared.is_argument else f"{flags(declared)} {declared.metavar}".rstrip()
    default = declared.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    elif default is MISSING:
        default = "required"
    low, high = declared.minimum, declared.maximum
    bounds = "" if low is None else f"{low} to {high}" if high is not None else f"{low} or more"
    choices = ", ".join(declared.choices)
    return OptionRow(
        name,
        declared.env or "",
        "" if default in (None, ()) else str(default),
        choices or bounds,
        declared.help,
        declared.panel,
    )
