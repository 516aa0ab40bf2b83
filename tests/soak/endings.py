"""How one of two paired clients ends, in mid-talk, and what the other has to hear of it.

`a` is the one that ends: its link is raw. Around that, connections that never become clients.
"""

from typing import Final

import trio

from tests.harness.frames import BINARY, CLOSE, PING, TEXT, upgrade_request
from tests.soak.client import BODY, PATIENCE, Client, Stuck
from tests.soak.links import CONNECTION_LOST, masked, tcp
from tests.soak.session import Act, Session, Stray, quietly

FLOOD_FRAMES: Final = 600
FLOOD_BYTES: Final = 40_000
CONTINUATION: Final = 0x00


async def go_on(session: Session, a: Client, b: Client) -> None:
    """Nothing happens."""
    await session.converse(a, b)


async def close(session: Session, a: Client, b: Client) -> None:
    """One closes right behind its last frame, which arrives all the same."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.talk, b, a, 6)
        await session.talk(a, b, 4)
        await a.close()
        await session.told(b)


async def drop(session: Session, a: Client, b: Client) -> None:
    """One closes its socket without a close frame."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        await session.pause()
        a.leave("closed")
        await a.link.dispose()
        await session.told(b)


async def reset(session: Session, a: Client, b: Client) -> None:
    """One resets the connection between two frames."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        await session.pause()
        await _tear(session, a)
        await session.told(b)


async def reset_in_mid_frame(session: Session, a: Client, b: Client) -> None:
    """One resets the connection somewhere in a frame, its header included."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        await session.pause()
        whole = masked(TEXT, b'{"type":"offer","sdp":"%b"}' % BODY[:20_000].encode(), session.rng)
        cut = session.rng.choice((1, 3, 5, session.rng.randrange(1, len(whole))))
        await _tear(session, a, whole[:cut])
        await session.told(b)


async def both_reset(session: Session, a: Client, b: Client) -> None:
    """Both are gone at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        await session.pause()
        await _tear(session, a)
        b.leave("closed")
        await b.link.dispose()


async def vanish(session: Session, a: Client, b: Client) -> None:
    """One says nothing any more and reads nothing, its socket open: as a host does that lost its power."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        await session.pause()
        a.leave("timeout", "slow")  # slow, where the outboxes of all are full and it has not read for longest
        a.deafen()
        await session.told(b)


async def stop_reading(session: Session, a: Client, b: Client) -> None:
    """One stops reading for ever, and the other sends a lot."""
    a.leave("slow", "timeout")  # whichever of the two it is that the relay finds first
    a.deafen()
    for _ in range(FLOOD_FRAMES):
        if b.peer is None:
            break
        await b.tell(a, session.rng, FLOOD_BYTES)
    await session.told(b)


async def break_a_rule(session: Session, a: Client, b: Client) -> None:
    """One breaks a rule of the WebSocket, hears which by the close code, and the other hears `refused`."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.talk, b, a, 6)
        await session.talk(a, b, 3)
        code, data = session.rng.choice(_broken(session))
        a.leave("refused")
        await quietly(session.raw_link(a).write(data))
        await a.until(lambda: a.over, "the end of a connection on which it broke a rule")
        await session.told(b)
    if a.link.code != code:
        session.account.complain(f"{a.id} sent {data[:16].hex(' ')}... and got close code {a.link.code}, not {code}")


def _broken(session: Session) -> list[tuple[int, bytes]]:
    rng = session.rng
    message = b'{"type":"ping"}'
    begun = masked(TEXT, message, rng, first=TEXT)
    return [
        (1002, bytes([0x80 | TEXT, len(message)]) + message),
        (1002, masked(TEXT, message, rng, first=0xC0 | TEXT)),
        (1002, masked(0x3, message, rng)),
        (1002, masked(PING, b"", rng, first=PING)),
        (1002, masked(PING, bytes(126), rng)),
        (1002, masked(CONTINUATION, message, rng)),
        (1002, begun + masked(TEXT, message, rng)),
        (1002, masked(CLOSE, b"\x03", rng)),
        (1007, masked(TEXT, b'{"type":"\xff"}', rng)),
        (1009, masked(TEXT, bytes(65537), rng)),
        (1009, masked(BINARY, bytes(65537), rng)),
    ]


async def _tear(session: Session, client: Client, data: bytes = b"") -> None:
    client.leave("closed")
    await quietly(session.raw_link(client).tear(data))


# ---- connections that never become clients ----------------------------------------------------------------------


async def half_a_request(session: Session) -> None:
    """A request that ends in the middle."""
    stream = await _connect(session)
    async with stream:
        await quietly(stream.send_all(_part_of_a_request(session)))
        await quietly(stream.send_eof())
        await _ended(session, stream)


async def endless_request(session: Session) -> None:
    """A request that begins and never ends: the relay's deadline ends it."""
    stream = await _connect(session)
    async with stream:
        await quietly(stream.send_all(_part_of_a_request(session)))
        await _ended(session, stream)


async def reset_in_mid_handshake(session: Session) -> None:
    """A reset within a request, or right behind it, before or after the answer."""
    stream = await _connect(session)
    whole = session.rng.random() < 0.5
    await quietly(stream.send_all(upgrade_request() if whole else _part_of_a_request(session)))
    await session.pause()
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    await trio.aclose_forcefully(stream)


def _part_of_a_request(session: Session) -> bytes:
    whole = upgrade_request()
    return whole[: session.rng.randrange(len(whole))]


async def _connect(session: Session) -> trio.SocketStream:
    try:
        return await tcp(session.address)
    except OSError as error:
        session.account.complain(f"no connection could be opened: {error!r}")
        raise Stuck from None


async def _ended(session: Session, stream: trio.SocketStream) -> None:
    with trio.move_on_after(PATIENCE):
        try:
            while await stream.receive_some():
                pass
        except CONNECTION_LOST:
            pass
        return
    session.account.complain(f"half a request was not ended within {PATIENCE:g} s")


ENDINGS: Final[dict[str, Act]] = {
    "none: both go on": go_on,
    "close": close,
    "drop without a close frame": drop,
    "reset": reset,
    "reset in mid-frame": reset_in_mid_frame,
    "both gone at once": both_reset,
    "vanish": vanish,
    "stop reading under a flood": stop_reading,
    "break a frame rule": break_a_rule,
}
STRAYS: Final[dict[str, Stray]] = {
    "half a request": half_a_request,
    "endless request": endless_request,
    "reset in mid-handshake": reset_in_mid_handshake,
}
