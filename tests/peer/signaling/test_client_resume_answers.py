"""The signaling client and the answers of a relay to its request to resume a session, right and wrong ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec
import pytest
import trio

from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.client import Connected, Disconnected, SignalingClient, Stopped
from sdpx.protocol.messages import Description, IceServers, Paired, PairRequest
from tests.harness.scripted_relay import Frame, Response, ScriptedRelay, accepts, refuses, scripted

OFFER: Final = Description("offer", "v=0 offer")


def paired(seq: int) -> Frame:
    return {"type": "paired", "peer_id": "bob", "is_initiator": True, "seq": seq}


@asynccontextmanager
async def connected_to(*responses: Response) -> AsyncIterator[tuple[SignalingClient, ScriptedRelay]]:
    async with scripted(*responses, client_id="alice") as (client, relay, _):
        yield client, relay


def queries(relay: ScriptedRelay) -> list[str]:
    """Return the query of each dial, without the ID."""
    return [path.partition("&")[2] for path in relay.paths]


NEW_SESSION: Final = {"resume_token": "T1", "resumed": False}
RESUMED: Final = {"resume_token": "T2", "resumed": True, "client_seq": 0, "peer_id": None}
KNOWN: Final = "seq=1&resume=T1&last=0"


async def next_events(client: SignalingClient, count: int) -> list[type]:
    return [type(await client.events.receive()) for _ in range(count)]


async def test_an_expired_session_is_followed_by_a_new_one() -> None:
    """`resumed: false`: the old session has ended, and the new one counts from one."""
    async with connected_to(accepts(NEW_SESSION, paired(1)), accepts(NEW_SESSION, paired(1), code=0)) as (
        client,
        relay,
    ):
        assert await next_events(client, 5) == [Connected, Paired, Disconnected, Connected, Paired]
    assert queries(relay) == ["seq=1", "seq=1&resume=T1&last=1"]


@pytest.mark.parametrize("code", [None, 1000, 1001, 1002, 1008, 1011, 1012, 1013])
async def test_the_resume_token_is_used_after_every_close_but_4001(code: int | None) -> None:
    """A proxy may have closed the connection, and the relay may keep the session."""
    async with connected_to(accepts(NEW_SESSION, code=code), accepts(RESUMED, code=0)) as (client, relay):
        assert await next_events(client, 1) == [Connected]
        while len(relay.paths) < 2:
            await trio.sleep(0.001)
    assert queries(relay) == ["seq=1", KNOWN]


async def test_a_frame_is_reported_as_written_to_a_relay_without_sequence_numbers() -> None:
    async with connected_to(accepts({}, code=0)) as (client, relay):
        assert await next_events(client, 1) == [Connected]
        written = list[int]()
        for number in range(3):
            await client.send(OFFER, partial(written.append, number))
        while len(relay.received) < 3:
            await trio.sleep(0.001)
    assert written == [0, 1, 2]


async def test_a_relay_without_sequence_numbers_gets_plain_frames() -> None:
    """An older version of the relay may have been started in between."""
    async with connected_to(accepts(NEW_SESSION), accepts({}), accepts({}, code=0)) as (client, relay):
        assert await next_events(client, 5) == [Connected, Disconnected, Connected, Disconnected, Connected]
        await client.send(PairRequest("bob"))
        while not relay.received:
            await trio.sleep(0.001)
    assert queries(relay) == ["seq=1", KNOWN, "seq=1"]
    assert relay.received[0] == {"type": "pair_request", "target_id": "bob"}


@pytest.mark.parametrize("changed", [{"client_seq": 9}, {"client_seq": msgspec.UNSET}])
async def test_an_invalid_resume_opens_a_new_session(changed: Frame) -> None:
    """The relay confirms a frame that was never sent, or does not say how many it received."""
    back = {key: value for key, value in (RESUMED | changed).items() if value is not msgspec.UNSET}
    async with connected_to(accepts(NEW_SESSION), accepts(back, code=0), accepts(NEW_SESSION, code=0)) as (
        client,
        relay,
    ):
        assert await next_events(client, 3) == [Connected, Disconnected, Connected]
    assert queries(relay) == ["seq=1", KNOWN, "seq=1"]
    assert relay.received[0] == {"code": 1002}


async def test_a_client_that_leaves_a_contradicting_relay_can_be_closed() -> None:
    """SIGTERM comes while its close frame is under way; there is no further dial."""
    responses = [accepts(NEW_SESSION), accepts(RESUMED | {"client_seq": 9}, code=0), accepts(NEW_SESSION, code=0)]
    async with connected_to(*responses) as (client, relay):
        assert await next_events(client, 2) == [Connected, Disconnected]
        with trio.fail_after(30):
            await client.close()
        assert queries(relay) == ["seq=1", KNOWN]


async def test_an_ack_of_an_unsent_frame_opens_a_new_session() -> None:
    ack = {"type": "ack", "client_seq": 3}
    async with connected_to(accepts(NEW_SESSION, ack, code=0), accepts(NEW_SESSION, code=0)) as (client, relay):
        assert await next_events(client, 3) == [Connected, Disconnected, Connected]
    assert queries(relay) == ["seq=1", "seq=1"]
    assert relay.received[0] == {"code": 1002}


async def test_a_gap_is_filled_by_the_next_connection() -> None:
    """Duplicates are dropped; the old socket is dropped without a close frame, which would end the session."""
    responses = [
        accepts(NEW_SESSION, paired(1), paired(3), code=0),
        accepts(RESUMED, paired(1), paired(2), paired(3), code=0),
    ]
    async with connected_to(*responses) as (client, relay):
        assert await next_events(client, 4) == [Connected, Paired, Paired, Paired]
    assert queries(relay) == ["seq=1", "seq=1&resume=T1&last=1"]
    assert relay.received[0] == {"code": 1006}


@pytest.mark.parametrize(
    ("responses", "code"),
    [
        ([accepts(NEW_SESSION, code=4001)], "taken_over"),
        ([accepts(NEW_SESSION), refuses(401, "unauthorized")], "unauthorized"),
    ],
)
async def test_a_final_error_ends_a_resumable_session(responses: list[Response], code: str) -> None:
    async with connected_to(*responses) as (client, _):
        assert await next_events(client, 2) == [Connected, Disconnected]
        stopped = await client.events.receive()
    assert isinstance(stopped, Stopped)
    assert stopped.ending.code == code


async def test_a_resume_with_new_ice_servers_raises_an_event() -> None:
    """The credentials of the old servers may be about to expire."""
    servers = [{"urls": "stun:192.0.2.1"}]
    async with connected_to(accepts(NEW_SESSION), accepts(RESUMED | {"ice_servers": servers}, code=0)) as (client, _):
        assert (await next_events(client, 1), await client.events.receive()) == ([Connected], IceServers(servers))


async def test_resume_parameters_in_the_url_of_the_user_are_ignored() -> None:
    options = PeerOptions("ws://h/?seq=0&resume=X&last=7&x=1")
    assert options.dial_url_for(None, [("seq", "1")]) == "ws://h/?x=1&seq=1"
    assert options.dial_url_for(None) == "ws://h/?x=1"
