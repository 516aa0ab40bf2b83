"""Which STUN and TURN servers answer at all: for versions of aiortc that wait for the first of each, silent or not.

A Binding request over UDP (RFC 8489, 6), or a TCP connection where the server is reached by that. Nothing of the answer
counts but that it comes.
"""

import secrets
from collections.abc import Sequence
from typing import Final

import trio

from sdpx.ice_servers import IceServer

PROBE_SECONDS: Final = 1.0
_BINDING_REQUEST: Final = bytes.fromhex("000100002112a442")
_RESENDS: Final = 3


async def answering(servers: Sequence[IceServer]) -> tuple[IceServer, ...]:
    """Return those servers that answer within a second, all asked at once, in their order."""
    answered: set[IceServer] = set()

    async def ask(server: IceServer) -> None:
        try:
            await (_dial(server) if server.transport == "tcp" else _bind(server))
        except (OSError, UnicodeError):
            return
        answered.add(server)

    with trio.move_on_after(PROBE_SECONDS):
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(ask, server)
    return tuple(server for server in servers if server in answered)


async def _dial(server: IceServer) -> None:
    stream = await trio.open_tcp_stream(server.host, server.port)
    await trio.aclose_forcefully(stream)


async def _bind(server: IceServer) -> None:
    kind = trio.socket.SOCK_DGRAM
    family, *_, address = (await trio.socket.getaddrinfo(server.host, server.port, type=kind))[0]
    with trio.socket.socket(family, kind) as socket:
        await socket.connect(address)
        transaction = secrets.token_bytes(12)
        for _ in range(_RESENDS):
            await socket.send(_BINDING_REQUEST + transaction)
            with trio.move_on_after(PROBE_SECONDS / _RESENDS):
                while (await socket.recv(2048))[8:20] != transaction:
                    pass
                return
        raise TimeoutError
