"""Hypothesis profiles: each run of the suite uses the same examples; only `just fuzz` draws new ones."""

import gc
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.harness.examples import PROFILE

settings.register_profile("default", deadline=None, derandomize=True, max_examples=50, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("default"), max_examples=100)
settings.register_profile("fuzz", parent=settings.get_profile("default"), derandomize=False, max_examples=300)
settings.load_profile(PROFILE)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt the modules and the thousands of collected tests, which live until the end, from garbage collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each of pytest-xdist's workers begin with its share of the long tests, so that none ends long after the others."""
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    share = -(-len(others) // workers)
    items[:] = [item for n in range(workers) for item in (*long[n::workers], *others[n * share : (n + 1) * share])]
