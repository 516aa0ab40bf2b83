"""Options of every command, from which the command line and the configuration file are derived. Pure.

The options of the relay, the peer and the measurement are declared beside these programs; the others are declared here.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

from sdpx.bench.options import BenchOptions
from sdpx.doctor.options import DoctorOptions
from sdpx.options import LogFormatOptions, Option, ViewOptions, option, options_of
from sdpx.peer.options import PeerOptions
from sdpx.peer.transfer.options import PipeOptions, ReceiveOptions, SendOptions
from sdpx.relay.options import ServeOptions

# The file of each recipe, and its purpose.
RECIPES: Final = {
    "systemd": ("recipes/sdpx.service", "A hardened unit for systemd, with a watchdog"),
    "compose": ("recipes/compose.yaml", "The relay and a TURN server (coturn) in containers; needs the next one"),
    "container": ("recipes/Containerfile", "An image of sdpx, built from a clone"),
    "nginx": ("examples/nginx.conf", "nginx as a reverse proxy"),
    "caddy": ("examples/Caddyfile", "Caddy as a reverse proxy, with a certificate"),
    "cluster": (
        "recipes/cluster.yaml",
        "Two nodes, Valkey and nginx in containers; needs the next one and `container`",
    ),
    "nginx-cluster": ("recipes/nginx-cluster.conf", "nginx in front of two nodes"),
    "caddy-cluster": ("recipes/caddy-cluster.Caddyfile", "Caddy in front of two nodes, with a certificate"),
    "prometheus": ("recipes/alerts.yaml", "Alert rules for the metrics of a relay"),
    "grafana": ("recipes/dashboard.json", "A dashboard of the metrics of a relay"),
}


@dataclass(frozen=True, slots=True)
class ServeCommand(ServeOptions):
    """Options of `sdpx serve`, with those that replace serving."""

    check: bool = option(False, "Check the options and all files, and exit.", "Configuration", in_file=False)
    print_config: bool = option(
        False, "Print the effective options as a --config file, and exit.", "Configuration", in_file=False
    )


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Options of `sdpx token`."""

    sub: str = option(..., "The only client ID that this token allows.", "Authentication", "ID")  # type: ignore[assignment]
    auth_secret_file: str | None = option(
        None, "The relay's secret file; the token is signed with it.", "Authentication", "FILE"
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
    view: ViewOptions = field(default_factory=ViewOptions)


@dataclass(frozen=True, slots=True)
class DocsOptions:
    """Options of `sdpx docs`."""

    topic: str | None = option(
        None, "Document to show; default: a list of them.", "Arguments", "TOPIC", is_argument=True, in_file=False
    )


@dataclass(frozen=True, slots=True)
class RecipeOptions:
    """Options of `sdpx recipe`."""

    name: Literal[tuple(RECIPES)] | None = option(  # type: ignore[valid-type]
        None, "Recipe to print; default: a list of them.", "Arguments", "NAME", is_argument=True, in_file=False
    )


COMMANDS: Final[dict[str, type]] = {
    "serve": ServeCommand,
    "peer": PeerOptions,
    "pipe": PipeOptions,
    "send": SendOptions,
    "receive": ReceiveOptions,
    "token": TokenOptions,
    "demo": DemoOptions,
    "bench": BenchOptions,
    "doctor": DoctorOptions,
    "docs": DocsOptions,
    "recipe": RecipeOptions,
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
_LAST_PANELS: Final = ("Logging", "Configuration")


def command_options(command: str) -> list[Option]:
    """Return the options of a command, as they are declared, but with those of the last panels at the end."""
    options = list(options_of(COMMANDS[command]))
    options += [CONFIG] if any(each.in_file for each in options) else []
    return sorted(options, key=lambda each: 1 + _LAST_PANELS.index(each.panel) if each.panel in _LAST_PANELS else 0)


def flags(declared: Option) -> str:
    """Return the spelling of an option: both forms of a flag that is on by default."""
    return f"{declared.flag}/--no-{declared.flag[2:]}" if declared.default is True else declared.flag
