"""Where connections come from: the loop that accepts them outlives whatever one of them, or the system, does to it."""

import errno
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from sdpx.errors import CannotListen
from sdpx.events import Event, serve
from sdpx.relay.listeners import open_listeners, serve_listener


class Failing:
    """A listener that fails with these errors, one after the other, and then has one connection."""

    def __init__(self, *errors: int) -> None:
        self._errors = list(errors)

    def accept_now(self) -> Iterator[trio.abc.Stream]:
        if self._errors:
            raise OSError(self._errors.pop(0), "failed")
        yield trio.testing.memory_stream_pair()[0]

    async def wait(self) -> None:
        await trio.sleep_forever()


async def accepted(listener: Failing, tell: Callable[[Event], None]) -> float:
    """Accept until there is a connection; returns how many (virtual) seconds that took."""
    began = trio.current_time()
    got = trio.Event()

    def take(links: Iterator[trio.abc.Stream]) -> None:
        for _ in links:
            got.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_listener, listener, take, tell)  # type: ignore[arg-type]  # all that it uses
        await got.wait()
        nursery.cancel_scope.cancel()
    return trio.current_time() - began


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH])
async def test_a_connection_that_is_lost_before_it_is_accepted_is_nobodys_fault(
    autojump_clock: MockClock, number: int
) -> None:
    told: list[Event] = []
    assert await accepted(Failing(number, number), told.append) == 0
    assert told == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_lack_of_descriptors_is_told_now_and_then_and_outlived(autojump_clock: MockClock, number: int) -> None:
    """Ten times a second it is tried, every ten seconds it is told."""
    told: list[Event] = []
    assert await accepted(Failing(*[number] * 150), told.append) == pytest.approx(15)
    assert [type(event) for event in told] == [serve.AcceptFailed] * 2


async def test_a_listener_that_is_gone_is_a_fault(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup):
        await accepted(Failing(errno.EBADF), lambda _: None)


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
async def test_the_place_is_as_in_a_url(host: str, shown: str) -> None:
    [listener] = await open_listeners(host, 0)
    with listener.socket:
        assert listener.address == f"{shown}{listener.port}"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.254", "x" * 70, "\ud800"])
async def test_a_place_that_is_not_here_is_a_clear_error(host: str) -> None:
    with pytest.raises(CannotListen) as caught:
        await open_listeners(host, 0)
    assert caught.value.code == "cannot_listen"
