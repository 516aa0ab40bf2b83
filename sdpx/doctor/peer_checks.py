"""Connections of real peers through the relay: two `sdpx peer` processes, or one and a peer elsewhere."""

import subprocess
from collections.abc import Mapping
from typing import Any, Final, Literal

import trio

from sdpx.child_process import LoggedProcess, child_process
from sdpx.doctor.check import Check, passed, refused
from sdpx.doctor.options import DoctorOptions
from sdpx.doctor.recorder import CheckRecorder
from sdpx.errors import Ending, ExitStatus
from sdpx.remedies import REMEDIES

SPARE_SECONDS: Final = 15.0  # for the start and the end of the processes
Paths = Literal["all", "relay"]


async def _leave_when_connected(process: trio.Process) -> LoggedProcess:
    """End the input of a peer, so that it leaves when the channel is open, and read its log."""
    assert process.stdin is not None
    await process.stdin.aclose()
    peer = LoggedProcess(process)
    await peer.run()
    return peer


class PeerChecks:
    """Connects peers by the relay and the servers of these options."""

    def __init__(self, options: DoctorOptions, recorder: CheckRecorder) -> None:
        self._options = options
        self._recorder = recorder

    async def run(self, paths: Paths) -> None:
        """Check a connection over any path, or over those through a TURN server only."""
        name = "peers" if paths == "all" else "peers by TURN"
        await self._recorder.record(name, self._options.with_peer or "", self._connect, name, paths)

    async def _connect(self, target: str, name: str, paths: Paths) -> Check:
        arguments, variables = self._settings(paths)
        with trio.move_on_after(self._options.timeout + SPARE_SECONDS):
            if target:
                async with child_process(
                    *arguments, "--pair", target, variables=variables, stderr=subprocess.DEVNULL
                ) as process:
                    peer = await _leave_when_connected(process)
                return _judge(name, target, peer)
            async with (
                trio.open_nursery() as nursery,
                child_process(*arguments, variables=variables, stderr=subprocess.DEVNULL) as waiting,
            ):
                bob = LoggedProcess(waiting)
                nursery.start_soon(bob.run)
                if (assigned := await bob.wait_for("id_assigned")) is None:
                    nursery.cancel_scope.cancel()
                    return _judge(name, target, bob)
                async with child_process(
                    *arguments, "--pair", assigned["id"], variables=variables, stderr=subprocess.DEVNULL
                ) as process:
                    alice = await _leave_when_connected(process)
                check = _judge(name, target, alice)
                if check.code == "pairing_lost":  # the peer that left first has the cause
                    with trio.move_on_after(SPARE_SECONDS):
                        await bob.wait_ended()
                    check = _judge(name, target, bob) if bob.process.returncode else check
                nursery.cancel_scope.cancel()
                return check
        sentence = f"The peers did not end within {self._options.timeout + SPARE_SECONDS:g} s"
        return refused(name, target, Ending("no_connection", sentence, ExitStatus.NO_CONNECTION))

    def _settings(self, paths: Paths) -> tuple[list[str], Mapping[str, str]]:
        """Return the arguments of a peer, and its environment variables, which hold the secrets."""
        options = self._options
        arguments = ["-m", "sdpx", "peer", "--once", "--expect", "channel", "--retries", "0"]
        arguments += ["--timeout", str(options.timeout), "--ice-transport", paths]
        arguments += ["--no-stun"] if options.no_stun else []
        arguments += ["--insecure"] if options.access.insecure else []
        arguments += ["--cafile", options.access.cafile] if options.access.cafile else []
        variables = {"SDPX_URL": options.url, "SDPX_STUN": " ".join(options.stun), "SDPX_TURN": " ".join(options.turn)}
        if options.access.token is not None:
            variables["SDPX_TOKEN"] = options.access.token
        return arguments, {name: value for name, value in variables.items() if value}


def _judge(name: str, target: str, peer: LoggedProcess) -> Check:
    """Return the check that follows from the log and the exit status of a peer."""
    status = peer.process.returncode
    last = {line["event"]: line for line in peer.lines}
    summary, path = last.get("connection_summary", {}), last.get("path_selected", {})
    keys = ("local_candidate", "local_address", "remote_candidate", "remote_address")
    evidence: dict[str, Any] = {key: path[key] for key in keys if key in path}
    if status == 0:
        phases = summary.get("phases", {})
        took = ", ".join(f"{phase} {ms:.0f} ms" for phase, ms in phases.items())
        return passed(
            name, target, f"Connected, {path.get('message', 'path unknown')} ({took})", phases_ms=phases, **evidence
        )
    diagnosis, error = last.get("diagnosis", {}), last.get("error", {})
    for key in ("local_candidates", "remote_candidates", "silent_stun", "turn_refusals", "ice_state"):
        if key in diagnosis:
            evidence[key] = diagnosis[key]
    reason = diagnosis.get("message") or error.get("reason") or f"The peer ended with status {status}"
    code = diagnosis.get("code") or error.get("code") or "no_connection"
    known = ExitStatus(status) if status in set(ExitStatus) else ExitStatus.INTERNAL
    remedy = REMEDIES[code].remedy if code in REMEDIES else ""  # the reason ends with it
    return refused(name, target, Ending(code, reason.removesuffix(f": {remedy}"), known), **evidence)
