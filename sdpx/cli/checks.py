"""Checks of options beyond type and range: each yields an option and its problem, or None, with the remedy. Pure."""

from collections.abc import Callable, Iterator

from sdpx.bench.options import BenchOptions
from sdpx.cli.options import TokenOptions
from sdpx.doctor.options import DoctorOptions
from sdpx.ice_servers import parse_server, parse_stun, parse_turn
from sdpx.ids import id_of, is_name, validate_id
from sdpx.options import AccessOptions
from sdpx.peer.options import ConnectOptions, PeerOptions
from sdpx.peer.transfer.options import PipeOptions, ReceiveOptions, SendOptions
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.origins import validate_origin
from sdpx.relay.auth.proxies import validate_network
from sdpx.relay.auth.tokens import parse_duration, pattern_of, validate_pattern
from sdpx.relay.auth.turn import validate_turn_url
from sdpx.relay.cluster.options import validate_cluster_url
from sdpx.relay.options import ServeOptions
from sdpx.urls import validate_http_url, validate_relay_url

Problem = tuple[str, str | None]


def serve(options: ServeOptions) -> Iterator[Problem]:
    """Check the options of `sdpx serve`."""
    if options.limits.idle_timeout <= options.limits.ping_interval:
        yield "--idle-timeout", "must be longer than --ping-interval, or no client has time to answer a ping"
    if options.metrics_host is not None and options.metrics_port is None:
        yield "--metrics-host", "needs --metrics-port; without it, /metrics is served on the relay's own port"
    yield from (("--ice-server", _error_of(parse_server, url)) for url in options.ice_server)
    yield from _auth(options.auth)
    yield from _cluster(options)


def _cluster(options: ServeOptions) -> Iterator[Problem]:
    url = options.cluster.cluster
    if url is not None:
        yield "--cluster", validate_cluster_url(url)
    elif options.cluster.cluster_password_file is not None:
        yield "--cluster-password-file", "needs --cluster"
    if not options.cluster.cluster_prefix.isprintable() or not options.cluster.cluster_prefix:
        yield "--cluster-prefix", "needs one or more printable characters"
    if options.reuse_port and options.port == 0:
        yield "--reuse-port", "needs a fixed --port, which the relays share"


def _auth(options: AuthOptions) -> Iterator[Problem]:
    if options.auth_webhook is not None:
        yield "--auth-webhook", validate_http_url(options.auth_webhook)
    yield from (("--allow-origin", validate_origin(each)) for each in options.allow_origin)
    yield from (("--trusted-proxy", validate_network(each)) for each in options.trusted_proxy)
    yield from (("--turn-url", validate_turn_url(each)) for each in options.turn_url)
    yield from _both("--tls-cert", options.tls_cert, "--tls-key", options.tls_key)
    yield from _both("--turn-secret-file", options.turn_secret_file, "--turn-url", options.turn_url)
    for option, value in (("--auth-audience", options.auth_audience), ("--id-claim", options.id_claim)):
        if value is not None and not options.asks_for_tokens:
            yield option, "needs --auth-secret-file or --auth-jwks; without one, no tokens are checked"


def peer(options: PeerOptions) -> Iterator[Problem]:
    """Check the options of `sdpx peer`, but for the content of `--cafile`."""
    yield "--channel", _error_of(lambda _: options.negotiated_id, "")
    if options.target not in (None, options.pair):
        yield "ID", "contradicts --pair; give one of the two"
    if options.files is not None and options.stdin != "json":
        yield "--files", "needs --stdin json; 'sdpx receive' receives files by itself"
    if options.within is not None and options.expect is None:
        yield "--within", "needs --expect; the time limit of a connection is --timeout"
    yield from _connect(options, "--pair", options.pair)


def pipe(options: PipeOptions) -> Iterator[Problem]:
    """Check the options of `sdpx pipe`."""
    yield from _connect(options, "ID", options.target)


def send(options: SendOptions) -> Iterator[Problem]:
    """Check the options of `sdpx send`, but for the files."""
    if not options.files:
        yield "FILE", "required; name one or more files or directories to send"
    yield from _connect(options, "--to", options.to)


def receive(options: ReceiveOptions) -> Iterator[Problem]:
    """Check the options of `sdpx receive`, but for the directory."""
    yield from _connect(options, "--from", options.sender)


def _connect(options: ConnectOptions, name: str, target: str | None) -> Iterator[Problem]:
    """Check the options of a program that connects to `target`, which the option `name` sets."""
    yield "--url", validate_relay_url(options.url)
    for option, client_id in ((name, target), ("--id", options.client_id)):
        yield option, None if client_id is None else validate_id(client_id)
    yield from _access(options.access, options.url)
    if options.wait and target is None:
        yield "--wait", f"needs {name}; without it, the peer waits for a pairing without a time limit"
    yield from _ice(options)


def _ice(options: ConnectOptions | DoctorOptions | BenchOptions) -> Iterator[Problem]:
    if options.stun and options.no_stun:
        yield "--no-stun", "contradicts --stun; give one of the two"
    yield from (("--stun", _error_of(parse_stun, url)) for url in options.stun)
    yield from (("--turn", _error_of(parse_turn, url)) for url in options.turn)


def doctor(options: DoctorOptions) -> Iterator[Problem]:
    """Check the options of `sdpx doctor`, but for the content of `--cafile`."""
    yield "URL", validate_relay_url(options.url)
    if options.with_peer is not None:
        yield "--with", validate_id(options.with_peer)
    yield from _ice(options)


def token(options: TokenOptions) -> Iterator[Problem]:
    """Check the options of `sdpx token`."""
    yield "--sub", None if is_name(id_of(options.sub)) else validate_id(options.sub)
    yield from (("--pair", validate_pattern(pattern_of(each))) for each in options.pair)
    if parse_duration(options.ttl) is None:
        yield "--ttl", f"'{options.ttl}' is not a duration; the form is 90s, 15m, 1h or 7d"
    if options.auth_secret_file is None:
        yield "--auth-secret-file", "required; the secret file of the relay"


def bench(options: BenchOptions) -> Iterator[Problem]:
    """Check the options of `sdpx bench`."""
    if options.url is not None:
        yield "URL", validate_relay_url(options.url)
    for option, client_id in (("--with", options.with_peer), ("--id", options.client_id)):
        if client_id is not None:
            yield option, validate_id(client_id) if options.data else "needs --data"
    yield from _access(options.access, options.url or "")
    if options.is_remote:
        yield from _ice(options)


def _access(access: AccessOptions, url: str) -> Iterator[Problem]:
    token = None if access.token is None else access.token.strip()
    if token == "":
        yield "--token", "the token is empty (--token, SDPX_TOKEN)"
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        yield "--token", "the token has a character that an HTTP header cannot have"
    if access.cafile is not None and access.insecure:
        yield "--insecure", "contradicts --cafile; give one of the two"
    for option, value in (("--cafile", access.cafile), ("--insecure", access.insecure)):
        if value not in (None, False) and not url.lower().startswith("wss://"):
            yield option, "is for TLS, and the URL does not start with wss://"


def _both(first: str, given: object, second: str, also_given: object) -> Iterator[Problem]:
    if given and not also_given:
        yield first, f"needs {second}"
    if also_given and not given:
        yield second, f"needs {first}"


def _error_of(parse: Callable[[str], object], text: str) -> str | None:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None
