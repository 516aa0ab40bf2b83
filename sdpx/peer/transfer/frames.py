"""The frames of a transfer channel between two sdpx programs: one type byte, then a payload. Pure.

| byte | frame | payload |
| --- | --- | --- |
| 0 | hello | JSON: the stream of this side, and the position received of the other one; first on each connection |
| 1 | data | one message of the stream |
| 2 | grant | two 64-bit numbers: how far the reader has taken the stream, and how far the other side may send |
| 3 | abort | JSON: a code and a sentence; the transfer is over |

Positions count the bytes of data frames, type bytes included, from the beginning of a stream.
"""

import struct
from typing import Final

import msgspec

from sdpx.protocol.codec import UNREADABLE

HELLO: Final = 0
DATA: Final = 1
GRANT: Final = 2
ABORT: Final = 3
VERSION: Final = 1
MAX_REASON: Final = 300
_GRANT: Final = struct.Struct(">BQQ")


class Violation(Exception):
    """The other side broke the rules of the transfer channel; the text is the reason."""


class Hello(msgspec.Struct, frozen=True):
    """The first frame on a connection.

    `stream` names the stream, `peer_stream` the one that it belongs to on the other side, or is empty. `received` is the
    position up to which that one has arrived, `limit` the position up to which it may be sent.
    """

    stream: str
    role: str
    peer_stream: str = ""
    received: int = 0
    limit: int = 0
    version: int = VERSION


class Data(msgspec.Struct, frozen=True):
    """A message of the stream."""

    payload: memoryview


class Grant(msgspec.Struct, frozen=True):
    """The reader has taken the stream up to `taken`; it may be sent up to `limit`."""

    taken: int
    limit: int


class Abort(msgspec.Struct, frozen=True):
    """The other side ends the transfer, for this reason."""

    code: str
    reason: str


Frame = Hello | Data | Grant | Abort


def encode_data(payload: bytes | memoryview) -> bytes:
    """Return the frame of a message."""
    return b"".join((b"\x01", payload))


def encode(frame: Hello | Grant | Abort) -> bytes:
    """Return the bytes of a frame that carries no data."""
    match frame:
        case Grant(taken, limit):
            return _GRANT.pack(GRANT, taken, limit)
        case Hello():
            return bytes([HELLO]) + msgspec.json.encode(frame)
        case Abort(code, reason):
            return bytes([ABORT]) + msgspec.json.encode(Abort(code, reason[:MAX_REASON]))


def decode(data: bytes | str) -> Frame:
    """Return the frame in a message of the channel. Raises `Violation`."""
    if isinstance(data, str) or not data:
        raise Violation("A message on the transfer channel is text, or empty")
    kind = data[0]
    try:
        if kind == DATA:
            return Data(memoryview(data)[1:])
        if kind == GRANT:
            _, taken, limit = _GRANT.unpack(data)
            return Grant(taken, limit)
        if kind == HELLO:
            return _hello(msgspec.json.decode(data[1:], type=Hello))
        if kind == ABORT:
            abort = msgspec.json.decode(data[1:], type=Abort)
            return Abort(abort.code[:MAX_REASON], abort.reason[:MAX_REASON])
    except (struct.error, *UNREADABLE) as error:
        raise Violation(f"A frame of type {kind} cannot be read: {error}") from None
    raise Violation(f"A frame has the unknown type {kind}")


def _hello(hello: Hello) -> Hello:
    if hello.version != VERSION:
        raise Violation(f"The other side uses version {hello.version} of the transfer protocol, this one {VERSION}")
    if not hello.stream or hello.received < 0 or hello.limit < hello.received:
        raise Violation("A hello has no stream, or impossible positions")
    return hello
