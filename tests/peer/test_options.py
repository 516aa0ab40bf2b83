"""Options of a peer and the URLs that follow from them."""

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


def test_token_is_in_the_dialled_url_and_not_in_the_shown_one() -> None:
    """`--token` replaces a token in the URL."""
    options = PeerOptions("ws://h/?token=old&x=1", access=AccessOptions(token="a+b"))
    assert options.dial_url_for("me") == "ws://h/?x=1&id=me&token=a%2Bb"
    assert "a" not in options.shown_url.replace("token", "")


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
