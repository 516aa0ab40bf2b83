from functools import partial

import pytest

from tests.harness.relay import ENGINES, OpenRelay, relay_harness


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that opens a relay on both engines, and on two nodes, unless it is about one relay's limits or state."""
    if "open_relay" in metafunc.fixturenames:
        is_local = metafunc.definition.get_closest_marker("one_node")
        metafunc.parametrize("open_relay", ENGINES if is_local else [*ENGINES, "cluster"], indirect=True)


@pytest.fixture
def open_relay(request: pytest.FixtureRequest) -> OpenRelay:
    """Open a relay on either engine, or two nodes of a cluster, of which one client is on the one and the next on the other."""
    return partial(relay_harness, engine=request.param)
