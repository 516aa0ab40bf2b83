"""What happens in mid-talk and leaves both clients as they were: connected, and paired with one another."""

import json
from typing import Final

import trio

from tests.soak.client import Client
from tests.soak.session import Act, Session

ABSENT: Final = "nobody-of-this-name"
JUNK: Final = {
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
    """One leaves the pairing while both talk, and one asks for another."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        await session.pause()
        await a.unpair()
    await session.told(b)
    await _pair_again(session, a, b)


async def both_unpair(session: Session, a: Client, b: Client) -> None:
    """Both leave at once: one does, the other had nothing to leave any more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        nursery.start_soon(a.unpair)
        nursery.start_soon(b.unpair)
    await _pair_again(session, a, b)


async def send_to_nobody(session: Session, a: Client, b: Client) -> None:
    """Frames for an absent ID while paired and for no peer at all, requests for oneself and for nobody."""
    for _ in range(session.rng.randint(1, 5)):
        await a.tell(None, session.rng, name=ABSENT)
    await a.unpair()
    await session.told(b)
    await _expect(session, a, "pair_request target_not_found", [_request(ABSENT)])
    await _expect(session, a, "pair_request self_pair", [_request(a.id)])
    for _ in range(session.rng.randint(1, 40)):
        await a.tell(None, session.rng)
    await _pair_again(session, a, b)


async def crossing(session: Session, a: Client, b: Client) -> None:
    """Three ask for one another at once: one pairing, and each loser has one `error`."""
    c = await session.join()
    three = [a, b, c]
    await a.unpair()
    await session.told(b)
    before = sum(_refusals(each) for each in three)
    async with trio.open_nursery() as nursery:
        for one, other in ((a, b), (b, a), (c, session.shuffled(a, b)[0])):
            nursery.start_soon(one.say_text, _request(other.id))
    await session.catch_up(three)
    if sum(each.peer is not None for each in three) != 2 or sum(_refusals(each) for each in three) != before + 2:
        session.account.complain(f"three crossing requests ended in {[(each.peer, each.errors) for each in three]}")
    if c.peer:
        other = a if c.peer == a.id else b
        await session.converse(c, other)
        await c.unpair()
        await session.told(other)
        await _pair_again(session, a, b)
    await c.close()


async def meddling(session: Session, a: Client, b: Client) -> None:
    """A third one asks for either and talks to them, while they talk."""
    c = await session.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        await _expect(session, c, "pair_request target_already_paired", [_request(a.id), _request(b.id)])
        await c.tell(None, session.rng, name=a.id)
        await _expect(session, a, "pair_request already_paired", [_request(c.id)])
    await session.catch_up([c])
    await c.close()


async def bad_messages(session: Session, a: Client, b: Client) -> None:
    """Each text that breaks a rule has one `error` that says which, and costs nothing else."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.converse, a, b)
        for error in session.rng.sample(list(JUNK), k=3):
            await _expect(session, a, error, session.rng.choices(JUNK[error], k=session.rng.randint(1, 4)))


async def stall(session: Session, a: Client, b: Client) -> None:
    """One does not read for a moment, and the outbox fills; it misses nothing."""
    b.deafen()
    for _ in range(STALLED_FRAMES):
        await a.tell(b, session.rng, STALLED_BYTES)
    await session.pause(0.3)
    session.listen_again(b)


def _refusals(client: Client) -> int:
    return sum(times for error, times in client.errors.items() if error.startswith("pair_request"))


def _request(target: str) -> str:
    return json.dumps({"type": "pair_request", "target_id": target})


async def _expect(session: Session, client: Client, error: str, texts: list[str]) -> None:
    before = client.errors.copy()
    for text in texts:
        await client.say_text(text)
    await client.until(lambda: client.errors.total() - before.total() >= len(texts), f"{len(texts)} times {error}")
    if (heard := client.errors - before) != {error: len(texts)}:
        session.account.complain(f"{client.id} heard {dict(heard)} instead of {len(texts)} times {error}")


async def _pair_again(session: Session, a: Client, b: Client) -> None:
    await session.catch_up([a, b])
    one, other = session.shuffled(a, b)
    await one.pair(other)


ACTS: Final[dict[str, Act]] = {
    "unpair and pair again": unpair,
    "both unpair at once": both_unpair,
    "send to nobody": send_to_nobody,
    "crossing requests": crossing,
    "a third one meddles": meddling,
    "bad messages": bad_messages,
    "stop reading for a moment": stall,
}
