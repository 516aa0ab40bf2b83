"""What every sdpx program does around its work: the log on stdout, signals, a lost reader, one way to end.

- The first SIGINT or SIGTERM, or the loss of stdout's reader, requests an orderly end; a second signal ends at once.
- Whatever else ends the program is an `Ending`: one `error` event, one sentence on stderr, its exit status.
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

from sdpx.errors import Ending, ExitStatus
from sdpx.events import Error
from sdpx.log import Log, ThreadSink, capture_libraries, reader_is_gone
from sdpx.options import LogOptions

STDOUT: Final = 1
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
READER_POLL_SECONDS: Final = 0.5


class ShutdownRequest:
    """A request to end in order."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self.cause = ""

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def request(self, cause: str) -> None:
        """Ask; only the first `cause` is kept."""
        self.cause = self.cause or cause
        self._event.set()

    async def wait(self) -> None:
        """Wait until somebody asks."""
        await self._event.wait()


Main = Callable[[Log, ShutdownRequest], Awaitable[None]]


def run(main: Main, options: LogOptions, *, elapsed: bool = False, reloads: bool = False) -> ExitStatus:
    """Run a program under Trio, to its end, and return its exit status.

    SIGHUP ends it as SIGTERM does: its terminal is gone. Not if the program `reloads` on that signal, nor under nohup.
    """
    _fill_standard_descriptors()
    hangup_ends = not reloads and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return trio.run(_run, main, options, (*SIGNALS, signal.SIGHUP) if hangup_ends else SIGNALS, elapsed)


def _fill_standard_descriptors() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed, or a socket would get its number, and its bytes."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one


async def _run(main: Main, options: LogOptions, signals: Sequence[signal.Signals], elapsed: bool) -> ExitStatus:
    stop = ShutdownRequest()
    token = trio.lowlevel.current_trio_token()

    def on_broken() -> None:  # called in the log's thread
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
            await nursery.start(
                _handle_signals, signals, stop, nursery.cancel_scope
            )  # before there is a line to react to
            nursery.start_soon(_watch_reader, stop)
            await main(log, stop)
            nursery.cancel_scope.cancel()
    except* Exception as group:  # noqa: BLE001  the last resort: reported, with a traceback if unforeseen
        failures += _leaves(group)
    return _report(failures, log)


def _report(failures: list[BaseException], log: Log) -> ExitStatus:
    """Say what ended the program: what it could foresee, or else a fault of its own, with the traceback on stderr."""
    if not failures:
        return ExitStatus.OK
    unforeseen = [failure for failure in failures if not isinstance(failure, Ending)]
    for failure in unforeseen:
        traceback.print_exception(failure)
    first = (unforeseen or failures)[0]
    ending = first if isinstance(first, Ending) else Ending("internal", f"A fault in sdpx: {first!r}")
    log.emit(Error(ending.code, ending.reason))
    with suppress(OSError):
        print(f"sdpx: {ending.reason}", file=sys.stderr, flush=True)  # noqa: T201
    return ending.status


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions that a group holds at any depth."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


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
        for number in signals:  # the program is over: a late signal must not change its exit status
            signal.signal(number, signal.SIG_IGN)


async def _watch_reader(stop: ShutdownRequest) -> None:
    """Notice that stdout's reader has gone although nothing is being written."""
    while not reader_is_gone(STDOUT):  # noqa: ASYNC110  an error without readability cannot be waited for
        await trio.sleep(READER_POLL_SECONDS)
    stop.request("stdout closed")
