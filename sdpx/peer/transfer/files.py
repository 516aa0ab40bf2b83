"""Runs `sdpx send` and `sdpx receive`."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Final

import trio

from sdpx.errors import Ending, ExitStatus, describe_os_error
from sdpx.log import Log
from sdpx.peer.app import read_stdin
from sdpx.peer.transfer.app import run_transfer
from sdpx.peer.transfer.link import Link, new_name
from sdpx.peer.transfer.meter import Meter
from sdpx.peer.transfer.options import ReceiveOptions, SendOptions
from sdpx.peer.transfer.progress import Reporter
from sdpx.peer.transfer.receive import Receiver
from sdpx.peer.transfer.records import Offer
from sdpx.peer.transfer.send import Sender
from sdpx.peer.transfer.source import Manifest
from sdpx.peer.transfer.transport import Transport
from sdpx.runtime import ShutdownRequest
from sdpx.terminal import escape

MAX_SHOWN: Final = 80  # characters of a name


def _new_transport(role: str, flows: int, *accepts: str) -> Transport:
    return Transport("files", Link(role, new_name, restarts=True), flows=flows, accepts=accepts)


async def run_send(options: SendOptions, manifest: Manifest, log: Log, stop: ShutdownRequest) -> None:
    """Send the files of the manifest. Raises the `Ending` if not all of it has arrived."""
    transport, meter = _new_transport("send", options.flows, "files"), Meter()
    reporter = Reporter(meter, transport, log)
    sender = Sender(transport.link, manifest, meter, log)
    body = partial(reporter.report_on, sender.run)
    await run_transfer(options, transport, options.to, "sdpx receive --from", body, log, stop)


async def run_receive(options: ReceiveOptions, log: Log, stop: ShutdownRequest) -> None:
    """Receive into the directory. Raises the `Ending` if not all of it is right."""
    try:
        await trio.to_thread.run_sync(_require_writable, options.directory)
    except OSError as error:
        reason = f"Cannot receive into '{options.directory}': {describe_os_error(error)}"
        raise Ending("storage_failed", reason, ExitStatus.TRANSFER_FAILED) from None
    transport, meter = _new_transport("receive", options.flows, "files", "files-out"), Meter()
    reporter = Reporter(meter, transport, log)

    async def is_wanted(offer: Offer) -> bool:
        if options.yes:
            return True
        reporter.paused = True
        wanted = await _ask(offer, transport.peer_id, options.directory)
        reporter.paused = False
        return wanted

    receiver = Receiver(transport.link, options.directory, meter, log, is_wanted, force=options.force)
    body = partial(reporter.report_on, receiver.run)
    await run_transfer(options, transport, options.sender, "sdpx send FILE --to", body, log, stop)


def _require_writable(directory: str) -> None:
    """Raise OSError if nothing can be written into the directory, which is created if missing."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, os.strerror(13))


def question(offer: Offer, peer_id: str, directory: str) -> str:
    """Return the question whether an offer is wanted: one line, which nothing in the offer can hide or imitate for long."""
    names = ", ".join(each[:MAX_SHOWN] for each in offer.names[:3]) + (", ..." if len(offer.names) > 3 else "")  # noqa: PLR2004
    totals = f"{offer.files} files" + (f", {offer.directories} directories" if offer.directories else "")
    text = f"{peer_id} offers {names} ({totals}, {offer.size / 1e6:.1f} MB). Receive into '{directory}'? [y/N] "
    return escape(text)


async def _ask(offer: Offer, peer_id: str, directory: str) -> bool:
    """Ask at the terminal whether the offer is wanted."""
    print(question(offer, peer_id, directory), end="", file=sys.stderr, flush=True)  # noqa: T201
    answer = await trio.to_thread.run_sync(read_stdin, 1024, abandon_on_cancel=True)
    return answer.strip().lower() in (b"y", b"yes")
