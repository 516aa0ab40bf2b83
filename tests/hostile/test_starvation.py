"""Attacks on the turns of other clients: floods of frames, requests and connections, beside which all others are served."""

from contextlib import suppress
from typing import Final

import pytest
import trio

from tests.harness.frames import BINARY, PONG, TEXT, frame, message
from tests.harness.relay import RawClient
from tests.hostile.attack import Attack
from tests.hostile.conftest import ALL_SERVERS

pytestmark = pytest.mark.e2e
SERVERS: Final = ALL_SERVERS

BATCH_BYTES: Final = 60 * 1024
TINY: Final = {
    "empty": frame(TEXT),
    "pongs": frame(PONG),
    "binary": frame(BINARY),
    "not JSON": frame(TEXT, b"{"),
    "fragments": frame(TEXT, b"", fin=False) + frame(0x0),
    "unpair": message(type="unpair"),
    "requests": message(type="pair_request", target_id="nobody"),
}


async def test_batches_of_tiny_frames_starve_no_other_client(attack: Attack) -> None:
    """300 clients write 60 KiB of the smallest frames at once, of several kinds: each gets its turn, and no more."""
    kinds = list(TINY.values())
    clients = [(await attack.raw())[0] for _ in range(300)]

    async def write(client: RawClient, data: bytes) -> None:
        with suppress(trio.BrokenResourceError):
            await client.send(data)

    async with trio.open_nursery() as nursery:
        for number, client in enumerate(clients):
            kind = kinds[number % len(kinds)]
            nursery.start_soon(write, client, kind * (BATCH_BYTES // len(kind)))
        rounds = attack.pair.rounds
        while attack.pair.rounds < rounds + 10:
            await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
