"""`sdpx serve`: opens the ports, serves until a shutdown is requested, and stops within a deadline."""

import gc
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
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
from sdpx.relay.auth.authenticator import open_authenticator
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.auth.files import BadFile, read_secret
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.origins import Origins
from sdpx.relay.auth.turn import IceServerIssuer
from sdpx.relay.cluster.directory import Directory
from sdpx.relay.core.limits import Limits
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
    async with (
        open_authenticator(
            options.auth, credentials, time.time, log.emit, relay.handler.resumed_at, has_page=options.page
        ) as authenticator,
        trio.open_nursery() as accepting,
        trio.open_nursery() as clients,
    ):
        await accepting.start(credentials.reload_on_sighup, log.emit)
        engine = _start_epoll_engine(clients, accepting, log) if options.engine != "trio-websocket" else None
        if engine is not None:
            relay.batch = engine.batch
        await accepting.start(relay.run)
        monitor = Monitor(relay, authenticator) if options.page else None
        acceptor = Acceptor(
            options.limits,
            relay,
            engine=engine,
            authenticator=authenticator,
            metrics_port=bool(metrics_listeners),
            site=site_pages(Origins(options.auth.allow_origin)) if options.page else None,
            monitor=monitor,
        )
        accept = acceptor.accept if engine is not None else _in_tasks(clients, acceptor.serve)
        if credentials.tls:
            accept = partial(_accept_tls, accept, credentials)
        for listener in listeners:
            accepting.start_soon(serve_listener, listener, accept, relay.log_event)
            url = f"{'wss' if credentials.tls else 'ws'}://{listener.address}"
            log.emit(
                serve.ServerListening(url, listener.host, listener.port, tls=bool(credentials.tls), pid=os.getpid())
            )
        for listener in metrics_listeners:
            accepting.start_soon(serve_listener, listener, _in_tasks(clients, acceptor.serve_metrics), relay.log_event)
            log.emit(serve.MetricsListening(f"http://{listener.address}/metrics", listener.host, listener.port))
        if descriptors < options.limits.max_clients:
            log.emit(serve.FdLimitLow(descriptors, options.limits.max_clients))
        _warn_if_insecure(options.auth, credentials, listeners[0].host, log)
        _tune_gc()
        accepting.start_soon(_preload_metrics)
        accepting.start_soon(trim_heap_periodically)
        accepting.start_soon(_renew_ice_servers, relay, issuer)
        if monitor is not None:
            if sys.stderr.isatty():
                sys.stderr.write(f"Page: http{url.removeprefix('ws')}/\n")
            accepting.start_soon(monitor.run)
        manager = ServiceManager(os.environ, log.emit)
        manager.notify("READY=1", f"STATUS=Listening on {', '.join(each.address for each in listeners)}")
        accepting.start_soon(manager.run_watchdog)
        await stop.wait()
        manager.notify("STOPPING=1", "STATUS=Closing connections")
        await _end(acceptor, relay, options.limits, log, stop)
        accepting.cancel_scope.cancel()
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


def _warn_if_insecure(options: AuthOptions, credentials: Credentials, host: str, log: Log) -> None:
    """Log which valid options are not secure for a relay that listens on the address `host`."""
    for event in credentials.ignored_keys:
        log.emit(event)
    if credentials.has_weak_secret:
        log.emit(serve.WeakSecret(str(options.auth_secret_file)))
    if not (options.requires_authentication or options.allow_origin or ip_address(host).is_loopback):
        log.emit(serve.AuthenticationDisabled(host))


def _accept_tls(accept: Accept, credentials: Credentials, streams: Iterable[SocketStream]) -> None:
    """Pass on new connections as TLS connections with the certificate that is in force now."""
    assert credentials.tls is not None
    context = credentials.tls
    accept(TlsStream(stream, context) for stream in streams)


async def _renew_ice_servers(relay: Relay, issuer: IceServerIssuer) -> None:
    interval = issuer.check_interval
    while interval is not None:
        await trio.sleep(interval)
        issuer.renew(relay.send_ice_servers)


def _tune_gc() -> None:
    """Freeze start-up objects, and collect young objects less often, but full collections about as often as by default.

    Neither frames nor connections make reference cycles (tests/relay/test_memory.py); this is for those of libraries.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 5, 3)


def _in_tasks(nursery: trio.Nursery, serve_stream: Callable[[SocketStream], Awaitable[None]]) -> Accept:
    """Return a function that starts a task for each connection."""

    def accept(streams: Iterable[SocketStream]) -> None:
        for stream in streams:
            nursery.start_soon(serve_stream, stream)

    return accept


def _start_epoll_engine(clients: trio.Nursery, background: trio.Nursery, log: Log) -> EpollEngine | None:
    """Start the epoll engine, or log that this system has no epoll and return None."""
    if not HAS_EPOLL:
        log.emit(serve.EpollUnavailable())
        return None
    if not mask.IS_FAST:
        log.emit(serve.SlowMasking())
    engine = EpollEngine(clients, log.begin_batch, log.end_batch)
    background.start_soon(engine.run)
    return engine


async def _end(acceptor: Acceptor, relay: Relay, limits: Limits, log: Log, stop: ShutdownRequest) -> None:
    """Close all connections, and wait for their end within a deadline."""
    began = trio.current_time()
    log.emit(serve.ServerStopping(stop.cause, relay.clients))
    acceptor.stop()
    await relay.drain()
    with trio.move_on_after(limits.drain_timeout + 2 * limits.close_timeout):
        await relay.wait_closed()
    log.emit(serve.ServerStopped(round((trio.current_time() - began) * 1000, 3)))


async def _preload_metrics() -> None:
    """Import the metrics page now that the ports are open; after a failure the first scrape tries again."""
    with suppress(OSError, ImportError, RuntimeError):  # no free descriptor or thread
        await trio.to_thread.run_sync(import_module, "sdpx.relay.http.metrics")
