from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Literal, cast

import pytest
import trio
from trio.testing import MockClock

from sdpx.relay.cluster.directory import Directory
from sdpx.relay.cluster.memory import MemoryDirectory, MemoryEngine
from sdpx.relay.cluster.redis import EngineAddress, RedisDirectory
from sdpx.relay.core.limits import Limits
from tests.harness.redis_server import redis_server
from tests.relay.cluster.directories import TestCluster, open_cluster

_prefixes = count(1)


@pytest.fixture(params=["memory", "redis", "valkey"])
def kind(request: pytest.FixtureRequest) -> str:
    """The engine that the nodes of a test share."""
    return str(request.param)


@pytest.fixture
def fast_clock(kind: str) -> MockClock | None:
    """Let a test that waits for the end of a lease wait in real time only for engines that are other processes."""
    return MockClock(autojump_threshold=0) if kind == "memory" else None


@pytest.fixture
async def cluster(kind: str, tmp_path: Path) -> AsyncIterator[TestCluster]:
    """Open a cluster without nodes on each engine."""
    if kind == "memory":
        engine = MemoryEngine(trio.current_time)
        async with open_cluster(lambda *options: MemoryDirectory(options[0], engine, *options[1:])) as opened:
            yield opened
        return
    async with redis_server(tmp_path, kind=cast("Literal['redis', 'valkey']", kind)) as server:
        address = EngineAddress.parse(server.url)

        def make(limits: Limits, lease: float, make_name: Callable[[], str]) -> Directory:
            return RedisDirectory(limits, lease, make_name, address, "test:")

        async with open_cluster(make) as opened:
            yield opened
