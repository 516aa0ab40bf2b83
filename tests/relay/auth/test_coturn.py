"""A real coturn accepts the credentials of a real relay, and refuses expired ones."""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from aioice import stun, turn
from trio_websocket import open_websocket_url

from tests.harness.coturn import free_port
from tests.harness.credentials import write
from tests.harness.processes import Program, relay

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed: apt-get install coturn"),
]

UNAUTHORIZED = 401
SECRET = "north-by-northwest"


@asynccontextmanager
async def coturn(tmp_path: Path) -> AsyncIterator[int]:
    """Run coturn with the secret; yields its port."""
    port = free_port()
    arguments = ["turnserver", "-n", "--listening-ip=127.0.0.1", f"--listening-port={port}", "--relay-ip=127.0.0.1"]
    arguments += ["--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=sdpx.test", "--no-tls", "--no-dtls"]
    arguments += ["--no-cli", "--allow-loopback-peers", "--log-file=stdout", f"--pidfile={tmp_path / 'pid'}"]
    arguments += [f"--userdb={tmp_path / 'db'}"]
    process = await trio.lowlevel.open_process(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Receiver(asyncio.DatagramProtocol):
    """Receives what the allocation relays."""

    def __init__(self) -> None:
        self.data: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.data.put_nowait(data)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def send_through(server: dict[str, Any], port: int) -> bytes:
    """Allocate a relayed address with these credentials, and send something through it and back."""
    loop = asyncio.get_running_loop()
    transport, protocol = await turn.create_turn_endpoint(
        Receiver, ("127.0.0.1", port), server["username"], server["credential"], 600
    )
    echo, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    try:
        transport.sendto(b"through the relay", echo.get_extra_info("sockname"))
        return await asyncio.wait_for(protocol.data.get(), 10)
    finally:
        echo.close()
        transport.close()
        await asyncio.sleep(0.1)


def is_accepted(server: dict[str, Any], port: int) -> bool:
    """Return whether coturn accepts these credentials; raises for any other failure."""
    for _ in range(50):
        try:
            return asyncio.run(send_through(server, port)) == b"through the relay"
        except stun.TransactionFailed as failure:
            if failure.response.attributes["ERROR-CODE"][0] == UNAUTHORIZED:
                return False
            raise
        except (stun.TransactionTimeout, ConnectionRefusedError):
            continue  # coturn is still starting
    raise AssertionError


async def first_server(url: str) -> dict[str, Any]:
    async with open_websocket_url(f"{url}/?id=bob") as client:
        [server] = json.loads(await client.get_message())["ice_servers"]
        return dict(server)


@asynccontextmanager
async def turn_relay(tmp_path: Path, port: int, ttl: int) -> AsyncIterator[tuple[Program, str]]:
    secret = write(tmp_path / "turn-secret", f"{SECRET}\n")
    url = f"turn:127.0.0.1:{port}"
    async with relay("--turn-secret-file", str(secret), "--turn-url", url, "--turn-ttl", str(ttl)) as found:
        yield found


async def test_coturn_accepts_issued_credentials_until_they_expire(tmp_path: Path) -> None:
    async with coturn(tmp_path) as port, turn_relay(tmp_path, port, 600) as (_, url):
        server = await first_server(url)
        assert server["urls"] == [f"turn:127.0.0.1:{port}?transport=udp"]
        assert await trio.to_thread.run_sync(is_accepted, server, port)
        forged = server | {"username": f"{int(server['username'].partition(':')[0]) + 1}:bob"}
        assert not await trio.to_thread.run_sync(is_accepted, forged, port)
        async with turn_relay(tmp_path, port, 1) as (_, short_url):
            short_lived = await first_server(short_url)
        await trio.sleep(2.5)
        assert not await trio.to_thread.run_sync(is_accepted, short_lived, port)


@pytest.mark.long
async def test_connected_client_gets_renewed_credentials_that_coturn_accepts(tmp_path: Path) -> None:
    """The first credentials have expired by then."""
    ttl = 10
    async with (
        coturn(tmp_path) as port,
        turn_relay(tmp_path, port, ttl) as (_, url),
        open_websocket_url(f"{url}/?id=bob") as client,
    ):
        [old] = json.loads(await client.get_message())["ice_servers"]
        await trio.sleep(ttl + 1)
        assert not await trio.to_thread.run_sync(is_accepted, old, port)
        new = old
        while int(new["username"].partition(":")[0]) < time.time() + ttl / 2:
            frame = json.loads(await client.get_message())
            assert frame["type"] == "ice_servers"
            [new] = frame["ice_servers"]
        assert await trio.to_thread.run_sync(is_accepted, new, port)
