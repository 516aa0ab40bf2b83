"""Private parts of aioice and aiortc: the versions that fit, and the fallback for other versions."""

import socket
from collections.abc import Iterator

import aioice.ice
import aiortc
import pytest
import trio
import trio.testing
from aiortc.rtcdtlstransport import RTCDtlsTransport

from sdpx.events.webrtc import ChannelOpen
from sdpx.ice_servers import IceServer, parse_server
from sdpx.peer.webrtc import aioice_ext, peer_connection, versions
from sdpx.peer.webrtc.events import IceServerResult
from sdpx.peer.webrtc.runtime import asyncio_loop
from sdpx.peer.webrtc.versions import Feature
from tests.harness.peer_connections import negotiate, two_connections, until
from tests.harness.stun import stun_server


def test_the_installed_versions_have_the_private_parts() -> None:
    """After a review of these parts, TESTED is raised to a release that passes the other tests."""
    assert versions.fits("trickle_ice")
    assert versions.fits("dtls_diagnosis")
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
    ("installed", "unfit"),
    [
        (("1.17.0", "0.13.0"), {"trickle_ice": ("aiortc", "1.17.0"), "dtls_diagnosis": ("aiortc", "1.17.0")}),
        (("1.16.0", "0.14.dev1"), {"trickle_ice": ("aioice", "0.14.dev1"), "dtls_diagnosis": None}),
        (("1.16.3", "0.13.9.post1"), {"trickle_ice": None, "dtls_diagnosis": None}),
    ],
)
def test_a_feature_needs_tested_minor_versions(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[str, str], unfit: dict[Feature, tuple[str, str] | None]
) -> None:
    """A patch release fits; another minor version turns off the features that use its private parts."""
    monkeypatch.setattr(versions, "version", dict(zip(("aiortc", "aioice"), installed, strict=True)).__getitem__)
    assert {feature: versions.unfit_library(feature) for feature in unfit} == unfit


@pytest.fixture
def answering_server() -> Iterator[IceServer]:
    with stun_server() as url:
        yield parse_server(url)


@pytest.fixture
def silent_server() -> Iterator[IceServer]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unread:
        unread.bind(("127.0.0.1", 0))
        yield IceServer("stun", "127.0.0.1", unread.getsockname()[1])


async def test_a_probe_finds_the_servers_that_answer(answering_server: IceServer, silent_server: IceServer) -> None:
    unknown = IceServer("stun", "no-such-host.invalid", 3478)
    refusing = IceServer("turn", "127.0.0.1", 1, "tcp", "u", "p")
    servers = [silent_server, answering_server, unknown, refusing]
    assert await aioice_ext.answering_servers(servers) == (answering_server,)
    assert await aioice_ext.answering_servers([]) == ()


async def test_a_probe_of_a_tcp_server_connects_to_it(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, lambda _: trio.lowlevel.checkpoint(), listeners)
    server = IceServer("turn", "127.0.0.1", listeners[0].socket.getsockname()[1], "tcp")
    assert await aioice_ext.answering_servers([server]) == (server,)


async def test_without_trickle_ice_the_description_has_all_candidates(
    monkeypatch: pytest.MonkeyPatch, answering_server: IceServer, silent_server: IceServer
) -> None:
    """With untested versions no private part is used: no late candidates, no diagnosis; the channel still opens."""
    monkeypatch.setattr(versions, "TESTED", {"aiortc": (0, 0), "aioice": (0, 0)})
    async with two_connections([silent_server, answering_server], ()) as (a, b):
        await negotiate(a, b)
        assert b.remote is not None
        assert any(each and " typ srflx " in each.candidate for each in b.remote.candidates)
        assert b.remote.candidates[-1] is None
        await a.gather()
        assert [candidate async for candidate in a.local_candidates] == []
        await until(a, ChannelOpen)
        assert (a.selected_pair, a.pair_count, a.dtls_error, a.consent_expired) == (None, None, "", False)


async def test_close_ends_the_gathering(monkeypatch: pytest.MonkeyPatch, silent_server: IceServer) -> None:
    """A connection can be closed while a silent server is queried."""
    monkeypatch.setattr(aioice_ext, "SERVER_SECONDS", 3600.0)
    async with asyncio_loop(), trio.open_nursery() as nursery:
        a = await peer_connection.connect([silent_server])
        await a.channels.create("chat")
        await a.create_offer()
        nursery.start_soon(a.gather)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await a.close()
        assert [candidate async for candidate in a.local_candidates] == []
        assert not [event async for event in a.events if isinstance(event, IceServerResult)]
