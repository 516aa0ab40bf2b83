"""What the claims of a token allow."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.auth.tokens import (
    LEEWAY_SECONDS,
    BadToken,
    Grant,
    make_claims,
    parse_claims,
    parse_duration,
    validate_pattern,
)

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("claims", "grant"),
    [
        ({}, Grant()),
        ({"sub": "robot-1"}, Grant("robot-1")),
        ({"pair": "bob"}, Grant(None, ("bob",))),
        ({"pair": ["bob", "robot-*"]}, Grant(None, ("bob", "robot-*"))),
        ({"pair": []}, Grant(None, ())),
        ({"exp": NOW + 1}, Grant()),
        ({"exp": NOW - LEEWAY_SECONDS + 1}, Grant()),
        ({"nbf": NOW + LEEWAY_SECONDS, "iat": NOW}, Grant()),
        ({"exp": None, "sub": None, "pair": None, "admin": True}, Grant()),
    ],
)
def test_what_claims_allow(claims: dict[str, Any], grant: Grant) -> None:
    """Times have a leeway, for clocks differ; claims that nobody knows are nothing."""
    assert parse_claims(claims, NOW) == grant


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"exp": NOW - LEEWAY_SECONDS}, "expired"),
        ({"exp": 0}, "expired"),
        ({"nbf": NOW + LEEWAY_SECONDS + 1}, "not valid yet"),
        ({"iat": NOW + LEEWAY_SECONDS + 1}, "not valid yet"),
        *[({name: value}, f"'{name}'") for name in ("exp", "nbf") for value in ("1", True, [1], float("nan"), 10**400)],
        *[({"sub": value}, "'sub'") for value in ("", "a b", "x" * 65, 1, ["bob"], "*")],
        *[({"pair": value}, "'pair'") for value in (1, {"a": 1}, [1], "a b", ["bob", ""], "[a-z]")],
        ({"aud": "other"}, "'aud'"),
        ({"aud": []}, "'aud'"),
        ([], "not a JSON object"),
        ("sub", "not a JSON object"),
        (None, "not a JSON object"),
    ],
)
def test_what_is_wrong_is_named(claims: object, word: str) -> None:
    with pytest.raises(BadToken, match=word):
        parse_claims(claims, NOW)


@pytest.mark.parametrize(
    ("told", "fits"), [("sdpx", True), (["a", "sdpx"], True), ("a", False), (None, False), ([], False), (7, False)]
)
def test_a_token_for_another_audience_is_none(told: object, fits: bool) -> None:
    """RFC 7519, 4.1.3."""
    if fits:
        assert parse_claims({"aud": told}, NOW, "sdpx") == Grant()
    else:
        with pytest.raises(BadToken, match="'aud'"):
            parse_claims({"aud": told}, NOW, "sdpx")


@pytest.mark.parametrize(
    ("pattern", "name", "may"),
    [
        ("bob", "bob", True),
        ("bob", "bobby", False),
        ("bob", "Bob", False),
        ("robot-*", "robot-1", True),
        ("robot-*", "robot-", True),
        ("robot-*", "a-robot-1", False),
        ("*-arm", "left-arm", True),
        ("*-arm", "left-arms", False),
        ("a*b*c", "a1b2c", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("a*a", "a", False),
        ("*", "anybody", True),
        ("**", "", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns_of_ids(pattern: str, name: str, may: bool) -> None:
    """A star stands for any characters, everything else for itself."""
    assert Grant(pair=(pattern,)).may_ask(name) is may


def test_whom_a_client_may_ask_for() -> None:
    assert Grant().may_ask("anybody")
    assert not Grant(pair=()).may_ask("anybody")
    assert Grant(pair=("a", "b*")).may_ask("bob")


@given(st.text(alphabet="ab*", max_size=12), st.text(alphabet="ab", max_size=12))
def test_a_pattern_is_what_its_regular_expression_would_be(pattern: str, name: str) -> None:
    wanted = re.fullmatch(pattern.replace("*", ".*"), name) is not None
    assert Grant(pair=(pattern,)).may_ask(name) is wanted


def test_a_pattern_costs_little_however_it_is_made() -> None:
    """Where a regular expression would try for ever."""
    assert not Grant(pair=("a*" * 31 + "b",)).may_ask("a" * 65_000)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_claim_raises_anything_else(value: Any) -> None:
    for name in ("sub", "pair", "exp", "nbf", "iat", "aud"):
        try:
            parse_claims({name: value}, NOW)
        except BadToken as error:
            assert len(str(error)) < 200  # noqa: PT017  whatever was in it is not quoted


def test_claims_that_are_made_are_taken() -> None:
    claims = make_claims("bob", ["robot-*"], "sdpx", NOW, 60)
    assert parse_claims(claims, NOW + 59, "sdpx") == Grant("bob", ("robot-*",))
    with pytest.raises(BadToken):
        parse_claims(claims, NOW + 60 + LEEWAY_SECONDS, "sdpx")
    assert make_claims("bob", [], None, NOW, 60).keys() == {"sub", "iat", "exp"}


def test_times_and_patterns_of_the_command_line() -> None:
    assert [parse_duration(text) for text in ("90", "90s", "15m", "1h", "7d")] == [90, 90, 900, 3600, 604_800]
    assert [parse_duration(text) for text in ("", "0", "0h", "h", "1w", "-1h", "1.5h", "1 h", "1" * 10, "\u0661h")] == [
        None
    ] * 10
    assert validate_pattern("robot-*") is None
    assert "'a b'" in str(validate_pattern("a b"))
