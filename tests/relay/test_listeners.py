"""The loop that accepts connections survives errors of the system."""

import errno
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from sdpx.errors import Ending
from sdpx.events import Event, serve
from sdpx.options import BadOption
from sdpx.relay.app import check_hosts
from sdpx.relay.listeners import open_listeners, serve_listener
from sdpx.relay.options import ServeOptions


class Failing:
    """A listener that raises these errors in turn, and then has one connection."""

    def __init__(self, *errors: int) -> None:
        self._errors = list(errors)

    def accept_now(self) -> Iterator[trio.abc.Stream]:
        if self._errors:
            raise OSError(self._errors.pop(0), "failed")
        yield trio.testing.memory_stream_pair()[0]

    async def wait(self) -> None:
        await trio.sleep_forever()


async def accepted(listener: Failing, log: Callable[[Event], None]) -> float:
    """Accept until there is a connection; returns the virtual seconds that passed."""
    began = trio.current_time()
    got = trio.Event()

    def accept(streams: Iterator[trio.abc.Stream]) -> None:
        for _ in streams:
            got.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_listener, listener, accept, log)  # type: ignore[arg-type]  # all that it uses
        await got.wait()
        nursery.cancel_scope.cancel()
    return trio.current_time() - began


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH])
async def test_connection_lost_before_accept_is_ignored(autojump_clock: MockClock, number: int) -> None:
    logged: list[Event] = []
    assert await accepted(Failing(number, number), logged.append) == 0
    assert logged == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_shortage_of_descriptors_is_logged_and_retried(autojump_clock: MockClock, number: int) -> None:
    """The loop tries again after 0.1 s and logs every 10 s."""
    logged: list[Event] = []
    assert await accepted(Failing(*[number] * 150), logged.append) == pytest.approx(15)
    assert [type(event) for event in logged] == [serve.AcceptFailed] * 2


async def test_closed_listener_raises(autojump_clock: MockClock) -> None:
    with pytest.raises(ExceptionGroup):
        await accepted(Failing(errno.EBADF), lambda _: None)


@pytest.mark.parametrize(("host", "prefix"), [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")])
async def test_address_is_formatted_as_in_a_url(host: str, prefix: str) -> None:
    [listener] = await open_listeners(host, 0)
    with listener.socket:
        assert listener.address == f"{prefix}{listener.port}"


async def test_unspecified_address_of_ipv6_is_that_of_ipv4_too() -> None:
    """On one port."""
    listeners = await open_listeners("::", 0)
    assert [listener.host for listener in listeners] == ["::", "0.0.0.0"]
    assert len({listener.port for listener in listeners}) == 1
    for listener in listeners:
        listener.socket.close()


@pytest.mark.parametrize("names", [["192.0.2.254", "127.0.0.1"], ["127.0.0.1", "192.0.2.254"]])
async def test_address_that_the_host_does_not_have_is_passed_over(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ::1 for localhost, where IPv6 is off; at least one address must be left."""

    async def getaddrinfo(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (name, 0)) for name in names]

    monkeypatch.setattr("trio.socket.getaddrinfo", getaddrinfo)
    [listener] = await open_listeners("localhost", 0)
    with listener.socket:
        assert listener.host == "127.0.0.1"


async def test_address_may_be_in_brackets() -> None:
    [listener] = await open_listeners("[::1]", 0)
    with listener.socket:
        assert listener.host == "::1"


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (ServeOptions(host="192.0.2.254"), "--host"),
        (ServeOptions(host="[127.0.0.1"), "--host"),
        (ServeOptions(metrics_port=0, metrics_host="no.such.host.invalid"), "--metrics-host"),
    ],
)
def test_host_that_is_not_local_is_an_error_of_its_option(options: ServeOptions, flag: str) -> None:
    """`--check` refuses what the start would refuse."""
    check_hosts(ServeOptions(host="[::1]"))
    with pytest.raises(BadOption) as caught:
        check_hosts(options)
    assert caught.value.option == flag


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.254", "x" * 70, "\ud800"])
async def test_address_of_another_host_raises_cannot_listen(host: str) -> None:
    with pytest.raises(Ending) as caught:
        await open_listeners(host, 0)
    assert caught.value.code == "cannot_listen"
