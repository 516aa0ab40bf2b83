"""Command line of sdpx; `--help` loads no program, so that it is fast."""

import os
import sys
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


class _WithoutTypes:
    """A command whose help has no `<str>` or `<bool>`: metavariables name the values."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for each in params:
            metavar = None if isinstance(each, TyperArgument) else each.metavar
            vars(each)["display_type_rich"] = lambda ctx, metavar=metavar: metavar  # noqa: ARG005  of typer >= 0.29
        return params


class _Command(_WithoutTypes, TyperCommand):
    pass


class _Group(_WithoutTypes, TyperGroup):
    pass


app = typer.Typer(
    name="sdpx",
    cls=_Group,
    help="Reliable WebRTC signaling: a relay for the SDP handshake, and a headless peer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_VARIABLES: Final = "Each option can be set by an environment variable: --log-level by SDPX_LOG_LEVEL."
for _name in COMMANDS:
    app.command(
        _name,
        cls=_Command,
        help=HELP[_name],
        epilog=_VARIABLES if any(each.env for each in command_options(_name)) else None,
    )(command_function(_name))


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"sdpx {__version__}")
        raise typer.Exit


@app.callback()
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
    try:
        status = typer.main.get_command(app).main(arguments, prog_name="sdpx", standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if error.format_message():  # empty without arguments, when the help has been printed
            typer.echo(describe(error, sys.argv[1:] if arguments is None else arguments), err=True)
        status = ExitStatus.USAGE
    sys.exit(status or ExitStatus.OK)
