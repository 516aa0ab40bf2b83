"""Attacks on the turns of other clients: floods of frames, requests and connections, beside which all others are served."""

import socket
from contextlib import suppress
from typing import Final

import pytest
import trio

from sdpx.relay.core.limits import Limits
from sdpx.relay.http.request import host_of
from sdpx.relay.listeners import raise_file_limit
from tests.harness.frames import BINARY, CONTINUATION, PONG, TEXT, frame, message
from tests.harness.relay import RawClient
from tests.hostile.attack import ELSEWHERE, Attack, in_one_attack, patience, usable
from tests.hostile.conftest import ALL_SERVERS

pytestmark = pytest.mark.e2e
SERVERS: Final = ALL_SERVERS

FLOODERS: Final = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
BATCH_BYTES: Final = 60 * 1024
TINY: Final = {
    "empty": frame(TEXT),
    "pongs": frame(PONG),
    "binary": frame(BINARY),
    "not JSON": frame(TEXT, b"{"),
    "fragments": frame(TEXT, b"", fin=False) + frame(CONTINUATION),
    "unpair": message(type="unpair"),
    "requests": message(type="pair_request", target_id="nobody"),
}


@pytest.mark.long
async def test_batches_of_tiny_frames_starve_no_other_client(attack: Attack) -> None:
    """300 clients, or 100 with TLS, write 60 KiB of the smallest frames at once, of several kinds: each gets its turn."""
    kinds = list(TINY.values())
    clients = [(await attack.raw())[0] for _ in range(300 if attack.tls is None else 100)]

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
        refused = await attack.wait_for_events(300, "message_refused")  # frames of the batches were taken
        nursery.cancel_scope.cancel()
    assert len({line["client_id"] for line in refused}) > 1


def silent_connection(attack: Attack, address: str) -> trio.SocketStream:
    """Begin to connect from this address, without waiting."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((address, 0))
    sock.connect_ex((attack.server.host, attack.server.port))
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def test_late_requests_beside_floods_of_silent_connections(attack: Attack) -> None:
    """Three addresses open more connections than may be pending: clients of another one are served, late as they ask."""
    raise_file_limit()

    async def flood(count: int) -> None:
        for number in range(count):
            attack.opened.append(silent_connection(attack, FLOODERS[number % len(FLOODERS)]))
            if number % 100 == 0:
                await trio.sleep(0.01)

    await flood(Limits().pending + 100)
    late = [await attack.tcp() for _ in range(8)]
    await flood(200)
    await trio.sleep(0.4)
    for stream in late:
        assert (await (await attack.over(stream)).open())["type"] == "your_id"
    refused = {host_of(line["remote"]) for line in attack.events("connection_refused")}
    assert refused
    assert refused <= set(FLOODERS)


def get(target: bytes, headers: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (target, headers)


REQUESTS: Final = {
    "metrics": (1000, get(b"/metrics"), 200),
    "health": (100, get(b"/healthz"), 200),
    "no page": (100, get(b"/nothing"), 404),
    "headers": (100, get(b"/", b"a:\r\n" * 4000), 431),
    "parameters": (100, get(b"/?" + b"a&" * 8000), 400),
}


@in_one_attack(("count", "request", "expected"), REQUESTS)
async def test_requests_by_the_hundred(attack: Attack, count: int, request: bytes, expected: int) -> None:
    """So many at once, a tenth of them with TLS: all are answered, and clients that connect meanwhile are served."""

    async def ask() -> None:
        client = await attack.connect(ELSEWHERE)
        async with client.stream:
            await client.send(request)
            assert (await client.response())[0] == expected

    async with trio.open_nursery() as nursery:
        for _ in range(count if attack.tls is None else count // 10):
            nursery.start_soon(ask)
        await trio.sleep(0.05)
        with trio.fail_after(patience()):
            await usable(await attack.client())
