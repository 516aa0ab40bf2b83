"""`sdpx bench --data`: measure a data channel between two processes on this machine."""

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec
import trio

from sdpx.bench.data_report import DataJob, DataResult, figures
from sdpx.bench.options import BenchOptions
from sdpx.bench.report import Figures
from sdpx.child_process import ChildProcess, child_process
from sdpx.errors import Ending

OWN: Final = (sys.executable, "-m", "sdpx.bench.data_peer")
SPARE_SECONDS: Final = 90.0  # to start, to connect, and to receive the rest


async def measure_data(options: BenchOptions) -> Figures:
    """Measure, and return the figures. Raises an `Ending` if that fails."""
    job = DataJob(sends=True, size=options.message_size, seconds=options.seconds, flows=options.flows)
    return figures(job, *await measure_pair(job))


async def measure_pair(
    job: DataJob, sender: Sequence[str] = OWN, receiver: Sequence[str] = OWN
) -> tuple[DataResult, DataResult]:
    """Run a program for each end (see `data_peer`), and return the results of the sender and the receiver."""
    async with AsyncExitStack() as stack:
        ends = [
            ChildProcess(await stack.enter_async_context(child_process(program=program)))
            for program in (sender, receiver)
        ]
        with trio.move_on_after(job.seconds + SPARE_SECONDS):
            for end in ends:
                await end.send_line(msgspec.json.encode(job).decode())
                job = msgspec.structs.replace(job, sends=False)
            await ends[1].send_line(await _line_of(ends[0]))
            await ends[0].send_line(await _line_of(ends[1]))
            results = [msgspec.json.decode(await _line_of(end), type=DataResult) for end in ends]
            for end in ends:
                await end.send_line("")
            return results[0], results[1]
    raise Ending("bench_failed", f"The two ends did not finish within {job.seconds + SPARE_SECONDS:g} s")


async def _line_of(end: ChildProcess) -> str:
    if not (line := await end.receive_line()):
        raise Ending("bench_failed", "One end of the channel ended unexpectedly; see its error above")
    return line.decode().rstrip("\n")
