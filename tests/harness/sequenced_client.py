"""Clients that ask for sequence numbers, and resume their sessions."""

from dataclasses import dataclass
from typing import Any

from trio.testing import wait_all_tasks_blocked

from tests.harness.frames import message
from tests.harness.relay import RawClient, RelayHarness

Frame = dict[str, Any]


def resume_path(your_id: Frame, last: int | None = None) -> str:
    """Return the path by which a client resumes the session of this `your_id`."""
    return f"/?seq=1&resume={your_id['resume_token']}" + ("" if last is None else f"&last={last}")


async def open_sequenced(relay: RelayHarness, name: str) -> tuple[RawClient, Frame]:
    """Connect a sequenced client; returns it and its `your_id`."""
    client = relay.raw()
    return client, await client.open(f"/?seq=1&id={name}")


async def lose(client: RawClient) -> None:
    """Let a socket end without a close frame, and the relay notice it."""
    await client.stream.aclose()
    await wait_all_tasks_blocked()


@dataclass
class SequencedPair:
    """A sequenced client `a`, with its `your_id`, that is paired with a plain one `b`."""

    a: RawClient
    first: Frame
    b: RawClient

    async def send_to_a(self, *texts: str) -> None:
        """Let `b` send offers, and the relay handle them."""
        for text in texts:
            await self.b.send(message(type="offer", sdp=text))
        await wait_all_tasks_blocked()


async def sequenced_pair(relay: RelayHarness) -> SequencedPair:
    """Connect and pair a sequenced and a plain client."""
    a, first = await open_sequenced(relay, "a")
    b = relay.raw()
    await b.open("/?id=b")
    await b.send(message(type="pair_request", target_id="a"))
    assert await b.receive() == {"type": "paired", "peer_id": "a", "is_initiator": True}
    assert await a.receive() == {"type": "paired", "peer_id": "b", "is_initiator": False, "seq": 1}
    return SequencedPair(a, first, b)
