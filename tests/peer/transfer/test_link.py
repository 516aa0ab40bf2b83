"""A link carries its stream over one connection after the other."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sdpx.errors import Ending
from sdpx.peer.transfer.frames import Hello, encode
from sdpx.peer.transfer.link import Link, Restarted
from sdpx.peer.transfer.stream import WINDOW
from tests.harness.links import linked, new_link

SIZE = 50_000


async def send_all(link: Link, count: int) -> None:
    for number in range(count):
        await link.send(number.to_bytes(4, "big") + bytes(SIZE))


async def receive_all(link: Link, count: int) -> None:
    for number in range(count):
        payload = await link.receive()
        assert int.from_bytes(payload[:4], "big") == number
        link.take(payload)


async def test_reader_that_stops_stops_the_sender_and_nothing_is_lost(autojump_clock: trio.abc.Clock) -> None:
    a, b = new_link(), new_link()
    count = 3 * WINDOW // SIZE
    async with linked(a, b), trio.open_nursery() as nursery:
        nursery.start_soon(send_all, a, count)
        await trio.sleep(60)
        assert WINDOW - 2 * SIZE < a.unconfirmed <= WINDOW
        nursery.start_soon(receive_all, b, count)


async def test_both_readers_stopped_is_no_deadlock(autojump_clock: trio.abc.Clock) -> None:
    a, b = new_link(), new_link()
    count = 2 * WINDOW // SIZE
    async with linked(a, b), trio.open_nursery() as nursery:
        for link in (a, b):
            nursery.start_soon(send_all, link, count)
        await trio.sleep(60)
        for link in (a, b):
            assert WINDOW - 2 * SIZE < link.unconfirmed <= WINDOW
            nursery.start_soon(receive_all, link, count)


async def test_stream_goes_on_where_it_was_over_each_new_connection(autojump_clock: trio.abc.Clock) -> None:
    a, b = new_link(), new_link()
    count = 400
    async with linked(a, b) as connections, trio.open_nursery() as nursery:
        for link in (a, b):
            nursery.start_soon(send_all, link, count)
            nursery.start_soon(receive_all, link, count)
        for _ in range(30):
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            await connections.reconnect()


async def test_other_side_that_was_started_again_ends_a_pipe(autojump_clock: trio.abc.Clock) -> None:
    a, b, again = new_link(), new_link(), new_link()
    async with linked(a, b) as connections:
        await a.send(b"x")
        b.take(await b.receive())
        connections.links[1] = again
        await connections.cut()
        with pytest.raises(Ending) as ended:
            await connections.connect()
        assert ended.value.code == "peer_restarted"
        await wait_all_tasks_blocked()
        with pytest.raises(Ending) as ended:
            await again.receive()
        assert ended.value.code == "aborted"


async def test_other_side_that_was_started_again_begins_a_new_stream_for_files(
    autojump_clock: trio.abc.Clock,
) -> None:
    a, b, again = new_link(restarts=True), new_link(restarts=True), new_link(restarts=True)
    async with linked(a, b) as connections:
        await a.send(b"x")
        b.take(await b.receive())
        connections.links[1] = again
        async with trio.open_nursery() as nursery:

            async def expect_restart() -> None:
                with pytest.raises(Restarted):
                    await a.receive()

            nursery.start_soon(expect_restart)
            await wait_all_tasks_blocked()
            await connections.cut()
            await connections.connect()
        await a.begin()
        await a.send(b"y")
        assert bytes(await again.receive()) == b"y"


async def test_connection_before_any_byte_may_be_with_a_new_process(autojump_clock: trio.abc.Clock) -> None:
    a, b, again = new_link(), new_link(), new_link()
    async with linked(a, b) as connections:
        connections.links[1] = again
        await connections.cut()
        await connections.connect()
        await a.send(b"y")
        assert bytes(await again.receive()) == b"y"


async def test_impossible_positions_of_a_process_that_was_started_again_end_the_link(
    autojump_clock: trio.abc.Clock,
) -> None:
    a, b = new_link(restarts=True), new_link(restarts=True)
    async with linked(a, b) as connections:
        assert connections.channels is not None
        await a.send(b"x")
        b.take(await b.receive())
        await connections.channels[0].send(encode(Hello("another", "pipe", received=5, limit=9)))
        with pytest.raises(Restarted):
            await b.receive()
        with pytest.raises(Ending, match="received more than was sent") as ended:  # noqa: PT012  either may raise it
            await b.begin()
            await b.receive()
        assert ended.value.code == "protocol_error"


async def test_abort_reaches_the_other_side_with_its_reason(autojump_clock: trio.abc.Clock) -> None:
    a, b = new_link(), new_link()
    async with linked(a, b):
        await a.abort("disk_full", "No space left on device")
        with pytest.raises(Ending, match="The other side ended the transfer: No space left") as ended:
            await b.receive()
        assert ended.value.code == "aborted"


async def test_abort_without_a_connection_returns_at_once(autojump_clock: trio.abc.Clock) -> None:
    began = trio.current_time()
    await new_link().abort("x", "y")
    assert trio.current_time() == began


async def test_violation_ends_both_sides_with_its_reason(autojump_clock: trio.abc.Clock) -> None:
    a, b = new_link(), new_link()
    async with linked(a, b) as connections:
        assert connections.channels is not None
        await connections.channels[0].send(b"\x09")
        for link in (a, b):
            with pytest.raises(Ending, match="unknown type 9"):
                await link.receive()
