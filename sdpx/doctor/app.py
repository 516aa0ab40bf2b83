"""Runs `sdpx doctor`: the relay, this machine's network, STUN and TURN servers, and then connections of real peers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import ifaddr
import msgspec
import trio

from sdpx.doctor import network
from sdpx.doctor.check import Check, exit_status, passed, problem, shorten_addresses, skipped, summarize
from sdpx.doctor.ice_checks import check_stun, check_turn
from sdpx.doctor.options import DoctorOptions
from sdpx.doctor.peer_checks import PeerChecks
from sdpx.doctor.recorder import CheckRecorder
from sdpx.doctor.relay_checks import RelayChecks
from sdpx.doctor.view import DoctorView
from sdpx.errors import Ending, ExitStatus, describe_os_error
from sdpx.events.doctor import DoctorFinished
from sdpx.ice_servers import IceServer, choose
from sdpx.log import Log
from sdpx.runtime import ShutdownRequest

SPIN_SECONDS: Final = 0.1


async def run_doctor(options: DoctorOptions, log: Log, stop: ShutdownRequest) -> ExitStatus:
    """Make all checks, log them and write the report; returns the exit status. Raises an `Ending` if interrupted."""
    view = log.view if isinstance(log.view, DoctorView) else DoctorView()

    def on_begin(name: str, target: str) -> None:
        view.begin(name, target)
        log.draw_prompt()

    recorder = CheckRecorder(log, on_begin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop.cancel, nursery.cancel_scope)
        nursery.start_soon(_spin, view, log)
        await _check(options, recorder)
        nursery.cancel_scope.cancel()
    if stop.requested:
        raise Ending("interrupted", f"The checks were interrupted ({stop.cause})")
    checks = recorder.checks
    counts = {
        result: sum(each.result == result for each in checks) for result in ("ok", "warning", "failed", "skipped")
    }
    status, summary = exit_status(checks), summarize(checks)
    log.emit(DoctorFinished(counts["ok"], counts["warning"], counts["failed"], counts["skipped"], int(status), summary))
    if options.report is not None:
        _write_report(Path(options.report), options, checks, summary)
    return status


async def _spin(view: DoctorView, log: Log) -> None:
    while view.interactive:
        await trio.sleep(SPIN_SECONDS)
        view.spin()
        log.draw_prompt()


async def _check(options: DoctorOptions, recorder: CheckRecorder) -> None:
    relay, peers = RelayChecks(options, recorder), PeerChecks(options, recorder)
    await relay.run()
    async with trio.open_nursery() as nursery:
        if relay.works:
            nursery.start_soon(relay.check_idle)  # while the others are made
        addresses = recorder.add(network.describe_addresses(_interfaces()))
        servers = choose(options.peer.ice_servers, relay.ice_servers, no_stun=options.no_stun)
        stun, turn = [each for each in servers if not each.is_turn], [each for each in servers if each.is_turn]
        await check_stun(stun, [row["address"] for row in addresses.evidence["addresses"]], recorder)
        await check_turn(turn, options.access.cafile, recorder)
        recorder.add(_udp(recorder.checks, servers))
        if relay.works:
            await peers.run("all")
            if turn:
                await peers.run("relay")
            else:
                recorder.add(skipped("peers by TURN", options.with_peer or "", "There is no TURN server"))


def _interfaces() -> dict[str, list[str]]:
    """Return the addresses of this machine by interface."""
    adapters = ifaddr.get_adapters()
    return {each.name: [str(ip.ip if ip.is_IPv4 else ip.ip[0]) for ip in each.ips] for each in adapters}


def _udp(checks: Sequence[Check], servers: Sequence[IceServer]) -> Check:
    """Return whether UDP leaves this network, by the answers of the servers that were asked by UDP."""
    by_udp = {each.url for each in servers if each.transport == "udp"}
    asked = [each for each in checks if each.name in ("stun", "turn") and each.target in by_udp]
    asked = [each for each in asked if not each.code.endswith(("_unresolved", "_no_route"))]
    silent = {"stun_silent", "turn_unreachable"}
    if not asked:
        return skipped("udp", "", "No server was asked by UDP")
    if all(each.code in silent for each in asked):
        return problem("udp", "", "udp_blocked", f"None of {len(asked)} servers answered by UDP", asked=len(asked))
    return passed("udp", "", "UDP leaves this network, and answers come back", asked=len(asked))


def _write_report(path: Path, options: DoctorOptions, checks: Sequence[Check], summary: str) -> None:
    """Write the report. Raises an `Ending` if the file cannot be written."""
    lines: list[dict[str, Any]] = [{"report": "sdpx doctor", "url": options.peer.shown_url, "summary": summary}]
    lines += [msgspec.to_builtins(check) for check in checks]
    text = "".join(msgspec.json.encode(shorten_addresses(line)).decode() + "\n" for line in lines)
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise Ending("report_failed", f"The report '{path}' cannot be written: {describe_os_error(error)}") from None
