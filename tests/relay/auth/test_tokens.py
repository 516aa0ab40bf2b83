"""The permissions in the claims of a token."""

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
        ({"sub": "auth0|123"}, Grant("auth0_x7C123")),
        ({"sub": "a b@example.com"}, Grant("a_x20b_x40example.com")),
        ({"sub": 42}, Grant("42")),
        ({"pair": "*@example.com"}, Grant(None, ("*_x40example.com",))),
        ({"pair": "bob"}, Grant(None, ("bob",))),
        ({"pair": ["bob", "robot-*"]}, Grant(None, ("bob", "robot-*"))),
        ({"pair": []}, Grant(None, ())),
        ({"exp": NOW + 1}, Grant()),
        ({"exp": NOW - LEEWAY_SECONDS + 1}, Grant()),
        ({"nbf": NOW + LEEWAY_SECONDS, "iat": NOW}, Grant()),
        ({"exp": None, "sub": None, "pair": None, "other": True}, Grant()),
        ({"admin": True}, Grant(is_admin=True)),
    ],
)
def test_claims_grant(claims: dict[str, Any], grant: Grant) -> None:
    """Times have a leeway; unknown claims are ignored."""
    assert parse_claims(claims, NOW) == grant


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"exp": NOW - LEEWAY_SECONDS}, "expired"),
        ({"exp": 0}, "expired"),
        ({"nbf": NOW + LEEWAY_SECONDS + 1}, "not valid yet"),
        ({"iat": NOW + LEEWAY_SECONDS + 1}, "not valid yet"),
        *[({name: value}, f"'{name}'") for name in ("exp", "nbf") for value in ("1", True, [1], float("nan"), 10**400)],
        *[({"sub": value}, "'sub'") for value in ("", "x" * 65, "|" * 17, -1, 1.5, True, 10**400, ["bob"])],
        *[({"pair": value}, "'pair'") for value in (1, {"a": 1}, [1], "x" * 65, ["bob", ""])],
        ({"aud": "other"}, "'aud'"),
        ({"aud": []}, "'aud'"),
        ([], "not a JSON object"),
        ("sub", "not a JSON object"),
        (None, "not a JSON object"),
    ],
)
def test_invalid_claim_is_named(claims: object, word: str) -> None:
    with pytest.raises(BadToken, match=word):
        parse_claims(claims, NOW)


def test_id_claim_names_the_claim_that_gives_the_id() -> None:
    """`sub` does not count then."""
    assert parse_claims({"sub": "7", "email": "a@b.c"}, NOW, None, "email") == Grant("a_x40b.c")


@pytest.mark.parametrize("claims", [{}, {"sub": "bob"}, {"email": None}, {"email": ""}, {"email": ["a"]}])
def test_token_without_the_id_claim_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(BadToken, match="'email'"):
        parse_claims(claims, NOW, None, "email")


@pytest.mark.parametrize(
    ("aud", "fits"), [("sdpx", True), (["a", "sdpx"], True), ("a", False), (None, False), ([], False), (7, False)]
)
def test_audience_must_match(aud: object, fits: bool) -> None:
    """RFC 7519, 4.1.3."""
    if fits:
        assert parse_claims({"aud": aud}, NOW, "sdpx") == Grant()
    else:
        with pytest.raises(BadToken, match="'aud'"):
            parse_claims({"aud": aud}, NOW, "sdpx")


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
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
def test_star_in_a_pattern_matches_any_characters(pattern: str, name: str, matches: bool) -> None:
    """All other characters match themselves."""
    assert Grant(pair=(pattern,)).may_ask(name) is matches


def test_grant_limits_targets() -> None:
    assert Grant().may_ask("anybody")
    assert not Grant(pair=()).may_ask("anybody")
    assert Grant(pair=("a", "b*")).may_ask("bob")


@given(st.text(alphabet="ab*", max_size=12), st.text(alphabet="ab", max_size=12))
def test_pattern_matches_as_its_regular_expression(pattern: str, name: str) -> None:
    wanted = re.fullmatch(pattern.replace("*", ".*"), name) is not None
    assert Grant(pair=(pattern,)).may_ask(name) is wanted


def test_pattern_does_not_backtrack() -> None:
    """A regular expression would take exponential time."""
    assert not Grant(pair=("a*" * 31 + "b",)).may_ask("a" * 65_000)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_claim_value_is_accepted_or_raises_bad_token(value: Any) -> None:
    for name in ("sub", "pair", "exp", "nbf", "iat", "aud"):
        try:
            parse_claims({name: value}, NOW)
        except BadToken as error:
            assert len(str(error)) < 200  # noqa: PT017  the value is not quoted


def test_made_claims_are_accepted() -> None:
    claims = make_claims("bob", ["robot-*"], "sdpx", NOW, 60)
    assert parse_claims(claims, NOW + 59, "sdpx") == Grant("bob", ("robot-*",))
    with pytest.raises(BadToken):
        parse_claims(claims, NOW + 60 + LEEWAY_SECONDS, "sdpx")
    assert make_claims("bob", [], None, NOW, 60).keys() == {"sub", "iat", "exp"}


def test_duration_and_pattern_arguments_are_parsed() -> None:
    assert [parse_duration(text) for text in ("90", "90s", "15m", "1h", "7d")] == [90, 90, 900, 3600, 604_800]
    assert [parse_duration(text) for text in ("", "0", "0h", "h", "1w", "-1h", "1.5h", "1 h", "1" * 10, "\u0661h")] == [
        None
    ] * 10
    assert validate_pattern("robot-*") is None
    assert "'a b'" in str(validate_pattern("a b"))
