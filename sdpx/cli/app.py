"""Command line of sdpx: a command loads its program only when it runs, so that `--help` is fast."""

from typing import TYPE_CHECKING, Annotated

import typer

from sdpx import __version__
from sdpx.cli.signature import with_options

if TYPE_CHECKING:
    from sdpx.bench.options import BenchOptions
    from sdpx.cli.options import DemoOptions, ServeCommand, TokenOptions
    from sdpx.peer.options import PeerOptions

VARIABLES = "Each option can be set by an environment variable: --log-level by SDPX_LOG_LEVEL."

app = typer.Typer(
    name="sdpx",
    help="Reliable WebRTC signaling: a relay for the SDP handshake, and a headless peer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


@app.command(epilog=VARIABLES)
@with_options("serve")
def serve(options: "ServeCommand") -> int:
    """Run a relay: it pairs clients by ID and relays offer, answer and candidates within a pair."""
    from sdpx.cli.commands import serve  # noqa: PLC0415

    return serve(options)


@app.command(epilog=VARIABLES)
@with_options("peer")
def peer(options: "PeerOptions") -> int:
    """Run a WebRTC peer: it sends lines of stdin to the other peer and logs its events on stdout.

    Exit status: 0 success, 1 internal error, 2 usage, 3 relay unreachable or
    lost, 4 pairing refused, 5 no connection, 6 refused by the relay,
    7 pairing lost, 8 no answer, 9 no common candidates, 10 ICE failed,
    11 DTLS failed, 12 channel lost, 13 --expect not met.
    """
    from sdpx.cli.commands import peer  # noqa: PLC0415

    return peer(options)


@app.command(epilog=VARIABLES)
@with_options("token")
def token(options: "TokenOptions") -> int:
    """Create a token for `sdpx serve --auth-secret-file` and print it on stdout."""
    from sdpx.cli.commands import token  # noqa: PLC0415

    return token(options)


@app.command(epilog=VARIABLES)
@with_options("demo")
def demo(options: "DemoOptions") -> int:
    """Run a demonstration: a relay and two peers, each a process, pair, connect and send messages."""
    from sdpx.cli.commands import demo  # noqa: PLC0415

    return demo(options)


@app.command(epilog=VARIABLES)
@with_options("bench")
def bench(options: "BenchOptions") -> int:
    """Measure a relay: messages, connections and sessions per second, and latency.

    Exit status: 0 all messages were correct, 1 some were not, 2 usage,
    3 relay unreachable.
    """
    from sdpx.cli.commands import bench  # noqa: PLC0415

    return bench(options)


def main() -> None:
    """Run the command line."""
    app()
