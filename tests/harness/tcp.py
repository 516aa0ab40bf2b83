"""TCP connections that end by a reset (RST)."""

import socket
import struct
from typing import Final

import trio

_NO_LINGER: Final = struct.pack("ii", 1, 0)


def reset_on_close(stream: trio.SocketStream) -> None:
    """Make the close of a connection a reset: the socket does not linger (socket(7), SO_LINGER)."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def reset(stream: trio.SocketStream) -> None:
    """Close a connection by a reset, unless it is closed already."""
    if stream.socket.fileno() != -1:
        reset_on_close(stream)
        stream.socket.close()
