"""One connection on the epoll engine: sending, receiving, and its end."""

import json
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.protocol import codec
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.overload import QueuedBytes
from sdpx.relay.http.upgrade import Upgrade
from sdpx.relay.websocket.close_reasons import CONNECTION_LOST, CloseReason
from sdpx.relay.websocket.connection import ConnectionHandler
from sdpx.relay.websocket.epoll_connection import EpollConnection
from sdpx.relay.websocket.epoll_engine import EpollEngine
from sdpx.relay.websocket.fast_parser import text_frame
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.validator import Violation
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, KEY, MASK, PING, PONG, TEXT, frame, message
from tests.harness.relay import RawClient, relay_harness, takes
from tests.harness.socket_pair import reset, socket_pair
from tests.relay.websocket.test_fast_parser import CUTS, in_chunks
from tests.relay.websocket.test_protocol import HALF, OTHER_HALF

MAX_BYTES: Final = 4096
MAX_FRAGMENTS: Final = 8
MASKS: Final = st.sampled_from([bytes(4), MASK]) | st.binary(min_size=4, max_size=4)
Plain = tuple[int, bytes]  # a frame's first byte and its payload


@dataclass
class RecordingHandler:
    """A handler that records its calls, and raises `fault` if it is set."""

    frames: list[str | None] = field(default_factory=list)
    ends: list[CloseReason] = field(default_factory=list)
    unfinished: list[int] = field(default_factory=list)
    relayed: int = 0
    fault: Exception | None = None
    faults: list[Exception | None] = field(default_factory=list)
    closed: trio.Event = field(default_factory=trio.Event)

    def on_frame(self, _session: object, frame: bytes | None, _now: float) -> int:
        if self.fault:
            raise self.fault
        self.frames.append(None if frame is None else frame.decode())
        return 0

    def on_non_message_frames(self, _session: object, _count: int, _now: float) -> Violation | None:
        return None

    def on_partial_message(self, _session: object, size: int) -> None:
        self.unfinished.append(size)

    def on_frame_sent(self, _seconds: float) -> None:
        self.relayed += 1

    def on_disconnected(self, _session: object, _connection: object, close_reason: CloseReason) -> None:
        self.ends.append(close_reason)

    def on_closed(self, _session: object, _connection: object, fault: Exception | None) -> None:
        self.faults.append(fault)
        self.closed.set()

    def callbacks(self) -> ConnectionHandler:
        return ConnectionHandler(
            self.on_frame,
            self.on_non_message_frames,
            self.on_partial_message,
            self.on_frame_sent,
            self.on_disconnected,
            self.on_closed,
            lambda _now: -math.inf,
        )


@dataclass
class OpenConnection:
    """A connection on a socket pair, its client, and what its handler recorded."""

    client: RawClient
    far_end: SocketStream
    stream: SocketStream
    connection: EpollConnection
    handler: RecordingHandler

    def post(self, text: str, sender: object = None) -> int:
        return self.connection.post(text_frame(text.encode()), sender)


@asynccontextmanager
async def open_connection(
    limits: Limits | None = None, *, room: int | None = None, behind: bytes = b""
) -> AsyncIterator[OpenConnection]:
    """Open a WebSocket on the epoll engine; `room` bytes fit on the way to the client, `behind` came with its request."""
    far_end, stream = socket_pair(room)
    with closing(far_end), closing(stream):
        async with trio.open_nursery() as background, trio.open_nursery() as nursery:
            engine, handler, client = EpollEngine(nursery), RecordingHandler(), RawClient(far_end)
            background.start_soon(engine.run)
            callbacks, total = handler.callbacks(), QueuedBytes()
            connection = EpollConnection(limits or Limits(), callbacks, None, total, stream, behind, engine)
            connection.start(Upgrade(None, None, KEY).response(), trio.current_time())
            assert (await client.response())[0] == 101
            yield OpenConnection(client, far_end, stream, connection, handler)
            nursery.cancel_scope.cancel()
            background.cancel_scope.cancel()


STUCK: Final = Limits(ping_interval=10_000, idle_timeout=20_000)


async def post_and_read(sizes: list[int], room: int | None, gulp: int) -> bytes:
    """Post texts while the client reads in gulps; returns all that came."""
    received = bytearray()
    async with open_connection(STUCK, room=room) as conn:
        for number, size in enumerate(sizes):
            assert conn.post(numbered(number, size))
            if number % 3 == 0:
                received += await conn.client.stream.receive_some(gulp)
        while conn.connection.queue:
            received += await conn.client.stream.receive_some(gulp)
            await trio.lowlevel.checkpoint()
        conn.connection.end(CloseReason("shutdown", 1001, ""))
        async for data in conn.client.stream:
            received += data
    return bytes(received)


def numbered(number: int, size: int) -> str:
    return json.dumps([number, "x" * size])


@given(
    st.lists(st.sampled_from([0, 10, 200, 1000]), max_size=20),
    st.sampled_from([2, 3, 7, 100, 1000, None]),
    st.sampled_from([1, 50, 65_536]),
)
def test_frames_are_written_whole_and_in_order_with_any_send_buffer(
    sizes: list[int], room: int | None, gulp: int
) -> None:
    """However little the socket takes at a time; the close frame comes last."""
    received = trio.run(post_and_read, sizes, room, gulp, clock=MockClock(autojump_threshold=0))
    texts = [frame(TEXT, numbered(number, size).encode(), masked=False) for number, size in enumerate(sizes)]
    assert received == b"".join(texts) + frame(CLOSE, (1001).to_bytes(2), masked=False)


async def test_bytes_that_arrive_with_the_request_are_read_first(autojump_clock: MockClock) -> None:
    data = frame(TEXT, b"one") + frame(TEXT, b"two")
    async with open_connection(behind=data[:-2]) as conn:
        await conn.client.send(data[-2:])
        await wait_all_tasks_blocked()
        assert conn.handler.frames == ["one", "two"]


@pytest.mark.parametrize("kind", [TEXT, PING, PONG])
@pytest.mark.parametrize("size", [0, 1, 125])
async def test_the_rest_of_a_frame_is_never_taken_for_a_frame(autojump_clock: MockClock, kind: int, size: int) -> None:
    """A payload may hold the bytes of a frame, and the network may cut it anywhere."""
    rest = frame(kind, b"x" * size, mask=b"\x81\x82\x83\x84")
    text = b"begin..." + bytes(byte ^ 0x80 for byte in rest)
    whole = frame(TEXT, text, mask=b"\x80\x80\x80\x80")
    assert whole.endswith(rest)
    async with open_connection() as conn:
        for data in (whole[: -len(rest)], rest, frame(TEXT, b"next")):
            await conn.client.send(data)
            await wait_all_tasks_blocked()
        assert conn.handler.frames == [text.decode(), "next"]


async def test_a_text_frame_within_a_fragmented_message_is_refused(autojump_clock: MockClock) -> None:
    """RFC 6455, 5.4: also if it arrives alone, which is the fast path otherwise."""
    async with open_connection() as conn:
        await conn.client.send(HALF)
        await wait_all_tasks_blocked()
        await conn.client.send(frame(TEXT, b"x"))
        assert await conn.client.close_code() == 1002
    assert conn.handler.frames == []


async def test_pings_are_answered_in_order(autojump_clock: MockClock) -> None:
    """With their payload, also within a fragmented message, behind frames that were posted before."""
    async with open_connection() as conn:
        conn.post("before")
        await conn.client.send(frame(PING, b"one") + frame(TEXT, b"x") + HALF + frame(PING, b"two") + OTHER_HALF)
        received = [await conn.client.frame() for _ in range(3)]
        assert received == [(TEXT, b"before"), (PONG, b"one"), (PONG, b"two")]
        assert conn.handler.frames == ["x", '{"type":"ping"}']


@pytest.mark.parametrize("data", [frame(TEXT, b"\xff"), frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"x")])
async def test_text_that_is_not_utf_8_closes_with_1007(autojump_clock: MockClock, data: bytes) -> None:
    """Messages before it are handled, bytes behind it are not."""
    async with open_connection() as conn:
        await conn.client.send(frame(TEXT, "é".encode()) + data + frame(TEXT, b"behind"))
        assert await conn.client.close_code() == 1007
    assert conn.handler.frames == ["é"]
    assert [end.reason for end in conn.handler.ends] == ["refused"]


async def test_a_client_that_does_not_read_is_disconnected_after_the_write_timeout(autojump_clock: MockClock) -> None:
    async with open_connection(Limits(write_timeout=7, ping_interval=10_000, idle_timeout=20_000), room=200) as conn:
        conn.post("x" * 300)
        assert await takes(conn.handler.closed.wait) == pytest.approx(7 + Limits().close_timeout)
    assert [end.reason for end in conn.handler.ends] == ["slow"]


async def test_a_client_that_reads_slowly_stays_connected(autojump_clock: MockClock) -> None:
    async with open_connection(Limits(write_timeout=7, ping_interval=10_000, idle_timeout=20_000), room=160) as conn:
        for _ in range(5):
            conn.post("x" * 120)
        for _ in range(5):
            await trio.sleep(6)
            assert await conn.client.frame() == (TEXT, b"x" * 120)
        assert conn.handler.ends == []


class Sender:
    """The sender of a relayed frame."""

    def receive_text(self, text: str) -> None:
        raise AssertionError(text)


async def test_a_full_send_queue_disconnects_the_client(autojump_clock: MockClock) -> None:
    """`post` returns 0, and the senders of undelivered frames are in `lost`."""
    async with open_connection(Limits(send_queue_frames=3), room=160) as conn:
        sender = Sender()
        assert [conn.post("x" * 200, sender) for _ in range(5)] == [1, 2, 3, 0, 0]
        await conn.handler.closed.wait()
    assert [end.reason for end in conn.handler.ends] == ["slow"]
    assert (
        conn.connection.undelivered == (sender,) * 2
    )  # the first was half written: it was finished, or the stream was left


async def test_an_idle_client_is_pinged_and_then_closed(autojump_clock: MockClock) -> None:
    async with open_connection(Limits(ping_interval=20, idle_timeout=45)) as conn:
        received: list[tuple[int, bytes]] = []

        async def read_one() -> None:
            received.append(await conn.client.frame())

        assert [await takes(read_one) for _ in range(3)] == pytest.approx([20, 20, 5])
    assert [opcode for opcode, _ in received] == [PING, PING, CLOSE]
    assert received[-1][1][:2] == (1008).to_bytes(2)
    assert [end.reason for end in conn.handler.ends] == ["timeout"]


async def test_only_whole_frames_reset_the_idle_timeout(autojump_clock: MockClock) -> None:
    """Fragments and binary frames do, too."""
    async with open_connection(Limits(ping_interval=100, idle_timeout=45)) as conn:
        for data in (frame(PONG), frame(TEXT, b"x"), frame(BINARY, b"x"), frame(TEXT, b"x", fin=False)):
            await trio.sleep(40)
            await conn.client.send(data)
        await trio.sleep(40)
        await conn.client.send(frame(CONTINUATION, bytes(100))[:50])
        assert await takes(conn.client.close_code) == pytest.approx(5)


@pytest.mark.parametrize("payload", [b"", (1000).to_bytes(2), (3001).to_bytes(2) + "é".encode()])
async def test_a_close_frame_is_answered_with_the_same_code_and_reason(
    autojump_clock: MockClock, payload: bytes
) -> None:
    """RFC 6455, 5.5.1; then the relay closes the socket first."""
    async with open_connection() as conn:
        await conn.client.send(frame(CLOSE, payload))
        assert await conn.client.rest() == frame(CLOSE, payload, masked=False)
        await conn.client.stream.aclose()
        await conn.handler.closed.wait()
    assert [(end.reason, end.code) for end in conn.handler.ends] == [("closed", int.from_bytes(payload[:2]) or 1005)]


@pytest.mark.parametrize(("payload", "code"), [(b"x", 1002), ((1006).to_bytes(2), 1002), (b"\x03\xe8\xff", 1007)])
async def test_an_invalid_close_frame_is_refused(autojump_clock: MockClock, payload: bytes, code: int) -> None:
    """Half a code, a code that may not be sent, a reason that is not UTF-8."""
    async with open_connection() as conn:
        await conn.client.send(frame(CLOSE, payload))
        assert await conn.client.close_code() == code
    assert [end.reason for end in conn.handler.ends] == ["refused"]


@pytest.mark.parametrize("room", [2, 3, 4])
async def test_the_close_reply_is_written_whole_with_any_send_buffer(autojump_clock: MockClock, room: int) -> None:
    async with open_connection(STUCK, room=room) as conn:
        await conn.client.send(frame(CLOSE, (1000).to_bytes(2) + b"bye"))
        assert await conn.client.rest() == frame(CLOSE, (1000).to_bytes(2) + b"bye", masked=False)


async def test_a_shutdown_writes_the_whole_send_queue_before_the_close_frame(autojump_clock: MockClock) -> None:
    async with open_connection(STUCK, room=100) as conn:
        for number in range(50):
            conn.post(numbered(number, 1000))
        conn.connection.end(CloseReason("shutdown", 1001, "bye"))
        assert not conn.post("too late")
        for number in range(50):
            assert await conn.client.frame() == (TEXT, numbered(number, 1000).encode())
        assert await conn.client.frame() == (CLOSE, (1001).to_bytes(2) + b"bye")


async def test_a_client_that_reads_nothing_delays_shutdown_by_the_drain_timeout_at_most(
    autojump_clock: MockClock,
) -> None:
    """Nothing is written behind a frame that is half written."""
    async with open_connection(STUCK, room=100) as conn:
        conn.post("x" * 1000)
        conn.connection.end(CloseReason("shutdown", 1001, ""))
        assert await takes(conn.handler.closed.wait) == pytest.approx(Limits().drain_timeout)
        assert frame(TEXT, b"x" * 1000, masked=False).startswith(await conn.client.rest())


async def test_answers_are_written_before_the_close_frame(autojump_clock: MockClock) -> None:
    async with open_connection(STUCK, room=50) as conn:
        for number in range(3):
            conn.post(numbered(number, 100))
        await conn.client.send(b"\xff")
        for number in range(3):
            assert await conn.client.frame() == (TEXT, numbered(number, 100).encode())
        assert await conn.client.close_code() == 1002


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_lost_connection_ends_once(autojump_clock: MockClock, is_reset: bool) -> None:
    """By the end of the stream, a reset, or a write that fails."""
    async with open_connection() as conn:
        if is_reset:
            reset(conn.far_end, conn.stream)
        conn.far_end.close()
        conn.post("anybody?")
        await conn.handler.closed.wait()
    assert conn.handler.ends == [CONNECTION_LOST]


async def test_an_exception_in_the_handler_ends_only_this_connection(autojump_clock: MockClock) -> None:
    """`on_closed` gets the exception."""
    fault = ZeroDivisionError("in on_frame")
    async with open_connection() as conn:
        conn.handler.fault = fault
        await conn.client.send(frame(TEXT, b"x"))
        await conn.handler.closed.wait()
    assert (conn.handler.faults, conn.handler.ends) == ([fault], [CONNECTION_LOST])


@pytest.mark.parametrize("fault", [ZeroDivisionError(), OSError(), UnicodeDecodeError("utf-8", b"", 0, 1, "")])
async def test_an_exception_in_the_relay_ends_only_the_senders_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The exception is logged, the peer gets `peer_disconnected`, and all others are served."""
    async with relay_harness() as relay:
        a, b = await relay.pair()
        monkeypatch.setattr(codec, "parse", lambda _: _fail(fault))
        await a.send(type="offer", sdp="x")
        assert (await b.receive())["type"] == "peer_disconnected"
        monkeypatch.undo()
        await b.send(type="ping")
        assert (await b.receive())["type"] == "pong"
    assert len(relay.log.of("internal_error")) == 1


async def test_an_exception_in_writing_ends_only_the_receivers_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender gets `peer_disconnected` and is served on."""
    async with relay_harness() as relay:
        monkeypatch.setattr(relay.relay.stats, "relay_times", [])
        a, _ = await relay.pair()
        await a.send(type="offer", sdp="x")
        assert (await a.receive())["type"] == "peer_disconnected"
        await a.send(type="ping")
        assert (await a.receive())["type"] == "pong"
    assert len(relay.log.of("internal_error")) == 1


@pytest.mark.parametrize("sdp", ["x", "é"])
async def test_a_failed_write_is_reported_behind_the_frame_that_was_relayed(
    autojump_clock: MockClock, sdp: str
) -> None:
    """On either way through the relay."""
    async with relay_harness() as relay:
        a, b = await relay.client("/?id=a"), relay.raw()
        await b.open("/?id=b")
        await a.send(type="pair_request", target_id="b")
        await b.receive()
        assert isinstance(b.stream, SocketStream)
        b.stream.socket.shutdown(socket.SHUT_RD)  # and the relay's next write fails
        await a.socket.send_message(json.dumps({"type": "offer", "sdp": sdp}, ensure_ascii=False))
        assert [(await a.receive())["type"] for _ in range(2)] == ["paired", "peer_disconnected"]
    told = [record["event"] for record in relay.log.records]
    assert [event for event in told if event in ("relayed", "unpaired")] == ["relayed", "unpaired"]


def _fail(fault: Exception) -> int:
    raise fault


async def test_the_write_timeout_applies_to_pings(autojump_clock: MockClock) -> None:
    limits = Limits(ping_interval=20, idle_timeout=10_000, write_timeout=5)
    async with open_connection(limits, room=200) as conn:
        conn.post("x" * 195)
        await wait_all_tasks_blocked()
        assert len(conn.connection.queue) == 0
        assert await takes(conn.handler.closed.wait) <= 20 + 5 + 2 * limits.close_timeout
    assert [end.reason for end in conn.handler.ends] == ["slow"]


async def test_the_size_of_a_partial_message_is_reported_when_it_changes(autojump_clock: MockClock) -> None:
    """The size is 0 once the message is whole; fragments count four bytes for each byte."""
    async with open_connection() as conn:
        for data in (frame(TEXT, b"x")[:3], frame(TEXT, b"x")[3:], HALF, OTHER_HALF):
            await conn.client.send(data)
            await wait_all_tasks_blocked()
        assert conn.handler.frames == ["x", '{"type":"ping"}']
        assert conn.handler.unfinished == [3, 0, 32, 0]


@given(st.sampled_from(["x", "é", "😀"]), st.integers(0, 600), CUTS)
def test_a_message_is_relayed_whatever_chunks_it_arrives_in(letter: str, count: int, cuts: set[int]) -> None:

    async def relay_one() -> None:
        async with relay_harness() as relay:
            a, b = relay.raw(), await relay.client("/?id=b")
            await a.open("/?id=a")
            await a.send(message(type="pair_request", target_id="b"))
            assert (await b.receive())["type"] == "paired"
            for chunk in in_chunks(frame(TEXT, json.dumps({"type": "offer", "sdp": letter * count}).encode()), cuts):
                await a.send(chunk)
                await wait_all_tasks_blocked()
            assert (await b.receive())["sdp"] == letter * count

    trio.run(relay_one, clock=MockClock(autojump_threshold=0))
