"""The founding design's verification list, line by line, with real processes."""

import signal

import pytest

from tests.harness.processes import Program, peer, relay

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
    "channel_open",
]
STATES = {"ice_gathering_state", "ice_connection_state", "connection_state", "signaling_state"}


def story(program: Program) -> list[str]:
    """The events of a peer up to the open channel, without the states, which come in an order of their own."""
    events = program.events[: program.events.index("channel_open") + 1]
    return [event for event in events if event not in STATES]


def states(program: Program, event: str) -> list[str]:
    return [line["state"] for line in program.lines if line["event"] == event]


async def connect(a: Program, b: Program) -> None:
    await a.wait_for("channel_open")
    await b.wait_for("channel_open")


async def test_the_relay_logs_the_pairing_then_the_offer_then_the_answer() -> None:
    """Relay: pairing, `offer` from A to B, `answer` from B to A, in that order."""
    async with relay() as (server, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, a_id):
        await connect(a, b)
        told = [line for line in server.lines if line["event"] in ("paired", "relayed")]
    assert [line["message"] for line in told] == [
        f"Pairing successful: {a_id} <-> {b_id}",
        f"Relaying 'offer' message from {a_id} to {b_id}",
        f"Relaying 'answer' message from {b_id} to {a_id}",
    ]


async def test_both_peers_tell_the_whole_handshake_in_order() -> None:
    """A as initiator, B as receiver: every step of the founding design, and the states as they come."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, a_id):
        await connect(a, b)
        assert (await a.wait_for("paired"))["message"] == f"Paired with {b_id}! You are the initiator."
        assert (await b.wait_for("paired"))["message"] == f"Paired with {a_id}! You are the receiver."
    assert story(a) == INITIATOR
    assert story(b) == RECEIVER
    for program in (a, b):
        assert states(program, "ice_connection_state")[:2] == ["checking", "completed"]
        assert states(program, "connection_state")[:2] == ["connecting", "connected"]
        assert all(list(line)[-1] == "ms" for line in program.lines)


async def test_a_line_goes_each_way_over_the_channel() -> None:
    """Lines of stdin go to the other peer, one `channel_message` each, whatever letters they hold."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, _):
        await a.say("grüß dich")
        await b.wait_for("channel_message", text="grüß dich")
        await b.say("")
        await a.wait_for("channel_message", text="")
        await a.wait_for("channel_message_sent", bytes=len("grüß dich".encode()))
    assert [line["text"] for line in b.lines if line["event"] == "channel_message"] == ["grüß dich"]
    assert [line["text"] for line in a.lines if line["event"] == "channel_message"] == [""]


async def test_an_id_typed_on_stdin_asks_for_the_pairing() -> None:
    """Without --pair a line of stdin is the ID to pair with, and the next line is for the peer."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url) as (a, _):
        await a.say(b_id)
        await a.say("hello")
        await b.wait_for("channel_message", text="hello")
        assert (await a.wait_for("paired"))["is_initiator"] is True


async def test_a_peer_is_ready_again_when_the_other_is_interrupted() -> None:
    """B interrupted: A is told, closes its connection, is ready, and C pairs with it on the same relay connection."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, a_id):
        await connect(a, b)
        assert await b.end(signal.SIGINT) == 0
        gone = await a.wait_for("peer_disconnected", peer_id=b_id)
        assert gone["reason"] == "closed"
        await a.wait_for("closed")
        ready = await a.wait_for("ready")
        assert ready["message"] == "Ready for new connection."
        seen = len(a.lines)
        async with peer(url, "--pair", a_id) as (c, c_id):
            await a.wait_for("paired", after=seen, peer_id=c_id, is_initiator=False)
            await c.wait_for("channel_open")
            await a.wait_for("channel_open", after=seen)
            await c.say("from C")
            await a.wait_for("channel_message", text="from C")


async def test_the_connection_closes_before_the_websocket() -> None:
    """SIGTERM: the RTCPeerConnection is closed, and only then does the relay lose the client."""
    async with relay() as (server, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, a_id):
        await connect(a, b)
        assert await a.end() == 0
        assert a.events[-1] == "closed"
        gone = await server.wait_for("client_disconnected", client_id=a_id)
        assert gone["code"] == 1000
        assert (await server.wait_for("unpaired"))["ts"] > a.lines[-1]["ts"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_every_program_ends_with_status_0_on_a_signal(number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C everywhere, as a supervisor sends it: exit 0."""
    async with relay() as (server, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, _):
        await connect(a, b)
        for program in (a, b, server):
            program.process.send_signal(number)
        assert [await program.ended() for program in (a, b, server)] == [0, 0, 0]
        assert server.events[-1] == "server_stopped"
        assert (await server.wait_for("server_stopping"))["signal"] == number.name


async def test_refused_pairings_say_why() -> None:
    """Unknown ID, oneself, a paired target: each ends a `--pair` with status 4 and the relay's words."""
    async with relay() as (server, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, a_id):
        await connect(a, b)
        for target, arguments, code in [
            ("nobody", (), "target_not_found"),
            (b_id, (), "target_already_paired"),
            ("me", ("--id", "me"), "self_pair"),
        ]:
            async with peer(url, "--pair", target, *arguments) as (c, _):
                assert await c.ended() == 4
                error = await c.wait_for("error", code=code)
                assert error["reason"] in c.stderr.decode()
            await server.wait_for("pair_refused", target_id=target, code=code)
        assert a_id in str(a.lines)
        await a.say("still here")
        await b.wait_for("channel_message", text="still here")
