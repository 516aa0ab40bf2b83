"""What waits to be written to one client: in order, bounded, and open to a last look when it is closed."""

from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.websocket.send_queue import QueuedBytes, SendQueue

ONE = "x".__sizeof__()  # what a frame of one letter takes


def clock() -> float:
    return 5.0


def filled(*texts: str, frames: int = 100, size: int = 10_000) -> SendQueue[str]:
    outbox = SendQueue[str](frames, size, QueuedBytes(), clock)
    for text in texts:
        assert outbox.put(text)
    return outbox


async def texts(outbox: SendQueue[str], count: int) -> list[str | None]:
    """Take out so many frames, as a writer does."""
    taken: list[str | None] = []
    for _ in range(count):
        waiting = await outbox.get()
        taken.append(waiting[0] if waiting else None)
        if waiting:
            assert outbox.pop() is waiting
    return taken


async def test_frames_come_out_in_the_order_that_they_went_in() -> None:
    """First in, first out."""
    outbox = filled("a", "b", "c")
    assert await texts(outbox, 3) == ["a", "b", "c"]
    assert len(outbox) == 0


async def test_a_waiting_writer_gets_the_next_frame(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It sleeps until there is one."""
    outbox = SendQueue[str](1, 1, QueuedBytes(), clock)
    got: list[str | None] = []

    async def write() -> None:
        got.extend(await texts(outbox, 1))

    nursery.start_soon(write)
    await wait_all_tasks_blocked()
    assert got == []
    outbox.put("a")
    await wait_all_tasks_blocked()
    assert got == ["a"]


def test_frames_are_bounded_in_number() -> None:
    """The one too many is not queued."""
    outbox = filled("a", "b", frames=2)
    assert not outbox.put("c")
    assert len(outbox) == 2


def test_frames_are_bounded_in_the_memory_that_they_take() -> None:
    """The bound itself is allowed; one rare letter makes a long text several times as large as it is on the wire."""
    assert filled("x", size=2 * ONE).put("y")
    assert not filled("x", size=2 * ONE - 1).put("y")
    assert not filled("x", size=2000).put("x" * 1000 + "\N{GRINNING FACE}")


def test_all_outboxes_count_together() -> None:
    """Until they are closed: what a client that goes is still sent is not the others' burden."""
    held = QueuedBytes()
    outboxes = [SendQueue[str](5, 1000, held, clock) for _ in range(3)]
    for outbox in outboxes:
        outbox.put("x")
    assert (held.bytes, outboxes[0].bytes) == (3 * ONE, ONE)
    outboxes[0].close()
    outboxes[1].take_all()
    outboxes[0].take_all()
    assert held.bytes == ONE


async def test_a_frame_stays_until_it_is_sent() -> None:
    """It counts as waiting meanwhile, and is lost if it is not sent at all."""
    outbox = filled("x")
    first = await outbox.get()
    assert (await outbox.get(), outbox.head, len(outbox)) == (first, first, 1)
    assert outbox.take_all() == [first]


def test_it_is_known_for_how_long_nothing_left() -> None:
    """Since the last frame left, or since the first one began to wait."""
    times = iter([1.0, 2.0, 2.5, 3.0])
    outbox = SendQueue[str](9, 1000, QueuedBytes(), lambda: next(times))
    outbox.put("x")
    outbox.put("y")
    assert outbox.last_progress == 1
    outbox.pop()
    assert outbox.last_progress == 2
    outbox.pop()
    outbox.put("z")
    assert outbox.last_progress == 3


def test_a_frame_brings_its_sender_and_the_moment_at_which_it_came() -> None:
    """So that the writer can tell how long it took, and the relay to whom an apology is owed."""
    outbox, sender = filled(), cast("Any", object())
    outbox.put("x", sender, 1.5)
    assert outbox.pop() == ("x", sender, 1.5)


def test_an_emptied_outbox_has_room() -> None:
    outbox = filled("x", frames=1)
    outbox.take_all()
    assert outbox.put("y")


@pytest.mark.parametrize("frames", [0, 5])
def test_one_frame_always_fits(frames: int) -> None:
    """Whatever its size: a client that reads gets every frame that the wire allows."""
    outbox = SendQueue[str](frames, 1, QueuedBytes(), clock)
    assert outbox.put("much too long")
    assert not outbox.put("x")


async def test_what_was_taken_out_makes_room() -> None:
    """In number and in bytes."""
    outbox = filled("12345", frames=1, size=ONE + 4)
    outbox.pop()
    assert outbox.put("67890")


async def test_a_closed_outbox_gives_what_waits_and_then_none() -> None:
    """The last words still go out; nothing new comes in."""
    outbox = filled("a")
    outbox.close()
    assert not outbox.put("b")
    assert await texts(outbox, 3) == ["a", None, None]


async def test_closing_wakes_a_waiting_writer(nursery: trio.Nursery) -> None:
    """A writer with nothing to write ends."""
    outbox = SendQueue[str](1, 1, QueuedBytes(), clock)
    nursery.start_soon(outbox.get)
    await wait_all_tasks_blocked()
    outbox.close()
    with trio.fail_after(5):
        assert await outbox.get() is None


@given(st.lists(st.text(max_size=6) | st.none(), max_size=40), st.integers(0, 5), st.integers(0, 6 * ONE))
def test_the_bounds_hold_whatever_happens(steps: list[str | None], frames: int, size: int) -> None:
    """A text is put, None takes one out; a frame is refused if and only if it would break a bound behind another."""

    async def play() -> None:
        outbox, model = SendQueue[str](frames, size, QueuedBytes(), clock), list[str]()
        for text in steps:
            if text is not None:
                held = sum(each.__sizeof__() for each in [*model, text])
                fits = not model or (len(model) < frames and held <= size)
                assert bool(outbox.put(text)) is fits
                model += [text] * fits
            elif model:
                assert await texts(outbox, 1) == [model.pop(0)]
            assert len(outbox) == len(model)

    trio.run(play)


def test_a_frame_that_leaves_at_once_is_not_counted() -> None:
    """It is put alone, and taken out with what there is; what came when others wait has to be put as all are."""
    held = QueuedBytes()
    outbox = SendQueue[str](5, 1000, held, clock)
    assert outbox.put_uncounted("x", None, 1.5)
    assert (len(outbox), outbox.bytes, held.bytes, outbox.last_progress) == (1, 0, 0, 1.5)
    assert not outbox.put_uncounted("y", None, 2.0)
    outbox.drop_all(3.0)
    assert (len(outbox), outbox.bytes, held.bytes, outbox.last_progress) == (0, 0, 0, 3.0)
    outbox.close()
    assert not outbox.put_uncounted("z", None, 4.0)


def test_a_frame_that_was_to_leave_and_stays_is_counted() -> None:
    """Because it is said to stay, or another comes behind it; once, and within the bounds."""
    held = QueuedBytes()
    outbox = SendQueue[str](5, 3 * ONE, held, clock)
    assert outbox.put_uncounted("x", None, 1.5)
    outbox.count()
    outbox.count()
    assert (outbox.bytes, held.bytes) == (ONE, ONE)
    outbox.drop_all(2.0)
    assert outbox.put_uncounted("x", None, 2.5)
    assert [outbox.put("y"), outbox.put("z"), outbox.put("one too many")] == [2, 3, 0]
    assert (outbox.bytes, held.bytes, outbox.last_progress) == (3 * ONE, 3 * ONE, 2.5)


STEPS = st.lists(st.sampled_from(["put", "alone", "count", "all", "drop", "drop all", "take all"]), max_size=12)


@given(STEPS)
def test_what_is_counted_is_what_waits(steps: list[str]) -> None:
    """Whatever was done in whatever order, but for one frame that was put alone and of which nothing has been said yet."""
    held = QueuedBytes()
    outbox = SendQueue[str](100, 10_000, held, clock)
    inside: list[str] = []
    for number, step in enumerate(steps):
        text = "x" * (number + 1)
        match step:
            case "put":
                assert outbox.put(text) == len(inside) + 1
                inside.append(text)
            case "alone":
                inside += [text] if outbox.put_uncounted(text, None, 1.0) else []
            case "count":
                outbox.count()
            case "all":
                outbox.put_all([text, text])
                inside += [text, text]
            case "drop":
                outbox.drop(min(1, len(inside)), 1.0)
                del inside[:1]
            case "drop all":
                outbox.drop_all(1.0)
                inside.clear()
            case _:
                assert [data for data, _, _ in outbox.take_all()] == inside
                inside.clear()
        size = sum(each.__sizeof__() for each in inside)
        assert [data for data, _, _ in outbox.waiting] == inside
        assert held.bytes == outbox.bytes
        assert outbox.bytes == size or (outbox.bytes == 0 and len(inside) == 1)
    outbox.count()
    assert outbox.bytes == sum(each.__sizeof__() for each in inside)
