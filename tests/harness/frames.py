"""WebSocket frames and upgrade requests written and read by hand (RFC 6455), for clients that may violate the protocol."""

import json
from typing import Any, Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
MASK: Final = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, mask: bytes = MASK) -> bytes:
    """Return a frame (RFC 6455, 5.2) with the shortest form of its length."""
    size = len(payload)
    extended = b"" if size <= 125 else size.to_bytes(2) if size < 1 << 16 else size.to_bytes(8)
    short = {0: size, 2: 126, 8: 127}[len(extended)]
    head = bytes([0x80 * fin | opcode, 0x80 * masked | short]) + extended
    if not masked:
        return head + payload
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return head + mask + (int.from_bytes(payload) ^ key).to_bytes(size)


def message(**keys: Any) -> bytes:
    """Return a client's text frame with this JSON object, masked with zeros."""
    return frame(TEXT, json.dumps(keys).encode(), mask=bytes(4))


def upgrade_request(target: str = "/") -> bytes:
    """Return the request that opens a WebSocket."""
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: relay.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


class FrameReader:
    """Reads a server's frames out of bytes; only complete frames are removed from `data`."""

    def __init__(self) -> None:
        self.data = bytearray()

    def next_head(self) -> str | None:
        """Remove and return the head of an HTTP response, once it is complete."""
        head, end, rest = self.data.partition(b"\r\n\r\n")
        if not end:
            return None
        self.data = rest
        return head.decode()

    def next_frame(self) -> tuple[int, bytes] | None:
        """Remove a frame and return its opcode and payload, once it is complete."""
        data = self.data
        if len(data) < 2:
            return None
        start = 2 + {126: 2, 127: 8}.get(data[1], 0)
        end = start + (int.from_bytes(data[2:start]) if start > 2 else data[1])
        if len(data) < max(start, end):
            return None
        opcode, payload = data[0] & 0x0F, bytes(data[start:end])
        del data[:end]
        return opcode, payload
