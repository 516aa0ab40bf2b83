"""Two real peer connections in one process, without a relay."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation.description import RemoteDescription, parse_description
from sdpx.peer.webrtc import peer_connection
from sdpx.peer.webrtc.events import RtcEvent
from sdpx.peer.webrtc.peer_connection import PeerConnection
from sdpx.peer.webrtc.runtime import asyncio_loop


@asynccontextmanager
async def two_connections(
    servers: Sequence[IceServer] = (), others: Sequence[IceServer] | None = None, *, relay_only: bool = False
) -> AsyncIterator[tuple[PeerConnection, PeerConnection]]:
    """Yield two connections, the second one with the servers `others` if they are given; both are closed at the end."""
    with trio.fail_after(60):
        async with asyncio_loop():
            a = await peer_connection.connect(servers, relay_only=relay_only)
            b = await peer_connection.connect(servers if others is None else others)
            try:
                yield a, b
            finally:
                await a.close()
                await b.close()


async def until(pc: PeerConnection, wanted: type[RtcEvent] | tuple[type[RtcEvent], ...]) -> RtcEvent:
    """Wait for an event of these types, and return it."""
    while not isinstance(event := await pc.events.receive(), wanted):
        pass
    return event


async def negotiate(a: PeerConnection, b: PeerConnection) -> None:
    """Let one real connection offer a data channel, and the other answer."""
    await a.channels.create("chat")
    offer = parse_description(await a.create_offer(), "offer")
    await b.accept_offer(offer)
    await add_all(b, offer)
    answer = parse_description(await b.create_answer(), "answer")
    await a.accept_answer(answer)
    await add_all(a, answer)


async def add_all(pc: PeerConnection, remote: RemoteDescription) -> None:
    """Add all candidates of a description."""
    for candidate in remote.candidates:
        if candidate is not None:
            await pc.add_candidate(candidate)
