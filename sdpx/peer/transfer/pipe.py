"""`sdpx pipe`: standard input to the other side's standard output, and back.

On a link a message is a piece of the stream. The first empty message is the end of the input; the second one says that
everything has been written here, which is the other side's proof that its input has arrived.
"""

import os
import select
from collections.abc import Callable, Sequence
from typing import Final

import trio

from sdpx.errors import Ending, ExitStatus, describe_os_error
from sdpx.events import transfer
from sdpx.log import Log
from sdpx.peer.app import read_stdin
from sdpx.peer.transfer.app import run_transfer
from sdpx.peer.transfer.link import Link, new_name
from sdpx.peer.transfer.options import PipeOptions
from sdpx.peer.transfer.plain import PlainChannel
from sdpx.peer.transfer.transport import Transport
from sdpx.runtime import STDIN, STDOUT, ShutdownRequest, reader_is_gone

READ_BYTES: Final = 1024 * 1024  # in one change of threads
MAX_VECTOR: Final = 64
PIPE_BYTES: Final = 1024 * 1024
F_SETPIPE_SZ: Final = 1031  # Linux
READER_POLL_SECONDS: Final = 0.5


async def run_pipe(options: PipeOptions, log: Log, stop: ShutdownRequest) -> None:
    """Run a pipe to its end. Raises the `Ending` if not everything has arrived."""
    transport = Transport("pipe", Link("pipe", new_name), PlainChannel(), options.flows)
    pipe = Pipe(transport, log, read_stdin, write_stdout, end_stdout, follows_output=_only_receives())
    for descriptor in (STDIN, STDOUT):
        _widen(descriptor)
    await run_transfer(options, transport, options.target, "sdpx pipe", pipe.run, log, stop)


def _only_receives() -> bool:
    """Return whether the input is a terminal, and the output is not: then the input ends with the output."""
    return os.isatty(STDIN) and not os.isatty(STDOUT)


def _widen(descriptor: int) -> None:
    """Make a pipe take more bytes at once, where the system can."""
    import fcntl  # noqa: PLC0415  not on every system

    try:
        fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return


class Pipe:
    """Both directions. `read` and `write` block, in threads; `close` ends the output.

    With `follows_output` the input ends when the output does.
    """

    def __init__(
        self,
        transport: Transport,
        log: Log,
        read: Callable[[int], bytes],
        write: Callable[[Sequence[bytes | memoryview]], None],
        close: Callable[[], None],
        *,
        follows_output: bool = False,
    ) -> None:
        self._transport = transport
        self._link = transport.link
        self._plain = transport.plain
        self._log = log
        self._read = read
        self._write = write
        self._close = close
        self._follows_output = follows_output
        self._input_ended = False
        self._output_ended = False
        self._reading = trio.CancelScope()
        self.bytes_read = 0
        self.bytes_written = 0

    async def run(self) -> None:
        """Copy in both directions until both have ended."""
        await self._link.wait_until(lambda: self._transport.is_connected)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_reader)
            async with trio.open_nursery() as copying:
                if self._transport.is_plain:
                    copying.start_soon(self._send_plain)
                    copying.start_soon(self._receive_plain)
                else:
                    copying.start_soon(self._send)
                    copying.start_soon(self._receive)
            nursery.cancel_scope.cancel()
        if not self._transport.is_plain:
            await self._link.send(b"")
            self._link.take(await self._link.receive())
            await self._link.flush()
        seconds = round(trio.current_time() - began, 3)
        self._log.emit(transfer.TransferComplete(self.bytes_read, self.bytes_written, seconds))

    # ---- between two sdpx -----------------------------------------------------------------------------------------

    async def _send(self) -> None:
        while data := await self._next(READ_BYTES):
            size = self._link.chunk
            for start in range(0, len(data), size):
                await self._link.send(memoryview(data)[start : start + size])
        await self._link.send(b"")
        self._log.emit(transfer.PipeEnded("input", self.bytes_read))

    async def _receive(self) -> None:
        while True:
            payloads = await self._link.receive_some()
            await self._put(payloads)
            for each in payloads:
                self._link.take(each)
            if not payloads[-1]:
                return await self._end_output()

    # ---- with another program -------------------------------------------------------------------------------------

    async def _send_plain(self) -> None:
        assert self._plain is not None
        while data := await self._next(READ_BYTES):
            await self._plain.send(data)
        await self._plain.end()
        self._log.emit(transfer.PipeEnded("input", self.bytes_read))

    async def _receive_plain(self) -> None:
        assert self._plain is not None
        while messages := await self._plain.receive():
            await self._put(messages)
        self._follows_output = True
        await self._end_output()

    # ---- standard input and output --------------------------------------------------------------------------------

    async def _next(self, size: int) -> bytes:
        data = b""
        if self._input_ended:
            return data
        with trio.CancelScope() as self._reading:
            try:
                data = await trio.to_thread.run_sync(self._read, size, abandon_on_cancel=True)
            except OSError as error:
                raise _failed("input_failed", "read standard input", error) from None
        self.bytes_read += len(data)
        return data

    async def _put(self, payloads: Sequence[bytes | memoryview]) -> None:
        try:
            await trio.to_thread.run_sync(self._write, payloads, abandon_on_cancel=True)
        except OSError as error:
            raise _failed("output_failed", "write standard output", error) from None
        self.bytes_written += sum(map(len, payloads))

    async def _end_output(self) -> None:
        self._output_ended = True
        await trio.to_thread.run_sync(self._close)
        self._log.emit(transfer.PipeEnded("output", self.bytes_written))
        if self._follows_output:
            self._input_ended = True
            self._reading.cancel()

    async def _watch_reader(self) -> None:
        """Detect that the reader of the output is gone while nothing is being written."""
        while self._output_ended or not reader_is_gone(STDOUT):  # noqa: ASYNC110  Trio cannot wait for errors alone
            await trio.sleep(READER_POLL_SECONDS)
        raise Ending("output_failed", "The reader of standard output is gone", ExitStatus.TRANSFER_FAILED)


def _failed(code: str, action: str, error: OSError) -> Ending:
    return Ending(code, f"Cannot {action}: {describe_os_error(error)}", ExitStatus.TRANSFER_FAILED)


def write_stdout(payloads: Sequence[bytes | memoryview]) -> None:
    """Write all bytes, also if another program made standard output non-blocking."""
    views = [memoryview(each) for each in payloads if len(each)]
    while views:
        try:
            written = os.writev(STDOUT, views[:MAX_VECTOR])
        except BlockingIOError:
            select.select([], [STDOUT], [])
            continue
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


def end_stdout() -> None:
    """Close standard output; its number stays taken, so that no other file gets it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT)
    os.close(null)
