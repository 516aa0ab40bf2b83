"""The relay's shell on memory streams, with a clock that jumps: sockets that say too little, too much, or nothing."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from sdpx.events import Event
from sdpx.log import Log
from sdpx.relay.acceptor import Acceptor
from sdpx.relay.core.limits import Limits
from sdpx.relay.relay import Relay

Frame = dict[str, Any]
Pair = Callable[[], tuple[trio.StapledStream[Any, Any], trio.StapledStream[Any, Any]]]


class Recorder(Log):
    """A log that keeps events instead of writing lines."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class World:
    """A relay, and as many connections to it as a test wants."""

    def __init__(self, nursery: trio.Nursery, limits: Limits) -> None:
        self._nursery = nursery
        self.log = Recorder()
        self.relay = Relay(limits, self.log)
        self.acceptor = Acceptor(limits, self.relay)

    def dial(self, pair: Pair = memory_stream_pair) -> trio.StapledStream[Any, Any]:
        """Open a connection and return the client's end of it."""
        ours, theirs = pair()
        self._nursery.start_soon(self.acceptor.serve, theirs)
        return ours

    async def upgrade(self, path: str = "/", **options: Any) -> WebSocketConnection:
        """Open a WebSocket."""
        return await wrap_client_stream(self._nursery, self.dial(), "relay", path, **options)  # type: ignore[arg-type]

    async def client(self, name: str) -> WebSocketConnection:
        socket = await self.upgrade(f"/?id={name}")
        assert await heard(socket) == {"type": "your_id", "id": name}
        return socket

    async def paired(self) -> tuple[WebSocketConnection, WebSocketConnection]:
        a, b = await self.client("a"), await self.client("b")
        await say(a, type="pair_request", target_id="b")
        assert (await heard(a))["type"] == (await heard(b))["type"] == "paired"
        return a, b


@asynccontextmanager
async def world(**limits: Any) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery, Limits(**limits))
        nursery.cancel_scope.cancel()


async def say(socket: WebSocketConnection, **frame: object) -> None:
    await socket.send_message(json.dumps(frame))


async def heard(socket: WebSocketConnection) -> Frame:
    frame: Frame = json.loads(await socket.get_message())
    return frame


async def close_code(socket: WebSocketConnection) -> int:
    """Read to the end and return the close code."""
    with pytest.raises(ConnectionClosed) as closed:  # noqa: PT012
        while True:
            await socket.get_message()
    assert closed.value.reason is not None
    return closed.value.reason.code


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = b""
    while chunk := await stream.receive_some():
        data += chunk
    return data


HEAD = "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
HEALTH = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


async def ask(relay: World, request: str | bytes) -> tuple[int, Frame]:
    """Send raw bytes, and return the status and the JSON body of the answer."""
    stream = relay.dial()
    await stream.send_all(request if isinstance(request, bytes) else request.encode())
    head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else {}


async def test_frames_arrive_in_order_at_the_peer_only(autojump_clock: MockClock) -> None:
    async with world() as relay:
        a, b = await relay.paired()
        c = await relay.client("c")
        for number in range(300):
            await say(a, type="candidate", candidate={"candidate": str(number)})
        assert [(await heard(b))["candidate"]["candidate"] for _ in range(300)] == [str(n) for n in range(300)]
        await say(c, type="ping", t=[1])
        assert await heard(c) == {"type": "pong", "t": [1]}


async def test_refused_frames_are_answered_and_the_connection_stays(autojump_clock: MockClock) -> None:
    async with world() as relay:
        a = await relay.client("a")
        await a.send_message("{")
        assert (await heard(a))["code"] == "bad_json"
        await a.send_message(b'{"type":"ping"}')
        assert (await heard(a))["code"] == "bad_message"
        await say(a, type="your_id")
        assert await heard(a) == {
            "type": "error",
            "code": "unknown_type",
            "message": "Clients may not send a message of this type",
            "in_reply_to": "your_id",
        }


async def test_made_up_ids_differ_and_are_long(autojump_clock: MockClock) -> None:
    """17 letters and digits of 31 that nobody mixes up: over 84 random bits."""
    async with world() as relay:
        ids = {(await heard(await relay.upgrade()))["id"] for _ in range(50)}
    assert len(ids) == 50
    assert all(len(each) == 17 and not set(each) & set("01ilo") for each in ids)


async def test_a_name_is_free_again_when_its_client_has_gone(autojump_clock: MockClock) -> None:
    async with world() as relay:
        first = await relay.client("robot")
        with pytest.RaisesGroup(pytest.RaisesExc(ConnectionRejected), flatten_subgroups=True) as refused:
            async with trio.open_nursery() as nursery:
                await wrap_client_stream(nursery, relay.dial(), "relay", "/?id=robot")  # type: ignore[arg-type]
        [rejected] = refused.value.exceptions
        assert isinstance(rejected, ConnectionRejected)
        assert rejected.status_code == 409
        assert json.loads(rejected.body or b"")["code"] == "id_taken"
        await first.aclose()
        await trio.sleep(1)
        await relay.client("robot")


@pytest.mark.parametrize("code", [1000, 1001, 4321])
async def test_a_client_that_closes_is_gone_at_once(autojump_clock: MockClock, code: int) -> None:
    async with world() as relay:
        a, b = await relay.paired()
        await a.aclose(code)
        assert await heard(b) == {"type": "peer_disconnected", "peer_id": "a", "reason": "closed"}
        await trio.sleep(1)
    gone = next(event for event in relay.log.events if event.name() == "client_disconnected")
    assert gone.shown()["client_id"] == "a"
    assert gone.shown()["code"] == code


async def test_a_socket_that_breaks_is_a_client_gone(autojump_clock: MockClock) -> None:
    async with world() as relay:
        _, b = await relay.paired()
        stream = relay.dial()
        await stream.send_all(HEAD.format(path="/?id=c", more=KEY).encode())
        await stream.receive_some()
        await stream.aclose()
        await say(b, type="unpair")
        assert (await heard(b))["type"] == "unpaired"
        await trio.sleep(1)
        assert relay.relay.clients == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\xff" + (65537).to_bytes(8) + b"....", 1009),
        (b"\xc1\x81....x", 1002),
        (b"\x81\x01x", 1002),
        (b"\x83\x80....", 1002),
    ],
)
async def test_a_broken_frame_is_closed_with_its_code_and_the_peer_is_told(
    autojump_clock: MockClock, data: bytes, code: int
) -> None:
    """What came before it in the same read is still delivered."""
    async with world() as relay:
        b = await relay.client("b")
        stream = relay.dial()
        await stream.send_all(HEAD.format(path="/?id=a", more=KEY).encode())
        await stream.receive_some()
        texts = ['{"type":"pair_request","target_id":"b"}', '{"type":"offer","sdp":"x"}']
        frames = b"".join(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text.encode() for text in texts)
        await stream.send_all(frames + data)
        received = await read_all(stream)
        assert [(await heard(b))["type"] for _ in range(2)] == ["paired", "offer"]
        assert await heard(b) == {"type": "peer_disconnected", "peer_id": "a", "reason": "refused"}
        assert b"\x88" in received
        assert received[received.rindex(b"\x88") + 2 :][:2] == code.to_bytes(2)


async def test_a_client_that_does_not_read_is_cut_and_costs_nobody_else_anything(autojump_clock: MockClock) -> None:
    """Its outbox fills, its peer hears `slow`, and goes on."""
    async with world(send_queue_frames=10) as relay:
        a = await relay.client("a")
        stream = relay.dial(lockstep_stream_pair)
        await stream.send_all(HEAD.format(path="/?id=b", more=KEY).encode())
        await stream.receive_some()
        await say(a, type="pair_request", target_id="b")
        assert (await heard(a))["type"] == "paired"
        before = trio.current_time()
        for number in range(20):
            await say(a, type="offer", sdp=str(number))
        assert await heard(a) == {"type": "peer_disconnected", "peer_id": "b", "reason": "slow"}
        assert trio.current_time() == before


async def test_a_frame_that_cannot_leave_in_time_is_slow_too(autojump_clock: MockClock) -> None:
    """Few frames never fill an outbox; the one being written has a deadline."""
    async with world(write_timeout=7, ping_interval=1000, idle_timeout=2000) as relay:
        a = await relay.client("a")
        stream = relay.dial(lockstep_stream_pair)
        await stream.send_all(HEAD.format(path="/?id=b", more=KEY).encode())
        await stream.receive_some()
        await say(a, type="pair_request", target_id="b")
        assert (await heard(a))["type"] == "paired"
        assert (await heard(a))["reason"] == "slow"


async def test_a_silent_client_is_pinged_and_then_gone(autojump_clock: MockClock) -> None:
    """Nothing for 45 s, not even a pong: the peer hears `timeout`. One that answers pings stays."""
    async with world() as relay:
        b = await relay.client("b")
        stream = relay.dial()
        await stream.send_all(HEAD.format(path="/?id=a", more=KEY).encode())
        await stream.receive_some()
        await say(b, type="pair_request", target_id="a")
        assert (await heard(b))["type"] == "paired"
        began = trio.current_time()
        assert await heard(b) == {"type": "peer_disconnected", "peer_id": "a", "reason": "timeout"}
        assert trio.current_time() - began == pytest.approx(45)
        assert b"\x89\x01" in await read_all(stream)
        await trio.sleep(300)
        await say(b, type="ping")
        assert (await heard(b))["type"] == "pong"


async def test_a_silent_connection_is_cut_and_a_slow_one_is_answered(autojump_clock: MockClock) -> None:
    """Five seconds for the request's head, however it trickles."""
    async with world() as relay:
        silent, slow = relay.dial(), relay.dial()
        began = trio.current_time()
        for byte in b"GET /":
            await slow.send_all(bytes([byte]))
            await trio.sleep(0.9)
        assert (await read_all(slow)).startswith(b"HTTP/1.1 408 ")
        assert await read_all(silent) == b""
        assert trio.current_time() - began == pytest.approx(5, abs=1)
        await trio.sleep(1)
        refused = {tuple(event.shown().values())[1:] for event in relay.log.events}
        assert refused == {(None, "no_request"), (408, "timeout")}


async def test_who_has_its_answer_and_lingers_is_not_refused_again(autojump_clock: MockClock) -> None:
    """Who reads the answer but does not close makes room: neither the log nor the numbers tell of it twice."""
    async with world(pending=1) as relay:
        lingering = relay.dial()
        await lingering.send_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.1)
        await ask(relay, HEALTH)
        refused = [event for event in relay.log.events if event.name() == "connection_refused"]
        assert [event.shown()["reason"] for event in refused] == ["not_found"]


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426, "upgrade_required"),
        ("GET /?id=a HTTP/1.0\r\n\r\n", 426, "upgrade_required"),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405, "method_not_allowed"),
        (HEAD.format(path="/?id=", more=KEY), 400, "bad_id"),
        (HEAD.format(path="/?id=a%20b", more=KEY), 400, "bad_id"),
        (HEAD.format(path="/?id=a&id=b", more=KEY), 400, "bad_id"),
        (HEAD.format(path="/?id=" + "x" * 65, more=KEY), 400, "bad_id"),
        (HEAD.format(path="/", more=""), 400, "bad_request"),
        (HEAD.format(path="/", more="Sec-WebSocket-Key: short\r\n"), 400, "bad_request"),
        (HEAD.format(path="/", more=KEY).replace("13", "12"), 426, "upgrade_required"),
        (HEAD.format(path="/", more=KEY).replace("GET", "PUT"), 405, "method_not_allowed"),
        (HEAD.format(path="/", more=KEY).replace("Connection: Upgrade", "Connection: close"), 400, "bad_request"),
        (HEAD.format(path="/", more=KEY + "Content-Length: 5\r\n"), 400, "bad_request"),
        ("nonsense\r\n\r\n", 400, "bad_request"),
        ("GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
        (HEAD.format(path="/", more=KEY + "Sec-WebSocket-Protocol: \xff\r\n").encode("latin-1"), 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n", 400, "bad_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 10_000, 431, "bad_request"),
        ("GET /" + "x" * 100_000, 431, "bad_request"),
    ],
)
async def test_what_is_no_websocket_gets_a_status_and_a_sentence(
    autojump_clock: MockClock, request_text: str | bytes, status: int, code: str
) -> None:
    async with world() as relay:
        answered, body = await ask(relay, request_text)
    assert (answered, body["code"]) == (status, code)
    assert len(body["message"]) > 10


@pytest.mark.parametrize(("size", "status"), [(Limits().head_bytes, 426), (Limits().head_bytes + 1, 431)])
@pytest.mark.parametrize("behind", [0, 20_000])
async def test_a_head_has_its_bound_however_it_is_read(
    autojump_clock: MockClock, size: int, status: int, behind: int
) -> None:
    """What comes behind it does not count."""
    start = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
    head = start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"
    async with world() as relay:
        assert (await ask(relay, head + b"x" * behind))[0] == status


async def test_a_head_request_gets_no_body(autojump_clock: MockClock) -> None:
    async with world() as relay:
        assert await ask(relay, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n") == (426, {})


async def test_the_subprotocol_is_answered_when_offered(autojump_clock: MockClock) -> None:
    async with world() as relay:
        assert (await relay.upgrade(subprotocols=["other", "sdpx.v1"])).subprotocol == "sdpx.v1"
        assert (await relay.upgrade(subprotocols=["other"])).subprotocol is None
        assert (await relay.upgrade("/any/path?token=x")).subprotocol is None


async def test_frames_right_behind_the_request_are_read(autojump_clock: MockClock) -> None:
    """A client in a hurry pipelines; nothing of it is lost."""
    async with world() as relay:
        stream = relay.dial()
        ping = b'{"type":"ping"}'
        frame = bytes([0x81, 0x80 | len(ping)]) + bytes(4) + ping
        await stream.send_all(HEAD.format(path="/", more=KEY).encode() + frame + frame)
        data = b""
        while data.count(b'{"type":"pong"}') < 2:
            chunk = await stream.receive_some()
            assert chunk
            data += chunk


async def test_who_says_nothing_cannot_hold_up_a_stop(autojump_clock: MockClock) -> None:
    """Connections that have not asked for anything are gone within a second."""
    async with world() as relay:
        silent, partial = relay.dial(), relay.dial()
        await partial.send_all(b"GET / HT")
        await trio.sleep(0.1)
        relay.acceptor.stop()
        began = trio.current_time()
        await relay.relay.wait_closed()
        assert trio.current_time() - began < 1
        assert await read_all(silent) == b""


async def test_a_stop_tells_everybody_and_refuses_newcomers(autojump_clock: MockClock) -> None:
    """`peer_disconnected` for the paired, 1001 for all, 503 for who comes now."""
    async with world() as relay:
        a, b = await relay.paired()
        c = await relay.client("c")
        relay.acceptor.stop()
        assert (await heard(a))["reason"] == (await heard(b))["reason"] == "shutdown"
        assert [await close_code(socket) for socket in (a, b, c)] == [1001, 1001, 1001]
        await relay.relay.wait_closed()
        assert await ask(relay, HEAD.format(path="/", more=KEY)) == (
            503,
            {"code": "shutting_down", "message": "The relay is stopping; try again soon"},
        )


async def test_a_fault_in_serving_one_client_does_not_touch_the_others(autojump_clock: MockClock) -> None:
    """The last resort: logged, and only that connection ends."""

    class Faulty(trio.abc.Stream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            raise ZeroDivisionError

        async def send_all(self, data: object) -> None: ...

        async def wait_send_all_might_not_block(self) -> None: ...

        async def aclose(self) -> None: ...

    async with world() as relay:
        a, b = await relay.paired()
        await relay.acceptor.serve(Faulty())
        await say(a, type="offer", sdp="x")
        assert (await heard(b))["type"] == "offer"
    assert "internal_error" in [event.name() for event in relay.log.events]


async def flood(socket: WebSocketConnection) -> None:
    with suppress(ConnectionClosed):
        for _ in range(100):
            await say(socket, type="offer", sdp="x")
            await trio.sleep(0.01)


async def test_a_client_over_the_rate_is_told_and_then_cut(autojump_clock: MockClock) -> None:
    """A burst passes; past it each message is `rate_limited`; who goes on is cut, and its peer hears `refused`."""
    async with world(rate=2) as relay:
        a, b = await relay.paired()
        for _ in range(9):
            await say(a, type="ping")
        assert [(await heard(a))["type"] for _ in range(9)] == ["pong"] * 9
        await say(a, type="pair_request", target_id="b")
        refused = await heard(a)
        assert (refused["code"], refused["in_reply_to"], refused["target_id"]) == ("rate_limited", "pair_request", "b")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, a)
            assert await close_code(a) == 1008
        assert await heard(b) == {"type": "peer_disconnected", "peer_id": "a", "reason": "refused"}


async def test_a_flood_of_pings_is_cut(autojump_clock: MockClock) -> None:
    """Control frames cost as much as messages do."""
    async with world(rate=2) as relay:
        stream = relay.dial()
        await stream.send_all(HEAD.format(path="/", more=KEY).encode() + b"\x89\x80...." * 100)
        received = await read_all(stream)
    assert (1008).to_bytes(2) in received


async def test_connections_too_many_are_refused(autojump_clock: MockClock) -> None:
    """429 from one address, 503 in all; those that are in stay, and health is told all the same."""
    async with world(max_clients=2, max_clients_per_ip=0) as relay:
        a, _ = await relay.paired()
        assert (await ask(relay, HEAD.format(path="/", more=KEY)))[1]["code"] == "full"
        assert (await ask(relay, HEALTH))[0] == 200
        await a.aclose()
        await trio.sleep(1)
        await relay.client("c")
    async with world(max_clients_per_ip=1) as relay:
        await relay.client("a")
        assert await ask(relay, HEAD.format(path="/", more=KEY)) == (
            429,
            {"code": "too_many_connections", "message": "Too many connections from your address"},
        )
        assert (await ask(relay, HEALTH))[0] == 200


async def test_who_says_nothing_makes_room_for_who_asks(autojump_clock: MockClock) -> None:
    """A flood of silent connections from one address keeps nobody out, not even of that address."""
    async with world(max_clients_per_ip=3) as relay:
        first = relay.dial()
        await trio.sleep(0.1)
        for _ in range(10):
            relay.dial()
        a, b = await relay.paired()
        with trio.fail_after(0.1):
            assert await read_all(first) == b""
        await say(a, type="offer", sdp="x")
        assert (await heard(b))["sdp"] == "x"


async def test_connections_that_are_no_clients_yet_are_bounded(autojump_clock: MockClock) -> None:
    async with world(pending=5, max_clients_per_ip=0, handshake_timeout=50) as relay:
        silent = []
        for _ in range(8):
            silent.append(relay.dial())
            await trio.sleep(0.1)
        for number, stream in enumerate(silent):
            with trio.move_on_after(1) as waited:
                await read_all(stream)
            assert waited.cancelled_caught == (number >= 3)
