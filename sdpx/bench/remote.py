"""`sdpx bench --data --with ID`: measure a data channel to another machine, where `sdpx bench --data --id ID` waits.

Both sides are peers with the data channel `bench`, on which the side that connects sends data for a time. Four JSON texts frame
it: its `DataJob`, `"ready"` from the other side, and at the end the `DataResult` of the receiver, then that of the sender. So
both sides print the same figures.
"""

import shlex
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import trio

from sdpx.bench.data_meter import DataMeter, receive, send
from sdpx.bench.data_report import DataJob, DataResult, figures
from sdpx.bench.options import CHANNEL, BenchOptions
from sdpx.bench.report import Figures
from sdpx.concurrency import leaf_exceptions, map_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.events.transfer import TransferStarted, TransferWaiting
from sdpx.log import Log, capture_libraries
from sdpx.peer.app import open_session
from sdpx.peer.session import Session
from sdpx.peer.transfer.transport import ChannelUser, mismatch, modes_of, path_of, refuse
from sdpx.peer.transfer.view import TransferView

if TYPE_CHECKING:
    from sdpx.peer.webrtc.binary_channel import BinaryChannel
    from sdpx.peer.webrtc.peer_connection import PeerConnection

SPARE_SECONDS: Final = 120.0  # for the messages around the measurement, and for data that is on its way at its end
CLOSE_SECONDS: Final = 10.0
LINE_WIDTH: Final = 120


async def measure_remote(options: BenchOptions, watch: Callable[[], Awaitable[None]]) -> Figures:
    """Connect to the other side, or wait for it, measure, and return the figures. Raises an `Ending` if that fails.

    `watch` raises an `Ending` to interrupt the measurement.
    """
    log = Log(_print, time.time, view=TransferView(interactive=False, colour=False, width=LINE_WIDTH))
    capture_libraries(log)
    job = DataJob(sends=False, size=options.message_size, seconds=options.seconds, flows=options.flows)
    needed = command(options, *(("--with", "ID") if options.with_peer is None else ("--id", options.with_peer)))
    measurement = Measurement(job, needed, log)
    if options.with_peer is None:
        measurement.announce = lambda own_id: log.emit(TransferWaiting(own_id, command(options, "--with", own_id)))
    async with open_session(options.peer, log, measurement) as (session, _), trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(_run_session, session, measurement, options)
        result = await measurement.result()
        with trio.move_on_after(CLOSE_SECONDS):
            await session.quit("the end of the measurement")
        nursery.cancel_scope.cancel()
    return result


def command(options: BenchOptions, role: str, client_id: str) -> str:
    """Return the command for the other machine."""
    url = [] if options.url is None else [shlex.quote(options.peer.shown_url)]
    return " ".join(["sdpx bench", *url, "--data", role, client_id])


async def _run_session(session: Session, measurement: "Measurement", options: BenchOptions) -> None:
    """Run the session. Raises an `Ending` if it ends before the measurement does."""

    def explain(group: BaseExceptionGroup[Ending]) -> Ending:
        ending = leaf_exceptions(group)[0]
        if ending.code != "target_not_found":
            return ending
        reason = f"No client '{options.with_peer}' is connected to the relay: run '{measurement.needed}' there first"
        return Ending(ending.code, reason, ending.status)

    with map_exceptions(Ending, explain):
        await session.run()
    if not measurement.is_done:
        reason = "The other side ended the connection before the measurement was complete"
        raise Ending("peer_gone", reason, ExitStatus.CHANNEL_LOST)


def _print(lines: Sequence[bytes]) -> int:
    with suppress(OSError):
        sys.stderr.buffer.write(b"".join(lines))
        sys.stderr.buffer.flush()
    return len(lines)


class Measurement(ChannelUser):
    """One measurement. The side that initiates the connection sends, as its `job` says; the other one gets the job.

    `needed` is the command on the other side.
    """

    mode = CHANNEL

    def __init__(self, job: DataJob, needed: str, log: Log) -> None:
        self._job = job
        self.needed = needed
        self._log = log
        self._ended = trio.Event()
        self._outcome: Figures | Ending = {}

    @property
    def is_done(self) -> bool:
        """Whether the measurement is complete."""
        return isinstance(self._outcome, dict) and bool(self._outcome)

    async def result(self) -> Figures:
        """Wait for the end, and return the figures. Raises the `Ending` of a measurement that has failed."""
        await self._ended.wait()
        if isinstance(self._outcome, Ending):
            raise self._outcome
        return self._outcome

    def _end(self, outcome: Figures | Ending) -> None:
        self._outcome = self._outcome or outcome
        self._ended.set()

    def attach(  # noqa: D102
        self, pc: "PeerConnection", agent: str, peer_id: str, start_soon: Callable[..., None], *, is_initiator: bool
    ) -> None:
        if self.mode in modes_of(agent):
            start_soon(self._measure, pc, peer_id, is_initiator)
        else:
            start_soon(refuse, self._end, mismatch(peer_id, agent, f"'{self.needed}'"))

    async def _measure(self, pc: "PeerConnection", peer_id: str, is_initiator: bool) -> None:
        channel = pc.channels.binary(self.mode)
        try:
            await channel.opened()
            path = path_of(pc)
            self._log.emit(TransferStarted(peer_id, path))
            job, sender, receiver = await (self._send(channel, pc) if is_initiator else self._receive(channel, pc))
            self._end(figures(job, sender, receiver) | {"peer": peer_id, "path": path})
        except trio.BrokenResourceError:
            pass  # the end of the session has the reason
        except msgspec.DecodeError as error:
            reason = f"{peer_id} does not measure as this program does: {error}"
            self._end(Ending("protocol_error", reason, ExitStatus.TRANSFER_FAILED))
        except trio.TooSlowError:
            reason = f"{peer_id} did not finish within {SPARE_SECONDS:g} s after the time of the measurement"
            self._end(Ending("bench_failed", reason))

    async def _send(self, channel: "BinaryChannel", pc: "PeerConnection") -> tuple[DataJob, DataResult, DataResult]:
        job = self._job
        with trio.fail_after(job.seconds + SPARE_SECONDS):
            await _put(channel, job)
            await _next(channel, Literal["ready"])
            pc.channels.set_flows(job.flows)
            meter = DataMeter(job, pc)
            await send(channel, job, meter)
            received = await _next(channel, DataResult)
            await _put(channel, meter.result)
        return job, meter.result, received

    async def _receive(self, channel: "BinaryChannel", pc: "PeerConnection") -> tuple[DataJob, DataResult, DataResult]:
        with trio.fail_after(SPARE_SECONDS):
            job = await _next(channel, DataJob)
        with trio.fail_after(job.seconds + SPARE_SECONDS):
            meter = DataMeter(job, pc)
            await _put(channel, "ready")
            await receive(channel, meter)
            await _put(channel, meter.result)
            return job, await _next(channel, DataResult), meter.result


async def _put(channel: "BinaryChannel", value: object) -> None:
    await channel.send(msgspec.json.encode(value).decode())


async def _next(channel: "BinaryChannel", kind: Any) -> Any:
    """Return the value in the next message. Raises `msgspec.DecodeError`, and `trio.BrokenResourceError` at the end."""
    messages = await channel.receive()
    if not messages:
        raise trio.BrokenResourceError
    return msgspec.json.decode(messages[-1], type=kind)
