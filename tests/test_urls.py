"""URLs of relays and of other services: validation, and masking of their secrets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.urls import MASK, complete_relay_url, mask_secrets, page_link, validate_http_url, validate_relay_url


@pytest.mark.parametrize(
    "url", ["ws://h", "wss://h", "ws://h:8765/p?q=1", "ws://127.0.0.1:1", "ws://[::1]:65535", "WS://h"]
)
def test_relay_url_has_a_websocket_scheme_and_a_host(url: str) -> None:
    assert validate_relay_url(url) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("relay.example", "ws://relay.example:8765"),
        ("localhost:9000", "ws://localhost:9000"),
        ("relay.example:443/signal?a=b", "wss://relay.example:443/signal?a=b"),
        ("[::1]", "ws://[::1]:8765"),
        ("[::1]:9", "ws://[::1]:9"),
        ("http://h", "ws://h"),
        (" wss://h\n", "wss://h"),
        ("HTTPS://h/p", "wss://h/p"),
        ("wss://h", "wss://h"),
        ("ftp://h", "ftp://h"),
        ("", ""),
        ("::1", "ws://[::1]:8765"),
        ("fe80::1%eth0", "ws://[fe80::1%eth0]:8765"),
        ("ws:/h", "ws://h"),
        ("https:/h:8443/p", "wss://h:8443/p"),
        ("ws:8765", "ws://ws:8765"),
    ],
)
def test_host_or_http_url_stands_for_the_websocket_url(text: str, url: str) -> None:
    assert complete_relay_url(text) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        *[(url, "ws://") for url in ("http://h", "https://h", "h:8765", "localhost", "", "//h", "stun:h")],
        *[(url, "no host") for url in ("ws://", "ws:///p", "ws://:80", "ws://h:0")],
        *[
            (url, "not a URL")
            for url in ("ws://h:65536", "ws://h:abc", "ws://[::1", "ws://h:-1", "ws://h:" + "9" * 5000)
        ],
        *[(url, "invalid host name") for url in ("ws://a..b", "ws://h h", "ws://h\\p", "ws://${RELAY}", "ws://*:8765")],
        ("ws://h/a b", "percent-encoded"),
    ],
)
def test_bad_relay_url_is_quoted_with_the_reason(url: str, words: str) -> None:
    problem = validate_relay_url(url)
    assert problem is not None
    assert f"'{url}'" in problem
    assert words in problem


@given(st.text() | st.text("ws:/[]@?#:0123456789stun.é").map("ws://".__add__))
def test_validation_of_any_text_returns_a_result(text: str) -> None:
    """No text that a user can type raises an exception."""
    problem = validate_relay_url(text)
    assert problem is None or f"'{text}'" in problem
    validate_http_url(text)


@pytest.mark.parametrize("url", ["http://h", "https://u:p@h:8443/x?k=v", "http://127.0.0.1:1", "http://[::1]/"])
def test_http_url_has_an_http_scheme_and_a_host(url: str) -> None:
    assert validate_http_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        *("", "h", "ftp://h", "http://", "http://h:0", "http://h:x", "http://[::1", "http://a b", "http://a..b"),
        f"http://{'a' * 64}",
    ],
)
def test_bad_http_url_is_not_quoted(url: str) -> None:
    """The URL may hold a password."""
    problem = validate_http_url(url)
    assert problem is not None
    assert "'" not in problem


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:secret@h/x?k=secret&l=secret", f"https://u:{MASK}@h/x?k={MASK}&l={MASK}"),
        ("https://secret@h", f"https://{MASK}@h"),
        ("https://h/x?secret", f"https://h/x?{MASK}"),
        ("https://h/x?k=secret&secret", f"https://h/x?k={MASK}&{MASK}"),
        ("https://h/x#secret", f"https://h/x#{MASK}"),
        ("https://h/x", "https://h/x"),
        ("https://*.example.com", "https://*.example.com"),
        ("https://[::1", "https://[::1"),
        ("turn:u:secret@h:3478?transport=udp", f"turn:u:{MASK}@h:3478?transport=udp"),
        ("turn:u:sec://ret@h:3478", f"turn:u:{MASK}@h:3478"),
        ("turns:u:sec@://ret@h", f"turns:u:{MASK}@h"),
        ("turn:h:3478", "turn:h:3478"),
    ],
)
def test_secrets_of_a_url_are_masked(url: str, shown: str) -> None:
    assert mask_secrets(url) == shown


@pytest.mark.parametrize(
    ("relay_url", "link"),
    [
        ("ws://127.0.0.1:8765", "http://127.0.0.1:8765/#pair=bob"),
        ("wss://user:pass@relay.example/signal?token=t", "https://relay.example/signal/#pair=bob"),
    ],
)
def test_link_to_the_page_has_no_secret(relay_url: str, link: str) -> None:
    assert page_link(relay_url, "bob") == link
