"""`sdpx peer` from its first line to its last."""

import os
import select
from collections.abc import Callable
from typing import Final

import trio

from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer import rtc
from sdpx.peer.lines import Lines
from sdpx.peer.options import PeerOptions
from sdpx.peer.session import Session
from sdpx.peer.signaling import Signaling, dial
from sdpx.peer.tls import client_context
from sdpx.program import Stop

STDIN: Final = 0


async def run_peer(options: PeerOptions, log: Log, stop: Stop) -> None:
    """Run a peer until its story ends or `stop` is requested; raises the `Ending` that ended it."""
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope
        nursery.start_soon(_cancel_on, stop, lambda: scope)
        async with rtc.asyncio_loop():
            log.emit(peer.Connecting(options.shown_url))
            if options.insecure:
                log.emit(peer.CertificateUnchecked())
            tls = client_context(options.cafile, insecure=options.insecure)
            async with dial(options.dial_url, options.shown_url, tls) as relay:
                with trio.CancelScope() as scope:  # not the tasks around it: they are needed to close in order
                    await _tell(options, relay, log)
        nursery.cancel_scope.cancel()


async def _tell(options: PeerOptions, relay: Signaling, log: Log) -> None:
    log.emit(peer.Connected(options.shown_url))
    log.emit(peer.IdAssigned(relay.client_id))
    lines = Lines(
        _read_stdin,
        lambda code, reason: log.emit(peer.InputRefused(code, reason)),
    )
    await Session(options, relay, lines, log).run()


def _read_stdin(size: int) -> bytes:
    """Wait for bytes of standard input, also where somebody made it non-blocking."""
    while True:
        try:
            return os.read(STDIN, size)
        except BlockingIOError:
            select.select([STDIN], [], [])


async def _cancel_on(stop: Stop, scope: Callable[[], trio.CancelScope]) -> None:
    await stop.wait()
    scope().cancel()
