"""Command line of sdpx; `--help` loads no program, so that it is fast."""

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from sdpx import __version__
from sdpx.cli.environment import ignore_unknown
from sdpx.cli.options import COMMANDS, command_options
from sdpx.cli.signature import command_function
from sdpx.cli.usage import describe
from sdpx.errors import ExitStatus

HELP: Final = {
    "serve": "Run a relay: it pairs clients by ID and relays offer, answer and candidates within a pair.",
    "peer": """Connect as a WebRTC peer: lines of stdin are sent as messages, and events are logged on stdout.

    Exit status: 0 success, 1 internal error, 2 usage, 3 relay unreachable or
    lost, 4 pairing refused, 5 no connection, 6 refused by the relay,
    7 pairing lost, 8 no answer, 9 no common candidates, 10 ICE failed,
    11 DTLS failed, 12 channel lost or messages not confirmed,
    13 --expect not met, 15 input rejected.
    """,
    "pipe": """Connect standard input and output with those of another `sdpx pipe`, any bytes, over WebRTC.

    Events are logged on stderr. Exit status 0 only if everything has arrived on
    both sides; see `sdpx peer --help` for the others, and 16 transfer
    incomplete, 17 transfer refused.
    """,
    "send": """Send files and directories to an `sdpx receive`, over WebRTC.

    An interrupted transfer goes on where it was when the command is run again.
    Exit status 0 only if everything has arrived; 16 if not, 17 if it was refused.
    """,
    "receive": """Receive files and directories from an `sdpx send`, over WebRTC.

    Exit status 0 only if everything has arrived; 16 if not, 17 if it was refused.
    """,
    "token": "Create an access token for a relay that uses --auth-secret-file; prints only the token.",
    "demo": "Run a demonstration: a relay and two peers, each a process, pair, connect and send messages.",
    "bench": """Measure a relay: messages, connections and sessions per second, and latency; or a data channel.

    Exit status: 0 all messages were correct, 1 some were not, 2 usage,
    3 relay unreachable; with --data --with those of `sdpx peer`, and 17 if the
    other side does not measure.
    """,
    "doctor": """Check why a connection fails: the relay, this network, STUN and TURN servers, and two peers.

    Exit status: 0 all is well, 14 warnings only, else that with which sdpx
    peer would have ended.
    """,
    "docs": "Show a document of sdpx: the protocol, the log events, operation and others.",
    "recipe": "Print a deployment file: a unit for systemd, containers, reverse proxies, alerts, a dashboard.",
}


class _AsWritten:
    """Conversion of an option: only of the text for a flag, since `Option.parse` converts; pydantic takes 0.1 s to import."""

    def __init__(self, is_flag: bool, get_typers: Callable[[], Any]) -> None:
        self._is_flag = is_flag
        self._get_typers = get_typers

    def coerce(self, value: Any, **context: Any) -> Any:
        """Return the value of the option."""
        return self._get_typers().coerce(value, **context) if self._is_flag and isinstance(value, str) else value


class _WithoutTypes:
    """A command whose help has no `<str>` or `<bool>`: metavariables name the values."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            metavar = None if isinstance(each, TyperArgument) else each.metavar
            vars(each)["display_type_rich"] = lambda ctx, metavar=metavar: metavar  # noqa: ARG005  of typer >= 0.29
            if hasattr(each, "get_runtime_param"):  # of typer >= 0.29, too
                is_flag = getattr(each, "is_flag", False)
                vars(each)["get_runtime_param"] = partial(_AsWritten, is_flag, each.get_runtime_param)
        return params


class _Command(_WithoutTypes, TyperCommand):
    pass


class _Group(_WithoutTypes, TyperGroup):
    pass


_VARIABLES: Final = "Each option can be set by an environment variable: --log-level by SDPX_LOG_LEVEL."


def command_line(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the command line with these commands, all by default: each takes some milliseconds."""
    app = typer.Typer(
        name="sdpx",
        cls=_Group,
        help="Reliable WebRTC signaling: a relay for the SDP handshake, and a headless peer.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_sdpx,
    )
    for name in commands:
        epilog = _VARIABLES if any(each.env for each in command_options(name)) else None
        app.command(name, cls=_Command, help=HELP[name], epilog=epilog)(command_function(name))
    return app


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"sdpx {__version__}")
        raise typer.Exit


def _sdpx(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, metavar="", help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line with these arguments, or those of the process; ends with the exit status of the command."""
    for warning in ignore_unknown(os.environ):
        typer.echo(f"sdpx: {warning}", err=True)
    words = sys.argv[1:] if arguments is None else arguments
    try:
        commands = words[:1] if words and words[0] in COMMANDS else COMMANDS
        status = typer.main.get_command(command_line(commands)).main(words, prog_name="sdpx", standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if error.format_message():  # empty without arguments, when the help has been printed
            typer.echo(describe(error, words), err=True)
        status = ExitStatus.USAGE
    sys.exit(status or ExitStatus.OK)
