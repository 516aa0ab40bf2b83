"""`sdpx peer` from its first line to its last."""

import os
import random
import select
from typing import Final

import trio

from sdpx.client_tls import client_context
from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.input.commands import MAX_COMMAND
from sdpx.peer.input.lines import MAX_LINE, Lines
from sdpx.peer.options import PeerOptions
from sdpx.peer.pair_requester import PairRequester
from sdpx.peer.session import Session
from sdpx.peer.signaling.client import SignalingClient
from sdpx.peer.webrtc.runtime import WebRtcRuntime, open_webrtc_runtime
from sdpx.runtime import ShutdownRequest

STDIN: Final = 0


async def run_peer(options: PeerOptions, log: Log, stop: ShutdownRequest) -> None:
    """Run a peer until its story ends or `stop` is requested; raises the `Ending` that ended it."""
    async with open_webrtc_runtime() as room, trio.open_nursery() as nursery:
        if options.insecure:
            log.emit(peer.TlsVerificationDisabled())
        tls = client_context(options.cafile, insecure=options.insecure)
        uplink = SignalingClient(options, tls, log, random.random)
        session = _session(options, uplink, room, log)
        nursery.start_soon(uplink.run)
        try:
            with trio.CancelScope() as scope:  # not the tasks around it: they are needed to close in order
                nursery.start_soon(_cancel_on, stop, scope)
                await session.run()
            if stop.requested:
                session.check(stop.cause)
        finally:
            await uplink.close()
            nursery.cancel_scope.cancel()


def _session(options: PeerOptions, uplink: SignalingClient, room: WebRtcRuntime, log: Log) -> Session:
    lines = Lines(
        _read_stdin,
        lambda code, reason: log.emit(peer.InputRejected(code, reason)),
        MAX_COMMAND if options.stdin == "json" else MAX_LINE,
    )
    asking = PairRequester(uplink.send, lambda: uplink.connected_since, log, random.random)
    return Session(options, uplink, room, lines, log, asking, trio.current_time())


def _read_stdin(size: int) -> bytes:
    """Wait for bytes of standard input, also where somebody made it non-blocking."""
    while True:
        try:
            return os.read(STDIN, size)
        except BlockingIOError:
            select.select([STDIN], [], [])


async def _cancel_on(stop: ShutdownRequest, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
