"""The original design, implemented literally: asyncio, websockets, two dictionaries, a log line for each relayed message.

The reference of `just bench`: `python -m tests.bench.literal_server [CERTIFICATE KEY]`. It checks no more than the design says.
"""

import asyncio
import json
import logging
import ssl
import sys
import uuid
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

log = logging.getLogger("literal")
clients: dict[str, ServerConnection] = {}
peers: dict[str, str] = {}


async def send(client_id: str, **message: Any) -> None:
    """Send a message to a client, which may be disconnected."""
    if client_id in clients:
        try:
            await clients[client_id].send(json.dumps(message))
        except ConnectionClosed:
            log.warning("%s is gone", client_id)


async def pair(client_id: str, target_id: str) -> None:
    log.info("Client %s requests pairing with %s", client_id, target_id)
    refusals = {
        "You cannot pair with yourself": target_id == client_id,
        "You are already paired": client_id in peers,
        "Target client not found": target_id not in clients,
        "Target client is already paired": target_id in peers,
    }
    for reason, applies in refusals.items():
        if applies:
            await send(client_id, type="error", message=reason)
            return
    peers[client_id], peers[target_id] = target_id, client_id
    log.info("Pairing successful: %s <-> %s", client_id, target_id)
    await send(client_id, type="paired", peer_id=target_id, is_initiator=True)
    await send(target_id, type="paired", peer_id=client_id, is_initiator=False)


async def relay(client_id: str, message: dict[str, Any]) -> None:
    peer_id = peers.get(client_id)
    if peer_id is None:
        await send(client_id, type="error", message="You have no peer")
        return
    log.info("Relaying '%s' message from %s to %s", message["type"], client_id, peer_id)
    await send(peer_id, **message | {"from_peer": True})


async def handle(connection: ServerConnection) -> None:
    client_id = uuid.uuid4().hex
    clients[client_id] = connection
    log.info("Client %s connected", client_id)
    try:
        await send(client_id, type="your_id", id=client_id)
        async for text in connection:
            message = json.loads(text)
            if message["type"] == "pair_request":
                await pair(client_id, message["target_id"])
            elif message["type"] in ("offer", "answer", "candidate"):
                await relay(client_id, message)
    except ConnectionClosed:
        pass
    finally:
        del clients[client_id]
        log.info("Client %s disconnected", client_id)
        peer_id = peers.pop(client_id, None)
        if peer_id is not None:
            peers.pop(peer_id, None)
            await send(peer_id, type="peer_disconnected", peer_id=client_id)


async def main(files: list[str]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    async with serve(handle, "127.0.0.1", 0, ssl=context) as server:
        host, port = server.sockets[0].getsockname()
        url = f"{'wss' if files else 'ws'}://{host}:{port}"
        sys.stdout.write(json.dumps({"event": "server_listening", "url": url, "host": host, "port": port}) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
