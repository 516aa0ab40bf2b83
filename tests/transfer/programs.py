"""Two sdpx programs that move bytes, and the relay between them: started, cut off, stopped and killed."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from sdpx.child_process import environment
from tests.harness.coturn import free_port
from tests.harness.processes import cpu_seconds, resident_bytes, wait_until

LOST_SECONDS: Final = 4.5  # longer than a heartbeat may take
WAIT_SECONDS: Final = 120.0


class Transfer:
    """One `sdpx` process; its log is a file."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *arguments: str,
        stdin: Any = None,
        stdout: Any = None,
        module: Sequence[str] = ("sdpx",),
    ) -> None:
        self.log = folder / f"{name}.log"
        self._arguments = arguments
        pipes = arguments[0] == "pipe"
        with self.log.open("wb") as log, (folder / f"{name}.err").open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module, *arguments],
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout if pipes else log,
                stderr=log if pipes else errors,
                env=environment(),
            )
        self.largest = 0

    @property
    def events(self) -> list[dict[str, Any]]:
        complete = self.log.read_bytes().rpartition(b"\n")[0]
        return [msgspec.json.decode(line) for line in complete.splitlines()]

    def count(self, *names: str) -> int:
        return sum(each["event"] in names for each in self.events)

    @property
    def connections(self) -> int:
        return self.count("transfer_started", "transfer_resumed")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            assert self.process.poll() in (None, 0), f"ended with {self.process.poll()} before {what}; see {self.log}"
            return condition()

        wait_until(holds, f"{what}; see {self.log}", WAIT_SECONDS)

    def wait_for_connection(self, before: int) -> None:
        """Wait until there were more connections than `before`, or the program has ended."""
        self.wait_until(lambda: self.connections > before or self.process.poll() == 0, "another connection")

    def measure(self) -> None:
        if self.process.poll() is None:
            self.largest = max(self.largest, resident_bytes(self.process.pid))

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.process.pid)


class Relay:
    """A relay on a fixed port, so that it can be restarted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"ws://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        with (self._folder / "relay.log").open("ab") as log:
            self._logged = log.tell()
            command = [sys.executable, "-m", "sdpx", "serve", "--port", str(self._port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment())

    def wait(self) -> None:
        """Wait until it listens."""
        log = self._folder / "relay.log"
        wait_until(lambda: b"server_listening" in log.read_bytes()[self._logged :], "server_listening", WAIT_SECONDS)

    def restart(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()


@contextmanager
def running(folder: Path, receiver: list[str], sender: list[str], **files: Any) -> Iterator[tuple[Relay, Any, Any]]:
    """Run a relay, a receiver `bob` and a sender to it.

    `files` are `stdin` and `module` of the sender, and `stdout` of the receiver.
    """
    relay = Relay(folder)
    common = ["--url", relay.url, "--no-stun", "--retries", "50"]
    relay.wait()
    b = Transfer(folder, "receiver", *receiver, "--id", "bob", *common, stdout=files.get("stdout"))
    b.wait_until(lambda: b.count("id_assigned") > 0, "the receiver's ID")
    a = Transfer(
        folder,
        "sender",
        *sender,
        *common,
        "--wait",
        "60",
        stdin=files.get("stdin"),
        module=files.get("module", ("sdpx",)),
    )
    try:
        yield relay, a, b
    finally:
        for each in (a.process, b.process, relay.process):
            each.kill()
            each.wait()


def watch(a: Transfer, b: Transfer, seconds: float) -> dict[str, float]:
    """Wait for both ends; returns the seconds of the transfer, CPU and memory. Fails if one of them does."""
    deadline = time.monotonic() + seconds
    cpu = {a: 0.0, b: 0.0}
    while any(each.process.poll() is None for each in (a, b)):
        assert time.monotonic() < deadline, f"not complete within {seconds:.0f} s; see {a.log}, {b.log}"
        for each in (a, b):
            assert each.process.poll() in (None, 0), f"status {each.process.returncode}; see {each.log}"
            each.measure()
            cpu[each] = max(cpu[each], each.cpu if each.process.poll() is None else 0.0)
        time.sleep(0.05)
    took = max(line["seconds"] for each in (a, b) for line in each.events if line["event"] == "transfer_complete")
    return {"seconds": took, "cpu": sum(cpu.values()), "memory": max(a.largest, b.largest) / 1e6}


def cut(kind: str, relay: Relay, a: Transfer, b: Transfer, chance: random.Random) -> None:
    """Cut the transfer in one of the ways, and mend it."""
    seconds = LOST_SECONDS * chance.uniform(1, 1.3)
    if kind == "relay":
        relay.restart()
    elif kind == "connection":
        drop_packets(seconds)
    else:
        process = (a if kind == "sender" else b).process
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        process.send_signal(signal.SIGCONT)


def drop_packets(seconds: float) -> None:
    """Drop all UDP packets of this network namespace for a while."""
    rule = ["INPUT", "-p", "udp", "-j", "DROP"]
    subprocess.run(["iptables", "-I", *rule], check=True)
    time.sleep(seconds)
    subprocess.run(["iptables", "-D", *rule], check=True)
