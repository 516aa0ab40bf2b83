"""The private corner: that it fits what is installed, and how one gets on where it does not."""

import socket
from collections.abc import Iterator

import aioice.ice
import aiortc
import pytest
import trio
import trio.testing
from aiortc.rtcdtlstransport import RTCDtlsTransport

from sdpx.ice_servers import IceServer
from sdpx.peer.webrtc import aioice_ext, peer_connection, server_probe
from sdpx.peer.webrtc.peer_connection import ChannelOpened, PeerConnection
from sdpx.protocol.messages import CandidateInit


def test_what_is_installed_is_what_the_corner_was_made_for() -> None:
    """Raise FITTING, after a look at each of these, when a new release passes the other tests."""
    assert aioice_ext.fits()
    connection = aioice.Connection(ice_controlling=True)
    for name in ("_protocols", "_local_candidates", "_check_list", "_check_list_done", "_nominated"):
        assert name in vars(connection)
    for name in ("_closing", "_query_consent_task"):
        assert name in vars(connection)
    for method in ("_pair_remote_candidate", "sort_check_list"):
        assert callable(getattr(connection, method))
    for method in ("start", "_do_handshake", "_validate_peer_identity", "_setup_srtp", "_set_state"):
        assert callable(getattr(RTCDtlsTransport, method))
    assert hasattr(aiortc.RTCPeerConnection, "_RTCPeerConnection__connect")


@pytest.mark.parametrize(
    "releases", [{"aiortc": "1.17.0", "aioice": "0.13.0"}, {"aiortc": "1.16.0", "aioice": "0.14.dev1"}]
)
def test_other_releases_do_not_fit(monkeypatch: pytest.MonkeyPatch, releases: dict[str, str]) -> None:
    monkeypatch.setattr(aioice_ext, "version", releases.__getitem__)
    assert not aioice_ext.fits()


def test_a_patch_release_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice_ext, "version", {"aiortc": "1.16.3", "aioice": "0.13.9.post1"}.__getitem__)
    assert aioice_ext.fits()


async def answer_binding(server: trio.socket.SocketType) -> None:
    """Be a STUN server, as far as a probe and aioice look: XOR-MAPPED-ADDRESS of the sender."""
    with server:
        while True:
            request, sender = await server.recvfrom(2048)
            cookie = bytes.fromhex("2112a442")
            address = trio.socket.inet_aton(sender[0])
            masked = bytes(one ^ other for one, other in zip(address, cookie, strict=True))
            port = (sender[1] ^ 0x2112).to_bytes(2, "big")
            attribute = bytes.fromhex("002000080001") + port + masked
            await server.sendto(bytes.fromhex("0101000c") + request[4:20] + attribute, sender)


@pytest.fixture
async def stun_server(nursery: trio.Nursery) -> IceServer:
    server = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await server.bind(("127.0.0.1", 0))
    nursery.start_soon(answer_binding, server)
    return IceServer("stun", "127.0.0.1", server.getsockname()[1])


@pytest.fixture
def silent_server() -> Iterator[IceServer]:
    """A port that is taken and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        yield IceServer("stun", "127.0.0.1", hole.getsockname()[1])


async def test_a_probe_leaves_the_silent_out(stun_server: IceServer, silent_server: IceServer) -> None:
    nowhere = IceServer("stun", "no-such-host.invalid", 3478)
    refused = IceServer("turn", "127.0.0.1", 1, "tcp", "u", "p")
    with trio.fail_after(10):
        assert await server_probe.answering([silent_server, stun_server, nowhere, refused]) == (stun_server,)
        assert await server_probe.answering([]) == ()


async def test_a_probe_of_a_server_over_tcp_dials_it(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, lambda _: trio.lowlevel.checkpoint(), listeners)
    server = IceServer("turn", "127.0.0.1", listeners[0].socket.getsockname()[1], "tcp")
    assert await server_probe.answering([server]) == (server,)


async def add_all(peer: PeerConnection, candidates: list[CandidateInit | None]) -> None:
    for candidate in candidates:
        if candidate is not None:
            await peer.add_candidate(candidate)


async def test_with_other_releases_the_description_has_all(
    monkeypatch: pytest.MonkeyPatch, stun_server: IceServer, silent_server: IceServer
) -> None:
    """The plain fallback: no late candidates, no silent server that costs five seconds, and the channel opens."""
    monkeypatch.setattr(aioice_ext, "FITTING", {"aiortc": (0, 0)})
    with trio.fail_after(30):
        async with peer_connection.asyncio_loop():
            a, b = await peer_connection.connect([silent_server, stun_server]), await peer_connection.connect([])
            try:
                await a.create_channel("chat")
                offer = await a.create_offer()
                assert " typ srflx " in offer
                assert "a=end-of-candidates" in offer
                await add_all(b, await b.accept_offer(offer))
                await add_all(a, await a.accept_answer(await b.create_answer()))
                await a.gather()
                assert [candidate async for candidate in a.local_candidates] == []
                while not isinstance(await a.events.receive(), ChannelOpened):
                    pass
                assert (a.selected_pair, a.pair_count, a.dtls_error, a.consent_expired) == (None, None, "", False)
            finally:
                await a.close()
                await b.close()


async def test_closing_ends_the_gathering(silent_server: IceServer) -> None:
    """A silent server keeps a connection from being closed no longer than from being built."""
    with trio.fail_after(4):
        async with peer_connection.asyncio_loop(), trio.open_nursery() as nursery:
            a = await peer_connection.connect([silent_server])
            await a.create_channel("chat")
            await a.create_offer()
            nursery.start_soon(a.gather)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await a.close()
            assert [candidate async for candidate in a.local_candidates] == []
