"""The engines that `sdpx serve` starts."""

from functools import partial

import pytest
import trio

from sdpx.log import Log
from sdpx.options import BadOption
from sdpx.relay import app
from sdpx.relay.listeners import Listener, open_listeners
from sdpx.relay.options import ServeOptions
from sdpx.runtime import ShutdownRequest
from tests.harness.log import LogRecorder


def test_the_epoll_engine_is_refused_on_a_system_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is asked for by name."""
    monkeypatch.setattr(app, "HAS_EPOLL", False)
    with pytest.raises(BadOption, match="--engine: this system has no epoll: use trio-websocket"):
        app.load_credentials(ServeOptions(engine="epoll"))
    app.load_credentials(ServeOptions())


async def test_trio_websocket_serves_on_a_system_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning is logged."""
    monkeypatch.setattr(app, "HAS_EPOLL", False)
    listeners = await open_listeners("127.0.0.1", 0)

    async def opened(*_: object, **_options: object) -> list[Listener]:
        return listeners

    monkeypatch.setattr(app, "open_listeners", opened)
    recorder = LogRecorder()
    options, stop = ServeOptions(), ShutdownRequest()
    async with trio.open_nursery() as nursery:
        log = Log(recorder.put, trio.current_time)
        nursery.start_soon(partial(app.run_server, options, app.load_credentials(options), log, stop))
        listening = await recorder.wait_for("server_listening")
        assert recorder.of("epoll_unavailable")
        async with await trio.open_tcp_stream(listening["host"], listening["port"]) as client:
            await client.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            response = b"".join([data async for data in client])
            assert response.startswith(b"HTTP/1.1 426 ")
        nursery.cancel_scope.cancel()
    for listener in listeners:
        listener.socket.close()
