"""The signaling client: dials after a loss, with which ID and delay, and when it stops."""

import socket
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection, WebSocketRequest
from wsproto.utilities import LocalProtocolError

from sdpx.errors import Ending, ExitStatus
from sdpx.options import AccessOptions
from sdpx.peer.signaling import client as signaling_client
from sdpx.peer.signaling.client import ID_TRIES, Connected, Disconnected, SignalingClient, SignalingEvent, Stopped
from sdpx.peer.signaling.connection import dial
from sdpx.protocol.messages import Paired
from tests.harness.scripted_relay import Response, accepts, refuses, scripted

GOING_AWAY = 1001


async def next_events(client: SignalingClient, count: int) -> list[SignalingEvent]:
    return [await client.events.receive() for _ in range(count)]


async def test_events_are_in_order_across_two_connections() -> None:
    """Connected, the relay's messages, Disconnected, and again; the second dial requests the same ID."""
    paired = {"type": "paired", "peer_id": "bob", "is_initiator": True}
    responses = [accepts({"id": "x7"}, paired, code=GOING_AWAY), accepts({"id": "x7"}, code=0)]
    async with scripted(*responses) as (client, relay, log):
        up, message, down, again = await next_events(client, 4)
    assert isinstance(up, Connected)
    assert isinstance(again, Connected)
    assert (up.client_id, again.client_id) == ("x7", "x7")
    assert (message, down) == (Paired("bob", is_initiator=True), Disconnected())
    assert relay.paths == ["/?seq=1", "/?id=x7&seq=1"]
    assert log.events == ["connecting", "connected", "id_assigned", "disconnected", "reconnecting", *log.events[:3]]
    assert log.of("disconnected")[0]["code"] == GOING_AWAY
    (retry,) = log.of("reconnecting")
    assert (retry["attempt"], retry["code"]) == (1, "relay_lost")
    assert "is stopping" in retry["reason"]


async def test_frames_that_break_the_websocket_protocol_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """trio-websocket raises in a task of its own; the client takes it for a loss, and dials again."""
    handle, calls = WebSocketConnection._handle_message_event, list[object]()

    async def broken(self: WebSocketConnection, event: Any) -> None:
        calls.append(event)
        if len(calls) == 2:
            raise LocalProtocolError("unexpected fragment")
        await handle(self, event)

    monkeypatch.setattr(WebSocketConnection, "_handle_message_event", broken)
    responses = [accepts({"id": "x7"}, {"type": "pong"}, code=0), accepts({"id": "x7"}, code=0)]
    async with scripted(*responses) as (client, _, log):
        up, down, again = await next_events(client, 3)
    assert isinstance(up, Connected)
    assert isinstance(again, Connected)
    assert down == Disconnected()
    assert log.of("reconnecting")[0]["code"] == "relay_lost"  # the client may notice the closed socket before its cause


@pytest.mark.parametrize(("status", "code"), [(401, "unauthorized"), (503, "full")])
async def test_a_refusal_of_the_first_dial_stops_the_client(status: int, code: str) -> None:
    async with scripted(refuses(status, code)) as (client, _, _):
        (stopped,) = await next_events(client, 1)
    assert isinstance(stopped, Stopped)
    assert (stopped.ending.code, stopped.ending.status) == (code, ExitStatus.REFUSED)


@pytest.mark.parametrize("response", [refuses(502), refuses(503), refuses(504), refuses(503, "full")])
async def test_wait_covers_a_relay_that_is_unavailable_for_now(response: Response) -> None:
    """A proxy with a relay that is starting is dialled again, also with `--no-reconnect`."""
    async with scripted(response, accepts({"id": "x7"}, code=0), wait=20.0, reconnect=False) as (client, _, log):
        (first,) = await next_events(client, 1)
        assert isinstance(first, Connected)
        assert log.of("reconnecting")[0]["code"] in ("relay_unavailable", "full")


@pytest.mark.parametrize("response", [refuses(404), refuses(503, "full"), refuses(401, "unauthorized")])
async def test_wait_ends_with_its_time_and_covers_no_other_error(response: Response) -> None:
    async with scripted(*[response] * 100, wait=0.1) as (client, relay, _):
        (stopped,) = await next_events(client, 1)
        assert isinstance(stopped, Stopped)
        assert (len(relay.paths) > 1) == (stopped.ending.code == "full")


@pytest.mark.parametrize(("token", "is_hinted"), [(None, True), ("x", False)])
async def test_a_client_without_a_token_learns_how_to_give_one(token: str | None, is_hinted: bool) -> None:
    async with scripted(refuses(401, "unauthorized"), access=AccessOptions(token=token)) as (client, _, _):
        (stopped,) = await next_events(client, 1)
    assert isinstance(stopped, Stopped)
    assert ("(--token or SDPX_TOKEN)" in stopped.ending.reason) is is_hinted


async def test_a_refused_connection_has_a_plain_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Ending) as caught:
            async with dial(url, url):
                pass
    assert caught.value.reason == f"Cannot reach the relay at {url}: connection refused (is the relay running?)"


async def test_an_assigned_id_is_given_up_after_a_few_refusals() -> None:
    """The relay may consider the old socket open; a client without a chosen ID does not wait for its end."""
    refusals = [refuses(409, "id_taken")] * ID_TRIES
    async with scripted(accepts({"id": "x7"}), *refusals, accepts({"id": "y8"}, code=0)) as (client, relay, log):
        *_, again = await next_events(client, 3)
    assert isinstance(again, Connected)
    assert again.client_id == "y8"
    assert relay.paths == ["/?seq=1", *["/?id=x7&seq=1"] * ID_TRIES, "/?seq=1"]
    assert {line["code"] for line in log.of("reconnecting")} == {"relay_lost", "id_taken"}


async def test_a_chosen_id_is_requested_until_it_is_free() -> None:
    """Other clients request a pairing with that ID."""
    refusals = [refuses(409, "id_taken")] * (3 * ID_TRIES)
    responses = [accepts({"id": "robot"}), *refusals, accepts({"id": "robot"}, code=0)]
    async with scripted(*responses, client_id="robot") as (client, relay, _):
        await next_events(client, 3)
    assert set(relay.paths) == {"/?id=robot&seq=1"}


@pytest.mark.parametrize(
    ("responses", "options", "code"),
    [
        ([accepts({}, code=4001)], {}, "taken_over"),
        ([accepts({}), refuses(401, "unauthorized")], {}, "unauthorized"),
        ([accepts({}), refuses(503, "full"), refuses(403, "forbidden")], {}, "forbidden"),
        ([accepts({})], {"reconnect": False}, "relay_lost"),
    ],
)
async def test_a_final_error_stops_the_client(responses: list[Response], options: dict[str, Any], code: str) -> None:
    async with scripted(*responses, **options) as (client, relay, _):
        *_, stopped = await next_events(client, 3)
    assert isinstance(stopped, Stopped)
    assert stopped.ending.code == code
    assert relay.responses == []


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 4000])
async def test_any_other_close_code_is_followed_by_a_dial(code: int) -> None:
    async with scripted(accepts({}, code=code), accepts({}, code=0)) as (client, _, log):
        *_, again = await next_events(client, 3)
    assert isinstance(again, Connected)
    assert log.of("disconnected")[0]["code"] == code


async def test_client_of_nodes_that_restart_one_after_the_other_comes_back_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The backoff begins again after each 1012 of a connection that was of use, however short."""
    monkeypatch.setattr(signaling_client, "RESTART_SECONDS", 1.0)  # a busy machine may take long for the others
    clients: list[SignalingClient] = []

    def node(seconds: float) -> Response:
        async def respond(request: WebSocketRequest, received: list[dict[str, Any]]) -> None:
            connection = await request.accept()
            opened = trio.current_time()
            await connection.send_message(
                '{"type": "your_id", "id": "alice", "resume_token": "t", "resumed": true, "client_seq": 0}'
            )
            while seconds and not (
                clients and (clients[0].connected_since or 0.0) > opened
            ):  # which is where it counts from
                await trio.sleep(0.01)
            await trio.sleep(seconds)
            await connection.aclose(1012)

        return respond

    async with scripted(*[node(1.1)] * 3, node(0), node(0), accepts({}, code=0)) as (client, _, log):
        clients.append(client)
        await next_events(client, 1)
        while len(log.of("reconnecting")) < 5:
            await trio.sleep(0.02)
    assert [line["delay_ms"] > 0 for line in log.of("reconnecting")] == [False, False, False, True, True]
    assert "is stopping" in log.of("reconnecting")[0]["reason"]


async def test_delays_grow_while_connections_are_short() -> None:
    """A relay that accepts and closes at once is not flooded with dials."""
    async with scripted(*[accepts({}, code=GOING_AWAY)] * 5, accepts({}, code=0)) as (client, _, log):
        await next_events(client, 11)
    assert [line["attempt"] for line in log.of("reconnecting")] == [1, 2, 3, 4, 5]
