"""Reads files that contain secrets, keys and certificates: bounded in size, without quoting their contents."""

import codecs
from pathlib import Path
from typing import Final

from sdpx.errors import describe_os_error

MAX_BYTES: Final = 1024 * 1024
_BYTE_ORDER_MARKS: Final = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class BadFile(Exception):
    """A file cannot be used. The message names the file and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"'{path}' {reason}")


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file; raises `BadFile`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise BadFile(path, f"cannot be read: {describe_os_error(error)}") from None
    if len(data) > MAX_BYTES:
        raise BadFile(path, "is larger than 1 MiB")
    return _without_byte_order_mark(data)


def _without_byte_order_mark(data: bytes) -> bytes:
    """Return text that an editor saved with a byte order mark as UTF-8 without one; random bytes stay as they are."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                return data
            return text.encode() if encoding == "utf-8-sig" or text.isascii() else data
    return data


def read_secret(path: Path) -> bytes:
    """Return the secret in a file, without surrounding white space; raises `BadFile`."""
    secret = read_bytes(path).strip()
    if not secret:
        raise BadFile(path, "is empty; `openssl rand -base64 48` makes a secret")
    return secret
