"""Options of a peer and the URLs that follow from them."""

from base64 import b64encode

import pytest

from sdpx.ice_servers import IceServer
from sdpx.options import AccessOptions
from sdpx.peer.options import PeerOptions


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
def test_dialled_url_requests_the_id(url: str, client_id: str | None, dialled: str) -> None:
    """`--id` replaces an ID in the URL; the rest of the URL stays, but for the fragment, which is never sent."""
    assert PeerOptions(url).dial_url_for(client_id) == dialled


def test_token_is_in_a_header_and_not_in_the_url() -> None:
    """`--token` replaces a token in the URL; URLs are logged by proxies."""
    options = PeerOptions("ws://h/?token=old&x=1", access=AccessOptions(token="a+b\n"))
    assert options.dial_headers == ((b"Authorization", b"Bearer a+b"),)
    assert options.dial_url_for("me") == "ws://h/?x=1&id=me"
    assert PeerOptions().dial_headers == ()


def test_user_and_password_of_the_url_are_sent() -> None:
    """RFC 7617. The token then is in the URL, because a request has one Authorization header."""
    options = PeerOptions("ws://u%40x:p%3A@h/")
    assert options.dial_headers == ((b"Authorization", b"Basic " + b64encode(b"u@x:p:")),)
    both = PeerOptions("ws://u:p@h/", access=AccessOptions(token="a+b"))
    assert both.dial_headers == ((b"Authorization", b"Basic dTpw"),)
    assert "token=a%2Bb" in both.dial_url_for(None)
    assert "token" not in both.shown_url


def test_token_with_special_characters_stays_percent_encoded() -> None:
    assert PeerOptions("ws://h/?token=a%2Bb%26c").dial_url_for("me") == "ws://h/?token=a%2Bb%26c&id=me"


def test_servers_of_stun_and_turn_are_parsed_and_absent_ones_are_none() -> None:
    """None leaves the choice to the relay."""
    assert PeerOptions("ws://h").ice_servers is None
    options = PeerOptions("ws://h", turn=("turn:u:p@t",), stun=("stun:s",))
    assert options.ice_servers == (IceServer("stun", "s", 3478), IceServer("turn", "t", 3478, "udp", "u", "p"))


def test_argument_is_the_peer_to_pair_with_and_the_url_is_completed() -> None:
    """`sdpx peer bob --url relay.example`."""
    options = PeerOptions("relay.example", target="bob").completed()
    assert (options.pair, options.url) == ("bob", "ws://relay.example:8765")
    assert PeerOptions(pair="bob").completed().pair == "bob"


def test_a_negotiated_channel_has_an_id() -> None:
    """A label may contain a colon."""
    assert [PeerOptions(channel=each).negotiated_id for each in ("chat", "negotiated:7", "x:7")] == [None, 7, None]
    for bad in ("negotiated:", "negotiated:x", "negotiated:1000"):
        with pytest.raises(ValueError, match="use negotiated:ID"):
            _ = PeerOptions(channel=bad).negotiated_id
