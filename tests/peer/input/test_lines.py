"""Lines of standard input: read only as they are wanted, and never lost."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from sdpx.peer.input.lines import MAX_LINE, Lines
from tests.harness.examples import examples


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


@asynccontextmanager
async def reading(*chunks: bytes | OSError) -> AsyncIterator[tuple[Lines, list[str]]]:
    """Run on these chunks: the lines, and the codes of those that were refused."""
    refused: list[str] = []
    lines = Lines(Input(*chunks).read, lambda code, _: refused.append(code))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.run)
            yield lines, refused
            nursery.cancel_scope.cancel()


async def read_all(*chunks: bytes | OSError) -> tuple[list[str], list[str]]:
    """Read to the end: the lines, and the codes of those that were refused."""
    async with reading(*chunks) as (lines, refused):
        got: list[str] = []
        while (line := await lines.next()) is not None:
            got.append(line)
        return got, refused


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
        (["a\u2028b\x85c\n".encode()], ["a\u2028b\x85c"]),
    ],
)
async def test_lines_end_at_a_newline_or_at_the_end(chunks: list[bytes], lines: list[str]) -> None:
    """However the bytes come, an empty line is a line, and no other sign ends one."""
    assert await read_all(*chunks) == (lines, [])


async def test_nothing_is_read_before_a_line_is_wanted() -> None:
    """A program that never asks leaves the input to others."""
    source = Input(b"a\n")
    lines = Lines(source.read, lambda _code, _reason: None)
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
async def test_a_line_that_cannot_be_used_is_refused_once(
    chunks: list[bytes], lines: list[str], refused: list[str]
) -> None:
    """The lines round it are not touched, and what is held is bounded."""
    assert await read_all(*chunks) == (lines, refused)


async def test_an_input_that_fails_has_ended() -> None:
    """A closed stdin has no lines; those before are kept."""
    assert await read_all(b"a\n", OSError("closed")) == (["a"], [])


async def test_a_line_that_was_put_back_comes_again_first() -> None:
    """A channel that closed under it loses nothing."""
    async with reading(b"a\nb\n") as (lines, _):
        first = await lines.next()
        assert first == "a"
        lines.unread(first)
        assert [await lines.next() for _ in range(3)] == ["a", "b", None]


async def test_a_reader_that_gives_up_loses_no_line() -> None:
    """Whoever waits in vain and is cancelled leaves the line to the next."""
    typed = threading.Event()

    def read(_: int) -> bytes:
        return b"" if typed.is_set() and not chunks else chunks.pop() if typed.wait(10) else b""

    chunks = [b"a\n"]
    lines = Lines(read, lambda _code, _reason: None)
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
def test_lines_survive_any_chunks(wanted: list[str], data: st.DataObject) -> None:
    """Cut anywhere, also within a character."""
    whole = "".join(f"{line}\n" for line in wanted).encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=5)))
    chunks = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert trio.run(read_all, *filter(None, chunks)) == (wanted, [])
