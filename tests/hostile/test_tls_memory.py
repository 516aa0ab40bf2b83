"""The memory of TLS connections: bounded while they are open, and returned when they are closed."""

from typing import Final

import pytest
import trio

from tests.hostile.attack import ELSEWHERE, MEMORY, Attack

pytestmark = pytest.mark.e2e
SERVERS: Final = ("epoll-tls", "trio-websocket-tls")

AT_ONCE: Final = 40
BYTES_OPEN: Final = MEMORY / 2000  # of one of 2,000 silent connections
BYTES_KEPT: Final = MEMORY / 10_000  # of one of 10,000 clients that came and went


async def come_and_go(attack: Attack, count: int) -> None:
    """Let clients connect, some with a WebSocket and half a frame, and vanish without a word of TLS."""

    async def connect(number: int) -> None:
        client = await attack.connect(ELSEWHERE)
        if number % 2:
            await client.open()
            await client.send(b"\x81\xfe\xff")
        await trio.aclose_forcefully(client.stream)

    for _ in range(count // AT_ONCE):
        async with trio.open_nursery() as nursery:
            for number in range(AT_ONCE):
                nursery.start_soon(connect, number)


async def test_clients_that_come_and_go(attack: Attack) -> None:
    await come_and_go(attack, 160)
    before = attack.server.memory
    await come_and_go(attack, 640)
    assert attack.server.memory - before < 640 * BYTES_KEPT


async def test_connections_that_stay_silent_after_the_handshake(attack: Attack) -> None:
    before = attack.server.memory
    for _ in range(10):
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(attack.connect, ELSEWHERE)
    assert attack.server.memory - before < 10 * AT_ONCE * BYTES_OPEN
