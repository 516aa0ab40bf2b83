"""The resume rules of the relay behind a real WebSocket server, with a simulated peer, bob, that answers alice's frames."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from sdpx.relay.core.limits import Limits
from tests.harness.resume_world import RelayEnd, Socket

TICK: Final = 0.02
Frame = dict[str, Any]


class ResumingRelay:
    """A `RelayEnd` on real sockets."""

    def __init__(self, bounds: Limits | None = None) -> None:
        self.end = RelayEnd(bounds or Limits())
        self.live: dict[Socket, WebSocketConnection] = {}
        self.asked: list[str] = []
        self.bob = Socket("", "bob")
        self.end.accept(self.bob)
        self.bob.down.clear()
        self.bobs: list[Frame] = []
        self.answers: list[Frame] = []
        self.acks_are_sent = True

    async def handle(self, request: WebSocketRequest) -> None:
        """Serve a connection to its end."""
        self.asked.append(request.path)
        query = request.path.partition("?")[2]
        name = dict(pair.split("=") for pair in query.split("&")).get("id")
        socket = Socket(query, name)
        try:
            connection = await request.accept()
        except ConnectionClosed:
            return
        self.live[socket] = connection
        self.end.accept(socket)
        assert socket.refused is None
        await self.flush()
        try:
            while True:
                socket.up.append(str(await connection.get_message()))
                self.end.read(socket)
                self.play_bob()
                await self.flush()
        except ConnectionClosed as closed:
            del self.live[socket]
            left = closed.reason is not None and closed.reason.code == 1000
            if left and socket.relay_closed is None:
                for member in list(self.end.members.values()):
                    if member.socket is socket:
                        self.end.leave(member, "closed")
            self.end.suspend(socket)
            self.play_bob()

    def play_bob(self) -> None:
        """Answer the frames that bob received."""
        while self.bob.down:
            frame = json.loads(self.bob.down.popleft())
            self.bobs.append(frame)
            if frame["type"] == "offer":
                self.bob_sends(*self.answers)

    def bob_sends(self, *frames: Frame) -> None:
        for frame in frames:
            self.bob.up.append(json.dumps(frame))
            self.end.read(self.bob)

    async def flush(self) -> None:
        """Write all queued frames."""
        for socket, connection in list(self.live.items()):
            try:
                while socket.down:
                    text = socket.down.popleft()
                    if self.acks_are_sent or '"type":"ack"' not in text:
                        await connection.send_message(text)
                if socket.relay_closed:
                    with trio.move_on_after(0.05):  # the connection may be frozen
                        await connection.aclose(socket.relay_closed)
            except ConnectionClosed:
                pass

    async def tick(self) -> None:
        """Advance the clock of the relay."""
        while True:
            await trio.sleep(TICK)
            self.end.tick(trio.current_time())
            await self.flush()


@asynccontextmanager
async def resuming_relay(bounds: Limits | None = None) -> AsyncIterator[tuple[ResumingRelay, int]]:
    """Run the relay on a free port; yields it and the port."""
    relay = ResumingRelay(bounds)
    relay.end.tick(trio.current_time())
    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, relay.handle, "127.0.0.1", 0, ssl_context=None)
        server = await nursery.start(serve)
        nursery.start_soon(relay.tick)
        yield relay, server.port
        nursery.cancel_scope.cancel()
