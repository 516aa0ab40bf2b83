from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Literal, cast

import pytest
import trio

from sdpx.relay.cluster.directory import Directory
from sdpx.relay.cluster.memory import MemoryDirectory, MemoryEngine
from sdpx.relay.cluster.redis import EngineAddress, RedisDirectory
from sdpx.relay.core.limits import Limits
from tests.harness.redis_server import redis_server
from tests.relay.cluster.directories import TestCluster, open_cluster

_prefixes = count(1)


@pytest.fixture(params=["memory", "redis", "valkey"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TestCluster]:
    """Open a cluster without nodes on each engine."""
    if request.param == "memory":
        engine = MemoryEngine(trio.current_time)
        async with open_cluster(lambda *options: MemoryDirectory(options[0], engine, *options[1:])) as opened:
            yield opened
        return
    kind = cast("Literal['redis', 'valkey']", request.param)
    async with redis_server(tmp_path, kind=kind) as server:
        address = EngineAddress.parse(server.url)

        def make(limits: Limits, lease: float, make_name: Callable[[], str]) -> Directory:
            return RedisDirectory(limits, lease, make_name, address, "test:")

        async with open_cluster(make) as opened:
            yield opened
