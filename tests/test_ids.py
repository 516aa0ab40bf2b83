"""Client IDs: what the relay makes, and which names a client may ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.ids import ALPHABET, LENGTH, is_name, make_id


def test_an_id_leaves_out_what_people_misread() -> None:
    """No 0, o, 1, i or l: an ID is read aloud and typed from a screen."""
    assert not set("01oil") & set(ALPHABET)
    assert ALPHABET.lower() == ALPHABET
    assert len(set(ALPHABET)) == len(ALPHABET)


def test_there_are_too_many_ids_to_guess_one() -> None:
    """The space of IDs is over 2 ** 80, and the whole of it is drawn from."""
    asked: list[int] = []
    make_id(lambda n: asked.append(n) or 0)  # type: ignore[func-returns-value]
    assert asked == [len(ALPHABET) ** LENGTH]
    assert asked[0] > 2**80


@given(st.integers(0, len(ALPHABET) ** LENGTH - 1))
def test_every_id_is_a_name_of_the_same_length(number: int) -> None:
    """Whatever is drawn, the ID is one that a client could ask for."""
    made = make_id(lambda _: number)
    assert len(made) == LENGTH
    assert is_name(made)


@given(st.sets(st.integers(0, len(ALPHABET) ** LENGTH - 1), min_size=2, max_size=2))
def test_different_draws_make_different_ids(numbers: set[int]) -> None:
    """No two numbers make the same ID: the draw loses nothing."""
    first, second = numbers
    assert make_id(lambda _: first) != make_id(lambda _: second)


@pytest.mark.parametrize("name", ["a", "A", "7", "robot-1", "a.b_c-D", ".", "-", "x" * 64])
def test_a_name_is_1_to_64_of_letters_digits_and_three_signs(name: str) -> None:
    """These a client may have."""
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "é", "٣", "a\n", "\x00", "a:b", "%61"])
def test_nothing_else_is_a_name(name: str) -> None:
    """These a client may not have."""
    assert not is_name(name)
