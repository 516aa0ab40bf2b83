"""Overload and shutdown: no free descriptors, an stalled log, signals while clients misbehave."""

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import trio

from tests.harness.frames import message
from tests.harness.processes import RelayProcess, environment, relay_process
from tests.harness.relay import RawClient
from tests.hostile.attack import Attack, ReferencePair, connect_pair, patience

pytestmark = pytest.mark.e2e

DESCRIPTORS = 40


@pytest.fixture
def poor(tmp_path: Path) -> Iterator[RelayProcess]:
    """A relay that may have few descriptors."""
    with relay_process(tmp_path, prefix=("sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "sh")) as server:
        yield server


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[RelayProcess]:
    """A relay that the test ends."""
    with relay_process(tmp_path, "--drain-timeout", "1", "--log-level", "debug") as server:
        yield server


async def until(happened: Callable[[], Any]) -> None:
    with trio.fail_after(30):
        while not happened():
            await trio.sleep(0.02)


async def test_without_free_descriptors_the_relay_serves_its_clients_on(poor: RelayProcess) -> None:
    """The relay logs it once and not ten times a second, idles, and accepts clients as soon as there is room."""
    async with trio.open_nursery() as nursery:
        pair = await connect_pair(nursery, poor.url)
        greedy = [await trio.open_tcp_stream(poor.host, poor.port) for _ in range(2 * DESCRIPTORS)]
        await until(lambda: poor.events("accept_failed"))
        before = poor.cpu
        for _ in range(20):
            await pair.round()
            await trio.sleep(0.05)
        assert poor.cpu - before < 0.5
        assert pair.slowest < patience()
        assert len(poor.events("accept_failed")) == 1
        for stream in greedy:
            await stream.aclose()
        with trio.fail_after(patience()):
            late = await connect_pair(nursery, poor.url)
            await late.round()
        await pair.close()
        await late.close()
    assert poor.stderr == ""
    assert poor.events("fd_limit_low")


async def test_a_limit_of_descriptors_below_max_clients_is_logged(poor: RelayProcess, server: RelayProcess) -> None:
    """At its start, behind the line that says where it listens; and not where there are enough."""
    await until(lambda: poor.events("fd_limit_low"))
    assert [line["event"] for line in poor.events()[:2]] == ["server_listening", "fd_limit_low"]
    assert not server.events("fd_limit_low")


async def test_all_clients_are_notified_of_a_shutdown(doomed: RelayProcess) -> None:
    """SIGTERM: a pair receives `shutdown` and 1001, new clients 503; health is served; silent connections delay nothing."""
    async with trio.open_nursery() as nursery:
        pair = await connect_pair(nursery, doomed.url)
        stalled, sender = await client_that_reads_nothing(doomed)  # which holds the relay up for `--drain-timeout`
        silent = await trio.open_tcp_stream(doomed.host, doomed.port)
        began = trio.current_time()
        doomed.process.send_signal(signal.SIGTERM)
        for client in (pair.a, pair.b):
            assert (await client.receive())["reason"] == "shutdown"
            assert await client.closed() == 1001
        assert await ask(doomed, "/healthz") == 200
        assert await ask(doomed, "/readyz") == 503
        assert await ask(doomed, "/") == 503
        assert await trio.to_thread.run_sync(doomed.process.wait) == 0
        assert 0.5 < trio.current_time() - began < 4
        await close_all(silent, stalled.stream, sender.stream)
        await pair.close()
    assert doomed.stderr == ""
    assert doomed.events()[-1]["event"] == "server_stopped"


async def close_all(*streams: trio.abc.AsyncResource) -> None:
    for stream in streams:
        await stream.aclose()


async def client_that_reads_nothing(server: RelayProcess) -> tuple[RawClient, RawClient]:
    """Return a client that reads nothing of its many frames, and its peer."""
    stalled = RawClient(await trio.open_tcp_stream(server.host, server.port))
    stalled_id = (await stalled.open())["id"]
    peer = RawClient(await trio.open_tcp_stream(server.host, server.port))
    await peer.open()
    await peer.stream.send_all(message(type="pair_request", target_id=stalled_id))
    for _ in range(60):
        await peer.stream.send_all(message(type="offer", sdp="x" * 60_000))
    await peer.stream.send_all(message(type="ping"))
    while (await peer.receive())["type"] != "pong":
        pass
    return stalled, peer


async def ask(server: RelayProcess, path: str) -> int:
    client = RawClient(await trio.open_tcp_stream(server.host, server.port))
    async with client.stream:
        return (await client.page(path))[0]


async def test_a_second_signal_stops_at_once(doomed: RelayProcess) -> None:
    """Whatever clients do not read, and however long `--drain-timeout` is."""
    stalled, sender = await client_that_reads_nothing(doomed)
    doomed.process.send_signal(signal.SIGINT)
    await until(lambda: doomed.events("server_stopping"))
    began = time.monotonic()
    doomed.process.send_signal(signal.SIGINT)
    assert await trio.to_thread.run_sync(doomed.process.wait) == 0
    assert time.monotonic() - began < 0.5
    await close_all(stalled.stream, sender.stream)
    assert doomed.stderr == ""


async def test_an_unread_log_stalls_no_client() -> None:
    """Its pipe and its queue are full: the pair is served on, and dropped lines are reported as soon as the log is read."""
    async with unread_log("--log-sdp", "--rate", "0") as (output, url), trio.open_nursery() as nursery:
        pair = await connect_pair(nursery, url)
        for _ in range(300):
            await pair.a.send(type="offer", sdp="x" * 60_000)
            assert (await pair.b.receive())["type"] == "offer"
        await pair.round()
        assert pair.slowest < patience()
        async with trio.open_nursery() as work:
            work.start_soon(_work_on, pair)
            async for chunk in output:
                if b'"event":"log_dropped"' in chunk:
                    break
            work.cancel_scope.cancel()
        await pair.close()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def unread_log(*options: str) -> AsyncIterator[tuple[trio.abc.ReceiveStream, str]]:
    """Run a relay and read the first line of its log only; yields the rest and the URL."""
    command = [sys.executable, "-m", "sdpx", "serve", "--port", "0", *options]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    try:
        with trio.fail_after(30):
            yield process.stdout, msgspec.json.decode(await process.stdout.receive_some())["url"]
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()


async def _work_on(pair: ReferencePair) -> None:
    await trio.sleep(0.2)
    await pair.work()


# Controls of C0 and C1, line ends, and bidirectional controls.
CONTROLS: Final = "\x00\x1b\x7f\x85\x9b\u2028\u2029\u202e\u2066"


async def test_an_attack_on_the_log(attack: Attack) -> None:
    """Names that control terminals, endless IDs: each line stays one line of JSON, harmless and of bounded length."""
    clients: list[str] = []  # one for each: a single one would guess too often
    targets = (f"\n\r{CONTROLS}[31m", "x" * 60_000, '"}\n{"event":"paired"')
    for target in targets:
        client = await attack.client()
        clients.append(client.id)
        await client.send(type="pair_request", target_id=target)
        await client.receive()
    await until(lambda: sum(line["client_id"] in clients for line in attack.events("pair_refused")) == len(targets))
    lines = attack.events()
    assert max(len(msgspec.json.encode(line)) for line in lines) < 1000
    assert not set(CONTROLS) & set(attack.server.log.read_text()), "in the file"
    assert not set(f"\n\r{CONTROLS}") & set("".join(line["message"] for line in lines)), "for a reader of JSON"
