"""The signaling client across broken sockets (PROTOCOL: Resume): a resumed session raises no event, and loses no frame."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import pytest
import trio
from trio.testing import memory_stream_pair

from sdpx.errors import Ending
from sdpx.log import Log
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.client import Connected, Disconnected, SignalingClient, SignalingEvent, Stopped
from sdpx.peer.signaling.connection import dial
from sdpx.protocol.messages import Candidate, CandidateInit, Description, Paired, PairRequest
from tests.harness.breaking_proxy import BreakingProxy, Direction, breaking_proxy
from tests.harness.examples import sample
from tests.harness.log import LogRecorder
from tests.harness.resuming_relay import ResumingRelay, resuming_relay
from tests.harness.scripted_relay import Frame

OFFER: Final = Description("offer", "v=0 offer")
MINE: Final = [OFFER, *(Candidate(CandidateInit(f"mine {n}")) for n in range(2)), Candidate(None)]
ANSWER: Final[list[Frame]] = [
    {"type": "answer", "sdp": "v=0 answer"},
    {"type": "candidate", "candidate": {"candidate": "bob's"}},
    {"type": "candidate", "candidate": None},
]


@dataclass
class Setup:
    """A signaling client, the proxy that it dials, the relay behind the proxy, and the log."""

    client: SignalingClient
    proxy: BreakingProxy
    relay: ResumingRelay
    log: LogRecorder
    written: list[int] = field(default_factory=list)

    async def send_all(self, up: Connected) -> None:
        for number, frame in enumerate(MINE):
            assert await up.channel.send(frame, partial(self.written.append, number))

    async def events(self, count: int) -> list[SignalingEvent]:
        return [await self.client.events.receive() for _ in range(count)]

    async def handshake(self) -> list[SignalingEvent]:
        """Run alice's handshake with bob; returns all her events."""
        received = await self.events(1)
        up = received[0]
        assert isinstance(up, Connected)
        await self.client.send(PairRequest("bob"))
        received += await self.events(1)
        await self.send_all(up)
        return received + await self.events(len(ANSWER))

    async def paired(self) -> list[Any]:
        """Run alice from the dial to the pairing."""
        received = await self.events(1)
        await self.client.send(PairRequest("bob"))
        return received + await self.events(1)

    @contextmanager
    def relay_away(self) -> Iterator[None]:
        """Cut the connection, and let all dials of the block fail."""
        target, self.proxy.target = self.proxy.target, 1
        self.proxy.reset()
        yield
        self.proxy.target = target

    async def wait_for_all_frames(self) -> None:
        while len(self.relay.bobs) < 1 + len(MINE):
            await trio.sleep(0.001)


@asynccontextmanager
async def connected_through_proxy(*ends: dict[Direction, int], **options: Any) -> AsyncIterator[Setup]:
    with trio.fail_after(20):
        async with (
            resuming_relay() as (relay, port),
            breaking_proxy(port, ends) as proxy,
            trio.open_nursery() as nursery,
        ):
            relay.answers = list(ANSWER)
            log = LogRecorder()
            chosen = PeerOptions(proxy.url, client_id="alice", **options)
            client = SignalingClient(chosen, None, Log(log.put, trio.current_time), lambda: 0.0)
            client._backoff = Backoff(0.01, 0.02)
            nursery.start_soon(client.run)
            yield Setup(client, proxy, relay, log)
            await client.close()
            nursery.cancel_scope.cancel()


def assert_complete(received: list[SignalingEvent], setup: Setup) -> None:
    """Both received the handshake and nothing else; each frame was reported as written once, in order."""
    relay = setup.relay
    assert [type(event) for event in received] == [Connected, Paired, Description, Candidate, Candidate]
    assert [frame["type"] for frame in relay.bobs] == ["paired", "offer", "candidate", "candidate", "candidate"]
    assert [frame["client_seq"] for frame in relay.bobs[1:]] == [2, 3, 4, 5]
    assert [frame["candidate"] for frame in relay.bobs[2:]] == [*({"candidate": f"mine {n}"} for n in range(2)), None]
    assert setup.written == list(range(len(MINE)))


async def bytes_passed(direction: Direction) -> tuple[int, bytes]:
    """Return how many bytes of a handshake pass before the first `Connected`, and all its bytes."""
    async with connected_through_proxy() as setup:
        (up,) = await setup.events(1)
        assert isinstance(up, Connected)
        passed = setup.proxy.connections[0].passed[direction]
        before = len(passed)
        await setup.client.send(PairRequest("bob"))
        await setup.events(1)
        for frame in MINE:
            await up.channel.send(frame)
        await setup.events(len(ANSWER))
        await setup.wait_for_all_frames()
        return before, bytes(passed)


def edges(passed: bytes) -> Iterator[int]:
    """Yield the offsets next to the parts of each frame: inside and behind its head, inside its payload, and behind it."""
    start = passed.index(b"\r\n\r\n") + 4
    while start < len(passed):
        size, mask = passed[start + 1] & 0x7F, 4 * (passed[start + 1] >> 7)
        head = start + 2 + mask
        if size == 126:
            size, head = int.from_bytes(passed[start + 2 : start + 4]), head + 2
        yield from (start + 1, start + 2, head - 1, head, head + 1, head + size - 1, head + size)
        start = head + size


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_cut_after_any_byte_of_a_handshake_raises_no_event(direction: Direction) -> None:
    """After the first `your_id`; the second connection is cut after a few bytes, too, and the third one carries the rest.

    The profile `ci` cuts after all bytes, `default` after those next to the parts of each frame, and after some of the others.
    """
    first, passed = await bytes_passed(direction)
    after = range(first + 1, len(passed))
    assert len(after) > 200
    ends = iter(sorted({*sample(after, 20), *edges(passed)}.intersection(after)))

    async def cut_and_check() -> None:
        for end in ends:
            async with connected_through_proxy({direction: end}, {"down" if end % 2 else "up": 1 + end % 700}) as setup:
                received = await setup.handshake()
                await setup.wait_for_all_frames()
                assert_complete(received, setup)

    async with trio.open_nursery() as nursery:  # these tests mostly wait
        for _ in range(8):
            nursery.start_soon(cut_and_check)


@pytest.mark.parametrize("seed", range(5))
async def test_random_cuts_raise_no_event(seed: int) -> None:
    """Ten cuts in one handshake, in both directions, also during a dial."""
    rng = random.Random(seed)
    first, _ = await bytes_passed("down")
    directions: tuple[Direction, Direction] = ("up", "down")
    ends: list[dict[Direction, int]] = [{rng.choice(directions): rng.randrange(1, 900)} for _ in range(9)]
    async with connected_through_proxy({"down": first + 1 + rng.randrange(200)}, *ends) as setup:
        received = await setup.handshake()
        await setup.wait_for_all_frames()
        assert_complete(received, setup)


# ---- log and URL ---------------------------------------------------------------------------------------------------


async def test_a_resume_is_logged_without_its_token() -> None:
    async with connected_through_proxy() as setup:
        await setup.handshake()
        await setup.wait_for_all_frames()
        setup.proxy.reset()
        await setup.log.wait_for("relay_resumed")
        assert setup.relay.asked[0] == "/?id=alice&seq=1"
        assert setup.relay.asked[1].startswith("/?id=alice&seq=1&resume=")
        assert setup.relay.asked[1].endswith("&last=4")
        events = [line["event"] for line in setup.log.records]
        first = ["connecting", "connected", "id_assigned"]
        assert events == [*first, "disconnected", "reconnecting", *first[:2], "relay_resumed"]
        assert setup.log.of("reconnecting")[0] | {"attempt": 1, "delay_ms": 0.0} == setup.log.of("reconnecting")[0]
        assert setup.log.of("relay_resumed")[0]["id"] == "alice"
        tokens = [token for tokens in setup.relay.end.issued.values() for token in tokens]
        assert len(tokens) == 2
        assert not any(token in str(line) for token in tokens for line in setup.log.lines)


async def test_without_reconnect_no_resumable_session_is_requested() -> None:
    """The relay would keep the session for the resume window, and delay `peer_disconnected`."""
    async with connected_through_proxy(reconnect=False) as setup:
        await setup.handshake()
        setup.proxy.reset()
        disconnected, stopped = await setup.events(2)
        assert (disconnected, isinstance(stopped, Stopped)) == (Disconnected(), True)
        assert setup.relay.asked == ["/?id=alice"]
        assert "client_seq" not in str(setup.relay.bobs)


# ---- without a socket -----------------------------------------------------------------------------------------------


async def test_frames_sent_while_the_relay_is_away_arrive() -> None:
    broken: dict[Direction, int] = {"up": 1}
    async with connected_through_proxy({}, broken, broken, broken) as setup:
        up, _ = await setup.paired()
        setup.proxy.reset()
        await setup.log.wait_for("disconnected")
        await setup.send_all(up)
        assert setup.written == []
        assert [type(each) for each in await setup.events(3)] == [Description, Candidate, Candidate]
        await setup.wait_for_all_frames()
        assert setup.written == list(range(len(MINE)))
        assert setup.log.of("relay_resumed")[0]["unconfirmed"] == len(MINE)


async def test_a_relay_that_stays_away_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the relay resumes it later after all, the client closes it in order, and opens a new one with the same ID."""
    monkeypatch.setattr("sdpx.peer.signaling.client.RESUME_SECONDS", 0.3)
    async with connected_through_proxy() as setup:
        up, _ = await setup.paired()
        with setup.relay_away():
            assert await setup.events(1) == [Disconnected()]
            assert not await up.channel.send(OFFER, partial(setup.written.append, 0))
            assert not await setup.client.send(PairRequest("bob"))
        (again,) = await setup.events(1)
        assert isinstance(again, Connected)
        assert again.client_id == "alice"
        assert setup.relay.bobs[-1] == {"type": "peer_disconnected", "peer_id": "alice", "reason": "closed"}


async def test_close_while_the_relay_is_away_ends_the_session_in_order() -> None:
    """Otherwise the relay would keep the session, and delay `peer_disconnected`."""
    async with connected_through_proxy({}, {"up": 1}) as setup:
        up, _ = await setup.paired()
        setup.proxy.reset()
        await setup.log.wait_for("disconnected")
        await up.channel.send(OFFER)
        await setup.client.close()
        while len(setup.relay.bobs) < 3:
            await trio.sleep(0.01)
        assert [frame["type"] for frame in setup.relay.bobs] == ["paired", "offer", "peer_disconnected"]


async def test_a_frame_that_no_socket_takes_is_never_reported_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that wait for the relay are dropped when the session is given up, and no later session writes them."""
    monkeypatch.setattr("sdpx.peer.signaling.client.RESUME_SECONDS", 0.3)
    async with connected_through_proxy() as setup:
        up, _ = await setup.paired()
        with setup.relay_away():
            await setup.log.wait_for("disconnected")
            await setup.send_all(up)
            assert await setup.events(1) == [Disconnected()]
        assert [type(each) for each in await setup.events(1)] == [Connected]
        assert setup.written == []
        assert [frame["type"] for frame in setup.relay.bobs] == ["paired", "peer_disconnected"]


# ---- lost sockets --------------------------------------------------------------------------------------------------


async def test_a_dead_socket_is_superseded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side sees a loss, but the acks of the relay are missing."""
    monkeypatch.setattr("sdpx.peer.signaling.reliable_channel.ACK_TIMEOUT_SECONDS", 0.3)
    async with connected_through_proxy() as setup:
        up, _ = await setup.paired()
        setup.proxy.freeze()
        for frame in MINE:
            await up.channel.send(frame)
        assert [type(each) for each in await setup.events(3)] == [Description, Candidate, Candidate]
        await setup.wait_for_all_frames()
        assert len(setup.log.of("relay_resumed")) == 1


async def test_a_dial_that_is_reset_before_its_request_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """trio-websocket would wait for the response to a request that was never sent."""
    ours, theirs = memory_stream_pair()
    await theirs.aclose()

    async def open_closed_stream(*_: object) -> trio.abc.Stream:
        return ours

    monkeypatch.setattr("trio.open_tcp_stream", open_closed_stream)
    with trio.fail_after(5), pytest.raises(Ending, match="closed the connection"):
        async with dial("ws://127.0.0.1:1", "ws://127.0.0.1:1"):
            pass


# ---- bounds ---------------------------------------------------------------------------------------------------------


async def test_a_sender_waits_while_the_channel_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender continues when the relay confirms frames: by acks, or on the next connection."""
    monkeypatch.setattr("sdpx.peer.signaling.reliable_channel.ACK_TIMEOUT_SECONDS", 0.3)
    async with connected_through_proxy() as setup:
        setup.client._state._max_frames = 2
        up, _ = await setup.paired()
        setup.relay.acks_are_sent = False

        async def send() -> None:
            for frame in MINE:
                assert await up.channel.send(frame)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await setup.events(len(ANSWER))
        await setup.wait_for_all_frames()
        assert len(setup.log.of("relay_resumed")) >= 1


async def test_a_waiting_sender_is_released_when_the_channel_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel closes when the relay does not come back."""
    monkeypatch.setattr("sdpx.peer.signaling.client.RESUME_SECONDS", 0.3)
    async with connected_through_proxy() as setup:
        setup.client._state._max_frames = 1
        up, _ = await setup.paired()
        with setup.relay_away():
            await setup.log.wait_for("disconnected")
            sent: list[bool] = []

            async def send() -> None:
                sent.append(await up.channel.send(OFFER))

            async with trio.open_nursery() as nursery:
                for _ in range(2):  # the first may have room, if the request was confirmed before the cut
                    nursery.start_soon(send)
                assert await setup.events(1) == [Disconnected()]
        assert False in sent


async def test_a_relay_that_never_confirms_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender waits for a bounded time; then the session ends, and a new one is opened."""
    monkeypatch.setattr("sdpx.peer.signaling.reliable_channel.FULL_SECONDS", 0.2)
    async with connected_through_proxy() as setup:
        setup.client._state._max_frames = 1
        setup.relay.acks_are_sent = False
        up, _ = await setup.paired()
        assert not await up.channel.send(OFFER)
        disconnected, again = await setup.events(2)
        assert (disconnected, type(again)) == (Disconnected(), Connected)
