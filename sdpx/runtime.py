"""Runtime of every sdpx program: the log on stdout, signals, the watcher of stdout's reader, the exit status.

- The first SIGINT or SIGTERM, or the loss of stdout's reader, requests a shutdown; a second signal cancels the program.
- An `Ending` that the program raises becomes one `error` event, one sentence on stderr, and the exit status.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from sdpx.concurrency import leaf_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.events import Error
from sdpx.log import Log, ThreadSink, capture_libraries, reader_is_gone
from sdpx.options import LogOptions

STDOUT: Final = 1
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
READER_POLL_SECONDS: Final = 0.5


class ShutdownRequest:
    """A request to shut down; its first `cause` is kept."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self.cause = ""

    @property
    def requested(self) -> bool:
        """Whether a shutdown was requested."""
        return self._event.is_set()

    def request(self, cause: str) -> None:
        """Request a shutdown."""
        self.cause = self.cause or cause
        self._event.set()

    async def wait(self) -> None:
        """Wait for a request."""
        await self._event.wait()

    async def cancel(self, scope: trio.CancelScope) -> None:
        """Wait for a request, then cancel this scope."""
        await self._event.wait()
        scope.cancel()


Main = Callable[[Log, ShutdownRequest], Awaitable[None]]


def run(main: Main, options: LogOptions, *, elapsed: bool = False, reloads: bool = False) -> ExitStatus:
    """Run a program under Trio and return its exit status. `elapsed` adds `ms`, the time since the start, to the log.

    SIGHUP, sent when the terminal closes, requests a shutdown, except under nohup and if the program `reloads` on it.
    """
    _fill_standard_descriptors()
    hangup_ends = not reloads and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return trio.run(_run, main, options, (*SIGNALS, signal.SIGHUP) if hangup_ends else SIGNALS, elapsed)


def _fill_standard_descriptors() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed, so that no socket gets that descriptor and its data."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # returns the lowest free number


async def _run(main: Main, options: LogOptions, signals: Sequence[signal.Signals], elapsed: bool) -> ExitStatus:
    stop = ShutdownRequest()
    token = trio.lowlevel.current_trio_token()

    def on_broken() -> None:  # called in the thread of the log
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(stop.request, "stdout closed")

    sink = ThreadSink(STDOUT, on_broken)
    log = Log(
        sink.put,
        time.time,
        level=options.log_level,
        form=options.log_format,
        colour=os.isatty(STDOUT),
        started=time.time() if elapsed else None,
    )
    capture_libraries(log)
    try:
        return await _supervise(main, log, stop, signals)
    finally:
        sink.close()


async def _supervise(main: Main, log: Log, stop: ShutdownRequest, signals: Sequence[signal.Signals]) -> ExitStatus:
    failures: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_handle_signals, signals, stop, nursery.cancel_scope)  # before the first log line
            nursery.start_soon(_watch_reader, stop)
            await main(log, stop)
            nursery.cancel_scope.cancel()
    except* Exception as group:  # noqa: BLE001  reported, with a traceback if it is no Ending
        failures += leaf_exceptions(group)
    return _report(failures, log)


def _report(failures: list[BaseException], log: Log) -> ExitStatus:
    """Report the failures that ended the program; one that is no `Ending` is a bug, with its traceback on stderr."""
    if not failures:
        return ExitStatus.OK
    unexpected = [failure for failure in failures if not isinstance(failure, Ending)]
    for failure in unexpected:
        traceback.print_exception(failure)
    first = (unexpected or failures)[0]
    ending = first if isinstance(first, Ending) else Ending("internal", f"Internal error: {first!r}")
    log.emit(Error(ending.code, ending.reason))
    with suppress(OSError):
        print(f"sdpx: {ending.reason}", file=sys.stderr, flush=True)  # noqa: T201
    return ending.status


async def _handle_signals(
    signals: Sequence[signal.Signals],
    stop: ShutdownRequest,
    scope: trio.CancelScope,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    try:
        with trio.open_signal_receiver(*signals) as received:
            task_status.started()
            async for number in received:
                if stop.cause.startswith("SIG"):
                    scope.cancel()
                stop.request(signal.Signals(number).name)
    finally:
        for number in signals:  # a late signal must not change the exit status
            signal.signal(number, signal.SIG_IGN)


async def _watch_reader(stop: ShutdownRequest) -> None:
    """Detect that stdout's reader is gone while nothing is being written."""
    while not reader_is_gone(STDOUT):  # noqa: ASYNC110  Trio cannot wait for errors alone
        await trio.sleep(READER_POLL_SECONDS)
    stop.request("stdout closed")
