"""A client that sends any bytes to a relay, and strict readers, written by hand, of the bytes that the relay answers."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import trio
from trio.testing import wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.socket_stream import SocketStream
from tests.harness.frames import CLOSE, PING, PONG, TEXT, frame
from tests.harness.relay import RelayHarness

RELAYED: Final = {"offer", "answer", "candidate"}
CLIENT_TYPES: Final = {*RELAYED, "pair_request", "unpair", "ping", "pong"}
SERVER_TYPES: Final = {"your_id", "paired", "peer_disconnected", "unpaired", "error", "pong", *RELAYED}
NO_CODE: Final = 1005
CLOSE_CODES: Final = {1000, 1001, 1002, NO_CODE, 1007, 1008, 1009}
LIMITS: Final = Limits(max_message_size=4096, max_fragments=8)


def opened(data: bytes, *, head_only: bool) -> bytes | None:
    """Read an HTTP response: the bytes behind it if it opens a WebSocket; None for a refusal with a reason, and no more."""
    head, end, rest = data.partition(b"\r\n\r\n")
    assert end, "the response has no end"
    first, *lines = head.decode("ascii").split("\r\n")
    assert re.fullmatch(r"HTTP/1\.1 \d{3} .*", first)
    status = HTTPStatus(int(first[9:12]))
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if status == HTTPStatus.SWITCHING_PROTOCOLS:
        return rest
    assert len(rest) == int(headers["content-length"]) or (head_only and not rest)
    if status >= HTTPStatus.BAD_REQUEST and rest:
        assert json.loads(rest).keys() == {"code", "message"}
    return None


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Read a server's frames (RFC 6455, 5): whole, unmasked, no reserved bit, the shortest length, nothing behind a close."""
    frames: list[tuple[int, bytes]] = []
    while data:
        opcode, short = data[0] & 0x0F, data[1]
        assert data[0] & 0xF0 == 0x80, "a fragment, or a reserved bit"
        assert opcode in (TEXT, PING, PONG, CLOSE)
        assert short < 126 or opcode == TEXT, "masked, or a control frame that is too long"
        start = 2 + {126: 2, 127: 8}.get(short, 0)
        size = int.from_bytes(data[2:start]) if start > 2 else short
        assert frame(opcode, data[start : start + size], masked=False) == data[: start + size], (
            "cut, or too long a length"
        )
        assert CLOSE not in dict(frames), "a frame came behind the close frame"
        frames.append((opcode, data[start : start + size]))
        data = data[start + size :]
    return frames


def check_texts(frames: list[tuple[int, bytes]]) -> None:
    """Each text is an object of a type of the protocol, and the first, and only the first, is the client's ID."""
    kinds = [json.loads(payload)["type"] for opcode, payload in frames if opcode == TEXT]
    assert SERVER_TYPES.issuperset(kinds)
    assert [number for number, kind in enumerate(kinds) if kind == "your_id"] == [0][: len(kinds)]


def close_code(frames: list[tuple[int, bytes]]) -> int | None:
    """Return the code of the close frame, if there is one."""
    for opcode, payload in frames:
        if opcode == CLOSE:
            payload[2:].decode()
            return int.from_bytes(payload[:2]) if payload else NO_CODE
    return None


def closes_in(data: bytes) -> set[int]:
    """Return every code that a client can have closed with by sending these bytes: the relay may echo it."""
    found = re.finditer(rb"(?=\x88[\x82-\xfd](.{4})(..))", data, re.DOTALL)
    return {int.from_bytes(bytes(a ^ b for a, b in zip(match[2], match[1], strict=False))) for match in found}


@dataclass
class Attacker:
    """A client that sends bytes and keeps all that it receives."""

    stream: SocketStream
    received: bytearray = field(default_factory=bytearray)
    is_closed: bool = False  # by the relay

    async def send(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the relay has cut it
                await self.stream.send_all(chunk)
        await wait_all_tasks_blocked()

    async def listen(self) -> None:
        with suppress(trio.ClosedResourceError):  # it has hung up
            async for data in self.stream:
                self.received += data
            self.is_closed = True
        await self.stream.aclose()


async def attacker(relay: RelayHarness) -> Attacker:
    client = Attacker(relay.connect())
    relay.nursery.start_soon(client.listen)
    return client
