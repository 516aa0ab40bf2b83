"""A client written from the protocol alone meets `sdpx peer`: its own signaling, frame by frame, in both roles."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trio_websocket import WebSocketConnection, open_websocket_url

from sdpx.events.webrtc import ChannelOpen
from sdpx.peer.negotiation.description import parse_description
from sdpx.peer.webrtc import peer_connection
from sdpx.peer.webrtc.events import MessageReceived
from sdpx.peer.webrtc.runtime import asyncio_loop
from tests.harness.processes import peer, relay

pytestmark = pytest.mark.e2e

Frame = dict[str, Any]


class Client:
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


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    async with asyncio_loop(), open_websocket_url(url) as socket:
        pc = await peer_connection.connect([])
        try:
            me = Client(socket, pc)
            me.id = (await me.receive("your_id"))["id"]
            yield me
        finally:
            await pc.close()


async def test_a_foreign_initiator_connects() -> None:
    """The client requests the pairing, offers, sends a message, and trickles its candidates, one before the offer."""
    async with relay() as (_, url), peer(url) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        assert (await me.receive("paired"))["is_initiator"] is True
        await me.pc.channels.create("robot")
        await me.send_description("offer", await me.pc.create_offer(), trickle=True)
        answer = await me.receive("answer")
        assert answer["from_peer"] is True
        await me.pc.accept_answer(parse_description(answer["sdp"], "answer"))
        await program.say("hello from sdpx")
        await me.exchange_messages()
        await program.wait_for("channel_open", label="robot")
        await program.wait_for("channel_message", text="hello from a foreign client")
        assert "candidate_received" in program.events


async def test_a_foreign_receiver_connects() -> None:
    """The client accepts the offer, answers, and sends a message; its candidates are in the answer."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id) as (program, _):
        assert (await me.receive("paired"))["is_initiator"] is False
        await me.pc.accept_offer(parse_description((await me.receive("offer"))["sdp"], "offer"))
        await me.send_description("answer", await me.pc.create_answer(), trickle=False)
        await program.say("hello from sdpx")
        await me.exchange_messages()
        await program.wait_for("channel_message", text="hello from a foreign client")


async def test_a_further_offer_replaces_the_connection() -> None:
    """The initiator offers again within the pairing: the old connection is closed, a new one comes up."""
    async with relay() as (_, url), peer(url) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        for _ in range(2):
            seen = len(program.lines)
            pc = await peer_connection.connect([])
            await pc.channels.create("chat")
            await me.send(type="offer", sdp=await pc.create_offer())
            await pc.accept_answer(parse_description((await me.receive("answer"))["sdp"], "answer"))
            await program.wait_for("channel_open", after=seen)
            await pc.close()
        assert program.events.count("pc_created") == 2
        assert program.events.index("closing") < program.events.index("pc_created", program.events.index("closing"))
