"""No name of the other side leads outside the directory, or to something that is no file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.transfer.paths import MAX_COMPONENT, UnsafeName, components, part_name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"", "component ''"),
        (b"/etc/passwd", "absolute"),
        (b"..", r"component '\.\.'"),
        (b"a/../../b", r"component '\.\.'"),
        (b"a//b", "component ''"),
        (b"a/", "component ''"),
        (b"./a", r"component '\.'"),
        (b"a\0b", "NUL"),
        (b"x" * 300, "300 bytes"),
        (b"a/" * 2000 + b"a", "path has 4001 bytes"),
        (b"a/" * 1000 + b"a", "path has 1001 components"),
        (b"CON", "device"),
        (b"a/nul/b", "device"),
        (b"com7", "device"),
    ],
)
def test_name_that_is_unsafe_is_refused(name: bytes, reason: str) -> None:
    with pytest.raises(UnsafeName, match=reason):
        components(name)


@pytest.mark.parametrize("name", [b"a", b"a/b/c", b"..a", b"a..", b"aux.c", b"-rf", b"\xff\xfe", b"a\nb", b"x" * 255])
def test_unusual_name_is_taken_as_it_is(name: bytes) -> None:
    assert b"/".join(components(name)) == name


@given(st.binary(max_size=300))
def test_accepted_name_stays_below_its_directory(name: bytes) -> None:
    try:
        parts = components(name)
    except UnsafeName:
        return
    assert not {b"", b".", b".."} & set(parts)
    assert not any(b"/" in part or b"\0" in part for part in parts)


@given(st.binary(min_size=1, max_size=255), st.binary(min_size=1, max_size=255))
def test_name_of_an_incomplete_file_is_distinct_and_not_too_long(a: bytes, b: bytes) -> None:
    assert len(part_name(a)) <= MAX_COMPONENT
    assert part_name(a) != a
    assert part_name(a).endswith(b".part")
    assert a == b or part_name(a) != part_name(b)
