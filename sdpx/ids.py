"""Client IDs: what the relay makes, and which names a client may ask for."""

import re
from collections.abc import Callable
from typing import Final

# No 0 o 1 i l: an ID is read aloud, typed from a screen and pasted. 31 ** 17 is over 2 ** 84.
ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"
LENGTH: Final = 17

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def make_id(randbelow: Callable[[int], int]) -> str:
    """Return an unguessable ID; `randbelow(n)` gives a uniform random integer in [0, n)."""
    number = randbelow(len(ALPHABET) ** LENGTH)
    letters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[digit])
    return "".join(letters)


def is_name(text: str) -> bool:
    """Tell whether a client may have `text` as its ID: 1 to 64 of letters, digits, `-_.`."""
    return _NAME.fullmatch(text) is not None
