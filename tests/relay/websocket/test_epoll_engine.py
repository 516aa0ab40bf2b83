"""The fast lane, part by part: frames out of bytes, masks, the engine behind, the watch, and one connection's life."""

import errno
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked
from websockets.speedups import apply_mask

from sdpx.protocol import messages
from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket import fast_parser
from sdpx.relay.websocket.connection import EpollConnection
from sdpx.relay.websocket.epoll_engine import CHECK, LONG_SECONDS, EpollPoller, TaskPoller
from sdpx.relay.websocket.fast_parser import FastParser
from sdpx.relay.websocket.handler import CONNECTION_LOST, CloseReason
from sdpx.relay.websocket.mask import unmask, unmask_in_python
from sdpx.relay.websocket.protocol import CloseReceived, FrameParser, ParserEvent, PingReceived
from sdpx.relay.websocket.send_queue import QueuedBytes
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.timers import NEVER, TimerWheel
from sdpx.relay.websocket.validator import Violation
from tests.harness.memory_link import PLENTY, MemoryLink, link_pair
from tests.harness.relay import BINARY, CLOSE, KEY, MASK, PING, PONG, TEXT, RawClient, frame, house, message, takes

CONTINUATION: Final = 0x0
MAX_BYTES: Final = 4096
MAX_FRAGMENTS: Final = 8
MASKS: Final = st.sampled_from([bytes(4), MASK]) | st.binary(min_size=4, max_size=4)
Plain = tuple[int, bytes]  # a frame's first byte and its payload


# ---- plain.Inbox ------------------------------------------------------------------------------------------------


def in_chunks(data: bytes, cuts: set[int]) -> list[bytes]:
    at = sorted(cut for cut in cuts if cut <= len(data))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def an_inbox() -> FastParser:
    return FastParser(MAX_BYTES, unmask)


SIZES: Final = st.sampled_from([0, 1, 124, 125, 126, 127, 128, 255, 256, 4095, 4096]) | st.integers(0, 300)
PLAIN_TEXTS: Final = st.builds(
    lambda size, letter: (fast_parser.TEXT, letter * size), SIZES, st.sampled_from([b"x", b"\xff"])
)
PLAIN_CONTROL: Final = st.tuples(st.sampled_from([fast_parser.PING, fast_parser.PONG]), st.binary(max_size=125))
PLAIN_FRAMES: Final = st.lists(st.tuples(PLAIN_TEXTS | PLAIN_CONTROL, MASKS), max_size=8)
CUTS: Final = st.sets(st.integers(0, 400) | st.integers(0, 20_000), max_size=12)
UNUSUAL: Final = {
    "a fragment": frame(TEXT, b"half", fin=False),
    "a continuation": frame(CONTINUATION, b"x"),
    "a blob": frame(BINARY, b"x"),
    "a blob with its length in two bytes": frame(BINARY, bytes(200)),
    "a reserved bit": b"\xc1\x81" + MASK + b"x",
    "no such opcode": b"\x83\x81" + MASK + b"x",
    "no mask": frame(TEXT, b"x", masked=False),
    "no mask, and long": frame(TEXT, bytes(200), masked=False),
    "a long ping": frame(PING, bytes(126)),
    "a text that is too long": frame(TEXT, bytes(MAX_BYTES + 1)),
    "a length in eight bytes": frame(TEXT, bytes(1 << 16)),
    "a length of 125 in two bytes": b"\x81\xfe" + (125).to_bytes(2) + MASK + bytes(125),
}


def written(frames: list[tuple[Plain, bytes]]) -> bytes:
    return b"".join(frame(first & 0x0F, payload, mask=mask) for (first, payload), mask in frames)


@given(PLAIN_FRAMES, CUTS)
def test_plain_frames_come_out_whole_and_in_order(frames: list[tuple[Plain, bytes]], cuts: set[int]) -> None:
    """In whatever chunks they come; none is unusual, and nothing is left."""
    inbox = an_inbox()
    found = [each for chunk in in_chunks(written(frames), cuts) for each in inbox.feed(chunk)]
    assert found == [each for each, _ in frames]
    assert (inbox.unparsed, inbox.partial) == (b"", 0)


@given(st.builds(written, PLAIN_FRAMES) | st.sampled_from(sorted(UNUSUAL.values())), st.binary(max_size=2), CUTS)
def test_a_frame_that_comes_alone_is_known_for_what_it_is(data: bytes, behind: bytes, cuts: set[int]) -> None:
    """It, and nothing else: not one that is not whole, nor two, nor one that is not plain."""
    for chunk in (data, data + behind, *in_chunks(data, cuts)):
        inbox = an_inbox()
        found, at = list(inbox.feed(chunk)), fast_parser.single_text_frame(chunk, MAX_BYTES)
        alone = len(found) == 1 and not inbox.unparsed and not inbox.partial
        assert bool(at) == (alone and found[0][0] == fast_parser.TEXT)
        assert fast_parser.is_single_control_frame(chunk) == (alone and found[0][0] != fast_parser.TEXT)
        if at:
            assert unmask(chunk[at:], chunk[at - 4 : at]) == found[0][1]


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 65_534, 65_535, 65_536])
@pytest.mark.parametrize("end", [b"", b"x", b"yz"])
def test_text_frame_of_two_parts_equals_the_frame_of_both(size: int, end: bytes) -> None:
    text = bytes(size)
    assert fast_parser.text_frame(text, end) == fast_parser.frame(fast_parser.TEXT, text + end)


@given(PLAIN_FRAMES, st.sampled_from(sorted(UNUSUAL)), st.binary(max_size=20), CUTS)
def test_an_unusual_frame_is_handed_over_from_its_first_byte(
    frames: list[tuple[Plain, bytes]], kind: str, behind: bytes, cuts: set[int]
) -> None:
    """What stood in front of it has come out, and it and all behind it are there as they came."""
    whole, rest = written(frames), UNUSUAL[kind] + behind
    inbox, found, fed = an_inbox(), list[Plain](), 0
    for chunk in in_chunks(whole + rest, cuts):
        found += inbox.feed(chunk)
        fed += len(chunk)
        if inbox.unparsed:
            break
    assert found == [each for each, _ in frames]
    assert inbox.unparsed == rest[: fed - len(whole)]


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        (b"\x82", 1),
        (b"\x01", 1),
        (b"\xc1", 1),
        (b"\x81\x05", 2),
        (b"\x89\xfe", 2),
        (b"\x81\xff", 2),
        (b"\x81\xfe\x00\x7d", 4),
        (b"\x81\xfe\x10\x01", 4),
    ],
)
def test_a_header_is_looked_at_as_soon_as_its_bytes_tell(data: bytes, needed: int) -> None:
    """After 1, 2 or 4: so nobody hangs on a frame that can only be refused."""
    inbox = an_inbox()
    for size in range(1, needed + 1):
        assert inbox.unparsed == b""
        assert list(inbox.feed(data[size - 1 : size])) == []
    assert inbox.unparsed == data


@given(st.binary(max_size=300), CUTS)
def test_what_is_kept_of_a_frame_is_counted(payload: bytes, cuts: set[int]) -> None:
    """Byte for byte, and no more once it is whole."""
    inbox, data = an_inbox(), frame(TEXT, payload)
    came = 0
    for chunk in in_chunks(data, cuts):
        found = list(inbox.feed(chunk))
        came += len(chunk)
        assert inbox.partial == (came if came < len(data) else 0)
        assert not found or came == len(data)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_servers_frame_has_the_shortest_length(size: int) -> None:
    """RFC 6455, 5.2: and no mask."""
    assert fast_parser.frame(fast_parser.TEXT, bytes(size)) == frame(TEXT, bytes(size), masked=False)


# ---- mask -------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masks_in_python_are_those_in_c(data: bytes, mask: bytes) -> None:
    """For every length, whatever is left of it modulo 4."""
    assert unmask_in_python(data, mask) == apply_mask(data, mask)
    assert unmask_in_python(unmask_in_python(data, mask), mask) == data


# ---- careful.FrameParser ---------------------------------------------------------------------------------------------


def found_in(*chunks: bytes) -> list[ParserEvent]:
    engine = FrameParser(MAX_BYTES, MAX_FRAGMENTS)
    found: list[ParserEvent] = []
    for chunk in chunks:
        engine.receive_data(chunk)
        found += engine.events()
    return found


HALF: Final = frame(TEXT, b'{"type":', fin=False)
OTHER_HALF: Final = frame(CONTINUATION, b'"ping"}')


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HALF + OTHER_HALF, ['{"type":"ping"}']),
        (HALF + frame(PING, b"x") + OTHER_HALF, [PingReceived(b"x"), '{"type":"ping"}']),
        (frame(TEXT, b"one") + frame(PONG) + frame(TEXT, b"two"), ["one", "two"]),
        (frame(BINARY, b"o", fin=False) + frame(CONTINUATION, b"ne"), [b"one"]),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82\xac"), ["€"]),
        (frame(CLOSE, (1000).to_bytes(2) + b"bye") + b"\xff", [CloseReceived(1000, "bye")]),
        (frame(CLOSE), [CloseReceived(1005, "")]),
        (frame(TEXT, b"one") + HALF, ["one"]),
    ],
)
def test_the_engine_puts_messages_together(data: bytes, found: list[ParserEvent]) -> None:
    """In one piece or byte by byte; behind a close frame nothing counts."""
    assert found_in(data) == found_in(*[bytes([byte]) for byte in data]) == found


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff", 1002),
        (HALF + frame(TEXT, b"x"), 1002),
        (frame(CLOSE, (1006).to_bytes(2)), 1002),
        (frame(TEXT, b"\xff", fin=False), 1007),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"x"), 1007),
        (frame(TEXT, bytes(MAX_BYTES), fin=False) + frame(CONTINUATION, b"x"), 1009),
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * MAX_FRAGMENTS, 1008),
    ],
)
def test_the_engine_says_what_is_wrong_behind_what_was_right(data: bytes, code: int) -> None:
    """A message in front of it is found first."""
    *right, wrong = found_in(frame(BINARY, b"right") + data)
    assert right == [b"right"]
    assert isinstance(wrong, Violation)
    assert wrong.code == code


def test_the_engine_counts_what_costs_and_what_is_kept() -> None:
    """Frames, those that end no message, and the memory of what is not whole, at most."""
    engine = FrameParser(MAX_BYTES, MAX_FRAGMENTS)
    engine.receive_data(frame(TEXT, b"x") + frame(PING) + HALF + OTHER_HALF[:3])
    assert (engine.frames, engine.extra_frames) == (3, 2)
    assert engine.unfinished == 4 * (len(b'{"type":') + 3)
    engine.receive_data(OTHER_HALF[3:])
    assert (engine.frames, engine.extra_frames, engine.unfinished) == (4, 2, 0)


# ---- watches ----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Ear:
    """A connection that notes what it is told."""

    link: SocketStream
    heard: list[bytes | None] = field(default_factory=list)
    writable: int = 0
    alarms: list[float] = field(default_factory=list)
    timer_at: float = NEVER
    then: Callable[[], None] = lambda: None

    def on_received(self, data: bytes, now: float) -> None:
        self.heard.append(data)
        self.then()

    def on_writable(self, now: float) -> None:
        self.writable += 1

    def on_timer(self, now: float) -> None:
        self.alarms.append(now)


@contextmanager
def ears(count: int) -> Iterator[tuple[list[Ear], list[socket.socket]]]:
    """Connections on real sockets, and their far ends."""
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        yield [Ear(SocketStream(ours)) for ours, _ in pairs], [theirs for _, theirs in pairs]
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


@asynccontextmanager
async def watched(kind: str) -> AsyncIterator[EpollPoller | TaskPoller]:
    async with trio.open_nursery() as nursery:
        watch = EpollPoller(nursery) if kind == "shared" else TaskPoller(nursery)
        nursery.start_soon(watch.run)
        yield watch
        nursery.cancel_scope.cancel()


async def a_while() -> None:
    """Let the watch see what the kernel has for it."""
    await wait_all_tasks_blocked(0.01)


def drain(sock: socket.socket) -> None:
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while sock.recv(1 << 20):
            pass


WATCHES: Final = ["shared", "a task each"]


@pytest.mark.parametrize("kind", WATCHES)
async def test_a_connection_is_told_what_comes_and_that_it_ends(kind: str) -> None:
    """From `add` to `remove`, each its own, which can be called twice."""
    with ears(2) as ((a, b), (far_a, far_b)):
        async with watched(kind) as watch:
            watch.add(a)
            watch.add(b)
            far_a.send(b"to a")
            far_b.close()
            b.then = lambda: watch.remove(b)
            await a_while()
            assert (a.heard, b.heard) == ([b"to a"], [b""])
            watch.remove(a)
            watch.remove(a)
            far_a.send(b"too late")
            await a_while()
            assert a.heard == [b"to a"]


@pytest.mark.parametrize("kind", WATCHES)
async def test_a_connection_is_told_that_it_can_write_while_it_wants_to(kind: str) -> None:
    """Not before, not after, and not while the socket is full."""
    with ears(1) as ((a,), (far,)):
        async with watched(kind) as watch:
            watch.add(a)
            await a_while()
            assert a.writable == 0
            while a.link.send_now(bytes(65536)):
                pass
            watch.want_write(a, wanted=True)
            await a_while()
            assert a.writable == 0
            a.on_writable = lambda now: watch.want_write(a, wanted=False)  # type: ignore[method-assign]
            drain(far)
            await a_while()
            far.send(b"still read")
            await a_while()
            assert a.heard == [b"still read"]


@pytest.mark.parametrize("kind", WATCHES)
async def test_who_is_removed_by_one_before_it_is_not_told(kind: str) -> None:
    """Also of what came before in the same batch: its socket may be closed by now, and its number another's."""
    with ears(2) as ((a, b), far):
        for end in far:
            end.send(b"x")
        async with watched(kind) as watch:
            a.then = lambda: watch.remove(b)
            b.then = lambda: watch.remove(a)
            watch.add(a)
            watch.add(b)
            await a_while()
        assert len(a.heard) + len(b.heard) == 1


async def test_a_long_batch_is_broken_off_and_who_is_behind_comes_first() -> None:
    """Each of many may bring thousands of frames at once: other tasks have their turn in between, and nobody is passed over."""
    turns: list[int] = []
    with ears(3 * CHECK) as (all_ears, far):
        told: list[int] = []

        def take_long(number: int) -> Callable[[], None]:
            def then() -> None:
                told.append(number)
                far[number].send(b"x")  # there is more at once
                time.sleep(1.2 * LONG_SECONDS)

            return then

        for number, ear in enumerate(all_ears):
            ear.then = take_long(number)
            far[number].send(b"x")
        async with watched("shared") as watch:
            for ear in all_ears:
                watch.add(ear)
            while len(told) < 6 * CHECK:
                turns.append(len(told))
                await trio.lowlevel.checkpoint()
    assert max(after - before for before, after in pairwise(turns)) <= 2 * CHECK  # the order of tasks is Trio's
    assert sorted(told[: 3 * CHECK]) == sorted(told[3 * CHECK : 6 * CHECK]) == list(range(3 * CHECK))


async def test_who_cannot_be_watched_is_not(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has its limits there, too (epoll_ctl(2), ENOSPC): nothing is left behind that a later step would trip over."""
    with ears(1) as ([a], _):
        watch = EpollPoller(nursery)
        full = Full(OSError(errno.ENOSPC, "No space left on device"))
        monkeypatch.setattr(watch, "_epoll", full)
        with pytest.raises(OSError, match="No space"):
            watch.add(a)
        watch.remove(a)
        assert full.unregistered == 0


@dataclass
class Full:
    """An epoll that takes nobody."""

    error: OSError
    unregistered: int = 0

    def register(self, descriptor: int, events: int) -> None:
        raise self.error

    def unregister(self, descriptor: int) -> None:
        self.unregistered += 1


async def test_what_a_batch_leads_to_is_written_at_its_end(nursery: trio.Nursery) -> None:
    """And outside a batch at once. Then who is over is let go: at once, or, where that takes its time, in a task."""
    with ears(2) as ((a, b), (far_a, *_)):
        watch = EpollPoller(nursery)
        seen: list[int] = []

        quick, slow = Stopped(at_once=True), Stopped(at_once=False)

        def ask() -> None:
            watch.close_soon(quick)
            watch.close_soon(slow)
            watch.flush_soon(b)
            seen.extend([b.writable, quick.tries, slow.tries])

        for ear in (a, b):
            watch.add(ear)
        watch.flush_soon(b)
        assert b.writable == 1
        a.then = ask
        far_a.send(b"x")
        nursery.start_soon(watch.run)
        await a_while()
        nursery.cancel_scope.cancel()
    assert (seen, b.writable) == ([1, 0, 0], 2)
    assert (quick.tries, quick.waits, slow.tries, slow.waits) == (1, 0, 1, 1)


async def test_who_is_let_go_by_one_before_hears_nothing_more(nursery: trio.Nursery) -> None:
    """Though both were read before either was told."""
    with ears(2) as (both, far_ends):
        watch = EpollPoller(nursery)
        for ear, other in zip(both, reversed(both), strict=True):
            ear.then = partial(watch.remove, other)
            watch.add(ear)
        for far_end in far_ends:
            far_end.send(b"x")
        nursery.start_soon(watch.run)
        await a_while()
        nursery.cancel_scope.cancel()
    assert sorted(ear.heard for ear in both) == [[], [b"x"]]


async def test_a_batch_ends_whatever_happens_in_it(nursery: trio.Nursery) -> None:
    """As when the system has no descriptor for the next connection; who also works in batches hears of both ends."""
    with ears(1) as ([a], _):
        heard: list[str] = []
        watch = EpollPoller(nursery, Notebook(heard))
        with suppress(OSError), watch.batch():
            watch.flush_soon(a)
            assert (a.writable, heard) == (0, ["begin"])
            raise OSError(errno.EMFILE, "Too many open files")
        assert (a.writable, heard) == (1, ["begin", "end"])


async def test_a_batch_ends_whatever_happens_in_the_watch() -> None:
    """Or what it led to, and the lines that it held, would be lost, with those that tell of the fault."""
    heard: list[str] = []

    def fail() -> None:
        raise MemoryError

    async def watch_one() -> None:
        with ears(1) as ([a], [far_a]):
            async with trio.open_nursery() as nursery:
                watch = EpollPoller(nursery, Notebook(heard))
                watch.add(a)
                a.then = fail
                far_a.send(b"x")
                await watch.run()

    with pytest.raises(ExceptionGroup):
        await watch_one()
    assert heard == ["begin", "end"]


@dataclass
class Notebook:
    """What works in batches, too."""

    heard: list[str]

    def begin_batch(self) -> None:
        self.heard.append("begin")

    def end_batch(self) -> None:
        self.heard.append("end")


@pytest.mark.parametrize("kind", WATCHES)
async def test_who_wants_to_be_called_is_called_once(autojump_clock: MockClock, kind: str) -> None:
    """At the time that was set last, and not once it is removed."""
    with ears(3) as ((a, b, c), _):
        async with watched(kind) as watch:
            began = trio.current_time()
            watch.wake(a, began + 10)
            watch.wake(b, began + 20)
            watch.wake(c, began + 20)
            watch.wake(a, began + 30)
            watch.remove(b)
            await trio.sleep(50)
    assert ([at - began for at in a.alarms], b.alarms, [at - began for at in c.alarms]) == ([30], [], [20])


def test_an_alarm_is_never_early_and_hardly_late() -> None:
    """What is cleared leaves nothing behind but an empty tick."""
    alarms, sleepers = TimerWheel(), [Ear(cast("SocketStream", None)) for _ in range(100)]
    for number, sleeper in enumerate(sleepers):
        alarms.set(sleeper, number / 100, 0)
    for sleeper in sleepers[::2]:
        alarms.clear(sleeper)
    called = {time: alarms.due(time / 1000) for time in range(1100)}
    times = [time / 1000 for time, due in called.items() for _ in due]
    assert [each for due in called.values() for each in due] == sleepers[1::2]
    assert all(0 <= time - number / 100 < 0.02 for time, number in zip(times, range(1, 100, 2), strict=True))


def test_alarms_that_are_far_off_take_little_room() -> None:
    """An hour of connections that come and go leaves a tick for each second, and one that stays is called within that."""
    alarms, sleeper = TimerWheel(), Ear(cast("SocketStream", None))
    for number in range(100_000):
        now = number * 3600 / 100_000
        alarms.set(sleeper, now + 3600.0, now)
        alarms.clear(sleeper)
    assert len(alarms._sleepers) == len(alarms._times) == 3601
    alarms.set(sleeper, 3600.1, 0)
    assert alarms.due(3600.9) == []
    assert alarms.due(3601) == [sleeper]


@dataclass
class Stopped:
    """A connection that is over: whether its last words take their time."""

    at_once: bool
    tries: int = 0
    waits: int = 0

    def close_now(self) -> bool:
        self.tries += 1
        return self.at_once

    async def close_gracefully(self) -> None:
        await trio.lowlevel.checkpoint()
        self.waits += 1


# ---- a connection -----------------------------------------------------------------------------------------------


@dataclass
class Notes:
    """A host that notes what it is told, and fails if it is to."""

    frames: list[str | bytes] = field(default_factory=list)
    ends: list[CloseReason] = field(default_factory=list)
    unfinished: list[int] = field(default_factory=list)
    relayed: int = 0
    fault: Exception | None = None
    faults: list[Exception | None] = field(default_factory=list)
    over: trio.Event = field(default_factory=trio.Event)

    def on_text(self, data: bytes, now: float) -> bool:
        return False

    def on_frame(self, frame: str | bytes, now: float) -> int:
        if self.fault:
            raise self.fault
        self.frames.append(frame)
        return 0

    def on_non_message_frames(self, count: int, now: float) -> Violation | None:
        return None

    def on_partial_message(self, size: int) -> None:
        self.unfinished.append(size)

    def on_relayed(self, seconds: float) -> None:
        self.relayed += 1

    def on_disconnected(self, departure: CloseReason) -> None:
        self.ends.append(departure)

    def on_closed(self, fault: Exception | None) -> None:
        self.faults.append(fault)
        self.over.set()


@dataclass
class Lane:
    """One connection on a link in memory, its far end, and what its host was told."""

    client: RawClient
    far_end: MemoryLink
    connection: EpollConnection
    notes: Notes
    ended: trio.Event


@asynccontextmanager
async def a_lane(
    limits: Limits | None = None, *, room: int = PLENTY, behind: bytes = b"", opened: bool = True
) -> AsyncIterator[Lane]:
    ours, theirs = link_pair(room)
    async with trio.open_nursery() as nursery:
        watch, notes, client = TaskPoller(nursery), Notes(), RawClient(ours)
        connection = EpollConnection(theirs, behind, watch, limits or Limits(), notes, QueuedBytes())
        connection.start(KEY)
        if opened:
            assert (await client.response())[0] == 101
        yield Lane(client, ours, connection, notes, notes.over)
        nursery.cancel_scope.cancel()


STUCK: Final = Limits(ping_interval=10_000, idle_timeout=20_000)


async def post_and_read(sizes: list[int], room: int, gulp: int) -> bytes:
    """Post texts while the client reads in gulps; returns all that came."""
    heard = bytearray()
    async with a_lane(STUCK, room=room) as lane:
        for number, size in enumerate(sizes):
            assert lane.connection.post(numbered(number, size))
            if number % 3 == 0:
                heard += await lane.client.stream.receive_some(gulp)
        while lane.connection.outbox:
            heard += await lane.client.stream.receive_some(gulp)
            await trio.lowlevel.checkpoint()
        lane.connection.end(CloseReason("shutdown", 1001, ""))
        async for data in lane.client.stream:
            heard += data
    return bytes(heard)


def numbered(number: int, size: int) -> str:
    return json.dumps([number, "x" * size])


@given(
    st.lists(st.sampled_from([0, 10, 200, 1000]), max_size=20),
    st.sampled_from([1, 2, 7, 100, 1000, PLENTY]),
    st.sampled_from([1, 50, 65_536]),
)
def test_frames_are_never_torn_or_reordered(sizes: list[int], room: int, gulp: int) -> None:
    """However little the socket takes at a time, and whenever it is posted; the goodbye comes last."""
    heard = trio.run(post_and_read, sizes, room, gulp, clock=MockClock(autojump_threshold=0))
    texts = [frame(TEXT, numbered(number, size).encode(), masked=False) for number, size in enumerate(sizes)]
    assert heard == b"".join(texts) + frame(CLOSE, (1001).to_bytes(2), masked=False)


async def test_what_came_behind_the_request_is_read(autojump_clock: MockClock) -> None:
    """In order, and before what comes later: a client may send at once."""
    data = frame(TEXT, b"one") + frame(TEXT, b"two")
    async with a_lane(behind=data[:-2]) as lane:
        await lane.client.send(data[-2:])
        await wait_all_tasks_blocked()
        assert lane.notes.frames == ["one", "two"]


@pytest.mark.parametrize("kind", [TEXT, PING, PONG])
@pytest.mark.parametrize("size", [0, 1, 125])
async def test_the_rest_of_a_frame_is_not_one_whatever_it_looks_like(
    autojump_clock: MockClock, kind: int, size: int
) -> None:
    """A payload may hold anything, masked, and the network may cut it anywhere."""
    rest = frame(kind, b"x" * size, mask=b"\x81\x82\x83\x84")
    text = b"begin..." + bytes(byte ^ 0x80 for byte in rest)
    whole = frame(TEXT, text, mask=b"\x80\x80\x80\x80")
    assert whole.endswith(rest)
    async with a_lane() as lane:
        for data in (whole[: -len(rest)], rest, frame(TEXT, b"next")):
            await lane.client.send(data)
            await wait_all_tasks_blocked()
        assert lane.notes.frames == [text.decode(), "next"]


async def test_a_short_text_within_a_message_breaks_the_rules(autojump_clock: MockClock) -> None:
    """RFC 6455, 5.4: what comes alone is looked at by the engine, too, once that has begun."""
    async with a_lane() as lane:
        await lane.client.send(HALF)
        await wait_all_tasks_blocked()
        await lane.client.send(frame(TEXT, b"x"))
        assert await lane.client.close_code() == 1002
    assert lane.notes.frames == []


async def test_pings_are_answered_among_what_else_is_said(autojump_clock: MockClock) -> None:
    """With their payload and in order, also within a fragmented message, and behind what was posted before."""
    async with a_lane() as lane:
        lane.connection.post("before")
        await lane.client.send(frame(PING, b"one") + frame(TEXT, b"x") + HALF + frame(PING, b"two") + OTHER_HALF)
        heard = [await lane.client.frame() for _ in range(3)]
        assert heard == [(TEXT, b"before"), (PONG, b"one"), (PONG, b"two")]
        assert lane.notes.frames == ["x", '{"type":"ping"}']


@pytest.mark.parametrize("data", [frame(TEXT, b"\xff"), frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"x")])
async def test_a_text_is_utf_8(autojump_clock: MockClock, data: bytes) -> None:
    """Or its sender is closed with 1007; what came before it has been taken, what comes behind it is not."""
    async with a_lane() as lane:
        await lane.client.send(frame(TEXT, "é".encode()) + data + frame(TEXT, b"behind"))
        assert await lane.client.close_code() == 1007
    assert lane.notes.frames == ["é"]
    assert [end.reason for end in lane.notes.ends] == ["refused"]


async def test_who_does_not_read_is_slow(autojump_clock: MockClock) -> None:
    """After `write_timeout` without a frame that left."""
    async with a_lane(Limits(write_timeout=7, ping_interval=10_000, idle_timeout=20_000), room=200) as lane:
        lane.connection.post("x" * 300)
        assert await takes(lane.ended.wait) == pytest.approx(7 + Limits().close_timeout)
    assert [end.reason for end in lane.notes.ends] == ["slow"]


async def test_who_reads_a_little_at_a_time_is_not_slow(autojump_clock: MockClock) -> None:
    """As long as a frame leaves within `write_timeout`."""
    async with a_lane(Limits(write_timeout=7, ping_interval=10_000, idle_timeout=20_000), room=160) as lane:
        for _ in range(5):
            lane.connection.post("x" * 120)
        for _ in range(5):
            await trio.sleep(6)
            assert await lane.client.frame() == (TEXT, b"x" * 120)
        assert lane.notes.ends == []


class Friend:
    """Somebody who sends."""

    def hear(self, text: str) -> None:
        raise AssertionError(text)


async def test_a_full_outbox_is_slow(autojump_clock: MockClock) -> None:
    """And `post` says that it was not taken; who sent what is never read is told by name."""
    async with a_lane(Limits(send_queue_frames=3), room=160) as lane:
        friend = Friend()
        assert [lane.connection.post("x" * 200, friend) for _ in range(5)] == [1, 2, 3, 0, 0]
        await lane.ended.wait()
    assert [end.reason for end in lane.notes.ends] == ["slow"]
    assert lane.connection.lost == (friend,) * 2  # the first was half written: it was finished, or the stream was left


async def test_silence_is_pinged_and_then_cut(autojump_clock: MockClock) -> None:
    """A ping after `ping_interval`, and again; the end after `idle_timeout`, with a code."""
    async with a_lane(Limits(ping_interval=20, idle_timeout=45)) as lane:
        heard: list[tuple[int, bytes]] = []

        async def read_one() -> None:
            heard.append(await lane.client.frame())

        assert [await takes(read_one) for _ in range(3)] == pytest.approx([20, 20, 5])
    assert [opcode for opcode, _ in heard] == [PING, PING, CLOSE]
    assert heard[-1][1][:2] == (1008).to_bytes(2)
    assert [end.reason for end in lane.notes.ends] == ["timeout"]


async def test_whole_frames_are_a_sign_of_life_and_bytes_are_not(autojump_clock: MockClock) -> None:
    """Also of the unusual kind."""
    async with a_lane(Limits(ping_interval=100, idle_timeout=45)) as lane:
        for data in (frame(PONG), frame(TEXT, b"x"), frame(BINARY, b"x"), frame(TEXT, b"x", fin=False)):
            await trio.sleep(40)
            await lane.client.send(data)
        await trio.sleep(40)
        await lane.client.send(frame(CONTINUATION, bytes(100))[:50])
        assert await takes(lane.client.close_code) == pytest.approx(5)


@pytest.mark.parametrize("payload", [b"", (1000).to_bytes(2), (3001).to_bytes(2) + "é".encode()])
async def test_a_close_frame_is_answered_by_its_like(autojump_clock: MockClock, payload: bytes) -> None:
    """RFC 6455, 5.5.1; and then the relay closes first."""
    async with a_lane() as lane:
        await lane.client.send(frame(CLOSE, payload))
        assert await lane.client.rest() == frame(CLOSE, payload, masked=False)
        await lane.client.stream.aclose()
        await lane.ended.wait()
    assert [(end.reason, end.code) for end in lane.notes.ends] == [("closed", int.from_bytes(payload[:2]) or 1005)]


@pytest.mark.parametrize(("payload", "code"), [(b"x", 1002), ((1006).to_bytes(2), 1002), (b"\x03\xe8\xff", 1007)])
async def test_a_close_frame_that_is_wrong_is_refused(autojump_clock: MockClock, payload: bytes, code: int) -> None:
    """Half a code, one that may not be sent, a reason that is not UTF-8: as the gate does."""
    async with a_lane() as lane:
        await lane.client.send(frame(CLOSE, payload))
        assert await lane.client.close_code() == code
    assert [end.reason for end in lane.notes.ends] == ["refused"]


@pytest.mark.parametrize("room", [1, 2, 3])
async def test_the_answer_to_a_close_frame_is_never_torn(autojump_clock: MockClock, room: int) -> None:
    """Also when the socket takes it byte by byte."""
    async with a_lane(STUCK, room=room) as lane:
        await lane.client.send(frame(CLOSE, (1000).to_bytes(2) + b"bye"))
        assert await lane.client.rest() == frame(CLOSE, (1000).to_bytes(2) + b"bye", masked=False)


async def test_all_that_waits_is_written_before_a_shutdowns_goodbye(autojump_clock: MockClock) -> None:
    """Whole outboxes, as far as they are read in `drain_timeout`."""
    async with a_lane(STUCK, room=100) as lane:
        for number in range(50):
            lane.connection.post(numbered(number, 1000))
        lane.connection.end(CloseReason("shutdown", 1001, "bye"))
        assert not lane.connection.post("too late")
        for number in range(50):
            assert await lane.client.frame() == (TEXT, numbered(number, 1000).encode())
        assert await lane.client.frame() == (CLOSE, (1001).to_bytes(2) + b"bye")


async def test_who_reads_nothing_holds_a_shutdown_up_for_a_bounded_time(autojump_clock: MockClock) -> None:
    """`drain_timeout`; and nothing is said behind a frame that is half written."""
    async with a_lane(STUCK, room=100) as lane:
        lane.connection.post("x" * 1000)
        lane.connection.end(CloseReason("shutdown", 1001, ""))
        assert await takes(lane.ended.wait) == pytest.approx(Limits().drain_timeout)
        assert frame(TEXT, b"x" * 1000, masked=False).startswith(await lane.client.rest())


async def test_last_words_are_read_behind_the_answers(autojump_clock: MockClock) -> None:
    """Who breaks a rule hears what was still to be said, and then the code."""
    async with a_lane(STUCK, room=50) as lane:
        for number in range(3):
            lane.connection.post(numbered(number, 100))
        await lane.client.send(b"\xff")
        for number in range(3):
            assert await lane.client.frame() == (TEXT, numbered(number, 100).encode())
        assert await lane.client.close_code() == 1002


@pytest.mark.parametrize("reset", [False, True])
async def test_who_vanishes_is_gone(autojump_clock: MockClock, reset: bool) -> None:
    """By an end of the stream, a reset, or a write that fails: once."""
    async with a_lane() as lane:
        lane.far_end.close(reset=reset)
        lane.connection.post("anybody?")
        await lane.ended.wait()
    assert lane.notes.ends == [CONNECTION_LOST]


async def test_a_fault_ends_the_connection_and_is_told(autojump_clock: MockClock) -> None:
    """It is this connection's own, wherever the bytes came from; nothing else hears of it."""
    fault = ZeroDivisionError("in on_frame")
    async with a_lane() as lane:
        lane.notes.fault = fault
        await lane.client.send(frame(TEXT, b"x"))
        await lane.ended.wait()
    assert (lane.notes.faults, lane.notes.ends) == ([fault], [CONNECTION_LOST])


@pytest.mark.parametrize("fault", [ZeroDivisionError(), OSError(), UnicodeDecodeError("utf-8", b"", 0, 1, "")])
async def test_a_fault_costs_only_its_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """The log tells of it, the peer hears that its partner is gone, and all others are served."""
    async with house(lane=True) as relay:
        a, b = await relay.pair()
        monkeypatch.setattr(messages, "try_fast_parse", lambda _: _fail(fault))
        await a.send(type="offer", sdp="x")
        assert (await b.receive())["type"] == "peer_disconnected"
        monkeypatch.undo()
        await b.send(type="ping")
        assert (await b.receive())["type"] == "pong"
    assert len(relay.log.of("internal_error")) == 1


async def test_a_fault_in_writing_costs_only_its_connection(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was written to: who sent hears that it is gone, and is served on."""
    async with house(lane=True) as relay:
        monkeypatch.setattr(relay.relay.numbers, "relay_took", lambda _: _fail(ZeroDivisionError()))
        a, _ = await relay.pair()
        await a.send(type="offer", sdp="x")
        assert (await a.receive())["type"] == "peer_disconnected"
        await a.send(type="ping")
        assert (await a.receive())["type"] == "pong"
    assert len(relay.log.of("internal_error")) == 1


@pytest.mark.parametrize("sdp", ["x", "é"])
async def test_what_became_of_a_frame_comes_behind_it(autojump_clock: MockClock, sdp: str) -> None:
    """Whichever way it goes through the relay. Here it is seen in writing it that nobody is there to read it."""
    async with house(lane=True) as relay:
        a, b = await relay.client("/?id=a"), relay.raw()
        await b.open("/?id=b")
        await a.send(type="pair_request", target_id="b")
        await b.receive()
        assert isinstance(b.stream, MemoryLink)
        b.stream.stop_listening()
        await a.socket.send_message(json.dumps({"type": "offer", "sdp": sdp}, ensure_ascii=False))
        assert [(await a.receive())["type"] for _ in range(2)] == ["paired", "peer_disconnected"]
    told = [record["event"] for record in relay.log.records]
    assert [event for event in told if event in ("relayed", "unpaired")] == ["relayed", "unpaired"]


def _fail(fault: Exception) -> int:
    raise fault


async def test_a_ping_that_cannot_be_written_is_under_the_write_deadline(autojump_clock: MockClock) -> None:
    """As every frame is."""
    limits = Limits(ping_interval=20, idle_timeout=10_000, write_timeout=5)
    async with a_lane(limits, room=200) as lane:
        lane.connection.post("x" * 195)
        await wait_all_tasks_blocked()
        assert len(lane.connection.outbox) == 0
        assert await takes(lane.ended.wait) <= 20 + 5 + 2 * limits.close_timeout
    assert [end.reason for end in lane.notes.ends] == ["slow"]


async def test_what_is_kept_of_a_frame_is_noted_when_it_changes(autojump_clock: MockClock) -> None:
    """And is nothing once the frame is whole: also behind the lane, at four bytes for each that came."""
    async with a_lane() as lane:
        for data in (frame(TEXT, b"x")[:3], frame(TEXT, b"x")[3:], HALF, OTHER_HALF):
            await lane.client.send(data)
            await wait_all_tasks_blocked()
        assert lane.notes.frames == ["x", '{"type":"ping"}']
        assert lane.notes.unfinished == [3, 0, 32, 0]


@given(st.sampled_from(["x", "é", "😀"]), st.integers(0, 600), CUTS)
def test_a_message_crosses_the_relay_in_any_chunks(letter: str, count: int, cuts: set[int]) -> None:
    """Between two on the lane: what one sends is what the other hears."""

    async def relay_one() -> None:
        async with house(lane=True) as relay:
            a, b = relay.raw(), await relay.client("/?id=b")
            await a.open("/?id=a")
            await a.send(message(type="pair_request", target_id="b"))
            assert (await b.receive())["type"] == "paired"
            for chunk in in_chunks(frame(TEXT, json.dumps({"type": "offer", "sdp": letter * count}).encode()), cuts):
                await a.send(chunk)
                await wait_all_tasks_blocked()
            assert (await b.receive())["sdp"] == letter * count

    trio.run(relay_one, clock=MockClock(autojump_threshold=0))
