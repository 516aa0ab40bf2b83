"""Several nodes of one relay as real processes, which tests stop, kill, suspend and start again on their ports."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from tests.harness.coturn import free_port
from tests.harness.http_get import http_get
from tests.harness.processes import Line, RelayProcess, environment

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.02


class Node:
    """One node: `sdpx serve` on one port for all of its processes; each process has a log of its own."""

    def __init__(self, folder: Path, port: int, options: Sequence[str]) -> None:
        self.port = port
        self.starts = 0
        self._folder = folder
        self._options = options
        self._process: RelayProcess | None = None
        self._earlier: list[RelayProcess] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def process(self) -> RelayProcess:
        """The present process, or the last one."""
        assert self._process is not None
        return self._process

    @property
    def errors(self) -> str:
        """The stderr of all processes."""
        return "".join(each.stderr for each in [*self._earlier, self.process])

    def events(self, *names: str) -> list[Line]:
        """Return the log lines of these events, of all processes."""
        return [line for each in [*self._earlier, self.process] for line in each.events(*names)]

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.process.poll() is None

    async def start(self) -> None:
        """Start a process and wait until it is ready."""
        self.starts += 1
        if self._process is not None:
            self._earlier.append(self._process)
        folder = self._folder / str(self.starts)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "sdpx", "serve", "--port", str(self.port), *self._options]
        log, errors = folder / "log", folder / "stderr"
        with log.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment())
        try:
            with trio.CancelScope(shield=True):
                self._process = await trio.to_thread.run_sync(RelayProcess, process, log, errors)
            await self.wait_ready()
        except BaseException:
            process.kill()
            raise

    async def wait_ready(self) -> None:
        """Wait until `/readyz` is 200."""
        with trio.fail_after(START_SECONDS):
            while (await http_get(self.port, "/readyz"))[0] != 200:
                assert self.runs, self.process.stderr
                await trio.sleep(POLL_SECONDS)

    async def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.signal(signal.SIGTERM)
        with trio.fail_after(STOP_SECONDS):
            while (status := self.process.process.poll()) is None:
                await trio.sleep(POLL_SECONDS)
        return status

    def kill(self) -> None:
        """End the process with SIGKILL, if it runs."""
        if self._process is not None:
            self.process.process.kill()
            self.process.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.process.send_signal(number)


@asynccontextmanager
async def cluster(
    folder: Path, count: int, *options: str, first_options: Sequence[str] = ()
) -> AsyncIterator[list[Node]]:
    """Run nodes with these options, the first one with further ones; they are killed at the end of the block."""
    nodes = [
        Node(folder / f"node{number}", free_port(), (*options, *first_options) if number == 1 else options)
        for number in range(1, count + 1)
    ]
    try:
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(node.start)
        yield nodes
    finally:
        for node in nodes:
            node.kill()
