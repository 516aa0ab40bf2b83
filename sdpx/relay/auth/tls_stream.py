"""A connection to a port that speaks TLS: first the handshake, under the deadline of who waits for it, then any stream."""

import ssl
from typing import Final

import trio

from sdpx.relay.http.responses import HttpError
from sdpx.relay.websocket.socket_stream import SocketStream

HANDSHAKE: Final = b"\x16"  # how a TLS record begins that opens a connection (RFC 8446, 5.1)
READ_BYTES: Final = 16 * 1024
CLOSE_SECONDS: Final = 0.7
NO_TLS: Final = HttpError(400, "bad_request", "This port speaks TLS: use wss:// (or https://), not ws:// (or http://)")


class TlsHandshakeError(Exception):
    """A client and the relay found no TLS that both speak."""


class TlsStream(trio.abc.Stream):
    """A connection to a port that speaks TLS. `begin` comes first; who does not begin with TLS can be told so, no more."""

    def __init__(self, link: SocketStream, context: ssl.SSLContext) -> None:
        self.link = link
        self.remote = link.remote
        self._context = context
        self._stream: trio.abc.Stream = link

    async def begin(self) -> HttpError | None:
        """Do the handshake; returns what to answer to a client that does none. Raises `TlsHandshakeError`.

        The caller has a deadline.
        """
        start = bytes(await self.link.receive_some(READ_BYTES))
        if not start.startswith(HANDSHAKE):
            return NO_TLS if start else None
        tls = trio.SSLStream(_PrefixedStream(self.link, start), self._context, server_side=True, https_compatible=True)
        self._stream = tls
        try:
            await tls.do_handshake()
        except trio.BrokenResourceError as error:
            reason = error.__cause__.reason if isinstance(error.__cause__, ssl.SSLError) else None
            raise TlsHandshakeError(reason or "the client went away") from None
        return None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive, as any stream does."""
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, as any stream does."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Say goodbye, if the client still takes it, and close the socket."""
        try:
            with trio.move_on_after(CLOSE_SECONDS):
                await self._stream.aclose()
        finally:
            await self.link.aclose()


class _PrefixedStream(trio.abc.Stream):
    """A link of which something has been read: it comes again."""

    def __init__(self, link: SocketStream, start: bytes) -> None:
        self._link = link
        self._start = start

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._start:
            size = max_bytes or READ_BYTES
            start, self._start = self._start[:size], self._start[size:]
            await trio.lowlevel.checkpoint()
            return start
        return bytes(await self._link.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._link.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._link.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._link.aclose()
