"""The relay as it looks from outside: its log, read as it grows, and what /proc tells of it."""

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
    """Follows a log and keeps count; what it has counted it need not keep."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._decode = msgspec.json.Decoder(_Line).decode
        self._half = b""
        self.here: Counter[str] = Counter()  # by ID: connected less disconnected, where that is not 0
        self.events: Counter[str] = Counter()
        self.errors: list[str] = []
        self.last = ""

    def close(self) -> None:
        self._file.close()

    def read(self) -> None:
        """Count the lines that are new."""
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
            self.here[line.client_id] += step
            if not self.here[line.client_id]:
                del self.here[line.client_id]

    @property
    def leaked(self) -> int:
        """How many clients did not both come and go once."""
        return sum(abs(times) for times in self.here.values())


@dataclass(frozen=True)
class Look:
    """What the relay holds at a moment."""

    descriptors: int
    threads: int
    memory: int
    peak: int


def look(server: RelayProcess) -> Look:
    """Look at it now."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    return Look(server.descriptors, int(status["Threads"]), server.memory, int(status["VmHWM"].split()[0]) * 1024)


async def gone(server: RelayProcess, log: LogReader, descriptors: int, seconds: float) -> bool:
    """Wait until the relay has no client and no more than these descriptors."""
    with trio.move_on_after(seconds):
        while server.process.poll() is None:
            log.read()
            if not log.leaked and server.descriptors <= descriptors:
                return True
            await trio.sleep(POLL)
    return False


async def idle_share(server: RelayProcess) -> float:
    """Return the share of a CPU that it takes while nothing is asked of it."""
    before = server.cpu
    await trio.sleep(IDLE_SECONDS)
    return (server.cpu - before) / IDLE_SECONDS
