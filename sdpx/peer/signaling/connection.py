"""One WebSocket to the relay (RFC 6455): dial, TLS, frames in and out.

- A dial succeeds when the WebSocket is open and `your_id` has been received, within `DIAL_SECONDS`.
- One task writes: a sender that is cancelled cannot leave half a frame on the wire.
- A lost connection is detected by unanswered pings, and by frames that the relay does not acknowledge.
- A close frame ends the client's session at the relay; without one the relay keeps the session (PROTOCOL: Resume).
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import h11
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
from wsproto.utilities import ProtocolError

from sdpx.client_tls import ByteStream, client_context, describe_connect_failure, open_stream
from sdpx.concurrency import leaf_exceptions, map_exceptions
from sdpx.errors import Ending, ExitStatus, Refusal
from sdpx.ids import is_name
from sdpx.peer.signaling.reliable_channel import ReliableChannel
from sdpx.protocol import codec
from sdpx.protocol.messages import PROTOCOL, YourId
from sdpx.urls import endpoint, redirected_relay_url

MAX_QUOTED: Final = 300  # characters of an answer
DIAL_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 1.0
CANCELLED_SECONDS: Final = 0.1  # for the close frame to be written
WRITE_SECONDS: Final = 15.0
PING_SECONDS: Final = 10.0
PONG_SECONDS: Final = 10.0
GATEWAY_ERRORS: Final = (502, 503, 504, *range(520, 525))  # the last ones are Cloudflare's
REDIRECTION: Final = 3  # the first digit of the status
# The relay limits the size of frames that it receives; those that it relays are a little longer.
MAX_MESSAGE: Final = 1024 * 1024


class SignalingConnection:
    """An open WebSocket to a relay; `your_id` is the relay's first frame."""

    def __init__(self, socket: WebSocketConnection, your_id: YourId, nursery: trio.Nursery) -> None:
        self.your_id = your_id
        self._socket = socket
        self._nursery = nursery
        self._dropped = False

    def write_from(self, channel: ReliableChannel) -> None:
        """Start to write the frames of `channel`, until the connection ends. To be called once."""
        self._nursery.start_soon(self._write, channel)

    async def _write(self, channel: ReliableChannel) -> None:
        while (frame := await channel.next_frame()) is not None:
            text, client_seq = frame
            with trio.move_on_after(WRITE_SECONDS) as deadline:
                try:
                    await self._socket.send_message(text)
                except ConnectionClosed:
                    return
            if deadline.cancelled_caught:  # half a frame is on the wire
                break
            if client_seq:
                channel.mark_written(client_seq)
        await self.drop()

    async def receive(self) -> str | None:
        """Wait for the relay's next frame; None once the connection is closed, see `close_reason`."""
        while True:
            try:
                frame = await self._socket.get_message()
            except ConnectionClosed:
                return None
            if isinstance(frame, str) and not self._dropped:
                return frame

    async def send(self, text: str) -> None:
        """Send a frame; not to be used together with `write_from`. Raises `ConnectionClosed`."""
        await self._socket.send_message(text)

    async def ping(self) -> None:
        """Send a ping and wait for its pong (RFC 6455, 5.5.2). Raises `ConnectionClosed`."""
        await self._socket.ping()

    @property
    def response_headers(self) -> dict[str, str]:
        """The headers of the response that opened the WebSocket, by lower-case names."""
        return {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._socket.handshake_headers
        }

    @property
    def close_reason(self) -> CloseReason | None:
        """The close code and reason, once there are any; None for a connection that this side dropped."""
        return None if self._dropped else self._socket.closed

    async def keep_alive(self) -> None:
        """Ping the relay, and drop the connection when a pong is missing."""
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
        """Close the socket without a close frame: the relay keeps a resumable session."""
        self._dropped = True
        with trio.CancelScope() as scope:
            scope.cancel()
            await self._socket.aclose()

    async def close(self, code: int = 1000) -> None:
        """Send a close frame and wait for the relay's, for `CLOSE_SECONDS` at most (RFC 6455, 7.1.2).

        A caller that is cancelled does not wait: the task that would receive the relay's frame is cancelled, too.
        """
        is_cancelled = trio.current_effective_deadline() < trio.current_time()
        with trio.move_on_after(CANCELLED_SECONDS if is_cancelled else CLOSE_SECONDS, shield=True):
            await self._socket.aclose(code)


# ---- dial -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def dial(
    url: str,
    shown_url: str,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    keeps_alive: bool = True,
) -> AsyncIterator[SignalingConnection]:
    """Connect to the relay at `url` and receive `your_id`; `shown_url` is `url` without secrets, `tls` is for wss:// URLs.

    Yields the connection, and closes it at the end. Raises an `Ending`.
    """
    opened = False
    has_token = bool(headers) or "token" in parse_qs(urlsplit(url).query)
    # Another server may answer anything, and the libraries raise as many exceptions.
    with map_exceptions(Exception, lambda group: _explain(group, shown_url, has_token=has_token, opened=opened)):
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            with trio.fail_after(DIAL_SECONDS):
                context = (tls or client_context()) if urlsplit(url).scheme == "wss" else None
                stream = await open_stream(*endpoint(url), context)  # trio-websocket would hide why TLS failed
                stack.push_async_callback(trio.aclose_forcefully, stream)  # nor does it close a broken stream
                socket = await _open_socket(nursery, stream, url, headers)
                connection = SignalingConnection(socket, await _receive_your_id(socket, shown_url), nursery)
            opened = True
            if keeps_alive:
                nursery.start_soon(connection.keep_alive)
            try:
                yield connection
            finally:
                await connection.close()
                nursery.cancel_scope.cancel()


def _explain(group: BaseExceptionGroup[Any], shown_url: str, *, has_token: bool, opened: bool) -> BaseException:
    """Return the `Ending` of a failed dial, or of a connection; other errors of an opened one as they came."""
    if endings := group.subgroup(Ending):
        return leaf_exceptions(endings)[0]
    error = leaf_exceptions(group)[0]
    if isinstance(error, ProtocolError):  # trio-websocket raises it in its own task
        reason = f"The relay at {shown_url} sent frames that break the WebSocket protocol"
        return Ending("relay_lost", reason, ExitStatus.RELAY)
    return group if opened else _unreachable(shown_url, error, has_token=has_token)


class _EofWatchedStream(trio.abc.Stream):
    """A stream that reports its end: trio-websocket waits forever if that comes before the WebSocket is open."""

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
        except trio.BrokenResourceError:  # trio-websocket does not start to read then
            self.ended.set()
            raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _open_socket(
    nursery: trio.Nursery, stream: ByteStream, url: str, headers: Sequence[tuple[bytes, bytes]]
) -> WebSocketConnection:
    parts = urlsplit(url)
    watched = _EofWatchedStream(stream)
    handshake = trio.CancelScope()

    async def fail_at_eof() -> None:
        with handshake:
            await watched.ended.wait()
            raise HandshakeError("it closed the connection before the WebSocket was open")

    nursery.start_soon(fail_at_eof)
    socket = await wrap_client_stream(
        nursery,
        watched,  # type: ignore[arg-type]  # any stream will do
        parts.netloc.rpartition("@")[2],
        f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
        subprotocols=[PROTOCOL],
        extra_headers=list(headers),
        max_message_size=MAX_MESSAGE,
        receive_buffer_size=64 * 1024,
    )
    handshake.cancel()
    return socket


async def _receive_your_id(socket: WebSocketConnection, shown_url: str) -> YourId:
    frame = await socket.get_message()
    try:
        message = codec.parse_server(frame) if isinstance(frame, str) else None
    except Refusal:
        message = None
    if isinstance(message, YourId) and is_name(message.id):
        return message
    flaw = "it did not send 'your_id' first"
    if isinstance(message, YourId):
        flaw = "its 'your_id' has no ID of 1 to 64 letters, digits, '-', '_' or '.'"
    raise Ending("not_a_relay", f"The server at {shown_url} is not an sdpx relay: {flaw}", ExitStatus.RELAY)


# ---- errors ---------------------------------------------------------------------------------------------------------


def _unreachable(url: str, error: BaseException, *, has_token: bool) -> Ending:
    if isinstance(error, ConnectionRejected):
        return _rejected(url, error, "" if has_token else " (--token or SDPX_TOKEN)")
    if isinstance(error, trio.TooSlowError):
        reason = f"The relay at {url} did not answer within {DIAL_SECONDS:.0f} s"
    elif isinstance(error, ConnectionClosed):
        reason = f"The relay at {url} closed the connection at once"
    elif isinstance(error, h11.ProtocolError):
        reason = f"The server at {url} is not a relay: it opens no WebSocket; check host, port and path of the URL"
    else:
        reason = f"Cannot reach the relay at {url}: {describe_connect_failure(error)}"
    return Ending("relay_unreachable", reason, ExitStatus.RELAY)


def _rejected(url: str, error: ConnectionRejected, hint: str) -> Ending:
    """Return the relay's own error (PROTOCOL: error codes), or the meaning of the HTTP status of another server.

    `hint` says how to give a token, if the request had none.
    """
    status = error.status_code
    location = dict(error.headers or ()).get(b"location", b"").decode("latin-1")
    try:
        body = msgspec.json.decode(error.body or b"", type=dict[str, object])
        code = str(body["code"])[:MAX_QUOTED]
        message = str(body["message"])[:MAX_QUOTED]
        reason = f"The relay at {url} refused: {message}{hint if code == 'unauthorized' else ''}"
        return Ending(code, reason, ExitStatus.REFUSED)
    except (*codec.UNREADABLE, KeyError):
        reason = f"The server at {url} is not a relay: HTTP {status}"
        if status in GATEWAY_ERRORS:
            reason = f"The proxy at {url} answers ({status}), but the relay behind it does not"
            return Ending("relay_unavailable", reason, ExitStatus.RELAY)
        if status // 100 == REDIRECTION and location and (target := redirected_relay_url(url, location)):
            reason = f"The server at {url} redirects ({status}): use --url {target}"
        elif status == HTTPStatus.BAD_REQUEST and url.lower().startswith("ws:"):
            reason += "; if it is a TLS port, use wss://"
        else:
            reason += "; check host, port and path of the URL, and in a proxy the path that it forwards to the relay"
        return Ending("relay_unreachable", reason, ExitStatus.RELAY)
