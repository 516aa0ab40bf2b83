"""`sdpx serve`: opens the ports, serves until a shutdown is requested, and stops within a deadline."""

import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from ipaddress import ip_address
from pathlib import Path

import trio

from sdpx.errors import Ending
from sdpx.events import serve
from sdpx.ice_servers import parse_server
from sdpx.ids import make_id
from sdpx.log import Log
from sdpx.options import BadOption
from sdpx.relay.acceptor import Acceptor
from sdpx.relay.admission import Admission
from sdpx.relay.auth.authenticator import Authenticator, open_authenticator
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.auth.files import BadFile, read_secret
from sdpx.relay.auth.origins import Origins
from sdpx.relay.auth.turn import IceServerIssuer
from sdpx.relay.cluster.directory import Directory
from sdpx.relay.listeners import Listener, open_listeners, raise_file_limit, serve_listener
from sdpx.relay.memory import trim_heap_periodically
from sdpx.relay.monitor import Monitor
from sdpx.relay.options import ServeOptions
from sdpx.relay.relay import Relay
from sdpx.relay.service_manager import ServiceManager
from sdpx.relay.site import site_pages
from sdpx.relay.websocket import mask
from sdpx.relay.websocket.epoll_engine import HAS_EPOLL, EpollEngine
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.tls_stream import TlsStream
from sdpx.runtime import ShutdownRequest

Accept = Callable[[Iterable[SocketStream]], None]  # takes new connections


def load_credentials(options: ServeOptions) -> Credentials:
    """Read the files that the options name; raises `BadOption`, also for an engine that this system does not have."""
    if options.engine == "epoll" and not HAS_EPOLL:
        raise BadOption("--engine", "this system has no epoll: use trio-websocket")
    credentials = Credentials(options.auth, time.time)
    credentials.load()
    return credentials


def check_hosts(options: ServeOptions) -> None:
    """Raise `BadOption` for a host on which the relay cannot listen, whichever port is free."""
    for option, host in (("--host", options.host), ("--metrics-host", options.metrics_host)):
        try:
            for listener in trio.run(open_listeners, host, 0) if host is not None else ():
                listener.socket.close()
        except Ending as error:
            raise BadOption(option, error.reason) from None


def load_directory(options: ServeOptions) -> Directory | None:
    """Return the directory of the cluster that the options name, not connected yet; raises `BadOption`."""
    cluster, password = options.cluster, None
    if cluster.cluster is None:
        return None
    try:
        from sdpx.relay.cluster.redis import EngineAddress, RedisDirectory  # noqa: PLC0415  an extra
    except ImportError as error:
        raise BadOption("--cluster", f"needs an extra: pip install 'sdpx[cluster]' ({error})") from None
    if cluster.cluster_password_file is not None:
        try:
            password = read_secret(Path(cluster.cluster_password_file)).decode()
        except (BadFile, UnicodeDecodeError) as error:
            raise BadOption("--cluster-password-file", str(error)) from None
    address = EngineAddress.parse(cluster.cluster, password)
    make_name = partial(make_id, os.urandom)
    return RedisDirectory(options.limits, cluster.cluster_lease, make_name, address, cluster.cluster_prefix)


def check_directory(directory: Directory) -> None:
    """Raise `BadOption` if the engine of a cluster cannot be used."""
    try:
        trio.run(directory.check)
    except Ending as error:
        raise BadOption("--cluster", error.reason) from None


async def run_server(
    options: ServeOptions, credentials: Credentials, log: Log, stop: ShutdownRequest, directory: Directory | None = None
) -> None:
    """Run a relay until `stop` is requested; raises an `Ending` if a port cannot be opened."""
    descriptors = raise_file_limit()
    listeners = await open_listeners(options.host, options.port, reuse_port=options.reuse_port)
    metrics_listeners: list[Listener] = []
    if options.metrics_port is not None:
        metrics_listeners = await open_listeners(options.metrics_host or options.host, options.metrics_port)
    issuer = _ice_server_issuer(options, credentials)
    relay = _make_relay(options, directory, log, issuer)
    resumed_at, has_page = relay.handler.resumed_at, options.page
    async with (
        open_authenticator(
            options.auth, credentials, time.time, log.emit, resumed_at, has_page=has_page
        ) as authenticator,
        trio.open_nursery() as clients,  # it closes last: tasks of the other one start tasks in it
        trio.open_nursery() as background,
    ):
        server = _Server(options, credentials, log, relay, background, clients)
        await background.start(credentials.reload_on_sighup, log.emit)
        server.start_engine()
        await background.start(relay.run)
        server.serve(authenticator, listeners, metrics_listeners)
        server.warn(listeners[0].host, descriptors)
        _tune_gc()
        background.start_soon(_preload_metrics)
        background.start_soon(trim_heap_periodically)
        background.start_soon(_renew_ice_servers, relay, issuer)
        manager = ServiceManager(os.environ, log.emit)
        manager.notify("READY=1", f"STATUS=Listening on {', '.join(each.address for each in listeners)}")
        background.start_soon(manager.run_watchdog)
        await stop.wait()
        manager.notify("STOPPING=1", "STATUS=Closing connections")
        await server.end(stop.cause)
        background.cancel_scope.cancel()
        clients.cancel_scope.cancel()


def _make_relay(options: ServeOptions, directory: Directory | None, log: Log, issuer: IceServerIssuer) -> Relay:
    if directory is None:
        return Relay(options.limits, log, log_sdp=options.log_sdp, ice=issuer)
    from sdpx.relay.cluster_relay import ClusterRelay  # noqa: PLC0415  not needed without a cluster

    return ClusterRelay(directory, options.limits, log, log_sdp=options.log_sdp, ice=issuer)


def _ice_server_issuer(options: ServeOptions, credentials: Credentials) -> IceServerIssuer:
    fixed, auth = [parse_server(url).dictionary() for url in options.ice_server], options.auth
    turn_urls = [parse_server(url).url for url in auth.turn_url]
    return IceServerIssuer(time.time, fixed, turn_urls, auth.turn_ttl, lambda: credentials.turn_secret)


async def _renew_ice_servers(relay: Relay, issuer: IceServerIssuer) -> None:
    interval = issuer.check_interval
    while interval is not None:
        await trio.sleep(interval)
        issuer.renew(relay.send_ice_servers)


@dataclass
class _Server:
    """The ports of a relay. Tasks in `_clients` serve connections, all others run in `_background`."""

    _options: ServeOptions
    _credentials: Credentials
    _log: Log
    _relay: Relay
    _background: trio.Nursery
    _clients: trio.Nursery
    _engine: EpollEngine | None = None
    _acceptor: Acceptor = field(init=False)

    def start_engine(self) -> None:
        """Start the epoll engine, if it is asked for, or log that this system has no epoll."""
        if self._options.engine == "trio-websocket":
            return
        if not HAS_EPOLL:
            self._log.emit(serve.EpollUnavailable())
            return
        if not mask.IS_FAST:
            self._log.emit(serve.SlowMasking())
        self._engine = EpollEngine(self._clients, self._log.begin_batch, self._log.end_batch)
        self._relay.batch = self._engine.batch
        self._background.start_soon(self._engine.run)

    def serve(
        self, authenticator: Authenticator | None, listeners: Sequence[Listener], metrics_listeners: Sequence[Listener]
    ) -> None:
        """Accept connections on all ports."""
        options, relay, is_tls = self._options, self._relay, self._credentials.tls is not None
        site = monitor = None
        if options.page:
            site, monitor = site_pages(Origins(options.auth.allow_origin)), Monitor(relay, authenticator)
            self._background.start_soon(monitor.run)
        has_metrics_port = bool(metrics_listeners)
        admission = Admission(relay, authenticator, metrics_port=has_metrics_port, site=site, monitor=monitor)
        acceptor = self._acceptor = Acceptor(options.limits, relay, engine=self._engine, admission=admission)
        accept = acceptor.accept if self._engine is not None else self._in_tasks(acceptor.serve)
        for listener in listeners:
            self._accept_from(listener, self._with_tls(accept) if is_tls else accept)
            url = f"{'wss' if is_tls else 'ws'}://{listener.address}"
            self._log.emit(serve.ServerListening(url, listener.host, listener.port, tls=is_tls, pid=os.getpid()))
        for listener in metrics_listeners:
            self._accept_from(listener, self._in_tasks(acceptor.serve_metrics))
            self._log.emit(serve.MetricsListening(f"http://{listener.address}/metrics", listener.host, listener.port))
        if options.page and sys.stderr.isatty():
            sys.stderr.write(f"Page: http{url.removeprefix('ws')}/\n")

    def _accept_from(self, listener: Listener, accept: Accept) -> None:
        self._background.start_soon(serve_listener, listener, accept, self._relay.log_event)

    def _in_tasks(self, serve_stream: Callable[[SocketStream], Awaitable[None]]) -> Accept:
        """Return a function that starts a task for each connection."""

        def accept(streams: Iterable[SocketStream]) -> None:
            for stream in streams:
                self._clients.start_soon(serve_stream, stream)

        return accept

    def _with_tls(self, accept: Accept) -> Accept:
        """Return a function that passes on connections as TLS connections with the certificate that is in force then."""

        def accept_tls(streams: Iterable[SocketStream]) -> None:
            context = self._credentials.tls
            assert context is not None
            accept(TlsStream(stream, context) for stream in streams)

        return accept_tls

    def warn(self, host: str, descriptors: int) -> None:
        """Log which options are not fulfilled, or not secure for a relay that listens on the address `host`."""
        options, credentials = self._options, self._credentials
        if descriptors < options.limits.max_clients:
            self._log.emit(serve.FdLimitLow(descriptors, options.limits.max_clients))
        for event in credentials.ignored_keys:
            self._log.emit(event)
        if credentials.has_weak_secret:
            self._log.emit(serve.WeakSecret(str(options.auth.auth_secret_file)))
        is_open = not (options.auth.requires_authentication or options.auth.allow_origin)
        if is_open and not ip_address(host).is_loopback:
            self._log.emit(serve.AuthenticationDisabled(host))

    async def end(self, cause: str) -> None:
        """Close all connections, and wait for their end within a deadline."""
        began, limits = trio.current_time(), self._options.limits
        self._log.emit(serve.ServerStopping(cause, self._relay.clients))
        self._acceptor.stop()
        await self._relay.drain()
        with trio.move_on_after(limits.drain_timeout + 2 * limits.close_timeout):
            await self._relay.wait_closed()
        self._log.emit(serve.ServerStopped(round((trio.current_time() - began) * 1000, 3)))


def _tune_gc() -> None:
    """Freeze start-up objects, and collect young objects less often, but full collections about as often as by default.

    Neither frames nor connections make reference cycles (tests/relay/test_memory.py); this is for those of libraries.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 3)


async def _preload_metrics() -> None:
    """Import the metrics page now that the ports are open; after a failure the first scrape tries again."""
    with suppress(OSError, ImportError, RuntimeError):  # no free descriptor or thread
        await trio.to_thread.run_sync(import_module, "sdpx.relay.http.metrics")
