"""Observation of the relay process: its log as it grows, and its resources from /proc."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import trio

from tests.harness.processes import RelayProcess

POLL: Final = 0.05
IDLE_SECONDS: Final = 1.0


class _Line(msgspec.Struct):
    event: str
    level: str
    message: str
    client_id: str = ""


class LogReader:
    """Follows a log and counts its lines, without keeping them."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._decode = msgspec.json.Decoder(_Line).decode
        self._half = b""
        self.connected: Counter[str] = Counter()  # by ID: connected minus disconnected, if not 0
        self.events: Counter[str] = Counter()
        self.errors: list[str] = []
        self.last = ""

    def close(self) -> None:
        self._file.close()

    def read(self) -> None:
        """Count the new lines."""
        while data := self._file.read(1 << 20):
            *lines, self._half = (self._half + data).split(b"\n")
            for line in lines:
                self._count(self._decode(line))

    def _count(self, line: _Line) -> None:
        self.last = line.event
        self.events[line.event] += 1
        if line.level == "error":
            self.errors.append(f"{line.event}: {line.message}")
        step = {"client_connected": 1, "client_disconnected": -1}.get(line.event, 0)
        if step:
            self.connected[line.client_id] += step
            if not self.connected[line.client_id]:
                del self.connected[line.client_id]

    @property
    def leaked(self) -> int:
        """The number of clients without exactly one connect and one disconnect."""
        return sum(abs(times) for times in self.connected.values())


@dataclass(frozen=True)
class ResourceUsage:
    """The resources of the relay at one moment."""

    descriptors: int
    threads: int
    memory: int
    peak: int


def resource_usage(server: RelayProcess) -> ResourceUsage:
    """Return the current resource usage."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    return ResourceUsage(
        server.descriptors, int(status["Threads"]), server.memory, int(status["VmHWM"].split()[0]) * 1024
    )


async def wait_until_released(server: RelayProcess, log: LogReader, descriptors: int, seconds: float) -> bool:
    """Wait until the relay has no client and at most this number of descriptors."""
    with trio.move_on_after(seconds):
        while server.process.poll() is None:
            log.read()
            if not log.leaked and server.descriptors <= descriptors:
                return True
            await trio.sleep(POLL)
    return False


async def idle_share(server: RelayProcess) -> float:
    """Return the share of a CPU that the relay uses while idle."""
    before = server.cpu
    await trio.sleep(IDLE_SECONDS)
    return (server.cpu - before) / IDLE_SECONDS
