"""A real coturn: its addresses are offered, trickled and used; its refusals are reported."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from sdpx.events.webrtc import ChannelOpen
from sdpx.ice_servers import IceServer, parse_server
from sdpx.peer.negotiation.description import parse_description
from sdpx.peer.negotiation.sdp import candidate_type
from sdpx.peer.webrtc.events import IceServerResult, MessageReceived
from sdpx.peer.webrtc.peer_connection import PeerConnection
from sdpx.protocol.messages import CandidateInit
from tests.harness.coturn import LOGIN, coturn, free_port
from tests.harness.peer_connections import two_connections, until
from tests.harness.processes import relay, sdpx

pytestmark = pytest.mark.e2e


def without_candidates(sdp: str) -> str:
    return "".join(line for line in sdp.splitlines(keepends=True) if not line.startswith("a=candidate:"))


async def forward(source: PeerConnection, target: PeerConnection, kinds: set[str]) -> None:
    """Trickle only candidates of these types."""
    async for candidate in source.local_candidates:
        if candidate_type(candidate.candidate) in kinds:
            await target.add_candidate(candidate)


async def connect_over(a: PeerConnection, b: PeerConnection, kinds: set[str]) -> None:
    """Connect two peers that know nothing of each other but the candidates of these types that come late."""
    await a.channels.create("chat")
    await b.accept_offer(parse_description(without_candidates(await a.create_offer()), "offer"))
    await a.accept_answer(parse_description(without_candidates(await b.create_answer()), "answer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.gather)
        nursery.start_soon(b.gather)
        nursery.start_soon(forward, a, b, kinds)
        nursery.start_soon(forward, b, a, kinds)
        await until(a, ChannelOpen)
        await until(b, ChannelOpen)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_relayed_candidate_that_comes_late_carries_the_channel(tmp_path: Path, transport: str) -> None:
    """With nothing but relayed candidates known to each other, over UDP and over TCP to the TURN server."""
    async with coturn(tmp_path) as port:
        server = parse_server(f"turn:{LOGIN}@127.0.0.1:{port}?transport={transport}")
        async with two_connections([server]) as (a, b):
            await connect_over(a, b, {"relay"})
            pair = a.selected_pair
            assert pair is not None
            assert "relay" in {pair.local_candidate, pair.remote_candidate}
            assert await a.channels.send("over the relay")
            assert await until(b, MessageReceived) == MessageReceived("over the relay")


async def test_a_server_reflexive_candidate_that_comes_late_carries_the_channel(tmp_path: Path) -> None:
    async with (
        coturn(tmp_path) as port,
        two_connections([parse_server(f"stun:127.0.0.1:{port}")]) as (a, b),
    ):
        await connect_over(a, b, {"srflx"})
        pair = a.selected_pair
        assert pair is not None
        assert pair.local_candidate == "host"  # a server-reflexive candidate's base


async def gathered(servers: Sequence[IceServer]) -> tuple[list[CandidateInit], list[IceServerResult]]:
    """Return the candidates that a peer with these servers trickles, and the results of the servers."""
    async with two_connections(servers) as (a, _):
        await a.channels.create("chat")
        await a.create_offer()
        await a.gather()
        candidates = [candidate async for candidate in a.local_candidates]
        await a.close()
        return candidates, [event async for event in a.events if isinstance(event, IceServerResult)]


async def test_a_wrong_password_is_reported_as_401(tmp_path: Path) -> None:
    """The server still reports the public address, as any STUN server does."""
    async with coturn(tmp_path) as port:
        server = parse_server(f"turn:ann:wrong@127.0.0.1:{port}")
        candidates, told = await gathered([server])
    assert told == [IceServerResult(server, answered=True, code=401, reason=told[0].reason)]
    assert {candidate_type(each.candidate) for each in candidates} == {"srflx"}


async def test_all_servers_are_tried_and_a_silent_one_keeps_none_waiting(tmp_path: Path) -> None:
    """aiortc would ask the first of each kind, and the first is a hole here."""
    async with coturn(tmp_path) as port:
        hole = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        with hole:
            await hole.bind(("127.0.0.1", 0))
            silent = parse_server(f"stun:127.0.0.1:{hole.getsockname()[1]}")
            refused = parse_server(f"turn:u:p@127.0.0.1:{free_port()}?transport=tcp")
            good = [parse_server(f"stun:127.0.0.1:{port}"), parse_server(f"turn:{LOGIN}@127.0.0.1:{port}")]
            nowhere = parse_server("stun:no-such-host.invalid")
            candidates, told = await gathered([silent, refused, nowhere, *good])
    assert {candidate_type(each.candidate) for each in candidates} == {"srflx", "relay"}
    assert {event.server for event in told if event.answered} == set(good)
    reasons = {event.server: event.reason for event in told if not event.answered}
    assert reasons[silent] == "it did not answer"
    assert "refused" in reasons[refused].lower() or "connect" in reasons[refused].lower()
    assert "resolve" in reasons[nowhere]
    assert told[-1].server == silent
    for each in candidates:
        assert each.candidate.startswith("candidate:")
        assert (each.sdpMid, each.sdpMLineIndex) == ("0", 0)
        assert each.usernameFragment


async def test_the_relay_hands_servers_out_and_the_peers_use_them(tmp_path: Path) -> None:
    """`sdpx serve --ice-server`: both peers trickle the candidates from it, behind the description, and then the end."""
    async with coturn(tmp_path) as port:
        named = ("--ice-server", f"stun:127.0.0.1:{port}", "--ice-server", f"turn:{LOGIN}@127.0.0.1:{port}")
        async with relay(*named) as (_, url), sdpx("peer", "--url", url, "--id", "bob") as bob:
            await bob.wait_for("id_assigned")
            async with sdpx("peer", "--url", url, "--pair", "bob") as alice:
                for program, described in ((alice, "offer_sent"), (bob, "answer_sent")):
                    await program.wait_for("channel_open")
                    await program.wait_for("candidate_sent", end_of_candidates=True)
                    await program.wait_for("candidate_received", end_of_candidates=True)
                    trickled = program.of("candidate_sent")
                    kinds = [line["candidate_type"] for line in trickled]
                    assert set(kinds) == {"srflx", "relay", None}
                    assert kinds[-1] is None
                    assert program.events.index(described) < program.events.index("candidate_sent")
                    created = await program.wait_for("pc_created")
                    assert created["ice_servers"] == [f"stun:127.0.0.1:{port}", f"turn:127.0.0.1:{port}?transport=udp"]
                    assert not any("pass" in str(line) for line in program.lines)


async def test_the_command_lines_servers_come_before_the_relays(tmp_path: Path) -> None:
    async with relay("--ice-server", "stun:192.0.2.1") as (_, url), coturn(tmp_path) as port:
        mine = f"stun:127.0.0.1:{port}"
        async with sdpx("peer", "--url", url, "--id", "bob", "--no-stun") as bob:
            await bob.wait_for("id_assigned")
            async with sdpx("peer", "--url", url, "--pair", "bob", "--stun", mine) as alice:
                assert (await alice.wait_for("pc_created"))["ice_servers"] == [mine]
                assert (await bob.wait_for("pc_created"))["ice_servers"] == []
