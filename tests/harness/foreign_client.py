"""A client of the relay that is written from the protocol alone: its own signaling, frame by frame."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from trio_websocket import WebSocketConnection, open_websocket_url

from sdpx.events.webrtc import ChannelOpen
from sdpx.peer.webrtc import peer_connection
from sdpx.peer.webrtc.events import MessageReceived
from sdpx.peer.webrtc.runtime import asyncio_loop

Frame = dict[str, Any]


class ForeignClient:
    """A WebSocket, JSON frames, and an RTCPeerConnection of its own."""

    def __init__(self, socket: WebSocketConnection, pc: peer_connection.PeerConnection) -> None:
        self.socket = socket
        self.pc = pc
        self.id = ""

    async def receive(self, kind: str) -> Frame:
        """Return the next frame but for candidates, which is of this type."""
        while True:
            frame: Frame = json.loads(await self.socket.get_message())
            if frame["type"] == kind or frame["type"] != "candidate":
                assert frame["type"] == kind, frame
                return frame

    async def send(self, **frame: object) -> None:
        await self.socket.send_message(json.dumps(frame))

    async def send_description(self, kind: str, sdp: str, *, trickle: bool) -> None:
        """Send a description, either whole or with its candidates as frames of their own, the first ones too early."""
        lines = sdp.splitlines(keepends=True)
        candidates = [line.strip().removeprefix("a=") for line in lines if line.startswith("a=candidate")]
        assert candidates
        if not trickle:
            await self.send(type=kind, sdp=sdp)
            return
        bare = "".join(line for line in lines if not line.startswith(("a=candidate", "a=end-of-candidates")))
        init = {"sdpMid": "0", "sdpMLineIndex": 0}
        await self.send(type="candidate", candidate={"candidate": candidates[0], **init})
        await self.send(type=kind, sdp=bare)
        for candidate in candidates[1:]:
            await self.send(type="candidate", candidate={"candidate": candidate, "sdpMLineIndex": 0})
        await self.send(type="candidate", candidate={"candidate": "", "sdpMid": "0"})

    async def exchange_messages(self) -> None:
        """Wait for the channel, send a message, wait for the reply."""
        async for event in self.pc.events:
            if isinstance(event, ChannelOpen):
                await self.pc.channels.send("hello from a foreign client")
            if event == MessageReceived("hello from sdpx"):
                return
        raise AssertionError("the connection ended before the reply")


@asynccontextmanager
async def foreign_client(url: str) -> AsyncIterator[ForeignClient]:
    """Connect a client to a relay; yields it with its ID."""
    async with asyncio_loop(), open_websocket_url(url) as socket:
        pc = await peer_connection.connect([])
        try:
            me = ForeignClient(socket, pc)
            me.id = (await me.receive("your_id"))["id"]
            yield me
        finally:
            await pc.close()
