"""Attacks of a relay on `sdpx peer`: it reports them, connects again or ends with a sentence, and has no fault of its own."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Final

import pytest
import trio

from sdpx.errors import Ending, ExitStatus
from sdpx.log import Log
from sdpx.peer.options import PeerOptions
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.client import Connected, SignalingClient
from sdpx.peer.signaling.connection import dial
from sdpx.relay.http.upgrade import Upgrade
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, frame
from tests.harness.log import LogRecorder
from tests.harness.processes import sdpx
from tests.hostile.attack import patience

pytestmark = pytest.mark.e2e

CONTROLS: Final = "\x1b\x7f\x9b\u2028\u202e"


def server_frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return frame(opcode, payload, fin=fin, masked=False)


def server_message(**keys: object) -> bytes:
    return server_frame(TEXT, json.dumps(keys).encode())


YOUR_ID: Final = server_message(type="your_id", id="alice")
ATTACKS: Final = {
    "a message inside another": server_frame(TEXT, b"{", fin=False) + server_frame(TEXT, b"}"),
    "a continuation of nothing": server_frame(CONTINUATION, b"x"),
    "a binary message inside another": server_frame(TEXT, b"{", fin=False) + server_frame(BINARY, b"}"),
    "a fragmented ping": server_frame(PING, b"x", fin=False),
    "a masked frame": frame(TEXT, b"{}"),
    "a broken close frame": server_frame(CLOSE, b"\x03"),
    "a close frame within a message": server_frame(TEXT, b"{", fin=False) + server_frame(CLOSE, b"\x03\xe8"),
    "invalid UTF-8": server_frame(TEXT, b"\xff"),
    "reserved bits": b"\xf1\x00",
    "a message of 2 GiB": b"\x81\x7f" + (1 << 31).to_bytes(8) + b"x" * 1000,
    "messages of other types": server_frame(TEXT, b"[]") + server_frame(TEXT, b"null") + server_frame(BINARY, b"{}"),
    "numbers without end": server_frame(TEXT, b'{"type":"pong","t":' + b"9" * 60_000 + b"}"),
    "nesting": server_frame(TEXT, b'{"type":"offer","sdp":' + b"[" * 50_000),
    "a pairing with itself": server_message(type="paired", peer_id="alice", is_initiator=True),
    "an offer of nobody": server_message(type="offer", sdp="v=0", from_peer=True),
}


@asynccontextmanager
async def hostile_relay(*answers: bytes) -> AsyncIterator[str]:
    """Answer each dial with the next of these: an HTTP response, or frames behind the response that opens a WebSocket.

    The last answer is that for all further dials, and its connection stays open; others are dropped after a while.
    """
    left = list(answers)

    async def serve(stream: trio.SocketStream) -> None:
        answer, seconds = (left.pop(0), 0.2) if len(left) > 1 else (left[0], inf)
        with suppress(trio.BrokenResourceError), trio.move_on_after(seconds):
            key = re.search(rb"(?i)sec-websocket-key: *(\S+)", await stream.receive_some())
            assert key is not None
            is_http = answer.startswith(b"HTTP/")
            await stream.send_all(answer if is_http else Upgrade(None, None, key[1].decode()).response() + answer)
            while not is_http and await stream.receive_some():
                pass
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_peer_outlives_a_relay_that_breaks_every_rule() -> None:
    """It leaves or loses the connection each time, and dials again, until the relay keeps the rules."""
    log = LogRecorder()
    async with hostile_relay(*(YOUR_ID + data for data in ATTACKS.values()), YOUR_ID) as url:
        with trio.fail_after(len(ATTACKS) * patience()):
            async with trio.open_nursery() as nursery:
                client = SignalingClient(PeerOptions(url), None, Log(log.put, trio.current_time), lambda: 0.0)
                client._backoff = Backoff(0.01, 0.02)
                nursery.start_soon(client.run)
                connected = 0
                while connected <= len(ATTACKS):
                    connected += isinstance(await client.events.receive(), Connected)
                await client.close()
                nursery.cancel_scope.cancel()
    assert "internal_error" not in log.events


def response(status: str, body: bytes = b"", header: str = "X: y") -> bytes:
    return f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n{header}\r\n\r\n".encode("latin-1") + body


ANSWERS: Final = {
    "nesting": (response("401", b'{"code":"a","message":' + b"[" * 100_000), "is not a relay: HTTP 401"),
    "invalid UTF-8": (response("401", b'{"code":"a","message":"\xff"}'), "is not a relay: HTTP 401"),
    "other types": (response("401", b'{"code":[1],"message":{"a":null}}'), "refused: {'a': None}"),
    "no end": (response("401", b'{"code":"c","message":"%s"}' % (b"m" * 200_000)), "refused: mmm"),
    "a redirect to no URL": (response("302", header="Location: http://[::1"), "is not a relay: HTTP 302"),
    "a redirect to no port": (response("302", header="Location: http://h:99999999/"), "is not a relay: HTTP 302"),
    "a redirect to another scheme": (response("302", header="Location: javascript:x()"), "is not a relay: HTTP 302"),
    "a redirect with controls": (response("302", header="Location: http://h/\x9b31m"), "is not a relay: HTTP 302"),
    "a WebSocket without a key": (b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\n\r\n", "it opens no WebSocket"),
    "bytes that are not HTTP": (b"HTTP/\x00\xff\r\n\r\n", "it opens no WebSocket"),
}


async def test_answer_of_another_server_ends_with_a_sentence() -> None:
    """Whatever the answer is; it is quoted in part."""
    for name, (answer, words) in ANSWERS.items():
        async with hostile_relay(answer) as url:
            with trio.fail_after(30), pytest.raises(Ending) as ended:
                async with dial(url, url):
                    pass
        assert words in ended.value.reason, name
        assert len(ended.value.reason) < 500, name


async def test_what_a_relay_answers_controls_no_terminal() -> None:
    """A refusal is quoted on stderr, with its controls escaped, and ends the peer."""
    body = json.dumps({"code": "unauthorized", "message": f"no {CONTROLS} way"}).encode()
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with hostile_relay(head + body) as url, sdpx("peer", "--url", url, "--no-stun") as program:
        assert await program.ended() == ExitStatus.REFUSED
        output = program.stderr.decode() + "".join(line["message"] for line in program.lines)
        assert "way" in output
        assert not set(CONTROLS) & set(output)


async def test_a_signal_ends_a_peer_whose_relay_does_not_answer_its_close_frame() -> None:
    """The relay contradicts itself, so that the peer leaves it; nothing comes back."""
    contradiction = server_message(type="ack", client_seq=99)
    your_id = server_message(type="your_id", id="alice", resume_token="T" * 43, resumed=False)
    async with hostile_relay(your_id + contradiction) as url, sdpx("peer", "--url", url, "--no-stun") as program:
        await program.wait_for("disconnected")
        with trio.fail_after(patience()):
            await program.end()
        assert b"fault" not in program.stderr
