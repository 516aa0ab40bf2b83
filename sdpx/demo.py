"""`sdpx demo`: the whole story with real processes, started as a user would start them.

A relay on a free port, bob who waits, alice who asks for him. They pair, connect, and say a line each; their log lines are
merged, with a `who` key. It needs no internet.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from sdpx.concurrency import RepeatedEvent, leaf_exceptions
from sdpx.errors import DemoFailed
from sdpx.events.demo import DemoFinished
from sdpx.log import Log
from sdpx.runtime import ShutdownRequest

END_SECONDS: Final = 8.0
MAX_LINE: Final = 1024 * 1024

Line = dict[str, Any]


class Actor:
    """One of the three processes: what it has logged so far, and its standard input."""

    def __init__(self, who: str, process: trio.Process, log: Log) -> None:
        self.who = who
        self._process = process
        self._log = log
        self._lines: list[Line] = []
        self._ended = False
        self._changed = RepeatedEvent()

    async def read(self) -> None:
        """Pass on what the process logs, until it ends."""
        assert self._process.stdout is not None
        pending = b""
        async for chunk in self._process.stdout:
            *whole, pending = (pending + chunk).split(b"\n")
            for raw in whole:
                self._note(msgspec.json.decode(raw, type=Line))
            if len(pending) > MAX_LINE:
                raise DemoFailed("demo_failed", f"{self.who} wrote a line without an end")
        self._ended = True
        self._changed.set()

    def _note(self, line: Line) -> None:
        self._lines.append(dict(line))
        self._log.forward(line, self.who)
        self._changed.set()

    async def wait_for(self, event: str, **keys: object) -> Line:
        """Return the first line of this event with these keys, once it is there; raises `DemoFailed` if none can come."""
        while True:
            for line in self._lines:
                if line["event"] == event and keys.items() <= line.items():
                    return line
            if self._ended:
                raise DemoFailed("demo_failed", f"{self.who} ended before its '{event}'; its own lines say why")
            await self._changed.wait()

    async def say(self, text: str) -> None:
        """Write a line to the process."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(f"{text}\n".encode())

    async def end(self) -> None:
        """Ask the process to end, as Ctrl-C or a supervisor would; raises `DemoFailed` if it does not end well."""
        self._process.terminate()
        if status := await self._process.wait():
            raise DemoFailed("demo_failed", f"{self.who} ended with status {status}")


@asynccontextmanager
async def _actor(who: str, log: Log, *arguments: str) -> AsyncIterator[Actor]:
    """Start a process of sdpx; it is ended, by force if need be, when the block is left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SDPX_")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "sdpx", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    actor = Actor(who, process, log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actor.read)
        try:
            yield actor
        finally:
            with trio.move_on_after(END_SECONDS, shield=True):
                process.terminate()
                await process.wait()
            process.kill()


class Phases:
    """How long each phase took, one after the other."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self.took: dict[str, float] = {}

    def reached(self, phase: str) -> None:
        """Note the end of a phase; the next one begins."""
        now = self._clock()
        self.took[phase] = round((now - self._began) * 1000, 3)
        self._began = now


async def run_demo(seconds: float, log: Log, stop: ShutdownRequest) -> None:
    """Run the demonstration; raises `DemoFailed` unless every step of it happened within `seconds`."""
    phases = Phases(trio.current_time)
    failure: DemoFailed | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on, stop, nursery.cancel_scope)
        try:
            with trio.fail_after(seconds):
                await _play(log, phases)
        except* trio.TooSlowError:
            done = ", ".join(phases.took) or "nothing"
            failure = DemoFailed("demo_failed", f"The demo did not end within {seconds:g} s; done by then: {done}")
        except* DemoFailed as group:
            failure = leaf_exceptions(group)[0]
        nursery.cancel_scope.cancel()
    if stop.requested:
        failure = DemoFailed("interrupted", f"The demo was interrupted ({stop.cause})")
    log.emit(DemoFinished(failure is None, phases.took))
    if failure is not None:
        raise failure


async def _play(log: Log, phases: Phases) -> None:
    await _require_network()
    async with _actor("relay", log, "serve", "--port", "0") as relay:
        url = str((await relay.wait_for("server_listening"))["url"])
        phases.reached("relay")
        async with _actor("bob", log, "peer", "--url", url, "--no-stun") as bob:
            bobs_id = str((await bob.wait_for("id_assigned"))["id"])
            async with _actor("alice", log, "peer", "--url", url, "--no-stun", "--pair", bobs_id) as alice:
                await alice.wait_for("id_assigned")
                phases.reached("peers")
                await _connect(alice, bob, phases)
                await _talk(alice, bob)
                phases.reached("messages")
                await alice.end()
                await bob.wait_for("ready")
            await bob.end()
        await relay.end()
    phases.reached("end")


async def _connect(alice: Actor, bob: Actor, phases: Phases) -> None:
    steps: dict[str, tuple[str, dict[str, object]]] = {
        "pairing": ("paired", {}),
        "exchange": ("exchange_complete", {}),
        "connection": ("connection_state", {"state": "connected"}),
        "channel": ("channel_open", {}),
    }
    for phase, (event, keys) in steps.items():
        for actor in (alice, bob):
            await actor.wait_for(event, **keys)
        phases.reached(phase)


async def _talk(alice: Actor, bob: Actor) -> None:
    for speaker, listener, text in ((alice, bob, "Hello Bob!"), (bob, alice, "Hello Alice!")):
        await speaker.say(text)
        await listener.wait_for("channel_message", text=text)


async def _require_network() -> None:
    from sdpx.peer.webrtc.peer_connection import host_addresses  # noqa: PLC0415  heavy, and only this step needs it

    if not host_addresses():
        reason = (
            "This machine has no network address but loopback, and aiortc gathers no loopback candidates: "
            "two peers cannot connect here. Bring any network interface up and try again"
        )
        raise DemoFailed("no_network", reason)


async def _cancel_on(stop: ShutdownRequest, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()
