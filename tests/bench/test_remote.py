"""`sdpx bench --data --with ID`: the messages around a measurement, and the errors if the other side does not take part."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from sdpx.bench.data_report import DataJob, DataResult
from sdpx.bench.remote import Measurement
from sdpx.child_process import child_process
from sdpx.errors import Ending
from sdpx.log import Log
from tests.harness.binary_channels import MemoryChannel, channel_pair
from tests.harness.log import LogRecorder
from tests.harness.processes import peer, relay

JOB = DataJob(sends=False, seconds=0.0, size=1000)


def measurement() -> Measurement:
    return Measurement(JOB, "sdpx bench --data", Log(LogRecorder().put, trio.current_time))


def attach(side: Measurement, channel: MemoryChannel, nursery: trio.Nursery, *, is_initiator: bool) -> None:
    channels = SimpleNamespace(set_flows=lambda _flows: None, binary=lambda _label: channel, stats=dict)
    pc: Any = SimpleNamespace(channels=channels, selected_pair=None)
    side.attach(pc, "sdpx/9.9 (bench)", "bob", nursery.start_soon, is_initiator=is_initiator)


@asynccontextmanager
async def attached(*, is_initiator: bool) -> AsyncIterator[tuple[Measurement, MemoryChannel]]:
    """Yield a measurement, and the other end of its channel; the end of the block waits for its tasks."""
    side = measurement()
    own, other = channel_pair()
    async with trio.open_nursery() as nursery:
        attach(side, own, nursery, is_initiator=is_initiator)
        yield side, other


async def test_both_sides_know_all_figures(autojump_clock: trio.abc.Clock) -> None:
    a, b = measurement(), measurement()
    first, second = channel_pair()
    async with trio.open_nursery() as nursery:
        attach(a, first, nursery, is_initiator=True)
        attach(b, second, nursery, is_initiator=False)
        assert await a.result() == await b.result()
    assert (a.is_done, b.is_done) == (True, True)
    assert (await b.result())["message_size"] == 1000
    assert (await b.result())["peer"] == "bob"


@pytest.mark.parametrize(
    ("is_initiator", "message"),
    [
        (True, "go"),
        (True, b"\xff"),
        (False, "{}"),
        (False, '{"sends":false,"size":1e9}'),
        (False, '{"sends":false,"seconds":1e9}'),
    ],
)
async def test_other_messages_end_the_measurement(
    *, is_initiator: bool, message: str | bytes, autojump_clock: trio.abc.Clock
) -> None:
    async with attached(is_initiator=is_initiator) as (side, other):
        await other.send(message)
        with pytest.raises(Ending) as ended:
            await side.result()
    assert (ended.value.code, side.is_done) == ("protocol_error", False)


@pytest.mark.parametrize("is_initiator", [True, False])
async def test_other_side_that_stands_still_ends_the_measurement(
    *, is_initiator: bool, autojump_clock: trio.abc.Clock
) -> None:
    async with attached(is_initiator=is_initiator) as (side, _):
        with pytest.raises(Ending, match="bob did not finish"):
            await side.result()


async def test_channel_that_closes_leaves_the_reason_to_the_session(autojump_clock: trio.abc.Clock) -> None:
    async with attached(is_initiator=False) as (side, other):
        await other.send(msgspec.json.encode(JOB).decode())
        await other.receive()
        other.cut()
    assert not side.is_done


async def test_result_is_complete_after_the_rest_of_the_data() -> None:
    """After its time a receiver waits for the end of the data."""
    async with attached(is_initiator=False) as (side, other):
        await other.send(msgspec.json.encode(JOB).decode())
        await other.receive()
        for data in (b"x" * 1000, b"x" * 1000, b"end"):
            await other.send(data)
        await other.receive()
        assert not side.is_done
        await other.send(msgspec.json.encode(DataResult(1, 1.0)).decode())
        assert (await side.result())["error"] is None


# ---- with processes -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def waiting(url: str, *arguments: str) -> AsyncIterator[trio.Process]:
    """Run the waiting side as bob, which is ready."""
    command = ("-m", "sdpx", "bench", url, "--data", "--no-stun", "--id", "bob", *arguments)
    async with child_process(*command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        printed = b""
        while b"Waiting" not in printed:
            printed += await process.stderr.receive_some()
        assert f"sdpx bench {url} --data --with bob".encode() in printed
        yield process


async def measure(url: str, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the side that connects to bob; returns its exit status, the figures and stderr."""
    command = [sys.executable, "-m", "sdpx", "bench", url, "--data", "--no-stun", "--with", "bob"]
    done = await trio.run_process(
        [*command, "--format", "json", *arguments], capture_stdout=True, capture_stderr=True, check=False
    )
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


@pytest.mark.e2e
async def test_channel_to_another_program_is_measured_once() -> None:
    """Both print the figures, and end; a further measurement names the command to run."""
    with trio.fail_after(60):
        async with relay() as (_, url):
            async with waiting(url, "--format", "json") as process:
                status, figures, printed = await measure(url, "--seconds", "0.5")
                assert (status, figures["error"]) == (0, None), printed
                assert figures["megabytes_per_s"] > 0
                assert (figures["peer"], figures["path"]) == ("bob", "direct")
                assert figures["retransmissions"] >= 0
                assert process.stdout is not None
                theirs = json.loads(b"".join([each async for each in process.stdout]))
                assert theirs == figures | {"peer": theirs["peer"]}
                assert await process.wait() == 0
            status, figures, printed = await measure(url)
            assert (status, figures["error"]["code"]) == (4, "target_not_found")
            assert f"run 'sdpx bench {url} --data --id bob' there first" in printed


@pytest.mark.e2e
async def test_program_that_does_not_measure_is_named() -> None:
    with trio.fail_after(60):
        async with relay() as (_, url), peer(url, "--id", "bob"):
            status, figures, printed = await measure(url)
    assert (status, figures["error"]["code"]) == (17, "no_transfer")
    assert f"this side needs 'sdpx bench {url} --data --id bob'" in printed


@pytest.mark.e2e
async def test_connection_that_is_lost_ends_the_measurement() -> None:
    with trio.fail_after(60):
        async with relay() as (_, url), waiting(url) as process, trio.open_nursery() as nursery:

            async def cut() -> None:
                assert process.stderr is not None
                while b"Connected" not in await process.stderr.receive_some():
                    pass
                process.send_signal(signal.SIGKILL)

            nursery.start_soon(cut)
            status, figures, _ = await measure(url, "--seconds", "30")
    assert status == 12, figures
