"""The original design's verification list, line by line, with real processes."""

import signal

import pytest

from tests.harness.processes import Program, peer, relay, two_peers

pytestmark = pytest.mark.e2e

INITIATOR = [
    "connecting",
    "connected",
    "id_assigned",
    "pair_requested",
    "paired",
    "pc_created",
    "webrtc_started",
    "offer_created",
    "offer_sent",
    "answer_received",
    "exchange_complete",
    "path_selected",
    "channel_open",
]
RECEIVER = [
    "connecting",
    "connected",
    "id_assigned",
    "paired",
    "pc_created",
    "webrtc_started",
    "offer_received",
    "remote_description_set",
    "answer_created",
    "answer_sent",
    "exchange_complete",
    "path_selected",
    "channel_open",
]
STATES = {"ice_gathering_state", "ice_connection_state", "connection_state", "signaling_state"}


def story(program: Program) -> list[str]:
    """The events of a peer up to the open channel, without the states, which come in an order of their own."""
    events = program.events[: program.events.index("channel_open") + 1]
    return [event for event in events if event not in STATES]


def states(program: Program, event: str) -> list[str]:
    return [line["state"] for line in program.of(event)]


async def test_the_whole_handshake_is_logged_in_order() -> None:
    """The relay logs the pairing, the offer of A and the answer of B; each peer every step; then messages go both ways."""
    async with relay() as (server, url), peer(url, "--id", "bob") as (b, _), peer(url, "--pair", "bob") as (a, a_id):
        await a.wait_for("channel_open")
        await b.wait_for("channel_open")
        assert (await a.wait_for("paired"))["message"] == "Paired with bob! You are the initiator."
        assert (await b.wait_for("paired"))["message"] == f"Paired with {a_id}! You are the receiver."
        await a.say("grüß dich")
        await b.wait_for("channel_message", text="grüß dich")
        await b.say("")
        await a.wait_for("channel_message", text="")
        await a.wait_for("channel_message_sent", bytes=len("grüß dich".encode()))
    assert story(a) == INITIATOR
    assert story(b) == RECEIVER
    for program in (a, b):
        assert states(program, "ice_connection_state")[:2] == ["checking", "completed"]
        assert states(program, "connection_state")[:2] == ["connecting", "connected"]
        assert all(list(line)[-1] == "ms" for line in program.lines)
    assert [line["message"] for line in server.lines if line["event"] in ("paired", "relayed")] == [
        f"Pairing successful: {a_id} <-> bob",
        f"Relaying 'offer' message from {a_id} to bob",
        f"Relaying 'answer' message from bob to {a_id}",
    ]


async def test_a_peer_is_ready_again_when_the_other_is_interrupted() -> None:
    """The peer closes its connection, and a third peer is paired with it on the same relay connection."""
    async with relay() as (_, url), two_peers(url) as (a, b):
        assert await b.end(signal.SIGINT) == 0
        gone = await a.wait_for("peer_disconnected", peer_id="bob")
        assert gone["reason"] == "closed"
        await a.wait_for("closed")
        ready = await a.wait_for("ready")
        assert ready["message"] == "Ready for new connection."
        seen = len(a.lines)
        async with peer(url, "--pair", "alice") as (c, c_id):
            await a.wait_for("paired", after=seen, peer_id=c_id, is_initiator=False)
            await c.wait_for("channel_open")
            await a.wait_for("channel_open", after=seen)
            await c.say("from C")
            await a.wait_for("channel_message", text="from C")


async def test_a_peer_closes_its_connection_before_the_websocket() -> None:
    """On SIGTERM, with status 0; the relay stops with status 0, too, and names its signal."""
    async with relay() as (server, url), two_peers(url) as (a, _):
        assert await a.end() == 0
        assert a.events[-1] == "closed"
        gone = await server.wait_for("client_disconnected", client_id="alice")
        assert gone["code"] == 1000
        assert (await server.wait_for("unpaired"))["ts"] > a.lines[-1]["ts"]
        assert await server.end(signal.SIGINT) == 0
        assert server.events[-1] == "server_stopped"
        assert (await server.wait_for("server_stopping"))["signal"] == "SIGINT"
