"""One end of the data channel that `sdpx bench --data` measures: JSON lines on stdin and stdout.

The first line is a `DataJob`. The sender writes its offer and reads the answer, the receiver the other way round. The sender
then sends for a time; at the end both write a `DataResult`. A further line ends the process.
"""

import sys
import time
from functools import partial
from typing import Final

import msgspec
import trio

from sdpx.bench.data_report import DataJob, DataResult
from sdpx.bench.load import busy_seconds
from sdpx.peer.negotiation.description import RemoteDescription, parse_description
from sdpx.peer.webrtc import aioice_ext, peer_connection
from sdpx.peer.webrtc.binary_channel import BinaryChannel
from sdpx.peer.webrtc.peer_connection import PeerConnection
from sdpx.peer.webrtc.runtime import asyncio_loop

LABEL: Final = "bench"
CONNECT_SECONDS: Final = 30.0
WARM_UP: Final = 0.25  # share of the time that is not counted
END: Final = b"end"
SAMPLE_SECONDS: Final = 0.05
DRAIN_SECONDS: Final = 60.0


def _write(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


async def _read() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


async def _describe(pc: PeerConnection, *, sends: bool) -> None:
    async def remote(kind: str) -> RemoteDescription:
        return parse_description(msgspec.json.decode(await _read(), type=str), kind)  # type: ignore[arg-type]

    if sends:
        await pc.channels.create(LABEL)
        _write(await pc.create_offer())
        answer = await remote("answer")
        await pc.accept_answer(answer)
        described = answer.candidates
    else:
        offer = await remote("offer")
        await pc.accept_offer(offer)
        _write(await pc.create_answer())
        described = offer.candidates
    for candidate in described:
        if candidate is not None:
            await pc.add_candidate(candidate)
    await pc.end_candidates()


class _Meter:
    """The time that counts: from the end of the warm-up to the end of the job."""

    def __init__(self, job: DataJob, pc: PeerConnection) -> None:
        self._job = job
        self._pc = pc
        self._ends = trio.current_time() + job.seconds
        self._began = 0.0
        self._bytes = 0
        self.result = DataResult()

    def note(self, size: int) -> bool:
        """Note bytes that were sent or received; whether time is left."""
        now = trio.current_time()
        if now >= self._ends:
            return False
        if not self._began:
            if now >= self._ends - (1 - WARM_UP) * self._job.seconds:
                self._began, self._cpu, self._busy = now, time.process_time(), busy_seconds()
            return True
        self._bytes += size
        took = now - self._began
        if took - self.result.seconds > SAMPLE_SECONDS:
            cpu, busy = time.process_time() - self._cpu, (busy_seconds() - self._busy) / took
            self.result = DataResult(self._bytes, took, cpu, busy, _memory(), self._pc.channels.stats())
        return True


async def _send(channel: BinaryChannel, job: DataJob, meter: _Meter) -> None:
    message = (bytes(range(256)) * (job.size // 256 + 1))[: job.size]
    burst = max(1, 65_536 // job.size)
    while meter.note(burst * job.size):
        for _ in range(burst):
            if not channel.send_nowait(message):
                await channel.writable()
        await trio.lowlevel.checkpoint()
    await channel.send(END)


async def _receive(channel: BinaryChannel, meter: _Meter) -> None:
    while (messages := await channel.receive()) and messages[-1] != END:
        meter.note(sum(map(len, messages)))


def _memory() -> int:
    try:
        import resource  # noqa: PLC0415  not on every system
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def run_peer(job: DataJob) -> None:
    """Connect, measure, and write the result."""
    if job.stock:
        aioice_ext.TESTED["aiortc"] = (0,)
    async with asyncio_loop():
        pc = await peer_connection.connect([])
        try:
            channel = pc.channels.binary(LABEL)
            with trio.fail_after(CONNECT_SECONDS):
                await _describe(pc, sends=job.sends)
                await channel.opened()
            pc.channels.set_flows(job.flows)
            meter = _Meter(job, pc)
            await (_send(channel, job, meter) if job.sends else _receive(channel, meter))
            _write(meter.result)
            with trio.move_on_after(DRAIN_SECONDS):
                await _read()  # the other end is done, too
        finally:
            await pc.close()


def main() -> None:
    """Run one end."""
    job = msgspec.json.decode(sys.stdin.readline(), type=DataJob)
    trio.run(partial(run_peer, job))


if __name__ == "__main__":
    main()
