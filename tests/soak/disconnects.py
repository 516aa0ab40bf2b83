"""Ways in which one of two paired clients disconnects, and the notification of the other; and incomplete connections.

Client `a`, on a raw connection, is the one that disconnects.
"""

from typing import Final

import trio

from tests.harness.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame, upgrade_request
from tests.harness.tcp import reset_on_close
from tests.soak.client import BODY, TIMEOUT, Client, SessionFailed
from tests.soak.connections import CONNECTION_LOST, open_tcp
from tests.soak.session import IncompleteConnection, Session, Step, ignore_loss

FLOOD_FRAMES: Final = 600
FLOOD_BYTES: Final = 40_000
UNKNOWN_OPCODE: Final = 0x3
RSV1: Final = 0x40


async def no_disconnect(session: Session, a: Client, b: Client) -> None:
    """Both clients stay connected."""
    await session.exchange(a, b)


async def close(session: Session, a: Client, b: Client) -> None:
    """A client closes right after its last frame, which is delivered."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.send_frames, b, a, 6)
        await session.send_frames(a, b, 4)
        await a.close()
        await session.wait_until_unpaired(b)


async def drop(session: Session, a: Client, b: Client) -> None:
    """A client closes its socket without a close frame."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        await session.pause()
        a.expect_end("closed")
        await a.connection.abort()
        await session.wait_until_unpaired(b)


async def reset(session: Session, a: Client, b: Client, partial_frame: bytes = b"") -> None:
    """A client resets the connection between two frames."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        await session.pause()
        await _reset(session, a, partial_frame)
        await session.wait_until_unpaired(b)


async def reset_within_frame(session: Session, a: Client, b: Client) -> None:
    """A client resets the connection within a frame or its header."""
    whole = frame(TEXT, b'{"type":"offer","sdp":"%b"}' % BODY[:20_000].encode())
    cut = session.rng.choice((1, 3, 5, session.rng.randrange(1, len(whole))))
    await reset(session, a, b, whole[:cut])


async def both_reset(session: Session, a: Client, b: Client) -> None:
    """Both clients disconnect at the same time."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        await session.pause()
        await _reset(session, a)
        b.expect_end("closed")
        await b.connection.abort()


async def stop_answering(session: Session, a: Client, b: Client) -> None:
    """A client neither sends nor reads, with its socket open, like a host that lost power."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        await session.pause()
        a.expect_end("timeout", "slow")  # slow if the bytes queued in all exceed the limit and this client is the worst
        a.stop_reading()
        await session.wait_until_unpaired(b)


async def stop_reading(session: Session, a: Client, b: Client) -> None:
    """A client stops reading while the other sends many frames."""
    a.expect_end("slow", "timeout")  # either can be detected first
    a.stop_reading()
    for _ in range(FLOOD_FRAMES):
        if b.peer is None:
            break
        await b.send_frame(a, session.rng, FLOOD_BYTES)
    await session.wait_until_unpaired(b)


async def violate_frame_rule(session: Session, a: Client, b: Client) -> None:
    """A client violates RFC 6455 and receives the close code; the other is notified with `refused`."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.send_frames, b, a, 6)
        await session.send_frames(a, b, 3)
        code, data = session.rng.choice(_violations(session))
        a.expect_end("refused")
        await ignore_loss(session.raw_connection(a).write(data))
        await a.wait_until(lambda: a.over, "the close of its connection after a violation")
        await session.wait_until_unpaired(b)
    if a.connection.code != code:
        session.accounting.report(
            f"{a.id} sent {data[:16].hex(' ')}... and got close code {a.connection.code}, not {code}"
        )


def _violations(session: Session) -> list[tuple[int, bytes]]:
    """Return frames that violate RFC 6455 or a limit, each with the close code that it causes."""
    mask = session.rng.randbytes(4)
    message = b'{"type":"ping"}'
    started = frame(TEXT, message, mask=mask, fin=False)
    return [
        (1002, frame(TEXT, message, masked=False)),
        (1002, frame(RSV1 | TEXT, message, mask=mask)),
        (1002, frame(UNKNOWN_OPCODE, message, mask=mask)),
        (1002, frame(PING, mask=mask, fin=False)),
        (1002, frame(PING, bytes(126), mask=mask)),
        (1002, frame(CONTINUATION, message, mask=mask)),
        (1002, started + frame(TEXT, message, mask=mask)),
        (1002, frame(CLOSE, b"\x03", mask=mask)),
        (1007, frame(TEXT, b'{"type":"\xff"}', mask=mask)),
        (1009, frame(TEXT, bytes(65537), mask=mask)),
        (1009, frame(BINARY, bytes(65537), mask=mask)),
    ]


async def _reset(session: Session, client: Client, data: bytes = b"") -> None:
    client.expect_end("closed")
    await ignore_loss(session.raw_connection(client).reset(data))


# ---- incomplete connections -------------------------------------------------------------------------------------


async def incomplete_request(session: Session) -> None:
    """The request ends incomplete."""
    stream = await _connect(session)
    async with stream:
        await ignore_loss(stream.send_all(_partial_request(session)))
        await ignore_loss(stream.send_eof())
        await _ended(session, stream)


async def endless_request(session: Session) -> None:
    """The request is never completed: the relay closes the connection at its deadline."""
    stream = await _connect(session)
    async with stream:
        await ignore_loss(stream.send_all(_partial_request(session)))
        await _ended(session, stream)


async def reset_during_handshake(session: Session) -> None:
    """The connection is reset within the request, or after it, before or after the response."""
    stream = await _connect(session)
    whole = session.rng.random() < 0.5
    await ignore_loss(stream.send_all(upgrade_request() if whole else _partial_request(session)))
    await session.pause()
    reset_on_close(stream)
    await trio.aclose_forcefully(stream)


def _partial_request(session: Session) -> bytes:
    whole = upgrade_request()
    return whole[: session.rng.randrange(len(whole))]


async def _connect(session: Session) -> trio.SocketStream:
    try:
        return await open_tcp(session.address)
    except OSError as error:
        session.accounting.report(f"the connection could not be opened: {error!r}")
        raise SessionFailed from None


async def _ended(session: Session, stream: trio.SocketStream) -> None:
    with trio.move_on_after(TIMEOUT):
        try:
            while await stream.receive_some():
                pass
        except CONNECTION_LOST:
            pass
        return
    session.accounting.report(f"an incomplete request was not closed within {TIMEOUT:g} s")


DISCONNECTS: Final[dict[str, Step]] = {
    "none": no_disconnect,
    "close": close,
    "drop without a close frame": drop,
    "reset": reset,
    "reset within a frame": reset_within_frame,
    "both at once": both_reset,
    "stop answering": stop_answering,
    "stop reading under load": stop_reading,
    "violate RFC 6455": violate_frame_rule,
}
INCOMPLETE: Final[dict[str, IncompleteConnection]] = {
    "incomplete request": incomplete_request,
    "endless request": endless_request,
    "reset during the handshake": reset_during_handshake,
}
