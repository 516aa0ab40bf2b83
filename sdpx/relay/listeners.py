"""Where connections come from: listeners on every address of a host, and a loop that outlives a lack of descriptors."""

import errno
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from sdpx.errors import CannotListen
from sdpx.events import Event, serve

BACKLOG: Final = 1024
PORT_TRIES: Final = 10
# Bounds what the kernel keeps for a client that does not read, so that its outbox fills, and tells.
SEND_BUFFER_BYTES: Final = 128 * 1024
SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
NO_LISTENER: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT})
RETRY_SECONDS: Final = 0.1
COMPLAIN_SECONDS: Final = 10.0

Handler = Callable[[trio.abc.Stream], Awaitable[None]]


def raise_file_limit() -> int:
    """Let the relay have as many sockets as the system grants (the soft limit is often 1024); returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def accept(
    listener: trio.SocketListener, handle: Handler, clients: trio.Nursery, tell: Callable[[Event], None]
) -> None:
    """Accept connections for ever and start `handle` on each in `clients`.

    While the system has no descriptor or memory for one more, it complains now and then and tries again: new connections
    wait in the backlog. Other errors are those of one connection that was lost before it was accepted (accept(2)).
    """
    quiet_until = trio.current_time()
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            if error.errno in NO_LISTENER:
                raise
            if error.errno not in SHORTAGE:
                continue
            if trio.current_time() >= quiet_until:
                tell(serve.AcceptFailed(os.strerror(error.errno or 0)))
                quiet_until = trio.current_time() + COMPLAIN_SECONDS
            await trio.sleep(RETRY_SECONDS)
        else:
            clients.start_soon(handle, stream)


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on every address of `host`; with port 0 the port that the first one gets serves for all.

    Raises `CannotListen`.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise CannotListen("cannot_listen", f"Cannot listen on '{host}': no such address here ({error})") from None
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    for tries_left in reversed(range(PORT_TRIES if port == 0 else 1)):
        try:
            return await _open_all(addresses, port)
        except OSError as error:
            if not tries_left:
                raise CannotListen("cannot_listen", f"Cannot listen on {host}:{port}: {error}") from None
    raise AssertionError


async def _open_all(addresses: Sequence[str], port: int) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    try:
        for address in addresses:
            listeners += await trio.open_tcp_listeners(port, host=address, backlog=BACKLOG)
            port = port or listeners[0].socket.getsockname()[1]
        for listener in listeners:  # what it accepts inherits it
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def place_of(listener: trio.SocketListener) -> tuple[str, str, int]:
    """Return where it listens: `host:port` as in a URL, the host and the port."""
    host, port = listener.socket.getsockname()[:2]
    return f"{_bracketed(host)}:{port}", host, port


def remote_of(stream: trio.abc.Stream) -> str:
    """Return a client's address, as `host:port`, or `unknown` where the socket has lost it."""
    try:
        host, port = stream.socket.getpeername()[:2]  # type: ignore[attr-defined]  # an AttributeError is caught
    except (OSError, AttributeError):
        return "unknown"
    return f"{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
