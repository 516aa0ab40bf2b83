"""Client IDs: what the relay makes, and which names a client may ask for."""

import re
from collections.abc import Callable
from typing import Final

# No 0 o 1 i l: an ID is read aloud, typed from a screen and pasted. 31 ** 17 is over 2 ** 84.
ALPHABET: Final = b"23456789abcdefghjkmnpqrstuvwxyz"
LENGTH: Final = 17
# A random byte gives each letter as often as any other, but for the last few, which are not taken.
_LETTERS: Final = bytes(ALPHABET[byte % len(ALPHABET)] for byte in range(256))
_SURPLUS: Final = bytes(range(256 - 256 % len(ALPHABET), 256))

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def make_id(random_bytes: Callable[[int], bytes]) -> str:
    """Return an unguessable ID; `random_bytes(n)` gives n of them, uniform and unpredictable."""
    letters = b""
    while len(letters) < LENGTH:
        letters += random_bytes(LENGTH + 7).translate(_LETTERS, _SURPLUS)
    return letters[:LENGTH].decode()


def is_name(text: str) -> bool:
    """Tell whether a client may have `text` as its ID: 1 to 64 of letters, digits, `-_.`."""
    return _NAME.fullmatch(text) is not None
