"""The client half of the wire: dial the relay, then frames in and frames out.

- The relay is unreachable unless it opens the WebSocket and sends `your_id`, all within `DIAL_SECONDS`.
- One task writes, so that nobody who is cancelled in mid-send leaves half a frame behind.
- A relay that has silently gone is noticed by pings, and by frames that it does not confirm.
- A connection ends with a close frame only where this side means to leave: without one the relay keeps the place (PROTOCOL:
  Resume).
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from errno import errorcode
from os import strerror
from socket import gaierror
from typing import Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import trio
from trio_websocket import (
    CloseReason,
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from sdpx.errors import Ending, Refusal, Refused, RelayUnreachable
from sdpx.peer.signaling.reliable_channel import ReliableChannel
from sdpx.peer.signaling.tls import client_context, words_of
from sdpx.protocol import messages
from sdpx.protocol.messages import PROTOCOL, YourId

DIAL_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 1.0
WRITE_SECONDS: Final = 15.0
PING_SECONDS: Final = 10.0
PONG_SECONDS: Final = 10.0
# The relay's limit is for what it receives; what it relays is a little longer, and a later relay may allow more.
MAX_MESSAGE: Final = 1024 * 1024

ByteStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class SignalingConnection:
    """An open connection to a relay, and the `greeting` that came first on it."""

    def __init__(self, socket: WebSocketConnection, greeting: YourId, nursery: trio.Nursery) -> None:
        self.greeting = greeting
        self._socket = socket
        self._nursery = nursery
        self._dropped = False

    def write_from(self, source: ReliableChannel) -> None:
        """Write what `source` has, to the end of this connection. To be called once."""
        self._nursery.start_soon(self._write, source)

    async def receive(self) -> str | None:
        """Wait for the relay's next frame; None once the connection is gone, and `lost` says how."""
        while True:
            try:
                frame = await self._socket.get_message()
            except ConnectionClosed:
                return None
            if isinstance(frame, str) and not self._dropped:
                return frame

    @property
    def lost(self) -> CloseReason | None:
        """How the connection ended, once it has, unless this side gave it up."""
        return None if self._dropped else self._socket.closed

    async def _write(self, source: ReliableChannel) -> None:
        while (frame := await source.next()) is not None:
            text, client_seq = frame
            with trio.move_on_after(WRITE_SECONDS) as deadline:
                try:
                    await self._socket.send_message(text)
                except ConnectionClosed:
                    return
            if deadline.cancelled_caught:  # half a frame is out: the socket is of no more use
                break
            if client_seq:
                source.written(client_seq)
        await self.drop()

    async def keep_alive(self) -> None:
        """Ping the relay, and drop the connection when no pong comes."""
        while True:
            await trio.sleep(PING_SECONDS)
            with trio.move_on_after(PONG_SECONDS) as deadline:
                try:
                    await self._socket.ping()
                except ConnectionClosed:
                    return
            if deadline.cancelled_caught:
                await self.drop()
                return

    async def drop(self) -> None:
        """Cut the connection, without a close frame: the relay keeps the place of a client with numbers."""
        self._dropped = True
        with trio.CancelScope() as nothing:
            nothing.cancel()
            await self._socket.aclose()

    async def close(self, code: int = 1000) -> None:
        """Leave: close the WebSocket behind what was written, and wait a moment for the relay to do so."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._socket.aclose(code)


class _Watched(trio.abc.Stream):
    """A stream that tells when its other side has ended: the library waits on, when that is before the WebSocket opens."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.ended = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError:
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:  # the library does not even begin to read, then
            self.ended.set()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def dial(url: str, shown_url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[SignalingConnection]:
    """Connect to the relay at `url` and hear its greeting; `shown_url` is the same without its secrets, `tls` for wss:// URLs.

    Yields the connection and closes it in the end. Raises `RelayUnreachable`, or `Refused`.
    """
    opened = False
    try:
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            relay = await _open(nursery, stack, url, shown_url, tls)
            opened = True
            nursery.start_soon(relay.keep_alive)
            try:
                yield relay
            finally:
                await relay.close()
                nursery.cancel_scope.cancel()
    except* Ending:
        raise
    except* Exception as group:  # what is no relay may answer anything, and the libraries raise as many things
        if opened:
            raise
        brings_token = "token" in parse_qs(urlsplit(url).query)
        raise _unreachable(shown_url, _first(group), brings_token=brings_token) from None


async def _open(
    nursery: trio.Nursery, stack: AsyncExitStack, url: str, shown_url: str, tls: ssl.SSLContext | None
) -> SignalingConnection:
    with trio.move_on_after(DIAL_SECONDS):
        socket = await _open_socket(nursery, stack, url, tls)
        greeting = await _greeting(socket)
        if greeting is None:
            raise RelayUnreachable(
                "not_a_relay", f"What answers at {shown_url} is no sdpx relay: it did not say 'your_id' first"
            )
        return SignalingConnection(socket, greeting, nursery)
    raise RelayUnreachable("relay_unreachable", f"The relay at {shown_url} did not answer within {DIAL_SECONDS:.0f} s")


async def _open_socket(
    nursery: trio.Nursery, stack: AsyncExitStack, url: str, tls: ssl.SSLContext | None
) -> WebSocketConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    stream: ByteStream
    if parts.scheme == "wss":
        context = tls or client_context()
        stream = await trio.open_ssl_over_tcp_stream(host, port, ssl_context=context, https_compatible=True)
    else:
        stream = await trio.open_tcp_stream(host, port)
    stack.push_async_callback(trio.aclose_forcefully, stream)  # the library leaves a stream that broke open
    if isinstance(stream, trio.SSLStream):
        await stream.do_handshake()  # in the library's hands its failure would be a silence
    watched = _Watched(stream)
    nursery.start_soon(_fail_when_ended, watched, fails := trio.CancelScope())
    socket = await wrap_client_stream(
        nursery,
        watched,  # type: ignore[arg-type]  # any stream will do
        parts.netloc.rpartition("@")[2],
        f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
        subprotocols=[PROTOCOL],
        max_message_size=MAX_MESSAGE,
        receive_buffer_size=64 * 1024,
    )
    fails.cancel()
    return socket


async def _fail_when_ended(watched: _Watched, scope: trio.CancelScope) -> None:
    with scope:
        await watched.ended.wait()
        raise HandshakeError("it closed the connection before the WebSocket was open")


async def _greeting(socket: WebSocketConnection) -> YourId | None:
    frame = await socket.get_message()
    try:
        message = messages.parse_server(frame) if isinstance(frame, str) else None
    except Refusal:
        return None
    return message if isinstance(message, YourId) else None


def _unreachable(url: str, error: BaseException, *, brings_token: bool) -> Ending:
    if isinstance(error, ConnectionRejected):
        return _rejected(url, error, "" if brings_token else " (--token or SDPX_TOKEN)")
    if isinstance(error, ConnectionClosed):
        return RelayUnreachable("relay_unreachable", f"The relay at {url} closed the connection at once")
    return RelayUnreachable("relay_unreachable", f"Cannot reach the relay at {url}: {_words(error)}")


def _words(error: BaseException) -> str:
    if words := words_of(error):
        return words
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):  # one for each address that was tried
        return "; ".join(dict.fromkeys(_plain_words(each) for each in cause.exceptions))
    return _plain_words(error)


def _plain_words(error: BaseException) -> str:
    """Return what the system says: not its number, nor the address, which stands in the URL."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: does a relay run there?"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errorcode:
        return strerror(error.errno)
    words = error.strerror if isinstance(error, gaierror) else None
    return words or str(error) or type(error).__name__


def _rejected(url: str, error: ConnectionRejected, hint: str) -> Ending:
    """Return the relay's own words (PROTOCOL: error codes), or the status of something that is no relay.

    `hint` is how to give a token, for who brought none.
    """
    try:
        body = msgspec.json.decode(error.body or b"", type=dict[str, object])
        code = str(body["code"])
        return Refused(code, f"The relay at {url} refused: {body['message']}{hint if code == 'unauthorized' else ''}")
    except (msgspec.DecodeError, KeyError):
        return RelayUnreachable("relay_unreachable", f"What answers at {url} is no relay: HTTP {error.status_code}")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
