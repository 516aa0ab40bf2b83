"""Runs `sdpx peer`."""

import gc
import os
import random
import select
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Final

import trio

from sdpx.client_tls import relay_context
from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.command_runner import CommandRunner
from sdpx.peer.commands import MAX_COMMAND
from sdpx.peer.input import MAX_LINE, Lines
from sdpx.peer.options import PeerOptions
from sdpx.peer.session import Session
from sdpx.peer.signaling.client import SignalingClient
from sdpx.peer.transfer.service import FileService
from sdpx.peer.transfer.transport import ChannelUser
from sdpx.peer.webrtc.runtime import open_webrtc_runtime
from sdpx.peer.webrtc.without_media import media_placeholders
from sdpx.runtime import STDIN, ShutdownRequest, end_loading, in_foreground

FOREGROUND_POLL_SECONDS: Final = 0.5


async def run_peer(options: PeerOptions, log: Log, stop: ShutdownRequest) -> None:
    """Run a peer until its session ends or `stop` is requested; raises the `Ending` that ended it."""
    is_json = options.stdin == "json"
    is_terminal = not is_json and os.isatty(STDIN)
    lines = Lines(read_stdin, log, MAX_COMMAND if is_json else MAX_LINE, at_once=is_terminal)
    files = FileService(options.files, log) if is_json else None

    def at_end(session: Session) -> None:
        if stop.requested:  # also after a second signal, which cancels this function
            session.check(stop.cause)

    async with open_session(options, log, files, lines=lines, at_end=at_end) as (session, nursery):
        commands = CommandRunner(lines, session.queue, session, files)
        if files is not None:
            nursery.start_soon(files.run)
        if is_terminal:
            nursery.start_soon(_leave_at_end, lines, session)
        with trio.CancelScope() as scope:  # the tasks of signaling and runtime are needed to close in order
            nursery.start_soon(stop.cancel, scope)
            await session.run(commands.run if is_json else None)


@asynccontextmanager
async def open_session(
    options: PeerOptions,
    log: Log,
    transfer: ChannelUser | None = None,
    *,
    lines: Lines | None = None,
    id_wait: float = 0.0,
    at_end: Callable[[Session], object] = id,
) -> AsyncIterator[tuple[Session, trio.Nursery]]:
    """Open a session that the block runs, and a nursery for tasks beside it, which are cancelled at its end.

    The relay connection is closed in order then; at last `at_end` is called, also if the block is cancelled.
    Without `lines` the session has no input.
    """
    async with open_webrtc_runtime(load_webrtc, log) as runtime, trio.open_nursery() as nursery:
        if options.access.insecure:
            log.emit(peer.TlsVerificationDisabled())
        tls = relay_context(options.url, options.access)
        signaling = SignalingClient(options, tls, log, random.random, id_wait)
        lines = lines or Lines(lambda _: b"", log)
        session = Session(options, signaling, runtime, lines, log, random.random, transfer)
        nursery.start_soon(signaling.run)
        try:
            yield session, nursery
        finally:
            try:
                await signaling.close()
            finally:
                nursery.cancel_scope.cancel()
                at_end(session)


async def _leave_at_end(lines: Lines, session: Session) -> None:
    """End the program when a person types Ctrl-D."""
    await lines.ended.wait()
    await session.flush()
    await session.quit("Ctrl-D")


def load_webrtc() -> ModuleType:
    """Import aiortc and the module that is built on it; for a thread."""
    gc.disable()
    with media_placeholders():
        from sdpx.peer.webrtc import peer_connection  # noqa: PLC0415  imported in a thread
    end_loading()
    return peer_connection


def read_stdin(size: int) -> bytes:
    """Wait for bytes of standard input, also if another program made it non-blocking, or the job is in the background."""
    while True:
        try:
            return os.read(STDIN, size)
        except BlockingIOError:
            select.select([STDIN], [], [])
        except OSError:
            if in_foreground(STDIN):
                raise
            time.sleep(FOREGROUND_POLL_SECONDS)
