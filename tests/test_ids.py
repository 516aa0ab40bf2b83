"""Client IDs: what the relay makes, and which names a client may ask for."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.ids import ALPHABET, LENGTH, is_name, make_id


def test_an_id_leaves_out_what_people_misread() -> None:
    """No 0, o, 1, i or l: an ID is read aloud and typed from a screen."""
    assert not set(b"01oil") & set(ALPHABET)
    assert ALPHABET.lower() == ALPHABET
    assert len(set(ALPHABET)) == len(ALPHABET)


def test_there_are_too_many_ids_to_guess_one() -> None:
    """The space of IDs is over 2 ** 80."""
    assert len(ALPHABET) ** LENGTH > 2**80


def drawn(data: bytes) -> Callable[[int], bytes]:
    """Return random bytes that begin with these, and go on with what makes the last letter."""
    left = bytearray(data)

    def draw(count: int) -> bytes:
        taken = bytes(left[:count]).ljust(count, b"\x1e")
        del left[:count]
        return taken

    return draw


@given(st.binary(max_size=100))
def test_every_id_is_a_name_of_the_same_length(data: bytes) -> None:
    """Whatever is drawn, the ID is one that a client could ask for."""
    made = make_id(drawn(data))
    assert len(made) == LENGTH
    assert is_name(made)


def test_every_letter_is_as_likely_as_any_other() -> None:
    """Of the 256 bytes each letter has the same number, and the rest is not taken."""
    letters = Counter(make_id(drawn(bytes([byte]) * 24))[0] for byte in range(248))
    assert set(letters) == set(ALPHABET.decode())
    assert set(letters.values()) == {8}
    assert make_id(drawn(bytes(range(248, 256)) * 3)) == "z" * LENGTH


@pytest.mark.parametrize("name", ["a", "A", "7", "robot-1", "a.b_c-D", ".", "-", "x" * 64])
def test_a_name_is_1_to_64_of_letters_digits_and_three_signs(name: str) -> None:
    """These a client may have."""
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "é", "٣", "a\n", "\x00", "a:b", "%61"])
def test_nothing_else_is_a_name(name: str) -> None:
    """These a client may not have."""
    assert not is_name(name)
