"""A client written from the protocol alone meets `sdpx peer`: its own signaling, frame by frame, in both roles."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, open_websocket_url, serve_websocket

from sdpx.peer.webrtc import peer_connection
from sdpx.peer.webrtc.events import ChannelOpened, MessageReceived
from sdpx.peer.webrtc.runtime import asyncio_loop
from tests.harness.processes import peer, relay

pytestmark = pytest.mark.e2e

Frame = dict[str, Any]
# What createOffer and createAnswer give where nothing was added to the RTCPeerConnection.
WITHOUT_MEDIA = "v=0\r\no=- 3 3 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE\r\na=msid-semantic:WMS *\r\n"


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

    async def talk(self) -> None:
        """Wait for the channel, say hello, wait for the answer."""
        async for event in self.pc.events:
            if isinstance(event, ChannelOpened):
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


@pytest.mark.parametrize("trickle", [False, True])
async def test_a_foreign_initiator_connects(trickle: bool) -> None:
    """It asks for the pairing, offers, and talks; its candidates come in the offer, or around it."""
    async with relay() as (_, url), peer(url) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        assert (await me.receive("paired"))["is_initiator"] is True
        await me.pc.channels.create("robot")
        await me.send_description("offer", await me.pc.create_offer(), trickle=trickle)
        answer = await me.receive("answer")
        assert answer["from_peer"] is True
        await me.pc.accept_answer(answer["sdp"])
        await program.say("hello from sdpx")
        await me.talk()
        await program.wait_for("channel_open", label="robot")
        await program.wait_for("channel_message", text="hello from a foreign client")
        assert ("candidate_received" in program.events) == trickle


@pytest.mark.parametrize("trickle", [False, True])
async def test_a_foreign_receiver_connects(trickle: bool) -> None:
    """It is asked, takes the offer, answers, and talks."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id) as (program, _):
        assert (await me.receive("paired"))["is_initiator"] is False
        await me.pc.accept_offer((await me.receive("offer"))["sdp"])
        await me.send_description("answer", await me.pc.create_answer(), trickle=trickle)
        await program.say("hello from sdpx")
        await me.talk()
        await program.wait_for("channel_message", text="hello from a foreign client")


async def test_an_offer_without_media_is_answered_and_the_exchange_completes() -> None:
    """A client that follows the founding design literally: ICE never starts, and that is no failure."""
    async with relay() as (_, url), peer(url, "--timeout", "1") as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        await me.send(type="offer", sdp=WITHOUT_MEDIA)
        assert "m=" not in (await me.receive("answer"))["sdp"]
        await program.wait_for("exchange_complete")
        await trio.sleep(1.5)  # past the deadline, which does not concern it
        assert "negotiation_error" not in program.events


async def test_bad_descriptions_leave_the_peer_usable() -> None:
    """Garbage, the empty string, an answer out of turn: an event each, then a good offer connects."""
    async with relay() as (_, url), peer(url) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        for sdp in ("", "garbage", "v=0\r\no=-\r\ns=-\r\nt=0 0\r\nm=application\r\n"):
            seen = len(program.lines)
            await me.send(type="offer", sdp=sdp)
            await program.wait_for("negotiation_error", after=seen, type="offer", code="bad_sdp")
        await me.send(type="answer", sdp="v=0")
        await program.wait_for("negotiation_error", type="answer", code="wrong_state")
        await me.pc.channels.create("chat")
        await me.send_description("offer", await me.pc.create_offer(), trickle=False)
        await me.pc.accept_answer((await me.receive("answer"))["sdp"])
        await program.wait_for("channel_open")
        assert program.events.count("negotiation_error") == 4


async def test_bad_candidates_leave_the_negotiation_alone() -> None:
    """A candidate that makes no sense is an event, and the connection still comes up."""
    async with relay() as (_, url), peer(url) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        await me.send(type="candidate", candidate={"candidate": "nonsense", "sdpMid": "0"})
        await me.pc.channels.create("chat")
        await me.send_description("offer", await me.pc.create_offer(), trickle=True)
        await me.pc.accept_answer((await me.receive("answer"))["sdp"])
        await program.wait_for("negotiation_error", code="bad_candidate")
        await program.wait_for("channel_open")
        assert program.events.count("negotiation_error") == 1


async def test_a_further_offer_starts_afresh() -> None:
    """The initiator offers again within the pairing: the old connection is closed, a new one comes up."""
    async with relay() as (_, url), peer(url) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        for _ in range(2):
            seen = len(program.lines)
            pc = await peer_connection.connect([])
            await pc.channels.create("chat")
            await me.send(type="offer", sdp=await pc.create_offer())
            await pc.accept_answer((await me.receive("answer"))["sdp"])
            await program.wait_for("channel_open", after=seen)
            await pc.close()
        assert program.events.count("pc_created") == 2
        assert program.events.index("closing") < program.events.index("pc_created", program.events.index("closing"))


async def reoffer(me: Client) -> peer_connection.PeerConnection:
    """Offer within the pairing, with a new connection, and finish the exchange."""
    pc = await peer_connection.connect([])
    await pc.channels.create("chat")
    await me.send(type="offer", sdp=await pc.create_offer())
    await pc.accept_answer((await me.receive("answer"))["sdp"])
    return pc


async def test_a_further_offer_has_a_deadline_of_its_own() -> None:
    """However long the first connection was up: `--timeout` is not counted from the pairing again."""
    async with relay() as (_, url), peer(url, "--timeout", "2") as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        first = await reoffer(me)
        await program.wait_for("channel_open")
        await trio.sleep(2.1)
        seen = len(program.lines)
        second = await reoffer(me)
        await program.wait_for("channel_open", after=seen)
        assert "diagnosis" not in program.events
        await first.close()
        await second.close()


@pytest.mark.parametrize("ends", ["channel", "connection"])
async def test_a_channel_that_is_closed_before_the_message_is_status_12(ends: str) -> None:
    """Although the pairing stands at the relay, and the peer could offer again: it does not."""
    arguments = ("--expect", "message", "--within", "20")
    async with relay() as (_, url), peer(url, *arguments) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        pc = await reoffer(me)
        await program.wait_for("channel_open")
        await (pc.channels.finish() if ends == "channel" else pc.close())
        assert await program.ended() == 12
        assert (await program.wait_for("diagnosis"))["code"] == "channel_closed"
        assert program.lines[-1]["event"] == "error"
        assert b"the other side closed it" in program.stderr
        await pc.close()


async def test_a_peer_that_opens_another_channel_may_still_send_the_message() -> None:
    arguments = ("--expect", "message", "--within", "20")
    async with relay() as (_, url), peer(url, *arguments) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        first = await reoffer(me)
        await program.wait_for("channel_open")
        await first.channels.finish()
        await first.channels.create("another")
        async for event in first.events:
            if event == ChannelOpened("another"):
                break
        await first.channels.send("here it is")
        assert await program.ended() == 0
        await first.close()


# The client's library leaves its socket to the collector when a relay is killed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("arguments", [("--no-reconnect",), ("--once",)])
async def test_a_channel_after_a_further_offer_is_as_good_as_the_first(arguments: tuple[str, ...]) -> None:
    """It outlives the relay, and with --once the end of the old one is not the end."""
    async with relay() as (server, url), peer(url, *arguments) as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        first = await reoffer(me)
        await program.wait_for("channel_open")
        seen = len(program.lines)
        second = await reoffer(me)
        await program.wait_for("channel_open", after=seen)
        await first.close()
        server.process.kill()
        await program.wait_for("disconnected")
        await program.say("still here")
        async for event in second.events:
            if event == MessageReceived("still here"):
                break
        await second.close()
        assert await program.ended() == (0 if arguments == ("--once",) else 3)


@pytest.mark.parametrize("pair", [True, False])
async def test_no_answer_in_time(pair: bool) -> None:
    """The deadline: an event that says what did not come; unpaired; with --pair status 8."""
    async with relay() as (_, url), client(url) as me:
        arguments = ("--pair", me.id) if pair else ()
        async with peer(url, "--timeout", "0.7", *arguments) as (program, _):
            if not pair:
                await program.say(me.id)
            await me.receive("paired")
            await me.receive("offer")
            await program.wait_for("negotiation_error", type="answer", code="timeout")
            assert (await me.receive("peer_disconnected"))["reason"] == "left"
            if pair:
                assert await program.ended() == 8
                await program.wait_for("error", code="no_answer")
            else:
                await program.wait_for("ready")


async def test_no_offer_in_time() -> None:
    """A receiver that is offered nothing says so, unpairs, and is ready."""
    async with relay() as (_, url), peer(url, "--timeout", "0.7") as (program, peer_id), client(url) as me:
        await me.send(type="pair_request", target_id=peer_id)
        await me.receive("paired")
        await program.wait_for("negotiation_error", type="offer", code="timeout")
        await program.wait_for("closed")
        await program.wait_for("ready")
        assert (await me.receive("peer_disconnected"))["reason"] == "left"


async def test_no_connection_in_time() -> None:
    """Both descriptions, but nobody at the other end: `connection` is what did not come; status 9."""
    async with relay() as (_, url), client(url) as me, peer(url, "--pair", me.id, "--timeout", "2") as (program, _):
        await me.receive("paired")
        await me.pc.accept_offer((await me.receive("offer"))["sdp"])
        answer = await me.pc.create_answer()
        dead = "".join(line for line in answer.splitlines(keepends=True) if "candidate" not in line)
        await me.pc.close()
        await me.send(type="answer", sdp=dead)
        assert await program.ended() == 9
        await program.wait_for("negotiation_error", type="connection", code="timeout")


async def cross(request: WebSocketRequest) -> None:
    """Be a relay at which the wanted peer asked first: the client is paired, and its own request refused."""
    socket = await request.accept()
    await socket.send_message('{"type":"your_id","id":"x"}')
    assert json.loads(await socket.get_message())["target_id"] == "friend"
    await socket.send_message('{"type":"paired","peer_id":"friend","is_initiator":false}')
    refused = {"type": "error", "code": "already_paired", "message": "m", "in_reply_to": "pair_request"}
    await socket.send_message(json.dumps(refused | {"target_id": "friend"}))
    await trio.sleep_forever()


async def test_requests_that_cross_leave_the_pairing_that_was_wanted() -> None:
    """A asks for B while B asks for A: whoever was late hears an error, and goes on."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, cross, "127.0.0.1", 0, ssl_context=None))
        url = f"ws://127.0.0.1:{server.port}"
        async with peer(url, "--pair", "friend") as (program, _):
            await program.wait_for("server_error", code="already_paired")
            await program.wait_for("webrtc_started", is_initiator=False)
            assert await program.end() == 0
            assert "error" not in program.events
        nursery.cancel_scope.cancel()


async def pair_twice(request: WebSocketRequest) -> None:
    """Be a relay that pairs its client twice, the second time once the first offer is there."""
    socket = await request.accept()
    await socket.send_message('{"type":"your_id","id":"x"}')
    for name in ("one", "two"):
        await socket.send_message(json.dumps({"type": "paired", "peer_id": name, "is_initiator": True}))
        assert json.loads(await socket.get_message())["peer_id"] == name
    await trio.sleep_forever()


async def test_a_second_pairing_closes_the_first_connection() -> None:
    """A relay that pairs a peer anew while it has a connection: the old one is closed before the new one is made."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, pair_twice, "127.0.0.1", 0, ssl_context=None))
        async with peer(f"ws://127.0.0.1:{server.port}") as (program, _):
            await program.wait_for("paired", peer_id="two")
            events = program.events
            assert events.index("closed") < events.index("paired", events.index("paired") + 1)
            await program.wait_for("offer_sent", after=len(events) - 1)
            assert await program.end() == 0
        nursery.cancel_scope.cancel()
