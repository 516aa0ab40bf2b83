"""Attacks on what the relay keeps for clients that may come back."""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from sdpx.relay.resume import EVICTED
from tests.harness.frames import message, upgrade_request
from tests.harness.processes import RelayProcess, relay_process
from tests.harness.relay import RawClient
from tests.hostile.attack import ELSEWHERE, Attack, attack_on

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["--engine=epoll", "--engine=trio-websocket"])
def forgetful(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RelayProcess]:
    """A relay with a short resume window, so that the next test finds no suspended session."""
    with relay_process(tmp_path, "--resume-window", "2", "--rate", "0", request.param) as server:
        yield server


@pytest.fixture
async def attack(forgetful: RelayProcess) -> AsyncIterator[Attack]:
    async with attack_on(forgetful) as attack:
        yield attack


async def test_a_flood_of_clients_that_come_and_vanish(attack: Attack) -> None:
    """Each is held for the window, and no longer."""
    for _ in range(600):
        client = await attack.connect()
        await client.open("/?seq=1")
        await client.stream.aclose()
    with trio.fail_after(30):
        while len(attack.events("client_disconnected")) < 600:
            await trio.sleep(0.05)
    assert len(attack.events("client_suspended")) == 600


async def test_a_client_that_comes_back_without_end(attack: Attack) -> None:
    """With the same token, and with each new one: it displaces itself, and no more."""
    client = await attack.connect()
    your_id = await client.open("/?seq=1")
    tokens = [your_id["resume_token"]]
    for number in range(300):
        again = await attack.connect()
        received = await again.open(f"/?seq=1&resume={tokens[number // 2]}")
        assert received["id"] == your_id["id"]
        if number % 2:
            await again.send(message(type="ack", seq=0))
            await again.send(message(type="ping"))
            assert (await again.receive())["type"] == "pong"
            tokens.append(received["resume_token"])
    for token in tokens[:-2]:
        other = await attack.connect()
        assert (await other.open(f"/?seq=1&resume={token}"))["resumed"] is False


async def test_a_client_that_reads_and_never_confirms(attack: Attack) -> None:
    """The replay buffer of the client is bounded: past it the client is slow, and its peer receives that reason."""
    stalled, peer = await attack.connect(), await attack.client()
    name = (await stalled.open("/?seq=1"))["id"]
    await peer.send(type="pair_request", target_id=name)
    assert (await peer.receive())["type"] == "paired"
    attack.nursery.start_soon(stalled.rest)
    for _ in range(1100):
        await peer.send(type="offer", sdp="x" * 10_000)
    while (received := await peer.receive())["type"] != "peer_disconnected":
        assert received["code"] == "not_paired"
    assert received["reason"] == "slow"


async def test_frames_without_end_for_a_client_that_is_suspended(attack: Attack) -> None:
    """The same bound holds for suspended sessions."""
    gone, peer = await attack.connect(), await attack.client()
    name = (await gone.open("/?seq=1"))["id"]
    await peer.send(type="pair_request", target_id=name)
    assert (await peer.receive())["type"] == "paired"
    await gone.stream.aclose()
    for _ in range(600):
        await peer.send(type="offer", sdp="x" * 10_000)
    assert (await peer.receive())["reason"] == "slow"


async def test_attempts_to_resume_that_their_client_has_given_up(attack: Attack) -> None:
    """Those that are served behind the living one do not take its place."""
    client = await attack.connect()
    your_id = await client.open("/?seq=1")
    request = upgrade_request(f"/?seq=1&resume={your_id['resume_token']}")
    attack.server.process.send_signal(signal.SIGSTOP)
    living = await attack.connect()
    await living.send(request)
    for _ in range(5):
        given_up = await attack.connect()
        await given_up.send(request)
        await trio.aclose_forcefully(given_up.stream)
    attack.server.process.send_signal(signal.SIGCONT)
    assert (await living.response())[0] == 101
    assert (await living.receive())["id"] == your_id["id"]
    for _ in range(3):
        await living.send(message(type="ping"))
        assert (await living.receive())["type"] == "pong"
        await trio.sleep(0.05)


async def test_a_dial_that_is_behind_the_living_connection(attack: Attack) -> None:
    """It has an older `last` than the living one has acknowledged, so that it gets a session of its own."""
    client, peer = await attack.connect(), await attack.client()
    your_id = await client.open("/?seq=1")
    await peer.send(type="pair_request", target_id=your_id["id"])
    assert (await client.receive())["seq"] == 1
    await peer.send(type="offer", sdp="x")
    assert (await client.receive())["seq"] == 2
    await client.send(message(type="ack", seq=2))
    await client.send(message(type="ping"))
    assert (await client.receive())["type"] == "pong"
    for last in (1, 3):
        late = await attack.connect()
        assert not (await late.open(f"/?seq=1&resume={your_id['resume_token']}&last={last}"))["resumed"]
    await client.send(message(type="ping"))
    assert (await client.receive())["type"] == "pong"


async def test_suspended_sessions_outlive_floods_of_others(tmp_path: Path) -> None:
    """Two addresses let more clients come and vanish than the relay keeps: those of a third one can be resumed."""
    with relay_process(tmp_path, "--resume-window", "60") as server:
        async with attack_on(server) as attack:
            tokens = []
            for _ in range(5):
                client = await attack.connect()
                tokens.append((await client.open("/?seq=1"))["resume_token"])
                await client.stream.aclose()

            async def come_and_vanish(address: str) -> None:
                for _ in range(26):
                    client = await attack.connect(address)
                    await client.open("/?seq=1")
                    await client.stream.aclose()

            async with trio.open_nursery() as nursery:
                for number in range(40):
                    nursery.start_soon(come_and_vanish, f"127.0.0.{2 + number % 2}")
            for token in tokens:
                assert (await (await attack.connect()).open(f"/?seq=1&resume={token}"))["resumed"]
            slow = [line for line in attack.events("client_disconnected") if line["reason"] == EVICTED]
            assert len(slow) >= 2


async def test_replay_buffers_of_a_flood_end_no_larger_one_of_another_address(tmp_path: Path) -> None:
    """The sessions of one address fill the bound of all replay buffers: one of another address keeps its frames."""
    with relay_process(tmp_path, "--resume-window", "60", "--rate", "0") as server:
        async with attack_on(server) as attack:
            sender, flooder = await attack.connect(), await attack.connect(ELSEWHERE)
            await sender.open()
            await flooder.open()
            token = await frames_for_a_lost_client(sender, await attack.connect(), 20)
            for _ in range(150):
                await frames_for_a_lost_client(flooder, await attack.connect(ELSEWHERE), 2)
            again = await attack.connect()
            assert (await again.open(f"/?seq=1&resume={token}"))["resumed"]
            assert [(await again.receive())["seq"] for _ in range(22)] == list(range(1, 23))
            evicted = [line for line in attack.events("client_disconnected") if line["reason"] == EVICTED]
            assert len(evicted) > 20


async def frames_for_a_lost_client(sender: RawClient, lost: RawClient, count: int) -> str:
    """Let a client with sequence numbers vanish, pair with it, send it so many offers, and leave; returns its token."""
    your_id = await lost.open("/?seq=1")
    await lost.stream.aclose()
    await sender.send(message(type="pair_request", target_id=your_id["id"]))
    assert (await sender.receive())["type"] == "paired"
    await sender.send(message(type="offer", sdp="x" * 60_000) * count + message(type="unpair"))
    while (await sender.receive())["type"] != "unpaired":
        pass
    return str(your_id["resume_token"])
