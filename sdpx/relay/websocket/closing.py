"""How to end a connection so that the client can still read why."""

from typing import Final

import trio

from sdpx.relay.websocket.validator import NO_CODE

READ_BYTES: Final = 64 * 1024
LINGER_BYTES: Final = 1024 * 1024


async def send_and_linger(stream: trio.abc.Stream, words: bytes, seconds: float) -> None:
    """Send the last bytes of a connection, and wait, for `seconds` at most, until the client has closed its side.

    A socket that is closed while bytes lie unread resets the connection, and the reset overtakes what was sent: so what
    still comes is read and thrown away, up to a bound. The caller closes the stream.
    """
    with trio.move_on_after(seconds):
        try:
            await stream.send_all(words)
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            read = 0
            while read < LINGER_BYTES and (data := await stream.receive_some(READ_BYTES)):
                read += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the client did not wait for it


def close_frame(code: int, text: str) -> bytes:
    """Return an unmasked close frame (RFC 6455, 5.5.1), empty for 1005; `text` is cut to what a control frame holds."""
    if code == NO_CODE:
        return bytes([0x88, 0])
    reason = text.encode()[:123].decode(errors="ignore").encode()
    return bytes([0x88, 2 + len(reason)]) + code.to_bytes(2) + reason
