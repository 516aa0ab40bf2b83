"""What `sdpx peer` was asked for, checked before anything starts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.options import PeerOptions, validate_id, validate_url


@pytest.mark.parametrize(
    ("url", "client_id", "dialled"),
    [
        ("ws://h", None, "ws://h/"),
        ("ws://h:1/p?x=1", None, "ws://h:1/p?x=1"),
        ("wss://h", "me", "wss://h/?id=me"),
        ("ws://h/?token=t&x=", "me", "ws://h/?token=t&x=&id=me"),
        ("ws://h/?id=other&x=1&id=third", "me", "ws://h/?x=1&id=me"),
        ("ws://h/?id=other", None, "ws://h/?id=other"),
        ("ws://h/#part", "me", "ws://h/?id=me"),
        ("ws://[::1]:8765", None, "ws://[::1]:8765/"),
    ],
)
def test_the_url_to_dial_asks_for_the_id(url: str, client_id: str | None, dialled: str) -> None:
    """`--id` wins over the URL's own; all else of the URL stays, but the fragment, which is not sent."""
    assert PeerOptions(url, client_id=client_id).dial_url == dialled


def test_a_token_goes_into_the_url_that_is_dialled_and_not_into_the_one_that_is_shown() -> None:
    """In front of one in the URL."""
    options = PeerOptions("ws://h/?token=old&x=1", client_id="me", token="a+b")
    assert options.dial_url == "ws://h/?x=1&id=me&token=a%2Bb"
    assert "a" not in options.shown_url.replace("token", "")


def test_a_token_with_special_signs_arrives_as_it_was() -> None:
    """Percent-encoding survives the way through the query."""
    assert PeerOptions("ws://h/?token=a%2Bb%26c", client_id="me").dial_url == "ws://h/?token=a%2Bb%26c&id=me"


@pytest.mark.parametrize(
    "url", ["ws://h", "wss://h", "ws://h:8765/p?q=1", "ws://127.0.0.1:1", "ws://[::1]:65535", "WS://h"]
)
def test_a_relays_url(url: str) -> None:
    """ws or wss, a host, and a port if there is one."""
    assert validate_url(url) is None


@pytest.mark.parametrize(
    ("url", "word"),
    [
        *[(url, "ws://") for url in ("http://h", "https://h", "h:8765", "localhost", "", "//h", "stun:h")],
        *[(url, "names no host") for url in ("ws://", "ws:///p", "ws://:80", "ws://h:0")],
        *[
            (url, "is no URL")
            for url in ("ws://h:65536", "ws://h:abc", "ws://[::1", "ws://h:-1", "ws://h:" + "9" * 5000)
        ],
    ],
)
def test_no_relays_url(url: str, word: str) -> None:
    """The sentence quotes the URL and says what is wrong."""
    flaw = validate_url(url)
    assert flaw is not None
    assert f"'{url}'" in flaw
    assert word in flaw


@given(st.text() | st.text("ws:/[]@?#:0123456789stun.é").map("ws://".__add__))
def test_any_text_gets_a_verdict(text: str) -> None:
    """Nothing that a person types raises."""
    for flaw in (validate_url(text), validate_id(text)):
        assert flaw is None or f"'{text}'" in flaw


def test_a_name_is_checked_before_it_is_asked_for() -> None:
    """The relay's own rule for IDs."""
    assert validate_id("robot-1") is None
    assert validate_id("a b") == "'a b' is no ID; one is 1 to 64 of letters, digits and -_."
