"""Listening sockets on every address of a host, and the loop that accepts their connections."""

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from sdpx.errors import Ending, describe_os_error
from sdpx.events import Event, serve
from sdpx.relay.websocket.socket_stream import SocketStream
from sdpx.urls import host_port

BACKLOG: Final = 1024
ACCEPT_BATCH: Final = 32  # connections that are accepted before other tasks run
PORT_TRIES: Final = 10
ANY_IPV6: Final = "::"
ANY_IPV4: Final = "0.0.0.0"  # noqa: S104  for --host ::
# A small kernel buffer lets the send queue of a client that does not read fill up, where limits apply.
SEND_BUFFER_BYTES: Final = 128 * 1024
SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
NO_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
NO_LISTENER: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT})
RETRY_SECONDS: Final = 0.1
_HINTS: Final = {
    errno.EADDRINUSE: "; choose another port with --port",
    errno.EACCES: "; ports below 1024 need a privilege, choose another with --port",
}
LOG_INTERVAL: Final = 10.0


def raise_file_limit() -> int:
    """Raise the soft limit of open files, often 1024, to the hard limit; returns the limit that is then in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Listener:
    """A non-blocking listening socket. `host` and `port` are its address, `address` is `host:port` as in a URL."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.host, self.port = sock.getsockname()[:2]
        self.address = host_port(self.host, self.port)

    def accept_now(self) -> Iterator[SocketStream]:
        """Yield the connections that are waiting, `ACCEPT_BATCH` at most; raises `OSError`."""
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = self.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            yield SocketStream(sock, host_port(*address[:2]))

    async def wait(self) -> None:
        """Wait until a connection is waiting."""
        await trio.lowlevel.wait_readable(self.socket)


async def serve_listener(
    listener: Listener, accept: Callable[[Iterator[SocketStream]], None], log: Callable[[Event], None]
) -> None:
    """Pass waiting connections to `accept`, for ever.

    Without a free file descriptor or memory it logs so, every `LOG_INTERVAL`, and tries again; new connections wait in the
    backlog. Other errors concern one connection that was lost before it was accepted (accept(2)).
    """
    log_after = trio.current_time()
    while True:
        try:
            accept(listener.accept_now())
            await listener.wait()
        except OSError as error:
            if error.errno in NO_LISTENER:
                raise
            if error.errno not in SHORTAGE:
                await trio.lowlevel.checkpoint()
                continue
            if trio.current_time() >= log_after:
                log(serve.AcceptFailed(os.strerror(error.errno or 0)))
                log_after = trio.current_time() + LOG_INTERVAL
            await trio.sleep(RETRY_SECONDS)


async def open_listeners(host: str, port: int, *, reuse_port: bool = False) -> list[Listener]:
    """Listen on every address of `host`, `::` being those of IPv4, too; an address of IPv6 may be in brackets.

    With port 0 all use the port that the system gives the first one. `reuse_port` lets other processes use the same port, if
    they ask for it as well. Raises an `Ending`.
    """
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = await trio.socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise Ending(
            "cannot_listen", f"Cannot listen on '{host}': not an address of this host ({describe_os_error(error)})"
        ) from None
    addresses = list(dict.fromkeys(sockaddr for *_, sockaddr in found))
    if addresses[0][0] == ANY_IPV6:
        addresses.append((ANY_IPV4, port))
    for tries_left in reversed(range(PORT_TRIES if port == 0 else 1)):
        try:
            return _listen_on_all(addresses, port, reuse_port=reuse_port)
        except OSError as error:
            if not tries_left:
                reason = f"{describe_os_error(error)}{_HINTS.get(error.errno or 0, '')}"
                place = f"{host}:{port}" if port else host
                raise Ending("cannot_listen", f"Cannot listen on {place}: {reason}") from None
    raise AssertionError


def _listen_on_all(addresses: Sequence[tuple[Any, ...]], port: int, *, reuse_port: bool) -> list[Listener]:
    """Listen on all addresses but those that this host does not have, such as ::1 for localhost; raises `OSError`."""
    listeners: list[Listener] = []
    for address in addresses:
        try:
            own_port = port or (listeners[0].port if listeners else 0)
            listeners.append(Listener(_listening_socket(address, own_port, reuse_port=reuse_port)))
        except OSError as error:
            if error.errno in NO_ADDRESS and (listeners or address != addresses[-1]):
                continue
            for listener in listeners:
                listener.socket.close()
            raise
    return listeners


def _listening_socket(address: tuple[Any, ...], port: int, *, reuse_port: bool) -> socket.socket:
    """Return a listening socket, whose options the accepted sockets inherit; `address` is that of the socket module."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address[0], port, *address[2:]))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
