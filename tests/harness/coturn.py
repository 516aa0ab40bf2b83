"""A real STUN and TURN server: coturn. Tests are skipped where it is not installed, and fail if CI=true."""

import random
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from sdpx.peer.webrtc.peer_connection import host_addresses
from tests.harness.programs import needs

PORTS = (20_000, 32_000)
USER = "ann@example"
PASSWORD = "pass:word"
LOGIN = "ann%40example:pass%3Aword"
BINDING_REQUEST = bytes.fromhex("000100002112a442") + b"twelve bytes"


def free_port() -> int:
    """Return a free TCP and UDP port outside the ephemeral range."""
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


@asynccontextmanager
async def coturn(directory: Path, secret: str | None = None, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run coturn on loopback, or another `host`, with relay addresses of this machine; yields its port.

    It accepts one user, or, with a `secret`, the credentials derived from it (`use-auth-secret`).
    """
    port = free_port()
    command = [
        *(needs("turnserver"), "-n", "--no-cli", "--no-tls", "--no-dtls", "--realm=sdpx.test"),
        *(f"--listening-ip={host}", f"--listening-port={port}", f"--relay-ip={host_addresses()[0]}"),
        *("--min-port=52000", "--max-port=52999", "--allow-loopback-peers"),
        *(f"--pidfile={directory}/pid", f"--userdb={directory}/db", f"--log-file={directory}/log", "--simple-log"),
    ]
    if secret is None:
        command += ["--lt-cred-mech", f"--user={USER}:{PASSWORD}"]
    else:
        command += ["--use-auth-secret", f"--static-auth-secret={secret}"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with trio.fail_after(20):
            await wait_for_response(port, host)
        yield port
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def wait_for_response(port: int, host: str = "127.0.0.1") -> None:
    """Wait until a STUN server answers on this port."""
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as probe:
        await probe.bind(("", 0))
        while True:
            await probe.sendto(BINDING_REQUEST, (host, port))
            with trio.move_on_after(0.2):
                try:
                    await probe.recv(2048)
                except ConnectionRefusedError:
                    await trio.sleep(0.1)
                    continue
                return
