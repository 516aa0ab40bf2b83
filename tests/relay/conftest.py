from functools import partial

import pytest

from tests.harness.relay import ENGINES, OpenRelay, relay_harness


@pytest.fixture(params=ENGINES)
def open_relay(request: pytest.FixtureRequest) -> OpenRelay:
    """Open a relay on either engine."""
    return partial(relay_harness, engine=request.param)
