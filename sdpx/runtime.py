"""Runtime of every sdpx program: the log on stdout, signals, the watcher of stdout's reader, the exit status.

- The first SIGINT or SIGTERM requests a shutdown; a second signal cancels the program.
- If the log cannot be written, because the disk is full or stdout's reader has closed the pipe, the program shuts down with
  status 1, or serves on and reports it on stderr (`--on-log-failure`).
- An `Ending` that the program raises becomes one `error` event, one sentence on stderr, and the exit status.
"""

import errno
import gc
import math
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import trio

from sdpx.concurrency import leaf_exceptions
from sdpx.errors import Ending, ExitStatus, describe_os_error
from sdpx.events import Error, LogDropped
from sdpx.log import Log, Put, capture_libraries
from sdpx.log_sink import ThreadSink
from sdpx.options import LogOptions, OnLogFailure
from sdpx.terminal import View, escape, wrapped

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
READER_POLL_SECONDS: Final = 0.5
REPORT_SECONDS: Final = 60.0


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


def end_loading() -> None:
    """Turn the garbage collector on again. It is off while modules are loaded, of which it would take a fifth of the time.

    It never examines what is loaded by now.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


Main = Callable[[Log, ShutdownRequest], Awaitable[ExitStatus | None]]  # None: 0
T = TypeVar("T")


def run(
    main: Main,
    options: LogOptions,
    *,
    elapsed: bool = False,
    reloads: bool = False,
    on_log_failure: OnLogFailure = "exit",
    view: Callable[..., View] | None = None,
    views_files: bool = False,
    descriptor: int = STDOUT,
) -> ExitStatus:
    """Run a program under Trio and return its exit status. `elapsed` adds `ms`, the time since the start, to the log.

    `view` makes the view that a person at a terminal sees in place of log lines; with `views_files` a file or pipe has it, too.
    The log goes to `descriptor`.

    SIGHUP, sent when the terminal closes, requests a shutdown, except under nohup and if the program `reloads` on it.
    """
    for number in range(3):  # a socket that got the number of a closed one would get its data
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # returns the lowest free number
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # a job in the background reads nothing, and is not stopped
    hangup_ends = not reloads and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    signals = (*SIGNALS, signal.SIGHUP) if hangup_ends else SIGNALS
    make_log = partial(_make_log, options, elapsed, view, views_files, descriptor)
    end_loading()
    return trio.run(_run, main, signals, make_log, on_log_failure, descriptor)


class LogFailures:
    """The consequence of a log that cannot be written: a shutdown, or a sentence on stderr, at once and then once a minute.

    `on_failure` is called in the thread of the log; `clock` returns seconds.
    """

    def __init__(self, action: OnLogFailure, shut_down: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._action = action
        self._shut_down = shut_down
        self._clock = clock
        self._next_report = -math.inf
        self._reason = ""
        self._is_reported = False
        self.lost = 0

    def on_failure(self, error: OSError, lines: int) -> None:
        """Note the loss of some lines."""
        self.lost += lines
        self._reason = self._reason or f"Cannot write the log to stdout: {describe_os_error(error)}"
        if self._action == "exit":
            self._shut_down("stdout closed" if isinstance(error, BrokenPipeError) else "failed writes to stdout")
        elif self._clock() >= self._next_report:
            self._next_report = self._clock() + REPORT_SECONDS
            self._is_reported |= print_error(f"{self._reason}; lines lost: {self.lost}. The relay keeps serving")

    def status(self, *, all_written: bool, messages: int = 0) -> ExitStatus:
        """Return the exit status of a program that succeeded but for its log, and print on stderr why it is not 0.

        `messages` is the number of received messages that were not written.
        """
        reason = self._reason if all_written else "The end of the log was not written: stdout is not read"
        reason += f"; messages not written: {messages}" if reason and messages else ""
        if not reason or self._is_reported:
            return ExitStatus.OK
        print_error(reason + (f"; lines lost: {self.lost}" if self.lost else ""))
        return ExitStatus.INTERNAL


async def _run(
    main: Main,
    signals: Sequence[signal.Signals],
    make_log: Callable[[Put], Log],
    on_log_failure: OnLogFailure,
    descriptor: int,
) -> ExitStatus:
    token = trio.lowlevel.current_trio_token()

    def in_loop(function: Callable[[T], object], argument: T) -> None:  # for the thread of the log
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(function, argument)

    def on_failure(error: OSError, lines: int) -> None:
        failures.on_failure(error, lines)
        in_loop(log.count_dropped, lines)

    stop = ShutdownRequest()
    failures = LogFailures(on_log_failure, partial(in_loop, stop.request), time.monotonic)
    sink = ThreadSink(
        descriptor,
        on_failure,
        on_recovery=lambda lines: log.emit_from_thread(LogDropped(lines)),
        on_written=lambda messages: in_loop(log.note_written, messages),
    )
    log = make_log(sink.put)
    capture_libraries(log)
    try:
        status, reason = await _supervise(main, log, stop, signals, failures, descriptor)
    finally:
        log.end()
        all_written = sink.close()
    if reason:
        print_error(reason)  # behind the log, which may be on the same terminal
    return status or failures.status(all_written=all_written, messages=log.undelivered)


def _make_log(
    options: LogOptions,
    elapsed: bool,
    view: Callable[..., View] | None,
    views_files: bool,
    descriptor: int,
    put: Put,
) -> Log:
    """Return the log on `descriptor` in the form that suits it (https://no-color.org)."""
    has_terminal = os.isatty(descriptor)
    form = options.log_format if options.log_format != "auto" else "text" if has_terminal else "json"
    can_move_cursor = os.environ.get("TERM", "dumb") != "dumb"
    colour = has_terminal and can_move_cursor and not os.environ.get("NO_COLOR")
    shown = None
    if view is not None and (has_terminal or views_files) and form == "text" and options.log_level != "debug":
        # a person can type and sees it: stdin is a terminal, in the foreground, that can clear a line
        interactive = os.isatty(STDIN) and in_foreground(STDIN) and can_move_cursor
        shown = view(interactive=interactive, colour=colour, width=shutil.get_terminal_size().columns)
        if interactive and has_terminal:
            _follow_width(shown, descriptor)
    started = time.time() if elapsed else None
    return Log(put, time.time, level=options.log_level, form=form, colour=colour, started=started, view=shown)


def _follow_width(view: View, terminal: int) -> None:
    """Let a view have the width of its terminal whenever that is resized, whatever COLUMNS says."""

    def on_resize(*_: object) -> None:
        view.width = os.get_terminal_size(terminal).columns or view.width

    signal.signal(signal.SIGWINCH, on_resize)


def in_foreground(terminal: int) -> bool:
    """Return whether this process may read from its terminal; a job in the background of a shell may not."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it is not the controlling terminal, which alone has a foreground
        return True


async def _supervise(
    main: Main,
    log: Log,
    stop: ShutdownRequest,
    signals: Sequence[signal.Signals],
    log_failures: LogFailures,
    descriptor: int,
) -> tuple[ExitStatus, str]:
    """Run the program; returns its exit status and the sentence for stderr."""
    failures: list[BaseException] = []
    status: ExitStatus | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_handle_signals, signals, stop, nursery.cancel_scope)  # before the first log line
            nursery.start_soon(_watch_reader, log_failures, descriptor)
            status = await main(log, stop)
            nursery.cancel_scope.cancel()
    except* Exception as group:  # noqa: BLE001  reported, with a traceback if it is no Ending
        failures += leaf_exceptions(group)
    return _report(failures, log, descriptor) if failures else (status or ExitStatus.OK, "")


def _report(failures: list[BaseException], log: Log, descriptor: int) -> tuple[ExitStatus, str]:
    """Log the failures that ended the program; one that is no `Ending` is a bug, with its traceback on stderr."""
    unexpected = [failure for failure in failures if not isinstance(failure, Ending)]
    for failure in unexpected:
        traceback.print_exception(failure)
    first = (unexpected or failures)[0]
    ending = first if isinstance(first, Ending) else Ending("internal", f"Internal error: {first!r}")
    if log.is_json or not (os.isatty(descriptor) and os.isatty(STDERR)):  # there the sentence is enough
        log.emit(Error(ending.code, ending.reason))
    return ending.status, "" if descriptor == STDERR and log.is_json else ending.reason


def print_error(reason: str) -> bool:
    """Print a sentence on stderr, with control characters escaped; returns whether it was written."""
    text = f"sdpx: {escape(reason)}"
    if os.isatty(STDERR):
        text = wrapped(text, shutil.get_terminal_size().columns)
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        return False
    return True


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


def reader_is_gone(fd: int) -> bool:
    """Return whether the reader of the pipe or socket `fd` has closed its end; an idle writer gets no error."""
    poller = select.poll()
    poller.register(fd, 0)
    return any(flags & (select.POLLERR | select.POLLNVAL) for _, flags in poller.poll(0))


async def _watch_reader(log_failures: LogFailures, descriptor: int) -> None:
    """Detect that the log's reader has closed the pipe while nothing is being written."""
    while not reader_is_gone(descriptor):  # noqa: ASYNC110  Trio cannot wait for errors alone
        await trio.sleep(READER_POLL_SECONDS)
    log_failures.on_failure(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), 0)
