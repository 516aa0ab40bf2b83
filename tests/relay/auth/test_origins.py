"""Allowed origins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.auth.origins import Origins, validate_origin

ALLOWED = Origins(["https://app.test", "https://*.example.com", "http://dev.test:3000", "https://*.port.test:444"])


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),  # not a browser
        ("https://app.test", True),
        ("https://APP.test", True),
        ("https://app.test:443", True),
        ("http://dev.test:3000", True),
        ("https://a.example.com", True),
        ("https://b.a.example.com", True),
        ("https://x.port.test:444", True),
        ("http://app.test", False),
        ("https://app.test:444", False),
        ("http://dev.test", False),
        ("https://example.com", False),  # a wildcard is for subdomains
        ("https://evilexample.com", False),
        ("https://example.com.evil.test", False),
        ("https://a.example.com:8443", False),
        ("https://x.port.test", False),
        ("https://app.test.evil.test", False),
        ("https://app.test, https://evil.test", False),
        ("https://app.test/", False),
        ("https://u@app.test", False),
        ("https://*.example.com", False),
        ("https://evil.test#.example.com", False),
        ("https://evil.test/.example.com", False),
        ("null", False),
        ("", False),
        ("https://", False),
        ("https://a.example.com\n", False),
    ],
)
def test_exact_origins_and_wildcard_subdomains_are_allowed(origin: str | None, allowed: bool) -> None:
    assert ALLOWED.allow(origin) is allowed


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://127.0.0.1:8765", "127.0.0.1:8765", True),
        ("http://[::1]:8765", "[::1]:8765", True),
        ("http://203.0.113.7", "203.0.113.7", True),
        ("http://localhost:8765", "localhost:8765", True),
        ("http://LOCALHOST:8765", "LocalHost:8765", True),
        ("http://app.localhost:8765", "app.localhost:8765", True),
        ("http://relay:8765", "relay:8765", True),
        ("https://relay.example", "relay.example", True),
        ("http://relay.example:8765", "relay.example:8765", False),  # any site can have its name resolved to this relay
        ("http://evil.test", "evil.test", False),
        ("http://127.0.0.1.evil.test:8765", "127.0.0.1.evil.test:8765", False),
        ("http://127.0.0.1:8765", "127.0.0.1:8766", False),
        ("http://localhost", "127.0.0.1", False),
        ("https://relay.example", "relay.example:8443", False),
        ("https://relay.example", None, False),
    ],
)
def test_origin_of_the_own_page_is_allowed_unless_another_site_could_have_its_name(
    origin: str, host: str | None, allowed: bool
) -> None:
    """DNS rebinding: without a certificate, an attacker's name with the address of the relay looks like the relay."""
    assert ALLOWED.allow(origin, host) is allowed


@given(st.text() | st.none())
def test_empty_list_allows_every_origin(origin: str | None) -> None:
    assert Origins().allow(origin)


@given(st.text(alphabet="htps:/.*examplco@#?\\ ", max_size=40))
def test_another_host_is_never_allowed(text: str) -> None:
    assert not ALLOWED.allow(f"https://evil.test{text}")
    assert not Origins(["https://*.example.com"]).allow(f"{text}https://evil.test")


@pytest.mark.parametrize(
    "text",
    [
        "https://a.test",
        "http://localhost:3000",
        "https://*.a.test",
        "http://[::1]:80",
        "app://local",
        "null",
        "file://",
    ],
)
def test_valid_origin_passes_validation(text: str) -> None:
    assert validate_origin(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "*",
            "a.test",
            "https://",
            "https://a.test/",
            "https://*",
            "https://a.*.test",
            "https://a.test:0",
            "Null-",
            "file:///",
        ),
        *("https://a.test:65536", "https://a b", "//a.test", "https://*a.test"),
    ],
)
def test_invalid_origin_is_named(text: str) -> None:
    error = validate_origin(text)
    assert error is not None
    assert f"'{text}'" in error


@pytest.mark.parametrize("name", ["null", "file://"])
def test_origin_without_a_host_is_allowed_only_by_name(name: str) -> None:
    """Sandboxed pages, and pages from files."""
    origins = Origins([name])
    assert origins.allow(name)
    assert not any(map(origins.allow, {"null", "file://", "https://null", ""} - {name}))
