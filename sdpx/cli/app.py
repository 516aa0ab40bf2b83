"""The command line: options to plain arguments, and nothing heavy before a command needs it."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from sdpx import __version__
from sdpx.cli import auth_options, peer_options, serve_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from sdpx.ice_servers import IceServer
    from sdpx.relay.app import ServeOptions
    from sdpx.runtime import LogOptions

app = typer.Typer(
    name="sdpx",
    help="WebRTC signaling that you can rely on: one command relays the SDP handshake, one is a headless peer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogLevel(StrEnum):
    """The least level that the log shows."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class LogFormat(StrEnum):
    """How the log looks on stdout."""

    json = "json"
    text = "text"


class BenchFormat(StrEnum):
    """How the figures of a measurement look on stdout."""

    table = "table"
    json = "json"


LogLevelOption = Annotated[LogLevel, typer.Option(envvar="SDPX_LOG_LEVEL", help="The least level that the log shows.")]
LogFormatOption = Annotated[
    LogFormat, typer.Option(envvar="SDPX_LOG_FORMAT", help="JSON lines, or aligned lines for a person.")
]
LogSdpOption = Annotated[
    bool,
    typer.Option("--log-sdp", envvar="SDPX_LOG_SDP", help="Show SDP bodies in the log (they hold ICE passwords)."),
]


def _use_config(ctx: typer.Context, path: str | None) -> str | None:
    if path is not None:
        from sdpx.cli.config_defaults import defaults_from  # noqa: PLC0415  only who has a file reads one

        ctx.default_map = defaults_from(path, ctx)
    return path


ConfigOption = Annotated[
    str | None,
    typer.Option(
        envvar="SDPX_CONFIG",
        metavar="FILE",
        callback=_use_config,
        is_eager=True,
        help="Read options from this TOML file; flags and environment win.",
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdpx {__version__}")
        raise typer.Exit


@app.callback()
def _sdpx(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def _check(option: str, flaw: str | None) -> None:
    if flaw:
        raise typer.BadParameter(flaw, param_hint=option)


def _servers(option: str, parse: "Callable[[str], IceServer]", urls: list[str] | None) -> "tuple[IceServer, ...]":
    servers = []
    for url in urls or []:
        try:
            servers.append(parse(url))
        except ValueError as error:
            _check(option, str(error))
    return tuple(servers)


def _ice_servers(stun: list[str] | None, turn: list[str] | None, *, no_stun: bool) -> "tuple[IceServer, ...] | None":
    """Return the servers that the command line names; None where it names none, and the relay may."""
    from sdpx.ice_servers import parse_stun, parse_turn  # noqa: PLC0415

    if stun and no_stun:
        _check("--no-stun", "it contradicts --stun; give one of the two")
    return _servers("--stun", parse_stun, stun) + _servers("--turn", parse_turn, turn) or None


@app.command()
def serve(
    ctx: typer.Context,
    host: serve_options.HostOption = "127.0.0.1",
    port: serve_options.PortOption = 8765,
    max_clients: serve_options.MaxClientsOption = 10_000,
    max_clients_per_ip: serve_options.MaxClientsPerIpOption = 1_000,
    rate: serve_options.RateOption = 200.0,
    unknown_target_rate: serve_options.GuessRateOption = 1.0,
    handshake_timeout: serve_options.HandshakeOption = 5.0,
    max_message_size: serve_options.MaxFrameOption = 65_536,
    ping_interval: serve_options.PingOption = 20.0,
    idle_timeout: serve_options.SilenceOption = 45.0,
    drain_timeout: serve_options.DrainOption = 5.0,
    resume_window: serve_options.ResumeWindowOption = 30.0,
    engine: serve_options.EngineOption = serve_options.Engine.epoll,
    metrics_host: serve_options.MetricsHostOption = None,
    metrics_port: serve_options.MetricsPortOption = None,
    auth_secret_file: auth_options.AuthSecretFileOption = None,
    auth_jwks: auth_options.AuthJwksOption = None,
    auth_audience: auth_options.AuthAudienceOption = None,
    auth_webhook: auth_options.AuthWebhookOption = None,
    auth_webhook_timeout: auth_options.AuthWebhookTimeoutOption = 3.0,
    auth_rate: auth_options.AuthRateOption = 1.0,
    allow_origin: auth_options.AllowOriginOption = None,
    trusted_proxy: auth_options.TrustedProxyOption = None,
    tls_cert: auth_options.TlsCertOption = None,
    tls_key: auth_options.TlsKeyOption = None,
    turn_secret_file: auth_options.TurnSecretFileOption = None,
    turn_url: auth_options.TurnUrlOption = None,
    turn_ttl: auth_options.TurnTtlOption = 86_400,
    ice_server: serve_options.IceServerOption = None,
    log_level: LogLevelOption = LogLevel.info,
    log_format: LogFormatOption = LogFormat.json,
    log_sdp: LogSdpOption = False,
    config: ConfigOption = None,  # noqa: ARG001  its callback has read it
    check: auth_options.CheckOption = False,
    print_config: auth_options.PrintConfigOption = False,
) -> None:
    """Relay the SDP handshake: pair clients by ID and pass offer, answer and candidates between the two."""
    from sdpx.ice_servers import parse_server  # noqa: PLC0415  imports wait for their command
    from sdpx.relay.app import ServeOptions  # noqa: PLC0415
    from sdpx.relay.auth.options import AuthOptions  # noqa: PLC0415
    from sdpx.relay.core.limits import Limits  # noqa: PLC0415
    from sdpx.runtime import LogOptions  # noqa: PLC0415

    if idle_timeout <= ping_interval:
        _check("--idle-timeout", "it must be longer than --ping-interval, or nobody has the time to answer one")
    if metrics_host is not None and metrics_port is None:
        _check("--metrics-host", "it needs --metrics-port: without that, /metrics is on the relay's own port")
    limits = Limits(
        max_clients=max_clients,
        max_clients_per_ip=max_clients_per_ip,
        rate=rate,
        unknown_target_rate=unknown_target_rate,
        handshake_timeout=handshake_timeout,
        max_message_size=max_message_size,
        ping_interval=ping_interval,
        idle_timeout=idle_timeout,
        drain_timeout=drain_timeout,
        resume_window=resume_window,
    )
    trust = AuthOptions(
        auth_secret_file=auth_secret_file,
        auth_jwks=auth_jwks,
        auth_audience=auth_audience,
        auth_webhook=auth_webhook,
        auth_webhook_timeout=auth_webhook_timeout,
        auth_rate=auth_rate,
        allow_origin=tuple(allow_origin or ()),
        trusted_proxy=tuple(trusted_proxy or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
        turn_secret_file=turn_secret_file,
        turn_url=tuple(turn_url or ()),
        turn_ttl=turn_ttl,
    )
    options = ServeOptions(
        host,
        port,
        metrics_host or host,
        metrics_port,
        limits,
        log_sdp=log_sdp,
        engine=engine.value,
        trust=trust,
        ice_servers=_servers("--ice-server", parse_server, ice_server),
    )
    log_options = LogOptions(log_level.value, log_format.value)
    raise typer.Exit(_serve(ctx, options, log_options, check=check, print_config=print_config))


def _serve(
    ctx: typer.Context, options: "ServeOptions", log_options: "LogOptions", *, check: bool, print_config: bool
) -> int:
    """Check what can be checked before anything starts, then run the relay, unless no more was wanted."""
    from functools import partial  # noqa: PLC0415

    from sdpx.relay.app import load_credentials, run_server  # noqa: PLC0415
    from sdpx.relay.auth.options import BadOption  # noqa: PLC0415
    from sdpx.runtime import run  # noqa: PLC0415

    try:
        vault = load_credentials(options)
    except BadOption as error:
        raise typer.BadParameter(error.flaw, param_hint=error.option) from None
    if print_config:
        _print_config(ctx)
    if check:
        typer.echo("sdpx serve: the options and all files are sound", err=True)
    if check or print_config:
        return 0
    return run(partial(run_server, options, vault), log_options, reloads=True)


def _print_config(ctx: typer.Context) -> None:
    from sdpx.cli.config_defaults import shown  # noqa: PLC0415

    typer.echo(shown(ctx), nl=False)


@app.command("token")
def make_token(
    sub: auth_options.SubOption,
    auth_secret_file: auth_options.AuthSecretFileOption = None,
    ttl: auth_options.TtlOption = "1h",
    pair: auth_options.TokenPairOption = None,
    auth_audience: auth_options.AuthAudienceOption = None,
    config: ConfigOption = None,  # noqa: ARG001  its callback has read it
) -> None:
    """Make a token for `sdpx serve --auth-secret-file`: it is all that comes on stdout."""
    import time  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from sdpx.peer.options import validate_id  # noqa: PLC0415
    from sdpx.relay.auth.files import BadFile  # noqa: PLC0415
    from sdpx.relay.auth.keys import is_weak, secret_key, sign  # noqa: PLC0415
    from sdpx.relay.auth.tokens import claims_for, seconds_of, validate_pattern  # noqa: PLC0415

    _check("--sub", validate_id(sub))
    for each in pair or []:
        _check("--pair", validate_pattern(each))
    seconds = seconds_of(ttl)
    _check("--ttl", f"'{ttl}' is no time; it looks like 90s, 15m, 1h or 7d" if seconds is None else None)
    _check("--auth-secret-file", "it is needed: the file that the relay has" if auth_secret_file is None else None)
    claims = claims_for(sub, pair or [], auth_audience, time.time(), seconds or 0)
    try:
        key = secret_key(Path(auth_secret_file or ""))
    except BadFile as error:
        raise typer.BadParameter(str(error), param_hint="--auth-secret-file") from None
    if is_weak(key):
        from sdpx.events.serve import WeakSecret  # noqa: PLC0415

        typer.echo(f"sdpx: {WeakSecret(str(auth_secret_file)).message()}", err=True)
    typer.echo(sign(claims, key))


@app.command()
def peer(
    url: Annotated[str, typer.Option(envvar="SDPX_URL", help="The relay's WebSocket URL.")] = "ws://127.0.0.1:8765",
    pair: Annotated[
        str | None,
        typer.Option(envvar="SDPX_PAIR", metavar="ID", help="Ask to be paired with this ID, as initiator."),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option("--id", envvar="SDPX_ID", metavar="NAME", help="Ask for this ID: 1 to 64 of letters, digits, -_."),
    ] = None,
    token: auth_options.TokenOption = None,
    stun: Annotated[
        list[str] | None,
        typer.Option(envvar="SDPX_STUN", metavar="URL", help="STUN server, stun:HOST:PORT; repeatable."),
    ] = None,
    turn: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SDPX_TURN",
            metavar="URL",
            help="TURN server, turn:USER:PASS@HOST:PORT?transport=udp|tcp, or turns:; repeatable.",
        ),
    ] = None,
    no_stun: Annotated[
        bool, typer.Option("--no-stun", envvar="SDPX_NO_STUN", help="Use no STUN server at all.")
    ] = False,
    ice_transport: peer_options.IceTransportOption = peer_options.IceTransport.all,
    timeout: peer_options.TimeoutOption = 30.0,
    wait: peer_options.WaitOption = 0.0,
    expect: peer_options.ExpectOption = None,
    within: peer_options.WithinOption = None,
    once: peer_options.OnceOption = False,
    cafile: auth_options.CaFileOption = None,
    insecure: auth_options.InsecureOption = False,
    retries: peer_options.RetriesOption = 3,
    reconnect: peer_options.ReconnectOption = True,
    stdin: peer_options.StdinOption = peer_options.StdinForm.lines,
    log_level: LogLevelOption = LogLevel.info,
    log_format: LogFormatOption = LogFormat.json,
    log_sdp: LogSdpOption = False,
    config: ConfigOption = None,  # noqa: ARG001  its callback has read it
) -> None:
    """Be a WebRTC peer: lines in on stdin go to the other peer, JSON lines on stdout tell all that happens.

    Exit status: 0 done, 2 usage, 3 relay unreachable or lost, 4 pairing refused, 5 no connection, 6 refused by the relay,
    7 pairing lost, 8 no answer, 9 no common candidates, 10 ICE failed, 11 DTLS failed, 12 channel lost, 13 --expect unmet.
    """
    from functools import partial  # noqa: PLC0415

    from sdpx.peer.app import run_peer  # noqa: PLC0415
    from sdpx.peer.options import PeerOptions, validate_id, validate_url  # noqa: PLC0415
    from sdpx.runtime import LogOptions, run  # noqa: PLC0415

    _check("--url", validate_url(url))
    for option, name in (("--pair", pair), ("--id", id_)):
        _check(option, None if name is None else validate_id(name))
    _check_token(token)
    _check_trust(url, cafile, insecure=insecure)
    if wait and pair is None:
        _check("--wait", "it needs --pair: without that, this peer waits to be asked, for ever")
    if within is not None and expect is None:
        _check("--within", "it needs --expect: how long a connection may take is --timeout")
    options = PeerOptions(
        url,
        pair,
        id_,
        _ice_servers(stun, turn, no_stun=no_stun),
        timeout,
        wait=wait,
        expect=None if expect is None else expect.value,
        within=within,
        once=once,
        retries=retries,
        reconnect=reconnect,
        stdin=stdin.value,
        log_sdp=log_sdp,
        no_stun=no_stun,
        relay_only=ice_transport is peer_options.IceTransport.relay,
        token=token,
        cafile=cafile,
        insecure=insecure,
    )
    status = run(partial(run_peer, options), LogOptions(log_level.value, log_format.value, elapsed=True))
    raise typer.Exit(status)


def _check_token(token: str | None) -> None:
    empty = token is not None and not token.strip()
    _check("--token", "the token is empty (--token, SDPX_TOKEN)" if empty else None)


def _check_trust(url: str, cafile: str | None, *, insecure: bool) -> None:
    from sdpx.client_tls import BadCaFile, client_context, validate_tls_options  # noqa: PLC0415

    option, flaw = validate_tls_options(url, cafile, insecure=insecure) or ("", None)
    _check(option, flaw)
    try:
        client_context(cafile)
    except BadCaFile as error:
        _check("--cafile", str(error))
    if insecure:
        from sdpx.events.peer import TlsVerificationDisabled  # noqa: PLC0415

        typer.echo(f"sdpx: {TlsVerificationDisabled().message()}", err=True)


@app.command()
def demo(
    timeout: Annotated[
        float,
        typer.Option(envvar="SDPX_TIMEOUT", min=1, max=3600, metavar="SECONDS", help="How long the whole may take."),
    ] = 30.0,
    log_format: LogFormatOption = LogFormat.json,
    config: ConfigOption = None,  # noqa: ARG001  its callback has read it
) -> None:
    """Watch it happen: a relay and two peers, each a process of its own, pair, connect and talk."""
    from functools import partial  # noqa: PLC0415

    from sdpx.demo import run_demo  # noqa: PLC0415
    from sdpx.runtime import LogOptions, run  # noqa: PLC0415

    raise typer.Exit(run(partial(run_demo, timeout), LogOptions(form=log_format.value)))


@app.command()
def bench(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="The relay, ws://HOST:PORT; without it, one of its own.")
    ] = None,
    token: auth_options.TokenOption = None,
    pairs: Annotated[int, typer.Option(envvar="SDPX_PAIRS", min=1, max=100_000, help="Pairs of clients.")] = 32,
    payload: Annotated[
        int, typer.Option(envvar="SDPX_PAYLOAD", min=128, max=1024**2, metavar="BYTES", help="Of one message.")
    ] = 4_096,
    in_flight: Annotated[
        int, typer.Option(envvar="SDPX_IN_FLIGHT", min=1, max=1024, help="Messages under way at once in each pair.")
    ] = 1,
    seconds: Annotated[
        float, typer.Option(envvar="SDPX_SECONDS", min=0.1, max=3600, help="How long each of the three phases takes.")
    ] = 5.0,
    processes: Annotated[
        int,
        typer.Option(
            envvar="SDPX_PROCESSES", min=0, max=64, help="That make the load; 0: one less than cores, up to 4."
        ),
    ] = 0,
    format_: Annotated[
        BenchFormat, typer.Option("--format", envvar="SDPX_FORMAT", help="A table, or one JSON object.")
    ] = BenchFormat.table,
    config: ConfigOption = None,  # noqa: ARG001  its callback has read it
) -> None:
    """Measure a relay: how many messages, connections and sessions a second it carries, at what latency.

    Exit status: 0 all messages were sound, 1 they were not, 2 usage, 3 relay unreachable.
    """
    from sdpx.bench.main import BenchOptions, run_bench  # noqa: PLC0415
    from sdpx.peer.options import validate_url  # noqa: PLC0415

    _check_token(token)
    if url is not None:
        _check("URL", validate_url(url))
        if not url.lower().startswith("ws://"):
            _check("URL", "wss:// is not measured; give the ws:// URL of the relay behind the TLS")
    as_json = format_ is BenchFormat.json
    options = BenchOptions(url, pairs, payload, in_flight, seconds, processes, as_json=as_json, token=token)
    raise typer.Exit(run_bench(options))


def main() -> None:
    """Run the command line."""
    app()
