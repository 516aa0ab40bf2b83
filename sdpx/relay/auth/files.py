"""Files that hold keys: read whole, with a bound, and with a sentence for whatever is wrong with one."""

from pathlib import Path
from typing import Final

LARGEST: Final = 1024 * 1024
SECRET_BYTES: Final = 32  # RFC 7518, 3.2: no shorter than what SHA-256 makes


class BadFile(Exception):
    """A file cannot be used: which, and why. What is in it is not told."""

    def __init__(self, path: Path, flaw: str) -> None:
        super().__init__(f"'{path}' {flaw}")


def read_bytes(path: Path) -> bytes:
    """Return what is in a file; raises `BadFile`."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise BadFile(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST:
        raise BadFile(path, "is larger than 1 MiB")
    return data


def read_secret(path: Path) -> bytes:
    """Return the secret in a file, without the white space around it; raises `BadFile`."""
    secret = read_bytes(path).strip()
    if not secret:
        raise BadFile(path, "is empty; `openssl rand -base64 48` makes a secret")
    return secret
