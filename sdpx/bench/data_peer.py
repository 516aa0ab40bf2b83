"""One end of the data channel that `sdpx bench --data` measures: JSON lines on stdin and stdout.

The first line is a `DataJob`. The sender writes its offer and reads the answer, the receiver the other way round. The sender
then sends for a time; at the end both write a `DataResult`. A further line ends the process.
"""

import sys
from functools import partial
from typing import Final

import msgspec
import trio

from sdpx.bench.data_meter import DataMeter, receive, send
from sdpx.bench.data_report import DataJob
from sdpx.bench.load import write_line
from sdpx.peer.negotiation.description import RemoteDescription, parse_description
from sdpx.peer.webrtc import peer_connection, versions
from sdpx.peer.webrtc.peer_connection import PeerConnection
from sdpx.peer.webrtc.runtime import asyncio_loop

LABEL: Final = "bench"
CONNECT_SECONDS: Final = 30.0
DRAIN_SECONDS: Final = 60.0


async def _read() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


async def _describe(pc: PeerConnection, *, sends: bool) -> None:
    async def remote(kind: str) -> RemoteDescription:
        return parse_description(msgspec.json.decode(await _read(), type=str), kind)  # type: ignore[arg-type]

    if sends:
        await pc.channels.create(LABEL)
        write_line(await pc.create_offer())
        answer = await remote("answer")
        await pc.accept_answer(answer)
        described = answer.candidates
    else:
        offer = await remote("offer")
        await pc.accept_offer(offer)
        write_line(await pc.create_answer())
        described = offer.candidates
    for candidate in described:
        if candidate is not None:
            await pc.add_candidate(candidate)
    await pc.end_candidates()


async def run_peer(job: DataJob) -> None:
    """Connect, measure, and write the result."""
    if job.stock:
        versions.TESTED["aiortc"] = (0,)
    async with asyncio_loop():
        pc = await peer_connection.connect([])
        try:
            channel = pc.channels.binary(LABEL)
            with trio.fail_after(CONNECT_SECONDS):
                await _describe(pc, sends=job.sends)
                await channel.opened()
            pc.channels.set_flows(job.flows)
            meter = DataMeter(job, pc)
            await (send(channel, job, meter) if job.sends else receive(channel, meter))
            write_line(meter.result)
            with trio.move_on_after(DRAIN_SECONDS):
                await _read()  # the other end is done, too
        finally:
            await pc.close()


def main() -> None:
    """Run one end."""
    job = msgspec.json.decode(sys.stdin.readline(), type=DataJob)
    trio.run(partial(run_peer, job))


if __name__ == "__main__":
    main()
