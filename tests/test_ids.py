"""Client IDs: generated and requested ones."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.ids import ALPHABET, LENGTH, id_of, is_name, make_id, validate_id


def test_alphabet_has_no_ambiguous_letters() -> None:
    """0, o, 1, i and l are left out, and case does not matter."""
    assert not set(b"01oil") & set(ALPHABET)
    assert ALPHABET.lower() == ALPHABET
    assert len(set(ALPHABET)) == len(ALPHABET)


def test_id_has_more_than_80_bits_of_entropy() -> None:
    assert len(ALPHABET) ** LENGTH > 2**80


def drawn(data: bytes) -> Callable[[int], bytes]:
    """Return a source of random bytes that starts with `data` and continues with the byte of the last letter."""
    left = bytearray(data)

    def draw(count: int) -> bytes:
        taken = bytes(left[:count]).ljust(count, b"\x1e")
        del left[:count]
        return taken

    return draw


@given(st.binary(max_size=100))
def test_generated_id_is_valid_and_has_fixed_length(data: bytes) -> None:
    made = make_id(drawn(data))
    assert len(made) == LENGTH
    assert is_name(made)


def test_every_letter_has_the_same_probability() -> None:
    """Each letter has the same number of byte values; the surplus values are discarded."""
    letters = Counter(make_id(drawn(bytes([byte]) * 24))[0] for byte in range(248))
    assert set(letters) == set(ALPHABET.decode())
    assert set(letters.values()) == {8}
    assert make_id(drawn(bytes(range(248, 256)) * 3)) == "z" * LENGTH


@pytest.mark.parametrize("name", ["a", "A", "7", "robot-1", "a.b_c-D", ".", "-", "x" * 64])
def test_valid_requested_id(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "é", "٣", "a\n", "\x00", "a:b", "%61"])
def test_invalid_requested_id(name: str) -> None:
    assert not is_name(name)


@pytest.mark.parametrize(
    ("name", "mapped"),
    [
        ("robot-1.arm_2", "robot-1.arm_2"),
        ("auth0|64b0", "auth0_x7C64b0"),
        ("bob@example.com", "bob_x40example.com"),
        ("José", "Jos_xC3_xA9"),
        ("a_x40b", "a_x5Fx40b"),
        ("a_xylophone", "a_xylophone"),
    ],
)
def test_name_of_an_identity_provider_is_mapped_to_an_id(name: str, mapped: str) -> None:
    assert id_of(name) == mapped


@given(st.text(alphabet="_x5F40|@a", max_size=12), st.text(alphabet="_x5F40|@a", max_size=12))
def test_different_names_have_different_ids(first: str, second: str) -> None:
    assert (id_of(first) == id_of(second)) is (first == second)


def test_error_for_a_name_of_an_identity_provider_shows_its_id() -> None:
    assert "bob_x40example.com" in (validate_id("bob@example.com") or "")
