"""A relay that answers one dial after the other as a test says, and a signaling client that dials it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from sdpx.log import Log
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.client import SignalingClient
from tests.harness.log import LogRecorder

Frame = dict[str, Any]
Response = Callable[[WebSocketRequest, list[Frame]], Awaitable[None]]


def accepts(your_id: Frame, *frames: Frame, code: int | None = None) -> Response:
    """Send these frames; then drop the socket, close it with this code, or, with 0, keep it."""

    async def respond(request: WebSocketRequest, received: list[Frame]) -> None:
        connection = await request.accept()
        for frame in ({"type": "your_id", "id": "alice"} | your_id, *frames):
            await connection.send_message(json.dumps(frame))
        if code is None:
            await connection._stream.aclose()
            return
        if code:
            await connection.aclose(code)
        try:
            while True:
                received.append(json.loads(await connection.get_message()))
        except ConnectionClosed as closed:
            received.append({"code": closed.reason and closed.reason.code})

    return respond


def refuses(status: int, code: str = "") -> Response:
    """Answer with an HTTP error: of a relay, with this code, or of another server."""

    async def respond(request: WebSocketRequest, received: list[Frame]) -> None:
        await request.reject(status, body=json.dumps({"code": code, "message": "no"}).encode() if code else b"")

    return respond


class ScriptedRelay:
    """The responses that remain, the paths that were dialled, and the frames and close codes that were received."""

    def __init__(self, *responses: Response) -> None:
        self.responses = list(responses)
        self.paths: list[str] = []
        self.received: list[Frame] = []

    async def handle(self, request: WebSocketRequest) -> None:
        self.paths.append(request.path)
        await self.responses.pop(0)(request, self.received)


@asynccontextmanager
async def scripted(
    *responses: Response, **options: Any
) -> AsyncIterator[tuple[SignalingClient, ScriptedRelay, LogRecorder]]:
    """Run a client with these `PeerOptions`, and next to no delays, against a relay with these responses."""
    relay, log = ScriptedRelay(*responses), LogRecorder()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, relay.handle, "127.0.0.1", 0, ssl_context=None))
            chosen = PeerOptions(f"ws://127.0.0.1:{server.port}", **options)
            client = SignalingClient(chosen, None, Log(log.put, trio.current_time), lambda: 0.0)
            client._backoff = Backoff(0.01, 0.02)
            nursery.start_soon(client.run)
            yield client, relay, log
            await client.close()
            nursery.cancel_scope.cancel()
