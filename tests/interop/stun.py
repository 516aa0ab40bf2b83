"""A STUN server (RFC 8489) that answers Binding requests, so that `sdpx peer` has something to trickle.

It tells everybody of the address 127.0.0.1: a candidate of its own beside the host candidates, that leads nowhere.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MAGIC: Final = 0x2112A442
BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101
XOR_MAPPED_ADDRESS: Final = 0x0020
IPV4: Final = 1
SEEN: Final = 0x7F000001


def answer(request: bytes, port: int) -> bytes | None:
    """Return the answer to a Binding request that came from this port."""
    kind, _, magic = struct.unpack_from("!HHI", request)
    if kind != BINDING_REQUEST or magic != MAGIC:
        return None
    mapped = struct.pack("!HHBBHI", XOR_MAPPED_ADDRESS, 8, 0, IPV4, port ^ (MAGIC >> 16), SEEN ^ MAGIC)
    return struct.pack("!HHI", BINDING_SUCCESS, len(mapped), MAGIC) + request[8:20] + mapped


@contextmanager
def stun_server() -> Iterator[str]:
    """Run it on a free port of 127.0.0.1; yields its URL."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        here = server.getsockname()
        thread = threading.Thread(target=_serve, args=(server,))
        thread.start()
        try:
            yield f"stun:127.0.0.1:{here[1]}"
        finally:
            server.sendto(b"", here)  # which ends it
            thread.join()


def _serve(server: socket.socket) -> None:
    while True:
        request, address = server.recvfrom(2048)
        if not request:
            return
        if len(request) >= 20 and (reply := answer(request, address[1])):
            server.sendto(reply, address)
