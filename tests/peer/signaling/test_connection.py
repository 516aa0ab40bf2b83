"""Dialling servers that are not a relay: each is unreachable, within the deadline."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from sdpx.concurrency import leaf_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.peer.signaling.client import Stopped
from sdpx.peer.signaling.connection import dial
from tests.harness.scripted_relay import accepts, scripted

Handler = Callable[[trio.SocketStream], Awaitable[None]]


async def silent(_stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def closing(stream: trio.SocketStream) -> None:
    await stream.receive_some()


async def plain_http(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    await trio.sleep(1)


async def not_http(stream: trio.SocketStream) -> None:
    await stream.send_all(b"SSH-2.0-x\r\n\r\n\r\n")
    await trio.sleep(1)


async def broken_http(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    await trio.sleep(1)


async def serve(handler: Handler, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            await handler(stream)
        except trio.BrokenResourceError:
            return


@pytest.mark.parametrize("handler", [silent, closing, plain_http, not_http, broken_http])
async def test_a_server_that_is_not_a_relay_is_unreachable_within_10_s(
    handler: Handler, autojump_clock: MockClock
) -> None:
    """The sentence names the URL."""
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, partial(serve, handler), 0, host="127.0.0.1"))
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        began = trio.current_time()
        with pytest.raises((Ending, ExceptionGroup)) as caught:
            async with dial(url, url, None):
                raise AssertionError(handler)
        error = caught.value
        (leaf,) = leaf_exceptions(error) if isinstance(error, ExceptionGroup) else [error]
        assert isinstance(leaf, Ending)
        assert url in leaf.reason
        assert trio.current_time() - began <= 10
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("response", "words"),
    [
        *((f"HTTP/1.1 {status} x", f"({status}), but the relay behind it does not") for status in (502, 503, 504, 522)),
        ("HTTP/1.1 301 x\r\nLocation: /signal/?token=SECRET", "(301): use --url ws://127.0.0.1:{port}/signal/"),
        ("HTTP/1.1 308 x\r\nLocation: https://moved.example/signal/", "(308): use --url wss://moved.example/signal/"),
        ("HTTP/1.1 308 x", "is not a relay: HTTP 308"),
        ("HTTP/1.1 400 x", "is not a relay: HTTP 400; if it is a TLS port, use wss://"),
        ("HTTP/1.1 404 x", "is not a relay: HTTP 404; check host, port and path"),
    ],
)
async def test_answer_of_a_proxy_is_named(response: str, words: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(f"{response}\r\nContent-Length: 0\r\n\r\n".encode())
        await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, partial(serve, answer), 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with pytest.raises((Ending, ExceptionGroup)) as caught:
            async with dial(f"ws://127.0.0.1:{port}/signal", f"ws://127.0.0.1:{port}/signal", None):
                pass
        (leaf,) = leaf_exceptions(caught.value) if isinstance(caught.value, ExceptionGroup) else [caught.value]
        assert words.format(port=port) in str(leaf)
        assert "SECRET" not in str(leaf)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("own_id", ["", "x" * 65, "x" * 100_000, "a b", "\x1b[2J"])
async def test_id_beyond_the_bounds_of_the_protocol_ends_the_connection(own_id: str) -> None:
    """A hostile relay chooses the ID: it is neither logged nor shown."""
    async with scripted(accepts({"id": own_id}, code=0)) as (client, _, log):
        stopped = await client.events.receive()
    assert isinstance(stopped, Stopped)
    assert (stopped.ending.code, stopped.ending.status) == ("not_a_relay", ExitStatus.RELAY)
    assert "its 'your_id' has no ID of 1 to 64 letters" in stopped.ending.reason
    assert log.events == ["connecting"]
