"""The send queue: frames in order, bounded, and available to the last when it is closed."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.overload import QueuedBytes
from sdpx.relay.websocket.send_queue import SendQueue

ONE = b"x".__sizeof__()  # what a frame of one letter takes


def clock() -> float:
    return 5.0


def ignore(_seconds: float) -> None:
    pass


def filled(*texts: str, frames: int = 100, size: int = 10_000) -> SendQueue:
    queue = SendQueue(frames, size, QueuedBytes(), ignore, clock)
    for text in texts:
        assert queue.put(text.encode())
    return queue


async def texts(queue: SendQueue, count: int) -> list[str | None]:
    """Take out so many frames, as a writer does; None where the queue has ended."""
    taken: list[str | None] = []
    for _ in range(count):
        if not await queue.wait():
            taken.append(None)
            continue
        [(data, _, _)] = queue.peek(0)
        queue.drop(1, clock())
        taken.append(data.decode())
    return taken


async def test_frames_leave_in_the_order_of_queueing() -> None:
    """First in, first out."""
    queue = filled("a", "b", "c")
    assert await texts(queue, 3) == ["a", "b", "c"]
    assert len(queue) == 0


async def test_a_waiting_writer_is_woken_by_the_next_frame(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """The writer sleeps until there is a frame."""
    queue = SendQueue(1, 1, QueuedBytes(), ignore, clock)
    got: list[str | None] = []

    async def write() -> None:
        got.extend(await texts(queue, 1))

    nursery.start_soon(write)
    await wait_all_tasks_blocked()
    assert got == []
    queue.put(b"a")
    await wait_all_tasks_blocked()
    assert got == ["a"]


def test_frames_are_bounded_in_number() -> None:
    """The one too many is not queued."""
    queue = filled("a", "b", frames=2)
    assert not queue.put(b"c")
    assert len(queue) == 2


def test_frames_are_bounded_in_bytes() -> None:
    """Of memory; the bound itself is allowed."""
    assert filled("x", size=2 * ONE).put(b"y")
    assert not filled("x", size=2 * ONE - 1).put(b"y")


def test_the_bytes_of_all_queues_are_counted() -> None:
    """The bytes of a closed queue no longer count."""
    total = QueuedBytes()
    queues = [SendQueue(5, 1000, total, ignore, clock) for _ in range(3)]
    for queue in queues:
        queue.put(b"x")
    assert (total.bytes, queues[0].size) == (3 * ONE, ONE)
    queues[0].close()
    queues[1].take_all()
    queues[0].take_all()
    assert total.bytes == ONE


async def test_a_frame_stays_in_the_queue_until_it_is_written() -> None:
    """Until then the frame can be taken out as undelivered."""
    queue = filled("x")
    assert await queue.wait()
    first = queue.peek(0)
    assert await queue.wait()
    assert (queue.peek(0), len(queue)) == (first, 1)
    assert queue.take_all() == first


def test_last_progress_is_the_time_of_the_last_write() -> None:
    """Or of queueing the first frame."""
    times = iter([1.0, 3.0])
    queue = SendQueue(9, 1000, QueuedBytes(), ignore, lambda: next(times))
    queue.put(b"x")
    queue.put(b"y")
    assert queue.last_progress == 1
    queue.drop(1, 2.0)
    assert queue.last_progress == 2
    queue.drop(1, 2.5)
    queue.put(b"z")
    assert queue.last_progress == 3


def test_the_first_frame_has_been_waiting_since_it_came() -> None:
    """However many before it are written meanwhile: a client that reads slowly does not look like one that keeps up."""
    times = iter([1.0, 5.0])
    queue = SendQueue(9, 1000, QueuedBytes(), ignore, lambda: next(times))
    queue.put(b"ping")
    assert queue.waiting_since == 1
    queue.put(b"x", None, 2.0)
    queue.put(b"y", None, 3.0)
    assert queue.waiting_since == 2
    queue.drop(2, 4.0)
    assert queue.waiting_since == 3
    queue.drop(1, 4.0)
    queue.put_all([b"replayed"])
    assert queue.waiting_since == 5


def test_a_queued_frame_has_its_sender_and_time() -> None:
    """For the metrics, and for notifying the sender of an undelivered frame."""
    queue, sender = filled(), object()
    queue.put(b"x", sender, 1.5)
    assert queue.peek(0) == [(b"x", sender, 1.5)]


def test_an_emptied_queue_accepts_frames() -> None:
    queue = filled("x", frames=1)
    queue.take_all()
    assert queue.put(b"y")


@pytest.mark.parametrize("frames", [0, 5])
def test_one_frame_always_fits(frames: int) -> None:
    """Whatever its size: a client that reads gets every frame that the protocol allows."""
    queue = SendQueue(frames, 1, QueuedBytes(), ignore, clock)
    assert queue.put(b"much too long")
    assert not queue.put(b"x")


async def test_written_frames_no_longer_count_for_the_bounds() -> None:
    """In number and in bytes."""
    queue = filled("12345", frames=1, size=ONE + 4)
    queue.drop(1, clock())
    assert queue.put(b"67890")


async def test_a_closed_queue_returns_its_frames_and_accepts_none() -> None:
    """Then `wait` returns False."""
    queue = filled("a")
    queue.close()
    assert not queue.put(b"b")
    assert await texts(queue, 3) == ["a", None, None]


async def test_closing_wakes_a_waiting_writer(nursery: trio.Nursery) -> None:
    """So that the writer ends."""
    queue = SendQueue(1, 1, QueuedBytes(), ignore, clock)
    nursery.start_soon(queue.wait)
    await wait_all_tasks_blocked()
    queue.close()
    with trio.fail_after(30):
        assert not await queue.wait()


@given(st.lists(st.text(max_size=6) | st.none(), max_size=40), st.integers(0, 5), st.integers(0, 6 * ONE))
def test_the_bounds_hold_in_any_sequence_of_operations(steps: list[str | None], frames: int, size: int) -> None:
    """A text is queued, None takes one out; a frame is refused if and only if it would exceed a bound behind another."""

    async def play() -> None:
        queue, model = SendQueue(frames, size, QueuedBytes(), ignore, clock), list[str]()
        for text in steps:
            if text is not None:
                size_then = sum(each.encode().__sizeof__() for each in [*model, text])
                fits = not model or (len(model) < frames and size_then <= size)
                assert bool(queue.put(text.encode())) is fits
                model += [text] * fits
            elif model:
                assert await texts(queue, 1) == [model.pop(0)]
            assert len(queue) == len(model)

    trio.run(play)


STEPS = st.lists(st.sampled_from(["put", "put all", "drop", "drop all", "take all"]), max_size=12)


@given(STEPS)
def test_bytes_are_those_of_the_frames_in_the_queue(steps: list[str]) -> None:
    """After any sequence of operations, in the queue and in the total."""
    total = QueuedBytes()
    queue = SendQueue(100, 10_000, total, ignore, clock)
    model: list[bytes] = []
    for number, step in enumerate(steps):
        data = b"x" * (number + 1)
        match step:
            case "put":
                assert queue.put(data) == len(model) + 1
                model.append(data)
            case "put all":
                queue.put_all([data, data])
                model += [data, data]
            case "drop":
                queue.drop(min(1, len(model)), 1.0)
                del model[:1]
            case "drop all":
                queue.drop(len(model), 1.0)
                model.clear()
            case _:
                assert [data for data, _, _ in queue.take_all()] == model
                model.clear()
        assert [data for data, _, _ in queue.frames] == model
        assert total.bytes == queue.size == sum(each.__sizeof__() for each in model)


def test_peek_returns_the_first_frame_and_those_that_fit_behind_it() -> None:
    """So that many frames leave in one write; they stay in the queue until they are dropped."""
    queue = filled("a", "b", "c")
    assert [data for data, _, _ in queue.peek(0)] == [b"a"]
    assert [data for data, _, _ in queue.peek(2 * ONE)] == [b"a", b"b"]
    assert [data for data, _, _ in queue.peek(1000)] == [b"a", b"b", b"c"]
    assert len(queue) == 3
