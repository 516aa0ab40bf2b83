"""`sdpx bench`: load a relay with real clients, count, and say what it carries.

The processes of the load go through the phases side by side, each phase begun by all of them at once. The figures go to
stdout, progress to stderr; so does the sentence of what went wrong.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
import trio

from sdpx.bench.accounting import Tally
from sdpx.bench.load import SETUP_SECONDS, Job, Report
from sdpx.bench.options import BenchOptions
from sdpx.bench.report import FULL, PHASES, BenchRequest, Figures, Flaw, figures, refused_sentence, table
from sdpx.bench.ws_client import Target
from sdpx.concurrency import leaf_exceptions
from sdpx.errors import BenchFailed, Ending, ExitStatus, RelayLost, RelayUnreachable
from sdpx.relay.listeners import raise_file_limit

DIAL_SECONDS: Final = 5.0
START_SECONDS: Final = 15.0
END_SECONDS: Final = 8.0
MOST_PROCESSES: Final = 4
NO_LIMITS: Final = ("--rate", "0", "--max-clients", "0", "--max-clients-per-ip", "0", "--unknown-target-rate", "0")
SPARE_DESCRIPTORS: Final = 64
FRAME_BYTES: Final = 65_536


def run_bench(options: BenchOptions) -> ExitStatus:
    """Measure, print the figures on stdout, and return the exit status."""
    try:
        result = trio.run(_interruptible, options)
    except Ending as ending:
        if options.format == "json":
            flaw = Flaw(ending.code, ending.reason)
            _print(msgspec.json.encode({"sound": False, "error": flaw}).decode() + "\n")
        return _report_failure(ending)
    _print(msgspec.json.encode(result).decode() + "\n" if options.format == "json" else table(result))
    return (
        ExitStatus.OK if result.error is None else _report_failure(BenchFailed(result.error.code, result.error.reason))
    )


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads it any more; the interpreter's end must not complain of that either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_failure(ending: Ending) -> ExitStatus:
    sys.stderr.write(f"sdpx: {ending.reason}\n")
    return ending.status


async def _interruptible(options: BenchOptions) -> Figures:
    """Measure, until a signal asks for the end."""
    result: Figures | None = None
    failure: Ending | None = None
    cause = ""

    async def receive(scope: trio.CancelScope) -> None:
        nonlocal cause
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                cause = signal.Signals(number).name
                scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, nursery.cancel_scope)
        try:
            result = await bench(options)
        except* Ending as group:
            failure = leaf_exceptions(group)[0]
        nursery.cancel_scope.cancel()
    if result is None:
        raise failure or BenchFailed("interrupted", f"The measurement was interrupted ({cause})")
    return result


async def bench(options: BenchOptions, pid: int | None = None) -> Figures:
    """Measure a relay; `pid` is its process, where it is known. Raises an `Ending` if there is nothing to be measured."""
    descriptors = raise_file_limit()
    if 0 <= descriptors < 2 * options.pairs + SPARE_DESCRIPTORS:
        raise BenchFailed(
            "bench_failed", f"Only {descriptors} descriptors for {2 * options.pairs} clients: raise 'ulimit -Hn'"
        )
    if options.url is not None:
        return await _measure(options, options.url, pid)
    async with _own_relay(options) as (url, own):
        return await _measure(options, url, own)


@asynccontextmanager
async def _own_relay(options: BenchOptions) -> AsyncIterator[tuple[str, int]]:
    """Run a relay without limits, its log read and thrown away; yields its URL and its process."""
    frame = str(max(FRAME_BYTES, options.payload))
    command = [sys.executable, "-m", "sdpx", "serve", "--port", "0", "--max-message-size", frame, *NO_LIMITS]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SDPX_")}
    async with _process(command, environment) as process:
        assert process.stdout is not None
        first = b""
        with trio.move_on_after(START_SECONDS):
            while b"\n" not in first and (more := await process.stdout.receive_some()):
                first += more
        if b"\n" not in first:
            raise RelayUnreachable("relay_unreachable", "The relay that was to be measured did not start")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_throw_away, process.stdout)
            yield str(msgspec.json.decode(first.partition(b"\n")[0])["url"]), process.pid
            nursery.cancel_scope.cancel()


async def _throw_away(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some(1 << 20):
        pass


@asynccontextmanager
async def _process(command: list[str], environment: dict[str, str] | None = None) -> AsyncIterator[trio.Process]:
    """Start a process in a group of its own; it is ended, by force if need be, when the block is left."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        with trio.move_on_after(END_SECONDS, shield=True):
            process.terminate()
            await process.wait()
        process.kill()


# ---- the measurement ------------------------------------------------------------------------------------------------


class Worker:
    """A process of the load, as seen from here."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._pending = b""
        self.count = 0

    async def tell(self, line: bytes) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line + b"\n")

    async def finish(self, total: Tally) -> None:
        """Read how far it is until its phase is over, and add to `total` what it counted."""
        self.count = 0
        while True:
            report = msgspec.json.decode(await self._line(), type=Report)
            self.count = report.count
            if report.tally is not None:
                total.add(report.tally)
                return

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            more = await self._process.stdout.receive_some(1 << 20)
            if not more:
                raise BenchFailed("bench_failed", "A process of the load ended before its time; its own words say why")
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        return line


async def _measure(options: BenchOptions, url: str, pid: int | None) -> Figures:
    target = await _target(url, options.token)
    processes = min(options.processes or _chosen(), options.pairs)
    asked = BenchRequest(url, options.pairs, options.payload, options.in_flight, options.seconds, processes)
    async with _workers(processes) as workers:
        for number, worker in enumerate(workers):
            pairs = options.pairs // processes + (number < options.pairs % processes)
            job = Job(target, pairs, options.payload, options.in_flight, options.seconds)
            await worker.tell(msgspec.json.encode(job))
        _check_met(await _phase("meet", workers), options.pairs)
        before = _cpu_of(pid)
        tallies = {"relay": await _phase("relay", workers)}
        after = _cpu_of(pid)
        for phase in ("connect", "session"):
            tallies[phase] = await _phase(phase, workers)
    if tallies["relay"].count == 0 and tallies["relay"].cut:
        raise RelayLost("relay_lost", f"The relay at {url} was lost before it relayed anything")
    return figures(asked, tallies, None if before is None or after is None else after - before)


def _chosen() -> int:
    """Return how many processes: they leave a core to a relay on this machine."""
    return min(MOST_PROCESSES, max(1, (os.cpu_count() or 1) - 1))


@asynccontextmanager
async def _workers(number: int) -> AsyncIterator[list[Worker]]:
    """Start so many processes of the load."""
    if number == 0:
        yield []
        return
    async with _process([sys.executable, "-m", "sdpx.bench.load"]) as process, _workers(number - 1) as others:
        yield [Worker(process), *others]


async def _phase(phase: str, workers: list[Worker]) -> Tally:
    """Let all processes go through a phase, and say how far they are."""
    total = Tally()
    for worker in workers:
        await worker.tell(phase.encode())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_progress, phase, workers)
        async with trio.open_nursery() as finishing:
            for worker in workers:
                finishing.start_soon(worker.finish, total)
        nursery.cancel_scope.cancel()
    return total


async def _progress(phase: str, workers: list[Worker]) -> None:
    while True:
        await trio.sleep(1)
        what = PHASES.get(phase, "pairs connected")
        sys.stderr.write(f"{sum(worker.count for worker in workers):,} {what}\n")


def _check_met(met: Tally, pairs: int) -> None:
    """Raise what kept the clients from being connected and paired."""
    if strange := [code for code in met.refused if code.isdigit() and code not in FULL]:
        raise RelayUnreachable("not_a_relay", f"That is no relay: it answers with HTTP status {', '.join(strange)}")
    if met.refused:
        raise BenchFailed("bench_failed", refused_sentence(met.refused))
    if met.cut:
        raise RelayUnreachable("not_a_relay", f"Connections ended before they were a relay's: {', '.join(met.cut)}")
    if met.count < pairs:
        sentence = f"Only {met.count} of {pairs} pairs were connected within {SETUP_SECONDS:g} s"
        raise BenchFailed("bench_failed", sentence)


async def _target(url: str, token: str | None) -> Target:
    """Look the relay up, and see whether somebody is there; all clients bring the token, if there is one."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    try:
        with trio.fail_after(DIAL_SECONDS):
            stream = await trio.open_tcp_stream(host, port)
    except (OSError, trio.TooSlowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise RelayUnreachable("relay_unreachable", f"Cannot reach a relay at {url}: {reason}") from None
    async with stream:
        address = stream.socket.getpeername()
    query = [parts.query, "" if token is None else urlencode({"token": token})]
    path = "?".join(filter(None, [parts.path or "/", "&".join(filter(None, query))]))
    return Target(str(address[0]), int(address[1]), parts.netloc.rpartition("@")[2], path)


def _cpu_of(pid: int | None) -> float | None:
    """Return the seconds that a process has worked, where the system tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
