"""A STUN server (RFC 8489) for tests. It answers every Binding request with the address 127.0.0.1.

The server-reflexive candidate is therefore a new one beside the host candidates, and leads nowhere.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MAGIC_COOKIE: Final = 0x2112A442
BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101
XOR_MAPPED_ADDRESS: Final = 0x0020
IPV4: Final = 1
MAPPED_ADDRESS: Final = 0x7F000001


def binding_response(request: bytes, port: int) -> bytes | None:
    """Return the response to a Binding request from this port; None for any other datagram."""
    if len(request) < 20:
        return None
    kind, _, magic = struct.unpack_from("!HHI", request)
    if kind != BINDING_REQUEST or magic != MAGIC_COOKIE:
        return None
    mapped_port, mapped_address = port ^ (MAGIC_COOKIE >> 16), MAPPED_ADDRESS ^ MAGIC_COOKIE
    attribute = struct.pack("!HHBBHI", XOR_MAPPED_ADDRESS, 8, 0, IPV4, mapped_port, mapped_address)
    return struct.pack("!HHI", BINDING_SUCCESS, len(attribute), MAGIC_COOKIE) + request[8:20] + attribute


@contextmanager
def stun_server(answers: threading.Event | None = None) -> Iterator[str]:
    """Run a server on a free port of 127.0.0.1; yields its URL. It answers nothing before `answers` is set, if given."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
        thread = threading.Thread(target=_serve, args=(server, answers))
        thread.start()
        try:
            yield f"stun:127.0.0.1:{address[1]}"
        finally:
            if answers is not None:
                answers.set()
            server.sendto(b"", address)  # ends the thread
            thread.join()


def _serve(server: socket.socket, answers: threading.Event | None) -> None:
    if answers is not None:
        answers.wait()
    while True:
        request, address = server.recvfrom(2048)
        if not request:
            return
        if response := binding_response(request, address[1]):
            server.sendto(response, address)
