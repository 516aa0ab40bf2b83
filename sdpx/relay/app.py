"""`sdpx serve`: open the ports, serve until a stop is asked for, and end in order."""

import gc
import os
import select
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import trio

from sdpx.events import serve
from sdpx.ice_servers import parse_server
from sdpx.log import Log
from sdpx.relay.acceptor import Acceptor
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.core.limits import Limits
from sdpx.relay.listeners import Listener, accept, open_listeners, place_of, raise_file_limit
from sdpx.relay.memory import trim_heap_periodically
from sdpx.relay.options import ServeOptions
from sdpx.relay.relay import Relay
from sdpx.relay.security import Security, open_security
from sdpx.relay.websocket.epoll_engine import EpollPoller, Poller, TaskPoller
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.runtime import ShutdownRequest


def load_credentials(options: ServeOptions) -> Credentials:
    """Read the files that the options name; raises `BadOption`."""
    vault = Credentials(options.auth, time.time)
    vault.open()
    return vault


async def run_server(options: ServeOptions, vault: Credentials, log: Log, stop: ShutdownRequest) -> None:
    """Run a relay until `stop` is requested; raises `CannotListen` if a port cannot be opened."""
    descriptors = raise_file_limit()
    listeners = await open_listeners(options.host, options.port)
    scraped: list[Listener] = []
    if options.metrics_port is not None:
        scraped = await open_listeners(options.metrics_host or options.host, options.metrics_port)
    async with (
        open_security(options.auth, vault, time.time, log.emit, _fixed(options)) as guard,
        trio.open_nursery() as accepting,
        trio.open_nursery() as clients,
    ):
        await accepting.start(guard.reload_on_sighup)
        watch = _watch(accepting, log) if options.engine == "epoll" else None
        relay = Relay(
            options.limits,
            log,
            log_sdp=options.log_sdp,
            ice=guard.ice,
        )
        acceptor = Acceptor(options.limits, relay, poller=watch, authenticator=guard.gate, metrics_port=bool(scraped))
        take = acceptor.accept if watch is not None else _in_tasks(clients, acceptor.serve)
        if vault.tls:
            take = _in_tasks(clients, partial(_serve_tls, acceptor, guard))
        for listener in listeners:
            accepting.start_soon(accept, listener, take, relay.tell)
            log.emit(_listening(listener, tls=vault.tls is not None))
        for listener in scraped:
            accepting.start_soon(accept, listener, _in_tasks(clients, acceptor.serve_metrics), relay.tell)
            log.emit(_metrics_listening(listener))
        if descriptors < options.limits.max_clients:
            log.emit(serve.FdLimitLow(descriptors, options.limits.max_clients))
        guard.warn(place_of(listeners[0])[1])
        _tune_gc()
        accepting.start_soon(_load_metrics)
        accepting.start_soon(trim_heap_periodically)
        accepting.start_soon(_renew_ice_servers, relay, guard)
        accepting.start_soon(relay.run)
        await stop.wait()
        await _end(acceptor, relay, options.limits, log, stop)
        accepting.cancel_scope.cancel()
        clients.cancel_scope.cancel()


def _fixed(options: ServeOptions) -> tuple[dict[str, Any], ...]:
    """Return the ICE servers that everybody is told of, as RTCIceServer dictionaries."""
    return tuple(parse_server(url).dictionary() for url in options.ice_server)


async def _serve_tls(acceptor: Acceptor, guard: Security, link: trio.abc.Stream) -> None:
    await acceptor.serve(guard.secured(link))


async def _renew_ice_servers(relay: Relay, guard: Security) -> None:
    seconds = guard.ice.seconds_between_looks
    while seconds is not None:
        await trio.sleep(seconds)
        relay.renew_ice_servers()


def _tune_gc() -> None:
    """Let the garbage collector look at less, and less often.

    What was loaded stays; and relaying makes no cycles, while each connection is thousands of objects to be looked through.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _in_tasks(
    nursery: trio.Nursery, handle: Callable[[SocketStream], Awaitable[None]]
) -> Callable[[Iterable[SocketStream]], None]:
    """Return what gives each connection a task."""

    def take(links: Iterable[SocketStream]) -> None:
        for link in links:
            nursery.start_soon(handle, link)

    return take


def _watch(nursery: trio.Nursery, log: Log) -> Poller:
    """Return who tells the fast lane of its sockets, running."""
    watch = EpollPoller(nursery, log) if hasattr(select, "epoll") else TaskPoller(nursery, log)
    nursery.start_soon(watch.run)
    return watch


async def _end(acceptor: Acceptor, relay: Relay, limits: Limits, log: Log, stop: ShutdownRequest) -> None:
    """Say goodbye to everybody, and wait, up to a bound, until they have heard it."""
    began = trio.current_time()
    log.emit(serve.ServerStopping(stop.cause, relay.clients))
    acceptor.stop()
    with trio.move_on_after(limits.drain_timeout + 2 * limits.close_timeout):
        await relay.wait_closed()
    log.emit(serve.ServerStopped(round((trio.current_time() - began) * 1000, 3)))


async def _load_metrics() -> None:
    """Import what the first scrape will need, now that the ports are open; if it cannot be done now, the scrape tries again."""
    with suppress(OSError, ImportError, RuntimeError):  # no descriptors already, no thread to be had
        await trio.to_thread.run_sync(import_module, "sdpx.relay.http.metrics")


def _listening(listener: Listener, *, tls: bool) -> serve.ServerListening:
    place, host, port = place_of(listener)
    return serve.ServerListening(f"{'wss' if tls else 'ws'}://{place}", host, port, tls=tls, pid=os.getpid())


def _metrics_listening(listener: Listener) -> serve.MetricsListening:
    place, host, port = place_of(listener)
    return serve.MetricsListening(f"http://{place}/metrics", host, port)
