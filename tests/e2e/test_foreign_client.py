"""A client written from the protocol alone meets `sdpx peer`, in both roles (tests/harness/foreign_client.py)."""

import pytest

from sdpx.peer.negotiation.description import parse_description
from sdpx.peer.webrtc import peer_connection
from tests.harness.foreign_client import foreign_client
from tests.harness.processes import peer, relay

pytestmark = pytest.mark.e2e


async def test_a_foreign_initiator_connects() -> None:
    """The client requests the pairing, offers, sends a message, and trickles its candidates, one before the offer."""
    async with relay() as (_, url), peer(url) as (program, peer_id), foreign_client(url) as me:
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
    async with relay() as (_, url), foreign_client(url) as me, peer(url, "--pair", me.id) as (program, _):
        assert (await me.receive("paired"))["is_initiator"] is False
        await me.pc.accept_offer(parse_description((await me.receive("offer"))["sdp"], "offer"))
        await me.send_description("answer", await me.pc.create_answer(), trickle=False)
        await program.say("hello from sdpx")
        await me.exchange_messages()
        await program.wait_for("channel_message", text="hello from a foreign client")


async def test_a_further_offer_replaces_the_connection() -> None:
    """The initiator offers again within the pairing: the old connection is closed, a new one comes up."""
    async with relay() as (_, url), peer(url) as (program, peer_id), foreign_client(url) as me:
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
