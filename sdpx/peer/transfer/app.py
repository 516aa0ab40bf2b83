"""Runs `sdpx pipe`, `sdpx send` and `sdpx receive`: a peer with a transfer on its data channel, in place of messages.

A transfer that has begun survives its connections: `Session` and `PairSession` make new ones, as for messages. This module
decides how long the program waits for the other side, and informs that side of the end.
"""

import shlex
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from msgspec import UNSET

from sdpx.concurrency import leaf_exceptions, map_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.events import transfer
from sdpx.log import Log
from sdpx.peer.app import open_session
from sdpx.peer.options import DEFAULT_URL
from sdpx.peer.session import Session
from sdpx.peer.transfer.options import TransferOptions
from sdpx.peer.transfer.transport import Transport
from sdpx.runtime import ShutdownRequest
from sdpx.urls import page_link

ABSENCE_SECONDS: Final = 90.0  # for the other side to come back, longer than it repeats its requests
CLOSE_SECONDS: Final = 10.0
SWITCH_SECONDS: Final = 0.0005  # between threads: each read and write of one waits so long for the one that runs
ID_SECONDS: Final = 45.0  # a relay keeps the ID of a killed program for some 30 s


async def run_transfer(
    options: TransferOptions,
    transport: Transport,
    target: str | None,
    reverse_command: str,
    body: Callable[[], Awaitable[None]],
    log: Log,
    stop: ShutdownRequest,
) -> None:
    """Connect to `target`, or wait, and run `body` to its end. Raises the `Ending` of a transfer that has failed.

    `reverse_command` is the command of the other side that connects to this one, without the ID.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    peer_options = options.peer_options(target, transport.mode)

    def announce(own_id: str) -> None:
        url = "" if options.url == DEFAULT_URL else f" --url {shlex.quote(peer_options.shown_url)}"
        link = page_link(peer_options.url, own_id) if transport.mode == "files" else UNSET
        log.emit(transfer.TransferWaiting(own_id, f"{reverse_command} {own_id}{url}", link))

    transport.announce = announce if target is None else None
    async with open_session(peer_options, log, transport, id_wait=ID_SECONDS) as (session, nursery):
        with trio.CancelScope() as scope:
            nursery.start_soon(_stop, stop, transport, scope)
            await _run(session, transport, body, log)
        if stop.requested and not transport.is_done:
            reason = f"Stopped by {stop.cause} before the transfer was complete"
            raise Ending("interrupted", reason, ExitStatus.TRANSFER_FAILED)


async def _stop(stop: ShutdownRequest, transport: Transport, scope: trio.CancelScope) -> None:
    await stop.wait()
    if not transport.is_done:
        await transport.link.abort("interrupted", f"it was stopped by {stop.cause}")
    scope.cancel()


async def _run(session: Session, transport: Transport, body: Callable[[], Awaitable[None]], log: Log) -> None:
    """Run the transfer on its session; the first failure ends both."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run_session, session, transport)
        nursery.start_soon(_watch_connection, transport, log)
        failure: Exception | None = None
        try:
            await body()
        except* Exception as group:  # noqa: BLE001  raised again below, after the other side has been informed
            first = next((each for each in leaf_exceptions(group) if isinstance(each, Ending)), None)
            ending = first or Ending("internal", "an internal error")
            await transport.link.abort(ending.code, ending.reason)
            failure = first or group
        if failure is not None:
            raise failure
        transport.is_done = True
        with trio.move_on_after(CLOSE_SECONDS):
            await session.quit("the end of the transfer")
        nursery.cancel_scope.cancel()


async def _run_session(session: Session, transport: Transport) -> None:
    """Run the session; a target that was there and is not found again did not come back."""

    def explain(group: BaseExceptionGroup[Ending]) -> Ending:
        ending = leaf_exceptions(group)[0]
        return _gone() if transport.is_unfinished and ending.status is ExitStatus.PAIRING_REFUSED else ending

    with map_exceptions(Ending, explain):
        await session.run()


async def _watch_connection(transport: Transport, log: Log) -> None:
    """Log the connections of the transfer, and fail when the other side stays away."""
    count = 0
    while True:
        await transport.wait(connected=True)
        peer_id = transport.peer_id
        kind = transfer.TransferResumed if count else transfer.TransferStarted
        log.emit(kind(peer_id, transport.path))
        count += 1
        await transport.wait(connected=False)
        if transport.is_done or transport.is_plain or transport.link.has_failed:
            return
        log.emit(transfer.TransferInterrupted(peer_id))
        with trio.move_on_after(ABSENCE_SECONDS):
            await transport.wait(connected=True)
            continue
        transport.link.fail(_gone())
        return


def _gone() -> Ending:
    return Ending("peer_gone", "The other side was lost and did not come back", ExitStatus.CHANNEL_LOST)
