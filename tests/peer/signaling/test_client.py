"""SignalingClient across lost sockets: what is dialled again, with which ID, and what is not."""

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from sdpx.errors import ExitStatus, RelayUnreachable
from sdpx.log import Log
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.client import ID_TRIES, Connected, Disconnected, SignalingClient, SignalingEvent, Stopped
from sdpx.peer.signaling.connection import dial
from sdpx.protocol.messages import Paired
from tests.harness.log import LogRecorder

Act = Callable[[WebSocketRequest], Awaitable[None]]


def refuses(status: int, code: str) -> Act:
    async def act(request: WebSocketRequest) -> None:
        await request.reject(status, body=json.dumps({"code": code, "message": "no"}).encode())

    return act


def lets_in(client_id: str, *frames: dict[str, Any], close: int | None = 1001) -> Act:
    """Give this ID, send these frames, and close; with None, stay."""

    async def act(request: WebSocketRequest) -> None:
        socket: WebSocketConnection = await request.accept()
        for frame in ({"type": "your_id", "id": client_id}, *frames):
            await socket.send_message(json.dumps(frame))
        if close is not None:
            await socket.aclose(close, "as it was told")
            return
        try:
            await socket.get_message()
        except ConnectionClosed:
            return

    return act


class ServerResult:
    """A relay that does these things, one after the other, and what it was asked for."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.asked: list[str] = []

    async def handle(self, request: WebSocketRequest) -> None:
        self.asked.append(request.path)
        await self.acts.pop(0)(request)


@asynccontextmanager
async def dialling(told: ServerResult, **options: Any) -> AsyncIterator[tuple[SignalingClient, LogRecorder]]:
    """Dial that relay, with waits that are next to nothing."""
    log = LogRecorder()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, told.handle, "127.0.0.1", 0, ssl_context=None))
            chosen = PeerOptions(f"ws://127.0.0.1:{server.port}", **options)
            uplink = SignalingClient(chosen, None, Log(log.put, trio.current_time), lambda: 0.0)
            uplink._backoff = Backoff(0.01, 0.02)
            nursery.start_soon(uplink.run)
            yield uplink, log
            await uplink.close()
            nursery.cancel_scope.cancel()


async def news_of(uplink: SignalingClient, count: int) -> list[SignalingEvent]:
    return [await uplink.events.receive() for _ in range(count)]


async def test_news_come_in_order_across_two_sockets() -> None:
    """Up, what the relay says, Down, and the same with the next socket, which asks for the same ID."""
    paired = {"type": "paired", "peer_id": "bob", "is_initiator": True}
    told = ServerResult(lets_in("x7", paired), lets_in("x7", close=None))
    async with dialling(told) as (uplink, log):
        up, message, down, again = await news_of(uplink, 4)
    assert isinstance(up, Connected)
    assert isinstance(again, Connected)
    assert (up.client_id, message, down, again.client_id) == (
        "x7",
        Paired("bob", is_initiator=True),
        Disconnected(),
        "x7",
    )
    assert told.asked == ["/?seq=1", "/?id=x7&seq=1"]
    events = [line["event"] for line in log.records]
    assert events == ["connecting", "connected", "id_assigned", "disconnected", "reconnecting", *events[:3]]
    assert log.of("disconnected")[0]["code"] == 1001
    assert log.of("reconnecting")[0] | {"attempt": 1, "code": "relay_lost"} == log.of("reconnecting")[0]
    assert "is stopping" in log.of("reconnecting")[0]["reason"]


@pytest.mark.parametrize(
    ("status", "code", "exit_status"), [(401, "unauthorized", ExitStatus.REFUSED), (503, "full", ExitStatus.REFUSED)]
)
async def test_the_first_dial_decides(status: int, code: str, exit_status: ExitStatus) -> None:
    """Whatever is wrong with it, there is no second."""
    told = ServerResult(refuses(status, code))
    async with dialling(told) as (uplink, _):
        (over,) = await news_of(uplink, 1)
    assert isinstance(over, Stopped)
    assert (over.ending.code, over.ending.status) == (code, exit_status)


@pytest.mark.parametrize(("token", "is_told"), [(None, True), ("x", False)])
async def test_who_brought_no_token_is_told_how(token: str | None, is_told: bool) -> None:
    async with dialling(ServerResult(refuses(401, "unauthorized")), token=token) as (uplink, _):
        (over,) = await news_of(uplink, 1)
    assert isinstance(over, Stopped)
    assert ("(--token or SDPX_TOKEN)" in over.ending.reason) is is_told


async def test_a_port_where_nobody_listens_is_told_plainly() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RelayUnreachable) as caught:
            async with dial(url, url):
                pass
    assert caught.value.reason == f"Cannot reach the relay at {url}: connection refused: is a relay running there?"


async def test_an_id_that_the_relay_made_is_given_up_after_a_few_tries() -> None:
    """The relay may believe the old socket alive; a peer without a name of its own does not wait for that."""
    told = ServerResult(lets_in("x7"), *[refuses(409, "id_taken")] * ID_TRIES, lets_in("y8", close=None))
    async with dialling(told) as (uplink, log):
        *_, again = await news_of(uplink, 3)
    assert isinstance(again, Connected)
    assert again.client_id == "y8"
    assert told.asked == ["/?seq=1", *["/?id=x7&seq=1"] * ID_TRIES, "/?seq=1"]
    assert {line["code"] for line in log.of("reconnecting")} == {"relay_lost", "id_taken"}


async def test_an_id_that_the_user_chose_is_asked_for_until_it_is_free() -> None:
    """Others look for this peer by that name."""
    told = ServerResult(lets_in("robot"), *[refuses(409, "id_taken")] * (3 * ID_TRIES), lets_in("robot", close=None))
    async with dialling(told, client_id="robot") as (uplink, _):
        await news_of(uplink, 3)
    assert set(told.asked) == {"/?id=robot&seq=1"}


@pytest.mark.parametrize(
    ("acts", "options", "code"),
    [
        ([lets_in("x", close=4001)], {}, "taken_over"),
        ([lets_in("x"), refuses(401, "unauthorized")], {}, "unauthorized"),
        ([lets_in("x"), refuses(503, "full"), refuses(403, "forbidden")], {}, "forbidden"),
        ([lets_in("x")], {"reconnect": False}, "relay_lost"),
    ],
)
async def test_what_ends_it(acts: list[Act], options: dict[str, Any], code: str) -> None:
    """Another try would be in vain, or was not wanted."""
    told = ServerResult(*acts)
    async with dialling(told, **options) as (uplink, _):
        *_, over = await news_of(uplink, 3)
    assert isinstance(over, Stopped)
    assert over.ending.code == code
    assert told.acts == []


@pytest.mark.parametrize("close", [1000, 1001, 1008, 1011, 4000])
async def test_any_other_close_is_dialled_again(close: int) -> None:
    """Too fast, stopping, a proxy's whim: it passes."""
    told = ServerResult(lets_in("x", close=close), lets_in("x", close=None))
    async with dialling(told) as (uplink, log):
        *_, up = await news_of(uplink, 3)
    assert isinstance(up, Connected)
    assert log.of("disconnected")[0]["code"] == close


async def test_waits_grow_as_long_as_connections_do_not_hold() -> None:
    """A relay that lets in and cuts at once is not hammered."""
    told = ServerResult(*[lets_in("x")] * 5, lets_in("x", close=None))
    async with dialling(told) as (uplink, log):
        await news_of(uplink, 11)
    assert [line["attempt"] for line in log.of("reconnecting")] == [1, 2, 3, 4, 5]
