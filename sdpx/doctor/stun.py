"""Messages of STUN (RFC 8489) and TURN (RFC 8656), as far as a check needs them. Pure."""

import hmac
import struct
from collections.abc import Iterable
from hashlib import md5, sha1
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from msgspec import Struct

COOKIE: Final = 0x2112A442
HEADER: Final = struct.Struct("!HHI12s")
TRANSACTION_BYTES: Final = 12

# Methods with their class (RFC 8489, 5): request 0x000, indication 0x010, success 0x100, error 0x110.
BINDING: Final = 0x001
ALLOCATE: Final = 0x003
REFRESH: Final = 0x004
CREATE_PERMISSION: Final = 0x008
SEND_INDICATION: Final = 0x016
DATA_INDICATION: Final = 0x017
SUCCESS: Final = 0x100
ERROR: Final = 0x110

# Attributes (RFC 8489, 14; RFC 8656, 18).
USERNAME: Final = 0x0006
MESSAGE_INTEGRITY: Final = 0x0008
ERROR_CODE: Final = 0x0009
LIFETIME: Final = 0x000D
XOR_PEER_ADDRESS: Final = 0x0012
DATA: Final = 0x0013
REALM: Final = 0x0014
NONCE: Final = 0x0015
XOR_RELAYED_ADDRESS: Final = 0x0016
REQUESTED_TRANSPORT: Final = 0x0019
XOR_MAPPED_ADDRESS: Final = 0x0020
UDP: Final = b"\x11\0\0\0"

Address = tuple[str, int]
Attributes = Iterable[tuple[int, bytes]]


class Message(Struct, frozen=True):
    """A received message; of an attribute that comes several times the first one counts."""

    kind: int
    transaction: bytes
    attributes: dict[int, bytes]

    def address(self, attribute: int) -> Address | None:
        """Return the value of an address attribute."""
        value = self.attributes.get(attribute, b"")
        return _decode_address(value, self.transaction)

    @property
    def error(self) -> tuple[int, str]:
        """The error code and its reason; (0, "") without one."""
        value = self.attributes.get(ERROR_CODE, b"")
        if len(value) < 4:  # noqa: PLR2004  code and padding
            return 0, ""
        return (value[2] & 7) * 100 + value[3], value[4:].decode(errors="replace")[:100]


def encode(kind: int, transaction: bytes, attributes: Attributes = (), key: bytes = b"") -> bytes:
    """Return a message; with a `key` it ends with MESSAGE-INTEGRITY (RFC 8489, 14.5)."""
    body = b"".join(_attribute(number, value) for number, value in attributes)
    if key:
        covered = HEADER.pack(kind, len(body) + 24, COOKIE, transaction) + body
        body += _attribute(MESSAGE_INTEGRITY, hmac.digest(key, covered, sha1))
    return HEADER.pack(kind, len(body), COOKIE, transaction) + body


def decode(data: bytes) -> Message | None:
    """Return the message in a datagram; None if it is none."""
    if len(data) < HEADER.size:
        return None
    kind, length, cookie, transaction = HEADER.unpack_from(data)
    if cookie != COOKIE or kind & 0xC000 or length % 4 or len(data) != HEADER.size + length:
        return None
    attributes: dict[int, bytes] = {}
    at = HEADER.size
    while at + 4 <= len(data):
        number, size = struct.unpack_from("!HH", data, at)
        if at + 4 + size > len(data):
            return None
        attributes.setdefault(number, data[at + 4 : at + 4 + size])
        at += 4 + size + -size % 4
    return Message(kind, transaction, attributes)


def message_size(head: bytes) -> int:
    """Return the size of a message on a stream from its first 4 bytes (RFC 8489, 6.2.2)."""
    return HEADER.size + int.from_bytes(head[2:4])


def long_term_key(username: str, realm: bytes, password: str) -> bytes:
    """Return the key of long-term credentials (RFC 8489, 9.2.2)."""
    return md5(b":".join([username.encode(), realm, password.encode()]), usedforsecurity=False).digest()


def encode_address(address: Address, transaction: bytes) -> bytes:
    """Return the value of an XOR address attribute (RFC 8489, 14.2)."""
    host = ip_address(address[0])
    mask = _mask(transaction)[: len(host.packed)]
    family = 1 if host.version == 4 else 2  # noqa: PLR2004
    packed = bytes(a ^ b for a, b in zip(host.packed, mask, strict=True))
    return struct.pack("!xBH", family, address[1] ^ COOKIE >> 16) + packed


def _decode_address(value: bytes, transaction: bytes) -> Address | None:
    if len(value) not in (8, 20):
        return None
    port = int.from_bytes(value[2:4]) ^ COOKIE >> 16
    packed = bytes(a ^ b for a, b in zip(value[4:], _mask(transaction), strict=False))
    host = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)  # noqa: PLR2004
    return str(host), port


def _mask(transaction: bytes) -> bytes:
    return COOKIE.to_bytes(4) + transaction


def _attribute(number: int, value: bytes) -> bytes:
    return struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)
