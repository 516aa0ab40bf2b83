"""`run_peer` against a real WebSocket server: the relay connection is closed in order, whatever ends the program."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from sdpx.concurrency import leaf_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.log import Log
from sdpx.options import AccessOptions
from sdpx.peer import app
from sdpx.peer.options import PeerOptions
from sdpx.runtime import ShutdownRequest
from tests.harness.log import LogRecorder


class Run:
    """A running peer: its log, its ending, the close code that the relay got."""

    def __init__(self) -> None:
        self.log = LogRecorder()
        self.stop = ShutdownRequest()
        self.ending: Ending | None = None
        self.frames: list[dict[str, Any]] = []
        self.close_code: int | None = None

    async def serve(self, request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message('{"type":"your_id","id":"x"}')
        try:
            while True:
                self.frames.append(json.loads(await socket.get_message()))
        except ConnectionClosed as closed:
            self.close_code = closed.reason.code if closed.reason else None

    async def run(self, options: PeerOptions) -> None:
        try:
            await app.run_peer(options, Log(self.log.put, trio.current_time), self.stop)
        except* Ending as group:
            (ending,) = leaf_exceptions(group)
            assert isinstance(ending, Ending)
            self.ending = ending


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, chunks: list[bytes], **options: Any) -> AsyncIterator[Run]:
    """Run a peer with this standard input; the block's end waits for the peer's."""

    def read(_size: int) -> bytes:
        return chunks.pop(0) if chunks else b""

    monkeypatch.setattr(app, "read_stdin", read)
    peer = Run()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, peer.serve, "127.0.0.1", 0, ssl_context=None))
            async with trio.open_nursery() as running:
                running.start_soon(peer.run, PeerOptions(f"ws://127.0.0.1:{server.port}", **options))
                yield peer
            nursery.cancel_scope.cancel()


async def test_a_requested_stop_closes_the_relay_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, []) as peer:
        await peer.log.wait_for("id_assigned")
        peer.stop.request("SIGTERM")
    assert (peer.ending, peer.close_code) == (None, 1000)


async def test_a_stop_before_the_expectation_is_met_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, [], expect="channel") as peer:
        await peer.log.wait_for("id_assigned")
        peer.stop.request("SIGTERM")
    assert peer.ending is not None
    assert peer.ending.status is ExitStatus.EXPECTATION_FAILED
    assert "ended by SIGTERM before a data channel was open" in peer.ending.reason
    assert peer.close_code == 1000


async def test_commands_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, [b'hello\n{"clo', b'se": true}\n'], stdin="json", expect="message") as peer:
        await peer.log.wait_for("input_rejected", code="bad_json")
    assert peer.ending is not None
    assert 'ended by {"close": true}' in peer.ending.reason


async def test_lines_of_standard_input_name_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, [b"bo", b"b\n"]) as peer:
        await peer.log.wait_for("pair_requested", target_id="bob")
        peer.stop.request("SIGTERM")
    assert [(frame["type"], frame.get("target_id")) for frame in peer.frames] == [("pair_request", "bob")]


async def test_a_relay_that_is_not_there_is_an_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "read_stdin", lambda _: b"")
    peer = Run()
    with trio.fail_after(20):
        await peer.run(PeerOptions("ws://127.0.0.1:1", access=AccessOptions(insecure=True)))
    assert peer.ending is not None
    assert peer.ending.status is ExitStatus.RELAY
    assert peer.log.events[0] == "tls_verification_disabled"
