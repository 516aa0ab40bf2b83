"""Several nodes and the engine that they share, as real processes."""

from pathlib import Path

import pytest

from tests.harness.redis_server import Kind, redis_server

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_engine_is_killed_and_restarted_on_its_port(tmp_path: Path, kind: Kind) -> None:
    """What the other tests do to the engine."""
    async with redis_server(tmp_path, kind=kind) as engine:
        assert await engine.answers()
        engine.suspend()
        assert not await engine.answers()
        engine.resume()
        assert await engine.answers()
        engine.kill()
        assert not await engine.answers()
        await engine.restart()
        assert await engine.answers()
