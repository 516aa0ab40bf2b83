"""Disturbances of a session after which both clients are still connected and paired with each other."""

import json
from typing import Final

import trio

from tests.soak.client import Client
from tests.soak.session import Session, Step

UNKNOWN_ID: Final = "unknown-id"
INVALID_TEXTS: Final = {
    "bad_json": ("", "{", "{]", '{"type":"offer"', '{"type":"ping","t":NaN}', '{"a":' * 5000, '"\\ud800"'),
    "bad_message": ("[]", "1", '"offer"', "{}", '{"type":7}'),
    "pair_request bad_message": ('{"type":"pair_request"}', '{"type":"pair_request","target_id":[]}'),
    "offer bad_message": ('{"type":"offer"}', '{"type":"offer","sdp":{}}'),
    "candidate bad_message": ('{"type":"candidate"}', '{"type":"candidate","candidate":5}'),
    "paired unknown_type": ('{"type":"paired","peer_id":"x","is_initiator":true}',),
    "your_id unknown_type": ('{"type":"your_id","id":"x"}',),
}
STALLED_FRAMES: Final = 12
STALLED_BYTES: Final = 40_000


async def unpair(session: Session, a: Client, b: Client) -> None:
    """A client unpairs while both send frames; then they pair again."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        await session.pause()
        await a.unpair()
    await session.wait_until_unpaired(b)
    await _pair_again(session, a, b)


async def both_unpair(session: Session, a: Client, b: Client) -> None:
    """Both clients unpair at the same time: the second is not paired any more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        nursery.start_soon(a.unpair)
        nursery.start_soon(b.unpair)
    await _pair_again(session, a, b)


async def send_without_receiver(session: Session, a: Client, b: Client) -> None:
    """Frames for an unknown ID while paired and while not; pair requests for an unknown ID and for the client itself."""
    for _ in range(session.rng.randint(1, 5)):
        await a.send_frame(None, session.rng, name=UNKNOWN_ID)
    await a.unpair()
    await session.wait_until_unpaired(b)
    await _expect(session, a, "pair_request target_not_found", [_request(UNKNOWN_ID)])
    await _expect(session, a, "pair_request self_pair", [_request(a.id)])
    for _ in range(session.rng.randint(1, 40)):
        await a.send_frame(None, session.rng)
    await _pair_again(session, a, b)


async def crossing_requests(session: Session, a: Client, b: Client) -> None:
    """Three clients request each other at the same time: one pairing results, the other requests get one `error` each."""
    c = await session.join()
    three = [a, b, c]
    await a.unpair()
    await session.wait_until_unpaired(b)
    before = sum(_refusals(each) for each in three)
    async with trio.open_nursery() as nursery:
        for one, other in ((a, b), (b, a), (c, session.shuffled(a, b)[0])):
            nursery.start_soon(one.send_text, _request(other.id))
    await session.synchronize(three)
    if sum(each.peer is not None for each in three) != 2 or sum(_refusals(each) for each in three) != before + 2:
        session.accounting.report(f"three crossing requests resulted in {[(each.peer, each.errors) for each in three]}")
    if c.peer:
        other = a if c.peer == a.id else b
        await session.exchange(c, other)
        await c.unpair()
        await session.wait_until_unpaired(other)
        await _pair_again(session, a, b)
    await c.close()


async def third_client(session: Session, a: Client, b: Client) -> None:
    """A third client requests both and sends frames to them while they are paired."""
    c = await session.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        await _expect(session, c, "pair_request target_already_paired", [_request(a.id), _request(b.id)])
        await c.send_frame(None, session.rng, name=a.id)
        await _expect(session, a, "pair_request already_paired", [_request(c.id)])
    await session.synchronize([c])
    await c.close()


async def invalid_messages(session: Session, a: Client, b: Client) -> None:
    """Each invalid text gets one `error` with the right code, and has no other effect."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.exchange, a, b)
        for error in session.rng.sample(list(INVALID_TEXTS), k=3):
            await _expect(session, a, error, session.rng.choices(INVALID_TEXTS[error], k=session.rng.randint(1, 4)))


async def stall(session: Session, a: Client, b: Client) -> None:
    """A client does not read for a moment while its send queue fills; no frame is lost."""
    b.stop_reading()
    for _ in range(STALLED_FRAMES):
        await a.send_frame(b, session.rng, STALLED_BYTES)
    await session.pause(0.3)
    session.resume_reading(b)


def _refusals(client: Client) -> int:
    return sum(times for error, times in client.errors.items() if error.startswith("pair_request"))


def _request(target: str) -> str:
    return json.dumps({"type": "pair_request", "target_id": target})


async def _expect(session: Session, client: Client, error: str, texts: list[str]) -> None:
    before = client.errors.copy()
    for text in texts:
        await client.send_text(text)
    await client.wait_until(lambda: client.errors.total() - before.total() >= len(texts), f"{len(texts)} times {error}")
    if (received := client.errors - before) != {error: len(texts)}:
        session.accounting.report(f"{client.id} received {dict(received)} instead of {len(texts)} times {error}")


async def _pair_again(session: Session, a: Client, b: Client) -> None:
    await session.synchronize([a, b])
    one, other = session.shuffled(a, b)
    await one.pair(other)


DISTURBANCES: Final[dict[str, Step]] = {
    "unpair and pair again": unpair,
    "both unpair at once": both_unpair,
    "send without a receiver": send_without_receiver,
    "crossing requests": crossing_requests,
    "third client interferes": third_client,
    "invalid messages": invalid_messages,
    "stop reading for a moment": stall,
}
