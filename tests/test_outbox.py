"""What waits to be written to one client: in order, bounded, and open to a last look when it is closed."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.outbox import Outbox


def filled(*texts: str, frames: int = 100, size: int = 1000) -> Outbox:
    outbox = Outbox(frames, size)
    for text in texts:
        assert outbox.put(text)
    return outbox


async def test_frames_come_out_in_the_order_that_they_went_in() -> None:
    """First in, first out."""
    outbox = filled("a", "b", "c")
    assert [await outbox.get() for _ in range(3)] == ["a", "b", "c"]
    assert len(outbox) == 0


async def test_a_waiting_writer_gets_the_next_frame(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It sleeps until there is one."""
    outbox = Outbox(1, 1)
    got: list[str | None] = []

    async def write() -> None:
        got.append(await outbox.get())

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


@pytest.mark.parametrize(
    ("text", "fits"), [("1234", True), ("12345", False), ("éé", True), ("éé1", False), ("😀", True)]
)
def test_frames_are_bounded_in_bytes_of_utf_8(text: str, fits: bool) -> None:
    """The bound itself is allowed."""
    outbox = filled("123456", size=10)
    assert outbox.put(text) is fits


@pytest.mark.parametrize("frames", [0, 5])
def test_one_frame_always_fits(frames: int) -> None:
    """Whatever its size: a client that reads gets every frame that the wire allows."""
    outbox = Outbox(frames, 1)
    assert outbox.put("much too long")
    assert not outbox.put("x")


async def test_what_was_taken_out_makes_room() -> None:
    """In number and in bytes."""
    outbox = filled("12345", frames=1, size=5)
    await outbox.get()
    assert outbox.put("67890")


async def test_a_closed_outbox_gives_what_waits_and_then_none() -> None:
    """The last words still go out; nothing new comes in."""
    outbox = filled("a")
    outbox.close()
    assert not outbox.put("b")
    assert [await outbox.get() for _ in range(3)] == ["a", None, None]


async def test_closing_wakes_a_waiting_writer(nursery: trio.Nursery) -> None:
    """A writer with nothing to write ends."""
    outbox = Outbox(1, 1)
    nursery.start_soon(outbox.get)
    await wait_all_tasks_blocked()
    outbox.close()
    with trio.fail_after(5):
        assert await outbox.get() is None


@given(st.lists(st.text(max_size=6) | st.none(), max_size=40), st.integers(0, 5), st.integers(0, 20))
def test_the_bounds_hold_whatever_happens(steps: list[str | None], frames: int, size: int) -> None:
    """A text is put, None takes one out; a frame is refused if and only if it would break a bound behind another."""

    async def play() -> None:
        outbox, model = Outbox(frames, size), list[str]()
        for text in steps:
            if text is not None:
                held = sum(len(each.encode()) for each in [*model, text])
                fits = not model or (len(model) < frames and held <= size)
                assert outbox.put(text) is fits
                model += [text] * fits
            elif model:
                assert await outbox.get() == model.pop(0)
            assert len(outbox) == len(model)

    trio.run(play)
