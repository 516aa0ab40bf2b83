"""IDs that are typed, and lines that are for the peer: from the pairing on no line is lost, or out of its turn."""

import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sdpx.log import Log
from sdpx.peer.input.lines import Lines
from sdpx.peer.input.prompt import Prompt
from sdpx.protocol.messages import ErrorFrame


async def nobody(target: str) -> ErrorFrame | None:
    raise AssertionError(target)


async def first_two_lines(steps: int) -> list[str | None]:
    """Return the lines that a pairing gets which comes so many steps of the scheduler behind the ID."""
    typed = threading.Event()
    chunks = [b"", b"one\ntwo\n"]

    def read(_: int) -> bytes:
        typed.wait(10)
        return chunks.pop()

    lines = Lines(read, lambda *_: None)
    prompt = Prompt(lines, Log(len, trio.current_time))
    got: list[str | None] = []

    async def talk() -> None:
        got.extend([await lines.next(), await lines.next()])
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
        nursery.start_soon(prompt.run, nobody)
        await wait_all_tasks_blocked()
        prompt.may_ask()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        prompt.hold()
        nursery.start_soon(talk)
        await wait_all_tasks_blocked()
        typed.set()
    return got


@pytest.mark.parametrize("steps", range(4))
async def test_a_pairing_right_behind_the_id_gets_the_lines(steps: int) -> None:
    """Whichever step the prompt has come to, it does not take the first line from it. Trio throws dice for the order."""
    with trio.fail_after(20):
        for _ in range(20):
            assert await first_two_lines(steps) == ["one", "two"]
