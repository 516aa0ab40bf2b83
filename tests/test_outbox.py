"""What waits to be written to one client: in order, bounded, and open to a last look when it is closed."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.outbox import Held, Outbox

ONE = "x".__sizeof__()  # what a frame of one letter takes


def filled(*texts: str, frames: int = 100, size: int = 10_000) -> Outbox:
    outbox = Outbox(frames, size, Held())
    for text in texts:
        assert outbox.put(text)
    return outbox


async def texts(outbox: Outbox, count: int) -> list[str | None]:
    """Take out so many frames."""
    taken = [await outbox.get() for _ in range(count)]
    return [waiting and waiting.text for waiting in taken]


async def test_frames_come_out_in_the_order_that_they_went_in() -> None:
    """First in, first out."""
    outbox = filled("a", "b", "c")
    assert await texts(outbox, 3) == ["a", "b", "c"]
    assert len(outbox) == 0


async def test_a_waiting_writer_gets_the_next_frame(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It sleeps until there is one."""
    outbox = Outbox(1, 1, Held())
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
    held = Held()
    outboxes = [Outbox(5, 1000, held) for _ in range(3)]
    for outbox in outboxes:
        outbox.put("x")
    assert (held.bytes, outboxes[0].bytes) == (3 * ONE, ONE)
    outboxes[0].close()
    outboxes[1].clear()
    outboxes[0].clear()
    assert held.bytes == ONE


async def test_a_frame_brings_the_moment_at_which_it_came() -> None:
    """So that the writer can tell how long it took."""
    outbox = filled()
    outbox.put("x", 1.5)
    waiting = await outbox.get()
    assert waiting is not None
    assert waiting.since == 1.5


def test_a_cleared_outbox_has_room() -> None:
    outbox = filled("x", frames=1)
    outbox.clear()
    assert outbox.put("y")


@pytest.mark.parametrize("frames", [0, 5])
def test_one_frame_always_fits(frames: int) -> None:
    """Whatever its size: a client that reads gets every frame that the wire allows."""
    outbox = Outbox(frames, 1, Held())
    assert outbox.put("much too long")
    assert not outbox.put("x")


async def test_what_was_taken_out_makes_room() -> None:
    """In number and in bytes."""
    outbox = filled("12345", frames=1, size=ONE + 4)
    await outbox.get()
    assert outbox.put("67890")


async def test_a_closed_outbox_gives_what_waits_and_then_none() -> None:
    """The last words still go out; nothing new comes in."""
    outbox = filled("a")
    outbox.close()
    assert not outbox.put("b")
    assert await texts(outbox, 3) == ["a", None, None]


async def test_closing_wakes_a_waiting_writer(nursery: trio.Nursery) -> None:
    """A writer with nothing to write ends."""
    outbox = Outbox(1, 1, Held())
    nursery.start_soon(outbox.get)
    await wait_all_tasks_blocked()
    outbox.close()
    with trio.fail_after(5):
        assert await outbox.get() is None


@given(st.lists(st.text(max_size=6) | st.none(), max_size=40), st.integers(0, 5), st.integers(0, 6 * ONE))
def test_the_bounds_hold_whatever_happens(steps: list[str | None], frames: int, size: int) -> None:
    """A text is put, None takes one out; a frame is refused if and only if it would break a bound behind another."""

    async def play() -> None:
        outbox, model = Outbox(frames, size, Held()), list[str]()
        for text in steps:
            if text is not None:
                held = sum(each.__sizeof__() for each in [*model, text])
                fits = not model or (len(model) < frames and held <= size)
                assert outbox.put(text) is fits
                model += [text] * fits
            elif model:
                assert await texts(outbox, 1) == [model.pop(0)]
            assert len(outbox) == len(model)

    trio.run(play)
