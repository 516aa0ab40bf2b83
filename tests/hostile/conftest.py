"""The relays under attack.

`SERVERS` of a module names its relays, `OPTIONS` those of theirs that others have not: shared code is attacked once, on epoll.
`HASTY_OPTIONS` of a module are those of a relay with short timeouts.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from tests.harness.processes import RelayProcess, relay_process
from tests.harness.tls import trusting_context, write_certificate
from tests.hostile.attack import Attack, attack_on

EPOLL: Final = "epoll"
ENGINES: Final = (EPOLL, "trio-websocket")
ALL_SERVERS: Final = (*ENGINES, "epoll-tls")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        servers, options = getattr(metafunc.module, "SERVERS", (EPOLL,)), getattr(metafunc.module, "OPTIONS", ())
        relays = [(name, options) for name in servers]
        metafunc.parametrize("server", relays, indirect=True, scope="session", ids=servers)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """One relay for all attacks with these options, which outlives each of them."""
    name, options = request.param
    folder = tmp_path_factory.mktemp("relay")
    tls = write_certificate(folder) if name.endswith("-tls") else ()
    with relay_process(folder, "--engine", name.removesuffix("-tls"), *tls, *options) as relay:
        yield relay
        assert relay.process.poll() is None


@pytest.fixture
def tls(server: RelayProcess) -> ssl.SSLContext | None:
    """The context of a client that trusts the relay's certificate; None for a relay without TLS."""
    return trusting_context() if server.url.startswith("wss://") else None


@pytest.fixture
async def attack(server: RelayProcess, tls: ssl.SSLContext | None) -> AsyncIterator[Attack]:
    async with attack_on(server, tls) as attack:
        yield attack


@pytest.fixture(scope="module")
def hasty_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay with the short timeouts of the module."""
    with relay_process(tmp_path_factory.mktemp("hasty"), *request.module.HASTY_OPTIONS) as relay:
        yield relay


@pytest.fixture
async def hasty_attack(hasty_server: RelayProcess) -> AsyncIterator[Attack]:
    async with attack_on(hasty_server) as attack:
        yield attack
