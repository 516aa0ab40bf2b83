"""The client address behind a reverse proxy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.auth.proxies import Proxies, validate_network

PROXIES = Proxies(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])


@pytest.mark.parametrize(
    ("host", "x_forwarded_for", "client"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.7", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("2001:db8::1", ["2001:4860::8888"], "2001:4860::8888"),
        ("10.0.0.1", ["203.0.113.9:51234"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:4860::8888]:51234"], "2001:4860::8888"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # the client itself wrote the first one
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.1.1.1"], "203.0.113.9"),  # through two proxies
        ("10.0.0.1", ["10.2.2.2, 10.1.1.1"], "10.2.2.2"),  # a client inside the network
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["nonsense, 10.1.1.1"], "10.1.1.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("203.0.113.1", ["1.1.1.1"], "203.0.113.1"),  # not a trusted proxy
        ("unknown", ["1.1.1.1"], "unknown"),
    ],
)
def test_last_untrusted_address_of_x_forwarded_for_is_the_client(
    host: str, x_forwarded_for: list[str], client: str
) -> None:
    assert PROXIES.client(host, x_forwarded_for, []) == client


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["for=203.0.113.9;proto=https"], "203.0.113.9"),
        (['proto=http;For="[2001:4860::8888]:4711"'], "2001:4860::8888"),
        (["for=1.1.1.1, for=203.0.113.9"], "203.0.113.9"),
        (["for=_hidden"], "10.0.0.1"),
        (["by=203.0.113.43"], "10.0.0.1"),
        (['for=203.0.113.9;host="a,for=1.1.1.1"'], "203.0.113.9"),  # the client chose its Host header
        (['host="a;for=1.1.1.1";for=203.0.113.9'], "203.0.113.9"),
        (['host="a\\";for=1.1.1.1";for=203.0.113.9'], "203.0.113.9"),
        (["for=1.1.1.1;for=203.0.113.9"], "10.0.0.1"),
        (['for="1.1.1.1, for=203.0.113.9'], "10.0.0.1"),  # an unterminated quoted string
        (['for="1.1.1.1', "for=203.0.113.9"], "203.0.113.9"),
    ],
)
def test_last_untrusted_address_of_forwarded_is_the_client(forwarded: list[str], client: str) -> None:
    """RFC 7239, 4."""
    assert PROXIES.client("10.0.0.1", [], forwarded) == client


def test_contradictory_headers_are_ignored() -> None:
    """A proxy sets one of the two headers, and a client may have set the other."""
    assert PROXIES.client("10.0.0.1", ["1.1.1.1"], ["for=203.0.113.9"]) == "10.0.0.1"
    assert PROXIES.client("10.0.0.1", ["203.0.113.9"], ["for=203.0.113.9"]) == "203.0.113.9"


@given(st.lists(st.text()), st.lists(st.text()))
def test_headers_from_an_untrusted_host_are_ignored(x_forwarded_for: list[str], forwarded: list[str]) -> None:
    assert PROXIES.client("203.0.113.1", x_forwarded_for, forwarded) == "203.0.113.1"
    assert Proxies().client("10.0.0.1", x_forwarded_for, forwarded) == "10.0.0.1"
    PROXIES.client("10.0.0.1", x_forwarded_for, forwarded)  # never raises


@given(st.text(alphabet="0123456789.,:[] abcdef"))
def test_addresses_that_the_client_itself_wrote_are_ignored(own: str) -> None:
    assert PROXIES.client("10.0.0.1", [f"{own}, 203.0.113.9"], []) == "203.0.113.9"


def test_network_is_validated() -> None:
    assert validate_network("10.0.0.0/8") is validate_network("::1") is validate_network("10.1.2.3/8") is None
    for text in ("", "10.0.0.0/33", "example.com", "10.0.0"):
        assert f"'{text}'" in str(validate_network(text))


@pytest.mark.parametrize(
    ("network", "host", "trusted"),
    [
        ("::ffff:10.0.0.0/104", "10.9.9.9", True),
        ("::ffff:10.0.0.0/104", "11.0.0.1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", True),
        ("::ffff:0:0/96", "192.0.2.1", True),
        ("::/0", "2001:db8::1", True),
        ("::/0", "192.0.2.1", False),
    ],
)
def test_ipv4_mapped_network_is_an_ipv4_network(network: str, host: str, trusted: bool) -> None:
    assert Proxies([network]).trust(host) is trusted
