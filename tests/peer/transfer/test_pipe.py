"""Both directions of a pipe: bytes as they are, half-close, back pressure, and failures that both sides report."""

import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from sdpx.concurrency import leaf_exceptions
from sdpx.errors import Ending
from sdpx.log import Log
from sdpx.peer.transfer import pipe as pipe_module
from sdpx.peer.transfer.pipe import Pipe
from sdpx.peer.transfer.plain import PlainChannel
from sdpx.peer.transfer.transport import Transport
from sdpx.peer.webrtc.binary_channel import BinaryChannel
from tests.harness.binary_channels import channel_pair
from tests.harness.links import Connections, linked, new_link
from tests.harness.log import LogRecorder


class Side:
    """One program: its input, in chunks; its output; how it ended."""

    def __init__(self, *chunks: bytes, holds_input: bool = False, follows_output: bool = False) -> None:
        self.chunks = list(chunks)
        self.input_may_end = not holds_input
        self.follows_output = follows_output
        self.output = b""
        self.closed = False
        self.write_error: OSError | None = None
        self.transport = Transport("pipe", new_link())
        self.ending: Ending | None = None
        self.done = False
        self.log = LogRecorder()

    def read(self, _size: int) -> bytes:
        while not self.chunks and not self.input_may_end:
            trio.from_thread.run(trio.sleep, 0.01)
        return self.chunks.pop(0) if self.chunks else b""

    def write(self, payloads: Sequence[bytes | memoryview]) -> None:
        if self.write_error is not None:
            raise self.write_error
        self.output += b"".join(payloads)

    def close(self) -> None:
        self.closed = True

    async def run(self) -> None:
        log = Log(self.log.put, trio.current_time)
        pipe = Pipe(self.transport, log, self.read, self.write, self.close, follows_output=self.follows_output)
        try:
            await pipe.run()
            self.done = True
        except* Ending as group:
            self.ending = leaf_exceptions(group)[0]
            await self.transport.link.abort(self.ending.code, self.ending.reason)


@pytest.fixture(autouse=True)
def _reader_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_module, "reader_is_gone", lambda _descriptor: False)


@asynccontextmanager
async def running(a: Side, b: Side) -> AsyncIterator[Connections]:
    """Run both sides; the end of the block waits for them."""
    with trio.fail_after(20):
        async with linked(a.transport.link, b.transport.link) as connections, trio.open_nursery() as nursery:
            nursery.start_soon(a.run)
            nursery.start_soon(b.run)
            yield connections


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


async def test_any_bytes_go_over_in_both_directions() -> None:
    a, b = Side(os.urandom(60_000), b"\x00", os.urandom(3)), Side(b"answer")
    expected = b"".join(a.chunks)
    async with running(a, b):
        pass
    assert (a.done, b.done) == (True, True)
    assert (b.output, a.output) == (expected, b"answer")
    assert (b.closed, a.closed) == (True, True)


async def test_end_of_input_is_an_end_of_output_while_the_other_direction_goes_on() -> None:
    a, b = Side(b"question"), Side(holds_input=True)
    async with running(a, b):
        await until(lambda: b.closed)
        assert (b.output, a.closed, a.done) == (b"question", False, False)
        b.chunks.append(b"late answer")
        await until(lambda: a.output == b"late answer")
        b.input_may_end = True
    assert (a.done, b.done) == (True, True)


async def test_terminal_as_input_ends_with_the_output() -> None:
    """`sdpx pipe --id bob | tar x` ends without Ctrl-D."""
    a, b = Side(b"archive"), Side(holds_input=True, follows_output=True)
    async with running(a, b):
        await until(lambda: b.done)
        b.input_may_end = True
    assert a.done


async def test_connections_that_are_cut_change_nothing() -> None:
    a = Side(*(os.urandom(50_000) for _ in range(200)))
    b = Side(*(os.urandom(50_000) for _ in range(100)))
    sent = b"".join(a.chunks), b"".join(b.chunks)
    cuts = 0
    async with running(a, b) as connections:
        while not (a.output or b.output):
            await trio.sleep(0)
        while cuts < 5 and not (a.done or b.done):
            await connections.reconnect()
            cuts += 1
            await trio.sleep(0.01)
    assert cuts > 0
    assert (b.output, a.output) == sent
    assert (a.done, b.done) == (True, True)


async def test_output_that_cannot_be_written_ends_both_sides_with_the_reason() -> None:
    a, b = Side(b"data", holds_input=True), Side(holds_input=True)
    b.write_error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    async with running(a, b):
        await until(lambda: a.ending is not None)
        a.input_may_end = b.input_may_end = True
    assert b.ending is not None
    assert a.ending is not None
    assert (b.ending.code, b.ending.reason) == (
        "output_failed",
        "Cannot write standard output: No space left on device",
    )
    assert a.ending.reason.endswith("Cannot write standard output: No space left on device")


async def test_reader_of_the_output_that_is_gone_is_noticed_while_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe_module, "reader_is_gone", lambda _descriptor: True)
    a, b = Side(holds_input=True), Side(holds_input=True)
    async with running(a, b):
        await until(lambda: a.ending is not None and b.ending is not None)
        a.input_may_end = b.input_may_end = True
    assert {a.ending.code, b.ending.code} >= {"output_failed"}  # type: ignore[union-attr]


def start_plain(side: Side, channel: BinaryChannel, nursery: trio.Nursery) -> None:
    assert side.transport.plain is not None
    nursery.start_soon(side.transport.plain.serve, channel, side.transport.link.notify)
    nursery.start_soon(side.run)


def plain_side(*chunks: bytes, holds_input: bool = False) -> Side:
    side = Side(*chunks, holds_input=holds_input)
    side.transport = Transport("pipe", new_link(), PlainChannel())
    side.transport.is_plain = True
    return side


async def test_other_program_gets_plain_messages_of_its_size_and_then_a_close() -> None:
    side, (channel, page) = plain_side(b"x" * 100, b"y"), channel_pair(max_message_size=40)
    async with trio.open_nursery() as nursery:
        start_plain(side, channel, nursery)
        received = list[bytes | str]()
        with trio.fail_after(30):
            while messages := await page.receive():
                received += messages
    assert [len(each) for each in received] == [40, 40, 20, 1]
    assert side.done


async def test_close_of_another_program_is_the_end_of_the_output_and_of_the_pipe() -> None:
    side, (channel, page) = plain_side(holds_input=True), channel_pair()
    async with trio.open_nursery() as nursery:
        start_plain(side, channel, nursery)
        await page.send(b"last words")
        await until(lambda: side.output == b"last words")
        page.close()
        await until(lambda: side.done)
        side.input_may_end = True
    assert side.closed


async def test_input_that_another_program_did_not_take_is_an_error() -> None:
    side, (channel, _) = plain_side(holds_input=True), channel_pair()
    async with trio.open_nursery() as nursery:
        start_plain(side, channel, nursery)
        await until(lambda: side.transport.is_connected)
        channel.closed = True
        side.chunks.append(b"too late")
        await trio.sleep(0.1)
        channel.changed.set()
        await until(lambda: side.ending is not None)
        side.input_may_end = True
        nursery.cancel_scope.cancel()
    assert side.ending is not None
    assert side.ending.code == "not_sent"
