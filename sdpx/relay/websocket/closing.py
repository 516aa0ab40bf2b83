"""Closing a connection so that the client receives the reason."""

from typing import Final

import trio

from sdpx.relay.websocket.fast_parser import CLOSE, frame
from sdpx.relay.websocket.validator import NO_CODE

READ_BYTES: Final = 64 * 1024
LINGER_BYTES: Final = 1024 * 1024


async def send_and_linger(stream: trio.abc.Stream, data: bytes, seconds: float) -> None:
    """Send the last bytes of a connection, and wait, for `seconds` at most, until the client has closed its side.

    Closing a socket with unread bytes resets the connection, and the reset overtakes the bytes that were sent. So received
    bytes are read and dropped, up to a bound. The caller closes the stream.
    """
    with trio.move_on_after(seconds):
        try:
            await stream.send_all(data)
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            read = 0
            while read < LINGER_BYTES and (received := await stream.receive_some(READ_BYTES)):
                read += len(received)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client has closed the connection


def close_frame(code: int, text: str) -> bytes:
    """Return an unmasked close frame (RFC 6455, 5.5.1), empty for 1005; `text` is cut to the size of a control frame."""
    if code == NO_CODE:
        return frame(CLOSE, b"")
    return frame(CLOSE, code.to_bytes(2) + text.encode()[:123].decode(errors="ignore").encode())
