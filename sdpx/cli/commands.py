"""The commands: each checks its options, then loads and runs its program and returns the exit status.

Raises `BadOption` for an option whose value is unusable.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import typer

from sdpx.bench.options import BenchOptions
from sdpx.cli import checks, guides
from sdpx.cli.options import DemoOptions, DocsOptions, RecipeOptions, ServeCommand, TokenOptions
from sdpx.doctor.options import DoctorOptions
from sdpx.errors import ExitStatus
from sdpx.options import AccessOptions, BadOption, LogOptions
from sdpx.peer.options import ConnectOptions, PeerOptions
from sdpx.peer.transfer.options import PipeOptions, ReceiveOptions, SendOptions
from sdpx.urls import complete_relay_url


def serve(options: ServeCommand) -> int:
    """Run a relay; with `--check` or `--print-config` only check its options and files."""
    _require(checks.serve(options))
    from sdpx.relay.app import check_directory, check_hosts, load_credentials, load_directory, run_server  # noqa: PLC0415
    from sdpx.runtime import run  # noqa: PLC0415

    credentials = load_credentials(options)
    directory = load_directory(options)
    if options.check:
        check_hosts(options)
        if directory is not None:
            check_directory(directory)
    if options.print_config:
        from sdpx.cli.config_file import render  # noqa: PLC0415

        typer.echo(render("serve", options), nl=False)
    if options.check:
        for warning in credentials.ignored_keys:
            typer.echo(f"sdpx serve: {warning.message()}", err=True)
        typer.echo("sdpx serve: configuration OK", err=True)
    if options.check or options.print_config:
        return ExitStatus.OK
    main = partial(run_server, options, credentials, directory=directory)
    return run(main, options, reloads=True, on_log_failure=options.on_log_failure)


def peer(options: PeerOptions) -> int:
    """Run a peer."""
    options = options.completed()
    _require(checks.peer(options), options.access)
    from sdpx.peer.app import run_peer  # noqa: PLC0415
    from sdpx.peer.terminal import PeerView  # noqa: PLC0415
    from sdpx.runtime import run  # noqa: PLC0415

    _warn_of_insecure(options)
    view = None if options.view.verbose else partial(PeerView, options)
    return run(partial(run_peer, options), options, elapsed=True, view=view)


def pipe(options: PipeOptions) -> int:
    """Run a pipe."""
    options = options.completed()
    _require(checks.pipe(options), options.access)
    from sdpx.peer.transfer.pipe import run_pipe  # noqa: PLC0415
    from sdpx.peer.transfer.view import TransferView  # noqa: PLC0415
    from sdpx.runtime import STDERR, run  # noqa: PLC0415

    if os.isatty(STDERR):  # elsewhere the log has it
        _warn_of_insecure(options)
    view = None if options.view.verbose else TransferView
    return run(partial(run_pipe, options), options, elapsed=True, view=view, descriptor=STDERR)


def send(options: SendOptions) -> int:
    """Send files."""
    options = options.completed()
    _require(checks.send(options), options.access)
    from sdpx.peer.transfer.files import run_send  # noqa: PLC0415
    from sdpx.peer.transfer.source import BadSource, scan  # noqa: PLC0415
    from sdpx.peer.transfer.view import TransferView  # noqa: PLC0415
    from sdpx.runtime import run  # noqa: PLC0415

    try:
        manifest = scan(options.files)
    except BadSource as bad:
        raise BadOption("FILE", str(bad)) from None
    _warn_of_insecure(options)
    view = None if options.view.verbose else TransferView
    return run(partial(run_send, options, manifest), options, elapsed=True, view=view)


def receive(options: ReceiveOptions) -> int:
    """Receive files."""
    options = options.completed()
    _require(checks.receive(options), options.access)
    from sdpx.peer.transfer.files import run_receive  # noqa: PLC0415
    from sdpx.peer.transfer.view import TransferView  # noqa: PLC0415
    from sdpx.runtime import STDERR, STDIN, run  # noqa: PLC0415

    if not options.yes and not (os.isatty(STDIN) and os.isatty(STDERR)):
        raise BadOption("--yes", "needed where there is no terminal for the question whether to receive")
    _warn_of_insecure(options)
    view = None if options.view.verbose else TransferView
    return run(partial(run_receive, options), options, elapsed=True, view=view)


def _warn_of_insecure(options: ConnectOptions) -> None:
    if options.access.insecure:
        from sdpx.events.peer import TlsVerificationDisabled  # noqa: PLC0415

        typer.echo(f"sdpx: {TlsVerificationDisabled().message()}", err=True)


def token(options: TokenOptions) -> int:
    """Print a token."""
    _require(checks.token(options))
    from sdpx.relay.auth.files import BadFile  # noqa: PLC0415
    from sdpx.relay.auth.keys import is_weak, secret_key, sign  # noqa: PLC0415
    from sdpx.relay.auth.tokens import make_claims, parse_duration  # noqa: PLC0415

    try:
        key = secret_key(Path(options.auth_secret_file or ""))
    except BadFile as error:
        raise BadOption("--auth-secret-file", str(error)) from None
    if is_weak(key):
        from sdpx.events.serve import WeakSecret  # noqa: PLC0415

        typer.echo(f"sdpx: {WeakSecret(str(options.auth_secret_file)).message()}", err=True)
    lifetime = parse_duration(options.ttl) or 0
    typer.echo(sign(make_claims(options.sub, options.pair, options.auth_audience, time.time(), lifetime), key))
    return ExitStatus.OK


def demo(options: DemoOptions) -> int:
    """Run the demonstration."""
    from sdpx.demo import DemoView, run_demo  # noqa: PLC0415
    from sdpx.runtime import run  # noqa: PLC0415

    view = None if options.view.verbose else lambda **terminal: DemoView(**terminal | {"interactive": False})
    return run(partial(run_demo, options.timeout), LogOptions(log_format=options.log_format), view=view)


def doctor(options: DoctorOptions) -> int:
    """Check a relay, this machine's network, and connections."""
    options = options.completed()
    _require(checks.doctor(options), options.access)
    from sdpx.doctor.app import run_doctor  # noqa: PLC0415
    from sdpx.doctor.view import DoctorView  # noqa: PLC0415
    from sdpx.runtime import run  # noqa: PLC0415

    log_options = LogOptions(log_format=options.format)
    return run(partial(run_doctor, options), log_options, elapsed=True, view=DoctorView, views_files=True)


def bench(options: BenchOptions) -> int:
    """Run a measurement."""
    options = replace(options, url=options.url and complete_relay_url(options.url))
    _require(checks.bench(options), options.access)
    from sdpx.bench.main import run_bench  # noqa: PLC0415

    return run_bench(options)


def docs(options: DocsOptions) -> int:
    """Show a document, or list them."""
    if options.topic is None:
        guides.list_topics()
    else:
        guides.show_topic(options.topic)
    return ExitStatus.OK


def recipe(options: RecipeOptions) -> int:
    """Print a deployment file, or list them."""
    if options.name is None:
        guides.list_recipes()
    else:
        guides.show_recipe(options.name)
    return ExitStatus.OK


def _require(found: Iterator[checks.Problem], access: AccessOptions | None = None) -> None:
    """Raise `BadOption` for the first problem that is one, and for an unusable file of certificates."""
    for option, problem in found:
        if problem:
            raise BadOption(option, problem)
    if access is not None and access.cafile is not None:
        from sdpx.client_tls import client_context  # noqa: PLC0415

        client_context(access.cafile)
