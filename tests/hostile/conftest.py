from collections.abc import AsyncIterator, Iterator

import pytest

from tests.harness.processes import RelayProcess, relay_process
from tests.hostile.scene import Scene, attacked


@pytest.fixture(scope="session", params=["--engine=epoll", "--engine=trio-websocket"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """One relay for all attacks, with the lane and without: it outlives each of them."""
    with relay_process(tmp_path_factory.mktemp("relay"), request.param) as relay:
        yield relay
        assert relay.process.poll() is None


@pytest.fixture
async def scene(server: RelayProcess) -> AsyncIterator[Scene]:
    async with attacked(server) as scene:
        yield scene
