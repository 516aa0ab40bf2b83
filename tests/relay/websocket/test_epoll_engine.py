"""The epoll engine: polling, batches and timers."""

import errno
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.websocket.epoll_engine import (
    CHECK,
    LARGE_BACKLOG,
    LONG_SECONDS,
    SMALL_READ_BYTES,
    EpollEngine,
)
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.relay.websocket.timers import NEVER


@dataclass(eq=False)
class RecordingConnection:
    """A connection that records the calls of the engine."""

    link: SocketStream
    received: list[bytes] = field(default_factory=list)
    writable: int = 0
    timers: list[float] = field(default_factory=list)
    timer_at: float = NEVER
    then: Callable[[], None] = lambda: None
    turn: int = 1 << 20  # bytes that are handled in one turn

    def on_received(self, data: bytes, now: float) -> bytes:
        self.received.append(data[: self.turn])
        self.then()
        return data[self.turn :]

    def on_writable(self, now: float) -> None:
        self.writable += 1

    def on_timer(self, now: float) -> None:
        self.timers.append(now)


@contextmanager
def connections(count: int) -> Iterator[tuple[list[RecordingConnection], list[socket.socket]]]:
    """Connections on socket pairs, and their far ends."""
    pairs = [socket.socketpair() for _ in range(count)]
    try:
        yield [RecordingConnection(SocketStream(ours)) for ours, _ in pairs], [theirs for _, theirs in pairs]
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


@asynccontextmanager
async def running_engine() -> AsyncIterator[EpollEngine]:
    async with trio.open_nursery() as nursery:
        engine = EpollEngine(nursery)
        nursery.start_soon(engine.run)
        yield engine
        nursery.cancel_scope.cancel()


def drain(sock: socket.socket) -> None:
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while sock.recv(1 << 20):
            pass


async def test_received_bytes_and_the_end_are_passed_on_until_remove() -> None:
    """To the connection that owns the socket; `remove` may come twice."""
    with connections(2) as ((a, b), (far_a, far_b)):
        async with running_engine() as engine:
            engine.add(a)
            engine.add(b)
            far_a.send(b"to a")
            far_b.close()
            b.then = lambda: engine.remove(b)
            await wait_all_tasks_blocked()
            assert (a.received, b.received) == ([b"to a"], [b""])
            engine.remove(a)
            engine.remove(a)
            far_a.send(b"too late")
            await wait_all_tasks_blocked()
            assert a.received == [b"to a"]


async def test_on_writable_is_called_while_it_is_wanted_and_the_socket_has_room() -> None:
    with connections(1) as ((a,), (far,)):
        async with running_engine() as engine:
            engine.add(a)
            await wait_all_tasks_blocked()
            assert a.writable == 0
            while a.link.send_now(bytes(65536)):
                pass
            engine.want_write(a, wanted=True)
            await wait_all_tasks_blocked()
            assert a.writable == 0
            a.on_writable = lambda now: engine.want_write(a, wanted=False)  # type: ignore[method-assign]
            drain(far)
            await wait_all_tasks_blocked()
            far.send(b"still read")
            await wait_all_tasks_blocked()
            assert a.received == [b"still read"]


async def test_a_connection_removed_by_another_gets_nothing_of_the_same_batch() -> None:
    """Though its socket was read already: it may be closed by now, and its descriptor belong to another connection."""
    with connections(2) as (both, far_ends):
        async with running_engine() as engine:
            for each, other in zip(both, reversed(both), strict=True):
                each.then = partial(engine.remove, other)
                engine.add(each)
            for end in far_ends:
                end.send(b"x")
            await wait_all_tasks_blocked()
    assert sorted(each.received for each in both) == [[], [b"x"]]


async def test_a_long_batch_is_broken_off_and_continued_before_sockets_are_read_again() -> None:
    """Each of many connections may bring thousands of frames at once: other tasks run in between, and none is passed over."""
    turns: list[int] = []
    many = 6 * CHECK
    with connections(many) as (all_connections, far):
        called: list[int] = []

        def take_long(number: int) -> Callable[[], None]:
            def then() -> None:
                called.append(number)
                far[number].send(b"x")  # there is more at once
                time.sleep(1.2 * LONG_SECONDS)

            return then

        for number, connection in enumerate(all_connections):
            connection.then = take_long(number)
            far[number].send(b"x")
        async with running_engine() as engine:
            for connection in all_connections:
                engine.add(connection)
            while len(called) < 2 * many:
                turns.append(len(called))
                await trio.lowlevel.checkpoint()
    # Two tasks of the engine break off after `CHECK`, and the order of tasks is Trio's.
    assert max(after - before for before, after in pairwise(turns)) <= 4 * CHECK
    assert set(called) == set(range(many))


async def test_connections_that_leave_bytes_have_turns_until_they_are_read_again() -> None:
    """Each gets the bytes that it left, in order; others come in between, and its socket is read when nothing is left."""
    order: list[str] = []
    with connections(3) as ((a, b, c), (far_a, far_b, far_c)):
        async with running_engine() as engine:
            for name, connection in (("a", a), ("b", b), ("c", c)):
                connection.then = partial(order.append, name)
                connection.turn = 1
                engine.add(connection)
            far_a.send(b"123")
            far_b.send(b"45")
            while len(order) < 3:
                await trio.lowlevel.checkpoint()
            far_a.send(b"6")
            far_c.send(b"7")
            await wait_all_tasks_blocked()
            assert (a.received, b.received, c.received) == ([b"1", b"2", b"3", b"6"], [b"4", b"5"], [b"7"])
            assert order[:4] in (["a", "b", "a", "b"], ["b", "a", "b", "a"])


async def test_bytes_left_by_a_removed_connection_are_dropped() -> None:
    with connections(1) as ((a,), (far,)):
        async with running_engine() as engine:
            a.turn = 1
            a.then = lambda: engine.remove(a)
            engine.add(a)
            far.send(b"12")
            await wait_all_tasks_blocked()
            assert a.received == [b"1"]


async def test_bytes_can_be_put_off_outside_a_batch() -> None:
    with connections(1) as ((a,), (far,)):
        async with running_engine() as engine:
            engine.add(a)
            await wait_all_tasks_blocked()
            engine.put_off(a, b"first")
            far.send(b"second")
            await wait_all_tasks_blocked()
            assert a.received == [b"first", b"second"]


async def test_a_large_backlog_makes_reads_small() -> None:
    with connections(2) as ((a, b), (_, far_b)):
        async with running_engine() as engine:
            a.turn = LARGE_BACKLOG // 256
            for connection in (a, b):
                engine.add(connection)
            engine.put_off(a, bytes(2 * LARGE_BACKLOG))
            far_b.send(bytes(2 * SMALL_READ_BYTES))
            await wait_all_tasks_blocked()
            assert max(map(len, b.received)) == SMALL_READ_BYTES
            assert sum(map(len, a.received)) == 2 * LARGE_BACKLOG


async def test_a_connection_that_epoll_refuses_is_not_kept(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has its limits there, too (epoll_ctl(2), ENOSPC)."""
    with connections(1) as ([a], _):
        engine = EpollEngine(nursery)
        full = FullEpoll()
        monkeypatch.setattr(engine, "_epoll", full)
        with pytest.raises(OSError, match="No space"):
            engine.add(a)
        engine.remove(a)
        assert full.unregistered == 0


@dataclass
class FullEpoll:
    """An epoll that registers nothing more."""

    unregistered: int = 0

    def register(self, descriptor: int, events: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def unregister(self, descriptor: int) -> None:
        self.unregistered += 1


async def test_connections_are_flushed_and_then_closed_at_the_end_of_a_batch(nursery: trio.Nursery) -> None:
    """Outside a batch they are flushed at once. A connection that cannot be closed now gets a task for it."""
    with connections(2) as ((a, b), (far_a, *_)):
        engine = EpollEngine(nursery)
        seen: list[int] = []
        quick, slow = EndedConnection(closes_now=True), EndedConnection(closes_now=False)

        def ask() -> None:
            engine.close_soon(quick.close_now, quick.close_gracefully)
            engine.close_soon(slow.close_now, slow.close_gracefully)
            engine.flush_soon(b)
            seen.extend([b.writable, quick.tries, slow.tries])

        for connection in (a, b):
            engine.add(connection)
        engine.flush_soon(b)
        assert b.writable == 1
        a.then = ask
        far_a.send(b"x")
        nursery.start_soon(engine.run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (seen, b.writable) == ([1, 0, 0], 2)
    assert (quick.tries, quick.waits, slow.tries, slow.waits) == (1, 0, 1, 1)


@dataclass
class EndedConnection:
    """A connection that has ended and may have to wait before its socket is closed."""

    closes_now: bool
    tries: int = 0
    waits: int = 0

    def close_now(self) -> bool:
        self.tries += 1
        return self.closes_now

    async def close_gracefully(self) -> None:
        await trio.lowlevel.checkpoint()
        self.waits += 1


async def test_a_batch_ends_in_spite_of_an_exception_within_it(nursery: trio.Nursery) -> None:
    """As when the system has no descriptor for the next connection: the effects of the earlier ones are written and logged."""
    with connections(1) as ([a], _):
        calls: list[str] = []
        engine = EpollEngine(nursery, lambda: calls.append("begin"), lambda: calls.append("end"))
        with suppress(OSError), engine.batch():
            engine.flush_soon(a)
            assert (a.writable, calls) == (0, ["begin"])
            raise OSError(errno.EMFILE, "Too many open files")
        assert (a.writable, calls) == (1, ["begin", "end"])


async def test_a_batch_ends_in_spite_of_an_exception_in_a_connection() -> None:
    """Or the log lines of the batch would be lost, with those about the fault."""
    calls: list[str] = []

    def fail() -> None:
        raise MemoryError

    async def run_one() -> None:
        with connections(1) as ([a], [far_a]):
            async with trio.open_nursery() as nursery:
                engine = EpollEngine(nursery, lambda: calls.append("begin"), lambda: calls.append("end"))
                engine.add(a)
                a.then = fail
                far_a.send(b"x")
                await engine.run()

    with pytest.raises(ExceptionGroup):
        await run_one()
    assert calls == ["begin", "end"]


async def test_a_timer_fires_once_at_the_time_that_was_set_last(autojump_clock: MockClock) -> None:
    """And not once its connection is removed."""
    with connections(3) as ((a, b, c), _):
        async with running_engine() as engine:
            began = trio.current_time()
            engine.set_timer(a, began + 10, began)
            engine.set_timer(b, began + 20, began)
            engine.set_timer(c, began + 20, began)
            engine.set_timer(a, began + 30, began)
            engine.remove(b)
            await trio.sleep(50)
    assert ([at - began for at in a.timers], b.timers, [at - began for at in c.timers]) == ([30], [], [20])
