"""The first bytes of a connection: read a request's head, or say what is wrong with it.

The head is read here and parsed by h11, within `Limits.handshake_timeout` and `Limits.head_bytes`, so that nobody holds
a connection by saying nothing, little, or too much.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import h11
import trio

from sdpx.relay.auth.tls_stream import TlsStream
from sdpx.relay.core.limits import Limits
from sdpx.relay.http.responses import HttpError
from sdpx.relay.http.upgrade import HEAD_TOO_LARGE, Upgrade, not_http

READ_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """A request, parsed or known for what it asks at one look, and the bytes that came right behind it."""

    request: h11.Request | Upgrade
    behind: bytes


Plain = Callable[[bytes], Upgrade | None]


async def read_head(
    stream: trio.abc.Stream, limits: Limits, plain: Plain | None = None, begun: bytes = b""
) -> Head | HttpError | None:
    """Read a request's head, of which `begun` has been read; `plain` may know it at one look.

    Returns it, or the answer that the bytes deserve, or None if the client said nothing and is to be cut. Raises `TlsHandshakeError`.
    """
    received = bytearray(begun)
    with trio.move_on_after(limits.handshake_timeout):
        if isinstance(stream, TlsStream) and (refusal := await stream.begin()) is not None:
            return refusal
        received += b"" if begun else await stream.receive_some(READ_BYTES)
        if plain is not None and (upgrade := plain(bytes(received))) is not None:
            return Head(upgrade, b"")
        return await _read_head(stream, limits.head_bytes, received)
    if received:
        return HttpError(408, "timeout", "The request did not come in time")
    return None


async def _read_head(stream: trio.abc.Stream, max_bytes: int, received: bytearray) -> Head | HttpError | None:
    connection = h11.Connection(h11.SERVER, max_bytes)
    connection.receive_data(bytes(received))
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            return not_http(error, bytes(received[:16]))
        if isinstance(event, h11.Request):
            behind, _ = connection.trailing_data
            whole = len(received) - len(behind)  # h11 bounds a head only while it is not whole
            return Head(event, behind) if whole <= max_bytes else HEAD_TOO_LARGE
        if event is not h11.NEED_DATA:
            return None
        data = bytes(await stream.receive_some(READ_BYTES))
        received += data
        connection.receive_data(data)
