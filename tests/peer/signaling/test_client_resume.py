"""The peer across broken sockets (PROTOCOL: Resume): whoever listens to the uplink hears nothing of it, and all comes once."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import pytest
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from sdpx.errors import RelayUnreachable
from sdpx.log import Log
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.client import Connected, Disconnected, SignalingClient, SignalingEvent, Stopped
from sdpx.peer.signaling.connection import dial
from sdpx.protocol.messages import Candidate, CandidateInit, Description, IceServers, Paired, Request
from tests.harness.breaking_proxy import Cutter, Way, cutting
from tests.harness.log import LogRecorder
from tests.harness.resuming_relay import ResumingRelay, resuming_relay

Frame = dict[str, Any]
Act = Callable[[WebSocketRequest, list[Frame]], Awaitable[None]]
OFFER: Final = Description("offer", "v=0 offer")
MINE: Final = [OFFER, *(Candidate(CandidateInit(f"mine {n}")) for n in range(2)), Candidate(None)]
ANSWER: Final[list[Frame]] = [
    {"type": "answer", "sdp": "v=0 answer"},
    {"type": "candidate", "candidate": {"candidate": "bob's"}},
    {"type": "candidate", "candidate": None},
]


@dataclass
class Stage:
    """A peer's uplink, the proxy that it dials, the relay behind that, and the log."""

    uplink: SignalingClient
    cutter: Cutter
    relay: ResumingRelay
    log: LogRecorder
    written: list[int] = field(default_factory=list)

    async def send_all(self, up: Connected) -> None:
        for number, frame in enumerate(MINE):
            assert await up.channel.send(frame, partial(self.written.append, number))

    async def news(self, count: int) -> list[SignalingEvent]:
        return [await self.uplink.events.receive() for _ in range(count)]

    async def handshake(self) -> list[SignalingEvent]:
        """Be alice from the dial to bob's last candidate; returns all that she heard."""
        heard = await self.news(1)
        up = heard[0]
        assert isinstance(up, Connected)
        await self.uplink.send(Request("bob"))
        heard += await self.news(1)
        await self.send_all(up)
        return heard + await self.news(len(ANSWER))

    async def paired(self) -> list[Any]:
        """Be alice from the dial to the pairing."""
        heard = await self.news(1)
        await self.uplink.send(Request("bob"))
        return heard + await self.news(1)

    async def logged(self, event: str) -> None:
        while not self.log.of(event):
            await trio.sleep(0.001)

    async def resumed(self) -> None:
        await self.logged("relay_resumed")

    async def all_is_there(self) -> None:
        while len(self.relay.bobs) < 1 + len(MINE):
            await trio.sleep(0.001)


@asynccontextmanager
async def stage(*ends: dict[Way, int], **options: Any) -> AsyncIterator[Stage]:
    with trio.fail_after(20):
        async with resuming_relay() as (relay, port), cutting(port, ends) as cutter, trio.open_nursery() as nursery:
            relay.answers = list(ANSWER)
            log = LogRecorder()
            chosen = PeerOptions(cutter.url, client_id="alice", **options)
            uplink = SignalingClient(chosen, None, Log(log.put, trio.current_time), lambda: 0.0)
            uplink._backoff = Backoff(0.01, 0.02)
            nursery.start_soon(uplink.run)
            yield Stage(uplink, cutter, relay, log)
            await uplink.close()
            nursery.cancel_scope.cancel()


def assert_whole(heard: list[SignalingEvent], stage: Stage) -> None:
    """Alice heard the handshake and nothing else, and so did bob; each frame was reported as written once, in order."""
    relay = stage.relay
    assert [type(news) for news in heard] == [Connected, Paired, Description, Candidate, Candidate]
    assert [frame["type"] for frame in relay.bobs] == ["paired", "offer", "candidate", "candidate", "candidate"]
    assert [frame["client_seq"] for frame in relay.bobs[1:]] == [2, 3, 4, 5]
    assert [frame["candidate"] for frame in relay.bobs[2:]] == [*({"candidate": f"mine {n}"} for n in range(2)), None]
    assert stage.written == list(range(len(MINE)))


async def whole_length(way: Way) -> tuple[int, int]:
    """Return how many bytes went through at the first `Connected`, and in all."""
    async with stage() as world:
        (up,) = await world.news(1)
        assert isinstance(up, Connected)
        before = world.cutter.passages[0].passed[way]
        await world.uplink.send(Request("bob"))
        await world.news(1)
        for frame in MINE:
            await up.channel.send(frame)
        await world.news(len(ANSWER))
        await world.all_is_there()
        return before, world.cutter.passages[0].passed[way]


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_cut_behind_any_byte_of_a_handshake_is_not_heard_of(way: Way) -> None:
    """From the first `your_id` on; the next connection is cut behind a few bytes too, and the third one carries the rest."""
    first, last = await whole_length(way)
    assert last - first > 200
    ends = iter(range(first + 1, last))

    async def cut_and_look() -> None:
        for end in ends:
            async with stage({way: end}, {"down" if end % 2 else "up": 1 + end % 700}) as world:
                heard = await world.handshake()
                await world.all_is_there()
                assert_whole(heard, world)

    async with trio.open_nursery() as nursery:  # they wait more than they work
        for _ in range(8):
            nursery.start_soon(cut_and_look)


@pytest.mark.parametrize("seed", range(5))
async def test_cuts_at_random_are_not_heard_of(seed: int) -> None:
    """Ten of them in one handshake, in either direction, in the middle of a dial too."""
    dice = random.Random(seed)
    first, _ = await whole_length("down")
    ways: tuple[Way, Way] = ("up", "down")
    ends: list[dict[Way, int]] = [{dice.choice(ways): dice.randrange(1, 900)} for _ in range(9)]
    async with stage({"down": first + 1 + dice.randrange(200)}, *ends) as world:
        heard = await world.handshake()
        await world.all_is_there()
        assert_whole(heard, world)


# ---- what the log and the URL say -----------------------------------------------------------------------------------


async def test_a_return_is_logged_and_the_token_is_not() -> None:
    async with stage() as world:
        await world.handshake()
        await world.all_is_there()
        world.cutter.cut()
        await world.resumed()
        assert world.relay.asked[0] == "/?id=alice&seq=1"
        assert world.relay.asked[1].startswith("/?id=alice&seq=1&resume=")
        assert world.relay.asked[1].endswith("&last=4")
        events = [line["event"] for line in world.log.records]
        first = ["connecting", "connected", "id_assigned"]
        assert events == [*first, "disconnected", "reconnecting", *first[:2], "relay_resumed"]
        assert world.log.of("reconnecting")[0] | {"attempt": 1, "delay_ms": 0.0} == world.log.of("reconnecting")[0]
        assert world.log.of("relay_resumed")[0]["id"] == "alice"
        tokens = [token for tokens in world.relay.end.issued.values() for token in tokens]
        assert len(tokens) == 2
        assert not any(token in str(line) for token in tokens for line in world.log.lines)


async def test_without_redialling_it_asks_for_no_place() -> None:
    """Nobody would come back to it, and its peer would wait in vain."""
    async with stage(reconnect=False) as world:
        await world.handshake()
        world.cutter.cut()
        down, over = await world.news(2)
        assert (down, isinstance(over, Stopped)) == (Disconnected(), True)
        assert world.relay.asked == ["/?id=alice"]
        assert "client_seq" not in str(world.relay.bobs)


# ---- while there is no socket ---------------------------------------------------------------------------------------


async def test_what_is_sent_while_the_relay_is_away_arrives() -> None:
    nowhere: dict[Way, int] = {"up": 1}
    async with stage({}, nowhere, nowhere, nowhere) as world:
        up, _ = await world.paired()
        world.cutter.cut()
        await world.logged("disconnected")
        await world.send_all(up)
        assert world.written == []
        assert [type(each) for each in await world.news(3)] == [Description, Candidate, Candidate]
        await world.all_is_there()
        assert world.written == list(range(len(MINE)))
        assert world.log.of("relay_resumed")[0]["unconfirmed"] == len(MINE)


async def test_a_relay_that_stays_away_is_lost_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the place is given up: who finds it kept after all leaves it in order, and comes anew under the same name."""
    monkeypatch.setattr("sdpx.peer.signaling.client.RESUME_SECONDS", 0.3)
    async with stage() as world:
        up, _ = await world.paired()
        target, world.cutter.target = world.cutter.target, 1
        world.cutter.cut()
        assert await world.news(1) == [Disconnected()]
        assert not await up.channel.send(OFFER, partial(world.written.append, 0))
        assert not await world.uplink.send(Request("bob"))
        world.cutter.target = target
        (again,) = await world.news(1)
        assert isinstance(again, Connected)
        assert again.client_id == "alice"
        assert world.relay.bobs[-1] == {"type": "peer_disconnected", "peer_id": "alice", "reason": "closed"}


async def test_who_closes_while_the_relay_is_away_leaves_in_order() -> None:
    """Else its peer would be told only when the relay gives up."""
    async with stage({}, {"up": 1}) as world:
        up, _ = await world.paired()
        world.cutter.cut()
        await world.logged("disconnected")
        await up.channel.send(OFFER)
        await world.uplink.close()
        while [frame["type"] for frame in world.relay.bobs] != ["paired", "offer", "peer_disconnected"]:
            await trio.sleep(0.01)


async def test_a_frame_that_no_socket_takes_is_never_reported_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that wait for the relay are dropped when the session is given up, and no later session writes them."""
    monkeypatch.setattr("sdpx.peer.signaling.client.RESUME_SECONDS", 0.3)
    async with stage() as world:
        up, _ = await world.paired()
        target, world.cutter.target = world.cutter.target, 1
        world.cutter.cut()
        await world.logged("disconnected")
        await world.send_all(up)
        assert await world.news(1) == [Disconnected()]
        world.cutter.target = target
        assert [type(each) for each in await world.news(1)] == [Connected]
        assert world.written == []
        assert [frame["type"] for frame in world.relay.bobs] == ["paired", "peer_disconnected"]


async def test_a_frame_is_reported_as_written_to_a_relay_without_sequence_numbers() -> None:
    async with played(greets({}, code=0)) as (uplink, script):
        assert await heard_of(uplink, 1) == [Connected]
        written = list[int]()
        for number in range(3):
            await uplink.send(OFFER, partial(written.append, number))
        while len(script.heard) < 3:
            await trio.sleep(0.001)
    assert written == [0, 1, 2]


# ---- a socket that is only believed alive ---------------------------------------------------------------------------


async def test_a_socket_that_carries_nothing_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither side sees a loss; but a relay that is there confirms what it takes."""
    monkeypatch.setattr("sdpx.peer.signaling.reliable_channel.ACK_TIMEOUT_SECONDS", 0.3)
    async with stage() as world:
        up, _ = await world.paired()
        world.cutter.freeze()
        for frame in MINE:
            await up.channel.send(frame)
        assert [type(each) for each in await world.news(3)] == [Description, Candidate, Candidate]
        await world.all_is_there()
        assert len(world.log.of("relay_resumed")) == 1


async def test_a_dial_that_is_reset_before_its_request_is_out_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would wait for the answer to what was never sent."""
    ours, theirs = memory_stream_pair()
    await theirs.aclose()

    async def open_nothing(*_: object) -> trio.abc.Stream:
        return ours

    monkeypatch.setattr("trio.open_tcp_stream", open_nothing)
    with trio.fail_after(5), pytest.raises(RelayUnreachable, match="closed the connection"):
        async with dial("ws://127.0.0.1:1", "ws://127.0.0.1:1"):
            pass


# ---- bounds ---------------------------------------------------------------------------------------------------------


async def test_a_sender_waits_while_nothing_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends on as soon as the relay says how far it is: by its acks, or on the next connection."""
    monkeypatch.setattr("sdpx.peer.signaling.reliable_channel.ACK_TIMEOUT_SECONDS", 0.3)
    async with stage() as world:
        world.uplink._state._max_frames = 2
        up, _ = await world.paired()
        world.relay.acks_are_sent = False

        async def send() -> None:
            for frame in MINE:
                assert await up.channel.send(frame)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await world.news(len(ANSWER))
        await world.all_is_there()
        assert len(world.log.of("relay_resumed")) >= 1


async def test_a_sender_that_waits_is_let_go_when_the_stay_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is when the relay does not come back."""
    monkeypatch.setattr("sdpx.peer.signaling.client.RESUME_SECONDS", 0.3)
    async with stage() as world:
        world.uplink._state._max_frames = 1
        up, _ = await world.paired()
        world.cutter.target = 1
        world.cutter.cut()
        await world.logged("disconnected")
        async with trio.open_nursery() as nursery:
            sent: list[bool] = []

            async def send() -> None:
                sent.append(await up.channel.send(OFFER))

            for _ in range(2):  # the first one may find room, if the request was confirmed before the cut
                nursery.start_soon(send)
            assert await world.news(1) == [Disconnected()]
        assert False in sent


async def test_a_relay_that_never_confirms_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender does not wait for ever; whoever listens is told that it is over, and of a new beginning."""
    monkeypatch.setattr("sdpx.peer.signaling.reliable_channel.FULL_SECONDS", 0.2)
    async with stage() as world:
        world.uplink._state._max_frames = 1
        world.relay.acks_are_sent = False
        up, _ = await world.paired()
        assert not await up.channel.send(OFFER)
        down, again = await world.news(2)
        assert (down, type(again)) == (Disconnected(), Connected)


# ---- relays that are not as they should be --------------------------------------------------------------------------


def paired(seq: int) -> Frame:
    return {"type": "paired", "peer_id": "bob", "is_initiator": True, "seq": seq}


def greets(greeting: Frame, *frames: Frame, code: int | None = None) -> Act:
    """Say these frames; then be lost, close with this code, or, with 0, stay."""

    async def act(request: WebSocketRequest, heard: list[Frame]) -> None:
        connection = await request.accept()
        for frame in ({"type": "your_id", "id": "alice"} | greeting, *frames):
            await connection.send_message(json.dumps(frame))
        if code is None:
            await connection._stream.aclose()
            return
        if code:
            await connection.aclose(code)
        try:
            while True:
                heard.append(json.loads(await connection.get_message()))
        except ConnectionClosed as closed:
            heard.append({"code": closed.reason and closed.reason.code})

    return act


def refuses(status: int) -> Act:
    async def act(request: WebSocketRequest, heard: list[Frame]) -> None:
        await request.reject(status, body=json.dumps({"code": "unauthorized", "message": "no"}).encode())

    return act


class Script:
    """A relay that does these things one after the other."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.asked: list[str] = []
        self.heard: list[Frame] = []

    async def handle(self, request: WebSocketRequest) -> None:
        self.asked.append(request.path.partition("&")[2])
        await self.acts.pop(0)(request, self.heard)


@asynccontextmanager
async def played(*acts: Act) -> AsyncIterator[tuple[SignalingClient, Script]]:
    script = Script(*acts)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, script.handle, "127.0.0.1", 0, ssl_context=None))
            chosen = PeerOptions(f"ws://127.0.0.1:{server.port}", client_id="alice")
            uplink = SignalingClient(chosen, None, Log(LogRecorder().put, trio.current_time), lambda: 0.0)
            uplink._backoff = Backoff(0.01, 0.02)
            nursery.start_soon(uplink.run)
            yield uplink, script
            await uplink.close()
            nursery.cancel_scope.cancel()


FRESH: Final = {"resume_token": "T1", "resumed": False}
BACK: Final = {"resume_token": "T2", "resumed": True, "client_seq": 0, "peer_id": None}
KNOWN: Final = "seq=1&resume=T1&last=0"


async def heard_of(uplink: SignalingClient, count: int) -> list[type]:
    return [type(await uplink.events.receive()) for _ in range(count)]


async def test_a_relay_that_forgot_this_peer_begins_anew() -> None:
    """`resumed: false`: what was is over, and then there is a new stay, with numbers from one on."""
    async with played(greets(FRESH, paired(1)), greets(FRESH, paired(1), code=0)) as (uplink, script):
        assert await heard_of(uplink, 5) == [Connected, Paired, Disconnected, Connected, Paired]
    assert script.asked == ["seq=1", "seq=1&resume=T1&last=1"]


async def test_a_relay_that_knows_no_numbers_any_more_gets_none() -> None:
    """An older version of it was started in between."""
    async with played(greets(FRESH), greets({}), greets({}, code=0)) as (uplink, script):
        assert await heard_of(uplink, 5) == [Connected, Disconnected, Connected, Disconnected, Connected]
        await uplink.send(Request("bob"))
        while not script.heard:
            await trio.sleep(0.001)
    assert script.asked == ["seq=1", KNOWN, "seq=1"]
    assert script.heard[0] == {"type": "pair_request", "target_id": "bob"}


@pytest.mark.parametrize("said", [{"client_seq": 9}, {"client_seq": msgspec.UNSET}])
async def test_a_relay_that_contradicts_itself_is_left_and_dialled_anew(said: Frame) -> None:
    """It took what was never sent, or does not say what it took."""
    back = {key: value for key, value in (BACK | said).items() if value is not msgspec.UNSET}
    async with played(greets(FRESH), greets(back, code=0), greets(FRESH, code=0)) as (uplink, script):
        assert await heard_of(uplink, 3) == [Connected, Disconnected, Connected]
    assert script.asked == ["seq=1", KNOWN, "seq=1"]
    assert script.heard[0] == {"code": 1002}


async def test_a_relay_that_confirms_what_was_never_sent_is_left_and_dialled_anew() -> None:
    ack = {"type": "ack", "client_seq": 3}
    async with played(greets(FRESH, ack, code=0), greets(FRESH, code=0)) as (uplink, script):
        assert await heard_of(uplink, 3) == [Connected, Disconnected, Connected]
    assert script.asked == ["seq=1", "seq=1"]
    assert script.heard[0] == {"code": 1002}


async def test_a_gap_is_closed_by_the_next_connection_and_what_comes_twice_is_dropped() -> None:
    """And the socket is cut without a close frame, which would mean to leave."""
    acts = [greets(FRESH, paired(1), paired(3), code=0), greets(BACK, paired(1), paired(2), paired(3), code=0)]
    async with played(*acts) as (uplink, script):
        assert await heard_of(uplink, 4) == [Connected, Paired, Paired, Paired]
    assert script.asked == ["seq=1", "seq=1&resume=T1&last=1"]
    assert script.heard[0] == {"code": 1006}


@pytest.mark.parametrize(
    ("acts", "code"), [([greets(FRESH, code=4001)], "taken_over"), ([greets(FRESH), refuses(401)], "unauthorized")]
)
async def test_what_ends_it_ends_the_hope_too(acts: list[Act], code: str) -> None:
    async with played(*acts) as (uplink, _):
        assert await heard_of(uplink, 2) == [Connected, Disconnected]
        over = await uplink.events.receive()
    assert isinstance(over, Stopped)
    assert over.ending.code == code


async def test_fresh_ice_servers_of_a_return_are_passed_on() -> None:
    """The credentials of the old ones may be about to end."""
    servers = [{"urls": "stun:192.0.2.1"}]
    async with played(greets(FRESH), greets(BACK | {"ice_servers": servers}, code=0)) as (uplink, _):
        assert (await heard_of(uplink, 1), await uplink.events.receive()) == ([Connected], IceServers(servers))


async def test_numbers_that_the_user_wrote_into_the_url_do_not_count() -> None:
    options = PeerOptions("ws://h/?seq=0&resume=X&last=7&x=1")
    assert options.dial_url_for(None, [("seq", "1")]) == "ws://h/?x=1&seq=1"
    assert options.dial_url_for(None) == "ws://h/?x=1"
