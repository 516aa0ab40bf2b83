"""Where connections come from: listeners on every address of a host, and a loop that outlives a lack of descriptors."""

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import trio

from sdpx.errors import CannotListen
from sdpx.events import Event, serve
from sdpx.relay.websocket.socket_stream import CLOSED, SocketStream

BACKLOG: Final = 1024
BATCH: Final = 32  # connections that are taken before other tasks get a turn
PORT_TRIES: Final = 10
# Bounds what the kernel keeps for a client that does not read, so that its outbox fills, and tells.
SEND_BUFFER_BYTES: Final = 128 * 1024
SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
NO_LISTENER: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP, errno.EFAULT})
RETRY_SECONDS: Final = 0.1
COMPLAIN_SECONDS: Final = 10.0


def raise_file_limit() -> int:
    """Let the relay have as many sockets as the system grants (the soft limit is often 1024); returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def accept(
    listener: "Listener", take: Callable[[Iterator[SocketStream]], None], tell: Callable[[Event], None]
) -> None:
    """Accept connections for ever and let `take` have those that are there.

    While the system has no descriptor or memory for one more, it complains now and then and tries again: new connections
    wait in the backlog. Other errors are those of one connection that was lost before it was accepted (accept(2)).
    """
    quiet_until = trio.current_time()
    while True:
        try:
            take(listener.accept_now())
            await listener.wait()
        except OSError as error:
            if error.errno in NO_LISTENER:
                raise
            if error.errno not in SHORTAGE:
                await trio.lowlevel.checkpoint()
                continue
            if trio.current_time() >= quiet_until:
                tell(serve.AcceptFailed(os.strerror(error.errno or 0)))
                quiet_until = trio.current_time() + COMPLAIN_SECONDS
            await trio.sleep(RETRY_SECONDS)


async def open_listeners(host: str, port: int) -> "list[Listener]":
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


async def _open_all(addresses: Sequence[str], port: int) -> list["Listener"]:
    listeners: list[Listener] = []
    try:
        for address in addresses:
            listeners.append(Listener(_listening_socket(address, port)))
            port = port or listeners[0].socket.getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def _listening_socket(address: str, port: int) -> socket.socket:
    """Listen; what is accepted inherits the options."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


class Listener(trio.abc.Listener[SocketStream]):
    """A listening socket whose connections are links."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def accept_now(self) -> Iterator[SocketStream]:
        """Yield the connections that are there, some at most; raises `OSError` if the system has none to give."""
        for _ in range(BATCH):
            try:
                sock, address = self.socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            yield SocketStream(sock, _place(address))

    async def wait(self) -> None:
        """Wait until there is a connection; raises `ClosedResourceError`."""
        await trio.lowlevel.wait_readable(self.socket)

    async def accept(self) -> SocketStream:
        """Wait for a connection; raises `OSError` if the system has none to give, and `ClosedResourceError`."""
        await trio.lowlevel.checkpoint()
        while True:
            for link in self.accept_now():
                return link
            await self.wait()

    async def aclose(self) -> None:
        """Listen no more."""
        if self.socket.fileno() != CLOSED:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
        await trio.lowlevel.checkpoint()


def place_of(listener: Listener) -> tuple[str, str, int]:
    """Return where it listens: `host:port` as in a URL, the host and the port."""
    address = listener.socket.getsockname()
    return _place(address), address[0], address[1]


def remote_of(stream: trio.abc.Stream) -> str:
    """Return a client's address, as `host:port`, or `unknown` where it has none."""
    remote = getattr(stream, "remote", None)
    return remote if isinstance(remote, str) else "unknown"


def _place(address: Sequence[Any]) -> str:
    return f"{_bracketed(address[0])}:{address[1]}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
