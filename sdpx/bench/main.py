"""`sdpx bench`: measure a relay by a load of real clients.

Several load processes run each phase at the same time. The figures are written to stdout, progress and errors to stderr.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
import trio

from sdpx.bench import data_report
from sdpx.bench.accounting import Tally, decode_result
from sdpx.bench.data import measure_data
from sdpx.bench.load import SETUP_SECONDS, Job
from sdpx.bench.options import BenchOptions
from sdpx.bench.report import FULL, PHASES, Figures, figures, refused_sentence, table
from sdpx.bench.ws_client import Target, upgrade_request
from sdpx.child_process import ChildProcess, child_process
from sdpx.client_tls import describe_connect_failure, open_stream, relay_context
from sdpx.concurrency import leaf_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.relay.listeners import raise_file_limit
from sdpx.runtime import end_loading, print_error
from sdpx.urls import endpoint

CONNECT_SECONDS: Final = 5.0
START_SECONDS: Final = 30.0
MAX_PROCESSES: Final = 4
NO_LIMITS: Final = ("--rate", "0", "--max-clients", "0", "--max-clients-per-ip", "0", "--unknown-target-rate", "0")
SPARE_DESCRIPTORS: Final = 64
FRAME_BYTES: Final = 65_536


def run_bench(options: BenchOptions) -> ExitStatus:
    """Measure, print the figures on stdout, and return the exit status."""
    status = ExitStatus.OK
    try:
        end_loading()
        result = trio.run(_run_until_signal, options)
        text = data_report.table(result) if options.data else table(result)
        if result["error"]:
            status = ExitStatus.INTERNAL
    except* Ending as group:
        ending = leaf_exceptions(group)[0]
        status, text = ending.status, ""
        result = {"sound": False, "error": {"code": ending.code, "reason": ending.reason}}
    try:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n" if options.format == "json" else text)
        sys.stdout.flush()
    except BrokenPipeError:  # the interpreter would report it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error := result["error"]:
        print_error(error["reason"])
    return status


async def _run_until_signal(options: BenchOptions) -> Figures:
    if options.is_remote:
        from sdpx.bench.remote import measure_remote  # noqa: PLC0415  it is a peer

        return await measure_remote(options, _raise_on_signal)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_raise_on_signal)
        result = await (measure_data(options) if options.data else bench(options))
        nursery.cancel_scope.cancel()
    return result


async def _raise_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        number = await anext(signals)
        raise Ending("interrupted", f"The measurement was interrupted ({signal.Signals(number).name})")


async def bench(options: BenchOptions, pid: int | None = None) -> Figures:
    """Measure a relay; `pid` is its process, if that is known. Raises an `Ending` if it cannot be measured."""
    limit = raise_file_limit()
    if 0 <= limit < 2 * options.pairs + SPARE_DESCRIPTORS:
        reason = f"Only {limit} file descriptors for {2 * options.pairs} clients: raise 'ulimit -Hn' or lower --pairs"
        raise Ending("bench_failed", reason)
    if options.url is not None:
        return await _measure(options, options.url, pid)
    async with _own_relay(options) as (url, own):
        return await _measure(options, url, own)


@asynccontextmanager
async def _own_relay(options: BenchOptions) -> AsyncIterator[tuple[str, int]]:
    """Run a relay without limits, and discard its log; yields its URL and its process ID."""
    size = str(max(FRAME_BYTES, options.payload))
    async with (
        trio.open_nursery() as nursery,
        child_process("-m", "sdpx", "serve", "--port", "0", "--max-message-size", size, *NO_LIMITS) as process,
    ):
        relay = ChildProcess(process)
        line = b""
        with trio.move_on_after(START_SECONDS):
            line = await relay.receive_line()
        if not line:
            raise Ending(
                "relay_unreachable", "The relay of the measurement did not start; see its error above", ExitStatus.RELAY
            )
        nursery.start_soon(relay.discard_output)
        yield str(msgspec.json.decode(line)["url"]), process.pid


class LoadProcess(ChildProcess):
    """A load process, with its progress in the current phase."""

    progress = 0

    async def run_phase(self, phase: str, total: Tally) -> None:
        """Run a phase, and add its counters to `total`."""
        self.progress = 0
        await self.send_line(phase)
        while line := await self.receive_line():
            result = decode_result(line)
            if isinstance(result, Tally):
                total.add(result)
                return
            self.progress = result
        raise Ending("bench_failed", "A load process ended unexpectedly; see its error above")


async def _measure(options: BenchOptions, url: str, pid: int | None) -> Figures:
    target = await _target(url, options)
    spare_cores = max(1, (os.cpu_count() or 1) - 1)  # one is left for a relay on this machine
    processes = min(options.processes or min(MAX_PROCESSES, spare_cores), options.pairs)
    async with AsyncExitStack() as stack:
        loads = []
        for number in range(processes):
            loads.append(LoadProcess(await stack.enter_async_context(child_process("-m", "sdpx.bench.load"))))
            pairs = options.pairs // processes + (number < options.pairs % processes)
            job = Job(target, pairs, options.payload, options.in_flight, options.seconds)
            await loads[-1].send_line(msgspec.json.encode(job).decode())
        _require_paired(await _run_phase("setup", loads), options.pairs)
        cpu_before = _cpu_seconds(pid)
        tallies = {"relay": await _run_phase("relay", loads)}
        relay_cpu = _cpu_seconds(pid) - cpu_before
        tallies |= {phase: await _run_phase(phase, loads) for phase in ("connect", "session")}
    if tallies["relay"].count == 0 and tallies["relay"].cut:
        raise Ending(
            "relay_lost", f"The connection to the relay at {url} was lost before it relayed a message", ExitStatus.RELAY
        )
    return figures(options, url, processes, tallies, relay_cpu)


async def _run_phase(phase: str, loads: list[LoadProcess]) -> Tally:
    """Run a phase in all load processes, and report progress."""
    total = Tally()

    async def report_progress() -> None:
        while True:
            await trio.sleep(1)
            sys.stderr.write(f"{sum(load.progress for load in loads):,} {PHASES.get(phase, 'pairs connected')}\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(report_progress)
        async with trio.open_nursery() as running:
            for load in loads:
                running.start_soon(load.run_phase, phase, total)
        nursery.cancel_scope.cancel()
    return total


def _require_paired(result: Tally, pairs: int) -> None:
    """Raise an `Ending` unless all pairs were connected."""
    if statuses := [code for code in result.refused if code.isdigit() and code not in FULL]:
        reason = f"The server is not an sdpx relay: it answered with HTTP status {', '.join(statuses)}"
        raise Ending("not_a_relay", reason, ExitStatus.RELAY)
    if result.refused:
        raise Ending("bench_failed", refused_sentence(result.refused))
    if result.cut:
        raise Ending("not_a_relay", f"The server is not an sdpx relay: {', '.join(result.cut)}", ExitStatus.RELAY)
    if result.count < pairs:
        reason = f"Only {result.count} of {pairs} pairs were connected within {SETUP_SECONDS:g} s: lower --pairs"
        raise Ending("bench_failed", reason)


async def _target(url: str, options: BenchOptions) -> Target:
    """Resolve the relay's address and test that it accepts connections."""
    parts = urlsplit(url)
    (host, port), access = endpoint(url), options.access
    context = relay_context(url, access)
    try:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await open_stream(host, port, context)
            transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
            address = transport.socket.getpeername()
            await trio.aclose_forcefully(stream)
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        reason = "no answer" if isinstance(error, trio.TooSlowError) else describe_connect_failure(error)
        raise Ending("relay_unreachable", f"Cannot reach a relay at {url}: {reason}", ExitStatus.RELAY) from None
    token = urlencode({"token": access.token.strip()}) if access.token and "@" in parts.netloc else ""
    path = "?".join(filter(None, [parts.path or "/", "&".join(filter(None, [parts.query, token]))]))
    request = upgrade_request(parts.netloc.rpartition("@")[2], path, access.authorization(url))
    return Target(address[0], address[1], request, host if context else None, access.cafile, access.insecure)


def _cpu_seconds(pid: int | None) -> float:
    """Return the CPU time of a process; 0 if the process is unknown, or the system does not provide it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
