"""Standard input: lines are read only as they are needed, and never lost; between pairings they name peers."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from sdpx.log import Log
from sdpx.peer.input import MAX_LINE, Lines, LineSource, Prompt
from sdpx.peer.negotiation.confirmation import Message
from tests.harness.examples import examples
from tests.harness.log import LogRecorder


class Input:
    """An input that comes in these chunks; a `b""` is its end, an exception is raised."""

    def __init__(self, *chunks: bytes | OSError) -> None:
        self.chunks = list(chunks)
        self.reads = 0

    def read(self, _: int) -> bytes:
        self.reads += 1
        chunk = self.chunks.pop(0) if self.chunks else b""
        if isinstance(chunk, OSError):
            raise chunk
        return chunk


def no_log() -> Log:
    return Log(len, trio.current_time)


@asynccontextmanager
async def reading(*chunks: bytes | OSError) -> AsyncIterator[tuple[Lines, LogRecorder]]:
    """Run on these chunks: the lines, and the codes of those that were refused."""
    log = LogRecorder()
    lines = Lines(Input(*chunks).read, Log(log.put, trio.current_time))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.run)
            yield lines, log
            nursery.cancel_scope.cancel()


async def read_all(*chunks: bytes | OSError) -> tuple[list[str], list[str]]:
    """Read to the end: the lines, and the codes of those that were refused."""
    async with reading(*chunks) as (lines, log):
        got: list[str] = []
        while (line := await lines.next()) is not None:
            got.append(line)
        return got, [line["code"] for line in log.of("input_rejected")]


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a\nb"], ["a", "b"]),
        ([b"a", b"b\n", b"c\nd", b"e"], ["ab", "c", "de"]),
        ([b"\n\na\n"], ["", "", "a"]),
        (["é€😀\n".encode()[:4], "é€😀\n".encode()[4:]], ["é€😀"]),
        ([b"a b\tc\x0bd\x0ce\n"], ["a b\tc\x0bd\x0ce"]),
        ([b"\xef\xbb\xbffirst\r\nsecond\r\n"], ["first", "second"]),
        (["first\r\n€\r\n".encode("utf-16")], ["first", "€"]),
        ([b"\xfe\xff\0a", b"\0\n\0", b"b\0\n"], ["a", "b"]),
        ([b"x" * MAX_LINE + b"\r\n"], ["x" * MAX_LINE]),
        ([b"a\r\r\n\xef\xbb\xbfb\n"], ["a\r", "\ufeffb"]),
        (["a\u2028b\x85c\n".encode()], ["a\u2028b\x85c"]),
    ],
)
async def test_lines_end_at_a_newline_or_at_the_end_of_the_input(chunks: list[bytes], lines: list[str]) -> None:
    """Or at CRLF. An empty line is a line; a byte order mark at the start is skipped; no other character ends a line."""
    assert await read_all(*chunks) == (lines, [])


async def test_nothing_is_read_before_the_first_line_is_needed() -> None:
    """Without a reader no thread is started."""
    source = Input(b"a\n")
    lines = Lines(source.read, no_log())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
        await wait_all_tasks_blocked()
        assert source.reads == 0
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
        assert await lines.next() == "a"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("chunks", "lines", "refused"),
    [
        ([b"x" * MAX_LINE + b"\nb\n"], ["x" * MAX_LINE, "b"], []),
        ([b"x" * (MAX_LINE + 1) + b"\nb\n"], ["b"], ["too_long"]),
        ([b"x" * (MAX_LINE + 1), b"x" * MAX_LINE, b"x\nb\n"], ["b"], ["too_long"]),
        ([b"x" * (MAX_LINE + 1), b"\n\nb\n"], ["", "b"], ["too_long"]),
        ([b"x" * (MAX_LINE + 1)], [], ["too_long"]),
        ([b"\xff\nb\n"], ["b"], ["not_utf8"]),
        ([b"a\n\xc3"], ["a"], ["not_utf8"]),
    ],
)
async def test_unusable_line_is_rejected_once(chunks: list[bytes], lines: list[str], refused: list[str]) -> None:
    """The lines around it are kept, and the buffer is bounded."""
    assert await read_all(*chunks) == (lines, refused)


async def test_failing_input_has_ended() -> None:
    """A closed stdin has no lines; the lines before are kept."""
    assert await read_all(b"a\n", OSError("closed")) == (["a"], [])


async def test_line_put_back_is_the_next_one() -> None:
    """A channel that closes during a send loses no line."""
    async with reading(b"a\nb\n") as (lines, _):
        first = await lines.next()
        assert first == "a"
        lines.unread(first)
        assert [await lines.next() for _ in range(3)] == ["a", "b", None]


async def test_cancelled_reader_loses_no_line() -> None:
    """The line goes to the next reader."""
    typed = threading.Event()

    def read(_: int) -> bytes:
        return b"" if typed.is_set() and not chunks else chunks.pop() if typed.wait(10) else b""

    chunks = [b"a\n"]
    lines = Lines(read, no_log())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
        with trio.move_on_after(0) as scope:
            await lines.next()
        assert scope.cancelled_caught
        typed.set()
        assert await lines.next() == "a"
        nursery.cancel_scope.cancel()


@examples(0.5)
@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=6), max_size=6), st.data())
def test_lines_do_not_depend_on_chunks(wanted: list[str], data: st.DataObject) -> None:
    """A chunk may end anywhere, also within a character."""
    whole = "".join(f"{line}\n" for line in wanted).encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=5)))
    chunks = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert trio.run(read_all, *filter(None, chunks)) == (wanted, [])


async def test_end_of_input_waits_for_the_expectation() -> None:
    """`--once --expect message` sends everything and waits for the reply."""
    met = trio.Event()
    lines = Lines(lambda _: chunks.pop(0), no_log())
    chunks = [b"ping\n", b""]
    source, ended = LineSource(lines, met.wait), trio.Event()

    async def read() -> None:
        assert await source.next() == Message("ping")
        assert await source.next() is None
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
        nursery.start_soon(read)
        await trio.sleep(0.05)
        assert not ended.is_set()
        met.set()
        with trio.fail_after(30):
            await ended.wait()


async def test_line_that_was_read_and_not_sent_is_unsent() -> None:
    """Such a line is being sent, was put back, or waits; an input without lines, or at its end, has none."""
    chunks, more = [b"a\nb\n", b""], threading.Event()
    lines = Lines(lambda _: chunks.pop(0) if len(chunks) > 1 or more.wait(5) else b"", no_log())
    source = LineSource(lines, trio.lowlevel.checkpoint)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
        unsent = [source.unsent]
        assert await source.next() == Message("a")
        unsent.append(source.unsent)
        source.unread(Message("a"))
        unsent.append(source.unsent)
        assert [await source.next(), await source.next()] == [Message("a"), Message("b")]
        with trio.move_on_after(0.05):
            await source.next()  # an open pipe with nothing in it
        unsent.append(source.unsent)
        more.set()
        assert await source.next() is None
        unsent.append(source.unsent)
    assert unsent == [0, 2, 2, 0, 0]


async def unexpected(target: str) -> None:
    raise AssertionError(target)


async def first_two_lines(steps: int) -> list[str | None]:
    """Return the lines that a pairing gets which begins so many scheduler steps after the prompt."""
    typed = threading.Event()
    chunks = [b"", b"one\ntwo\n"]

    def read(_: int) -> bytes:
        typed.wait(10)
        return chunks.pop()

    lines = Lines(read, no_log())
    prompt = Prompt(lines, no_log())
    got: list[str | None] = []

    async def read_two() -> None:
        got.extend([await lines.next(), await lines.next()])
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.run)
        nursery.start_soon(prompt.run, unexpected)
        await wait_all_tasks_blocked()
        prompt.start()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        prompt.pause()
        nursery.start_soon(read_two)
        await wait_all_tasks_blocked()
        typed.set()
    return got


@pytest.mark.parametrize("steps", range(4))
async def test_pairing_gets_the_lines_behind_the_id(steps: int) -> None:
    """The prompt takes none of them, in whatever order Trio runs the tasks."""
    with trio.fail_after(20):
        for _ in range(20):
            assert await first_two_lines(steps) == ["one", "two"]
