"""Data over a channel for a time, in one direction: one end sends or receives it, and measures."""

import time
from typing import TYPE_CHECKING, Final

import trio

from sdpx.bench.data_report import DataJob, DataResult
from sdpx.bench.load import busy_seconds

if TYPE_CHECKING:
    from sdpx.peer.webrtc.binary_channel import BinaryChannel
    from sdpx.peer.webrtc.peer_connection import PeerConnection

WARM_UP: Final = 0.25  # share of the time that is not counted
END: Final = b"end"
SAMPLE_SECONDS: Final = 0.05


class DataMeter:
    """The time that counts: from the end of the warm-up to the end of the job."""

    def __init__(self, job: DataJob, pc: "PeerConnection") -> None:
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


async def send(channel: "BinaryChannel", job: DataJob, meter: DataMeter) -> None:
    """Send messages until the time is over, and then `END`."""
    message = (bytes(range(256)) * (job.size // 256 + 1))[: job.size]
    burst = max(1, 65_536 // job.size)
    while meter.note(burst * job.size):
        for _ in range(burst):
            if not channel.send_nowait(message):
                await channel.writable()
        await trio.lowlevel.checkpoint()
    await channel.send(END)


async def receive(channel: "BinaryChannel", meter: DataMeter) -> None:
    """Receive messages up to `END`, or to the end of the channel."""
    while (messages := await channel.receive()) and messages[-1] != END:
        meter.note(sum(map(len, messages)))


def _memory() -> int:
    try:
        import resource  # noqa: PLC0415  not on every system
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
