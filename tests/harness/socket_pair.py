"""Connections within one process, over `socket.socketpair`: the relay gets the `SocketStream` of production.

Bytes arrive within the call that sends them, and Trio looks at readable descriptors before an autojump clock jumps: tests
with these connections are as deterministic as with streams in memory.
"""

import socket
import termios
from contextlib import suppress
from fcntl import ioctl
from typing import Final

from sdpx.relay.websocket.socket_stream import SocketStream

NARROW: Final = 16  # bytes: next to nothing of a frame
KERNELS_LEAST: Final = 4096  # bytes of room below which the kernel's own bound (SO_SNDBUF) is too coarse


class NarrowStream(SocketStream):
    """A stream that takes no more while `room` bytes, two at least, wait to be read at its other end.

    The kernel says so, too: with the least SO_SNDBUF there is, a Unix socket is not writable (poll(2)) as long as two pieces
    of data lie unread, however small they are. So whatever is sent is sent in two pieces.
    """

    def __init__(self, sock: socket.socket, remote: str, far_end: socket.socket, room: int) -> None:
        super().__init__(sock, remote)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self._far_end = far_end
        self._room = room

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        if self._far_end.fileno() < 0:
            return super().send_now(data)
        taken = memoryview(data)[: max(0, self._room - unread(self._far_end))]
        first = super().send_now(taken[:1]) if taken else 0
        return first + (super().send_now(taken[1:]) if first and taken[1:] else 0)


def unread(sock: socket.socket) -> int:
    """Return how many bytes can be received."""
    return int.from_bytes(ioctl(sock, termios.FIONREAD, bytes(4)), "little")


def socket_pair(room: int | None = None, remote: str = "client:0") -> tuple[SocketStream, SocketStream]:
    """Return a client's end and the relay's; `room` bytes fit on the way to the client, by default what the system gives."""
    client, relay = socket.socketpair()
    if room is None or room >= KERNELS_LEAST:
        if room is not None:
            relay.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        return SocketStream(client), SocketStream(relay, remote)
    return SocketStream(client), NarrowStream(relay, remote, client, room)


def reset(stream: SocketStream, far_end: SocketStream) -> None:
    """Close a stream so that its far end sees ECONNRESET: a Unix socket does so if something lies unread (unix(7))."""
    with suppress(OSError):
        far_end.socket.send(b"\0")
    stream.close()
