"""Progress of a transfer: a bar on stderr at a terminal, else `transfer_progress` events."""

import os
from collections.abc import Awaitable, Callable
from typing import IO, TYPE_CHECKING, Final

import trio

from sdpx.events.transfer import TransferComplete, TransferProgress
from sdpx.log import Log
from sdpx.peer.transfer.meter import Meter
from sdpx.peer.transfer.transport import Transport
from sdpx.runtime import STDERR

if TYPE_CHECKING:
    from rich.progress import Progress

INTERVAL: Final = 0.25


class Reporter:
    """Reports the progress of a transfer, which it finds in `meter`."""

    def __init__(self, meter: Meter, transport: Transport, log: Log) -> None:
        self._meter = meter
        self._transport = transport
        self._log = log
        self._bar = Bar() if os.isatty(STDERR) else None
        self._reported = (0, 0)
        self.paused = False  # while the terminal is needed for a question

    async def report_on(self, transfer: Callable[[], Awaitable[TransferComplete]]) -> None:
        """Run a transfer, once there is a connection; report four times a second at most, and its figures at the end."""
        link, meter = self._transport.link, self._meter
        await link.wait_until(lambda: link.connected)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report_regularly)
            complete = await transfer()
            meter.bytes, meter.files = meter.total, meter.files_total
            nursery.cancel_scope.cancel()
        self._log.emit(complete)

    async def _report_regularly(self) -> None:
        try:
            while True:
                await trio.sleep(INTERVAL)
                self._report()
        finally:
            if self._bar is not None:
                self._bar.stop(self._meter, self._transport.path)

    def _report(self) -> None:
        meter = self._meter
        meter.sample(trio.current_time())
        if self.paused or not (meter.files_total and self._transport.peer_id):
            return
        state = (meter.bytes, meter.files)
        if self._bar is not None:
            self._bar.draw(meter, self._transport.path if self._transport.is_connected else "not connected")
        elif state != self._reported:
            self._log.emit(
                TransferProgress(
                    meter.bytes,
                    meter.total,
                    meter.files,
                    meter.files_total,
                    round(meter.bytes_per_second, 1),
                    None if meter.seconds_left is None else round(meter.seconds_left, 1),
                    self._transport.path,
                )
            )
        self._reported = state


class Bar:
    """The bar on stderr, or on `file`: one line, drawn only when asked to, so that it needs no thread."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self._file = file
        self._progress: Progress | None = None

    def draw(self, meter: Meter, path: str) -> None:
        """Draw the present state."""
        if self._progress is None:
            self._progress = _new_progress(self._file)
            self._progress.add_task("", total=None, files="", speed="", left="", path="")
            self._progress.start()
        task = self._progress.tasks[0].id
        left = "" if meter.seconds_left is None else f"{_clock(meter.seconds_left)} left"
        self._progress.update(
            task,
            total=meter.total,
            completed=meter.bytes,
            files=f"{meter.files}/{meter.files_total} files",
            speed=f"{meter.bytes_per_second / 1e6:.1f} MB/s",
            left=left,
            path=path,
        )
        self._progress.refresh()

    def stop(self, meter: Meter, path: str) -> None:
        """Draw the last state, and leave the line."""
        if self._progress is not None:
            self.draw(meter, path)
            self._progress.stop()


def _new_progress(file: IO[str] | None) -> "Progress":
    from rich.console import Console  # noqa: PLC0415  only at a terminal
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415

    columns = [BarColumn(bar_width=None), DownloadColumn()]
    names = ("files", "speed", "left", "path")
    texts = [TextColumn(f"{{task.fields[{name}]}}") for name in names]
    return Progress(
        *columns,
        *texts,
        console=Console(stderr=True, file=file),
        auto_refresh=False,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
