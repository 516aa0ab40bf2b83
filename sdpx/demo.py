"""`sdpx demo`: a complete handshake between real processes.

A relay on a free port and two peers, bob and alice, are started as a user would start them. They pair, connect and exchange
a message each. Their log lines are merged, with a `who` key. No internet access is needed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from sdpx.child_process import Line, LoggedProcess, child_process
from sdpx.concurrency import map_exceptions
from sdpx.errors import Ending
from sdpx.events import Event
from sdpx.events.demo import DemoFinished
from sdpx.log import Log
from sdpx.runtime import ShutdownRequest
from sdpx.terminal import View, wrapped

# The steps of a connection, in order: a phase, and the event with which it ends at both peers.
STEPS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "pairing": ("paired", {}),
    "exchange": ("exchange_complete", {}),
    "connection": ("connection_state", {"state": "connected"}),
    "channel": ("channel_open", {}),
}


# The lines at a terminal for the events of a process, mostly of one, since the logs of several have no common order.
STATUS_LINES: Final = {
    ("relay", "server_listening"): "listens on {url}",
    ("bob", "id_assigned"): "is connected to the relay, with the ID {id}",
    ("alice", "id_assigned"): "is connected to the relay, with the ID {id}",
    ("bob", "paired"): "is paired with alice",
    ("bob", "offer_received"): "receives alice's SDP offer through the relay, {bytes} bytes",
    ("bob", "answer_sent"): "sends its SDP answer through the relay, {bytes} bytes",
    ("bob", "path_selected"): "is connected to alice without the relay: {message}",
    ("bob", "channel_open"): "has an open data channel, '{label}'",
    ("bob", "channel_message"): "receives: {text}",
    ("alice", "channel_message"): "receives: {text}",
    ("bob", "ready"): "sees alice leave, and is ready for another peer",
}


class DemoView(View):
    """The view of the demonstration: a line for each step of a process."""

    def show(self, event: Event, now: float) -> str | None:
        """Return the lines for an event of the demonstration itself."""
        return wrapped(event.message(), self.width) if isinstance(event, DemoFinished) else super().show(event, now)

    def show_forwarded(self, line: Line) -> str | None:
        """Return the line for an event of a process."""
        step = STATUS_LINES.get((line["who"], line["event"]))
        text = super().show_forwarded(line) if step is None else step.format_map(line)
        return text and f"{line['who']:<7}{text}"


class DemoProcess(LoggedProcess):
    """One of the sdpx processes; its log lines are forwarded to the log of this program."""

    def __init__(self, name: str, process: trio.Process, log: Log) -> None:
        super().__init__(process, lambda line: log.forward(dict(line), name))
        self.name = name

    async def require(self, event: str, **keys: Any) -> Line:
        """Wait for a line as `wait_for` does. Raises an `Ending` if the process has ended."""
        if (line := await self.wait_for(event, **keys)) is None:
            raise Ending("demo_failed", f"'{self.name}' ended before its event '{event}'; see its log lines")
        return line

    async def terminate(self) -> None:
        """Send SIGTERM and wait for the end. Raises an `Ending` if the exit status is not 0."""
        self.process.terminate()
        if status := await self.process.wait():
            raise Ending("demo_failed", f"'{self.name}' ended with status {status}; see its log lines")


@asynccontextmanager
async def _started(name: str, log: Log, *arguments: str) -> AsyncIterator[DemoProcess]:
    """Start an sdpx process; it is stopped at the end of the block."""
    async with trio.open_nursery() as nursery, child_process("-m", "sdpx", *arguments) as process:
        logged = DemoProcess(name, process, log)
        nursery.start_soon(logged.run)
        yield logged


class Phases:
    """Durations of consecutive phases."""

    def __init__(self) -> None:
        self._began = trio.current_time()
        self.took: dict[str, float] = {}

    def reached(self, phase: str) -> None:
        """Note the end of a phase and the start of the next."""
        now = trio.current_time()
        self.took[phase] = round((now - self._began) * 1000, 3)
        self._began = now


async def run_demo(seconds: float, log: Log, stop: ShutdownRequest) -> None:
    """Run the demonstration. Raises an `Ending` if a step fails, or takes longer than `seconds` in total."""
    phases, ok = Phases(), False

    def too_slow(_group: BaseExceptionGroup[trio.TooSlowError]) -> Ending:
        done = ", ".join(phases.took) or "none"
        return Ending("demo_failed", f"The demo did not end within {seconds:g} s; completed phases: {done}")

    try:
        with map_exceptions(trio.TooSlowError, too_slow):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop.cancel, nursery.cancel_scope)
                with trio.fail_after(seconds):
                    await _run_steps(log, phases)
                    ok = True
                nursery.cancel_scope.cancel()
        if stop.requested:
            ok = False
            raise Ending("interrupted", f"The demo was interrupted ({stop.cause})")
    finally:
        log.emit(DemoFinished(ok, phases.took))


async def _run_steps(log: Log, phases: Phases) -> None:
    await _require_network()
    async with _started("relay", log, "serve", "--port", "0") as relay:
        url = str((await relay.require("server_listening"))["url"])
        phases.reached("relay")
        async with _started("bob", log, "peer", "--url", url, "--no-stun") as bob:
            bobs_id = str((await bob.require("id_assigned"))["id"])
            async with _started("alice", log, "peer", "--url", url, "--no-stun", "--pair", bobs_id) as alice:
                await alice.require("id_assigned")
                phases.reached("peers")
                for phase, (event, keys) in STEPS.items():
                    await alice.require(event, **keys)
                    await bob.require(event, **keys)
                    phases.reached(phase)
                await _send(alice, bob, "Hello Bob!")
                await _send(bob, alice, "Hello Alice!")
                phases.reached("messages")
                await alice.terminate()
                await bob.require("ready")
            await bob.terminate()
        await relay.terminate()
    phases.reached("end")


async def _send(sender: DemoProcess, receiver: DemoProcess, text: str) -> None:
    await sender.send_line(text)
    await receiver.require("channel_message", text=text)


async def _require_network() -> None:
    from sdpx.peer.webrtc.peer_connection import host_addresses  # noqa: PLC0415  imports aiortc; only this step needs it

    if not host_addresses():
        reason = (
            "This machine has no network interface except loopback, and aiortc does not gather loopback candidates, "
            "so the peers cannot connect. Enable a network interface and try again"
        )
        raise Ending("no_network", reason)
