"""TURN credentials, who is told of them, and when they are renewed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.ice_servers import RtcIceServer
from sdpx.relay.auth.turn import RENEW_AT, RENEWALS_PER_CHECK, IceServerIssuer, turn_server, validate_turn_url

TTL = 1000
URLS = ["turn:turn.test:3478"]


def test_what_coturn_computes_is_what_is_minted() -> None:
    """The figures are those of `echo -n EXPIRY:ID | openssl dgst -sha1 -hmac SECRET -binary | base64`."""
    assert turn_server(b"north", URLS, "bob", 1_800_000_000) == {
        "urls": URLS,
        "username": "1800000000:bob",
        "credential": "+pl3W0HFMJAN5h2zHV9KZCz0FwM=",
    }


@pytest.mark.parametrize(
    "url",
    ["turn:h", "turns:h", "turn:h:3478", "turn:192.0.2.1:3478?transport=tcp", "turn:[2001:db8::1]:3478?transport=udp"],
)
def test_a_turn_servers_url(url: str) -> None:
    """RFC 7065."""
    assert validate_turn_url(url) is None


@pytest.mark.parametrize(
    "url", ["", "h", "stun:h", "turn:", "turn://h", "turn:h:0", "turn:h:65536", "turn:h?transport=sctp", "turn:h:"]
)
def test_no_turn_servers_url(url: str) -> None:
    flaw = validate_turn_url(url)
    assert flaw is not None
    assert f"'{url}'" in flaw


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def minted(clock: Clock, secret: list[bytes] | None = None) -> IceServerIssuer:
    given_secret = secret or [b"north"]
    return IceServerIssuer(clock, [{"urls": "stun:s"}], URLS, TTL, lambda: given_secret[0])


def renewed(ice: IceServerIssuer) -> list[tuple[str, list[RtcIceServer]]]:
    sent: list[tuple[str, list[RtcIceServer]]] = []
    ice.renew(lambda client_id, servers: sent.append((client_id, servers)))
    return sent


def test_everybody_gets_the_fixed_ones_its_own_and_credentials() -> None:
    own: RtcIceServer = {"urls": "turn:own", "username": "u", "credential": "c"}
    fixed, webhooks, turn = minted(Clock()).issue("bob", [own])
    assert (fixed, webhooks, turn["username"]) == ({"urls": "stun:s"}, own, "6000:bob")


def test_without_a_turn_server_nothing_is_minted_or_kept() -> None:
    ice = IceServerIssuer(Clock())
    assert ice.issue("bob") == []
    assert ice.issue("bob", [{"urls": "stun:own"}]) == [{"urls": "stun:own"}]
    assert ice.check_interval is None
    assert renewed(ice) == []


def test_credentials_are_renewed_before_they_end_and_again() -> None:
    """With what the client got otherwise beside them."""
    clock = Clock()
    ice = minted(clock)
    own: RtcIceServer = {"urls": "stun:own"}
    ice.issue("bob", [own])
    clock.now += TTL * RENEW_AT - 1
    assert renewed(ice) == []
    for _ in range(3):
        clock.now += TTL * RENEW_AT
        [(client_id, servers)] = renewed(ice)
        assert (client_id, servers[1], servers[2]["username"]) == ("bob", own, f"{int(clock.now) + TTL}:bob")
        assert renewed(ice) == []


@given(st.floats(0.1, 100_000))
def test_looks_come_often_enough(ttl: float) -> None:
    """Between the time to renew and the end there is room for several looks."""
    between = IceServerIssuer(Clock(), (), URLS, int(ttl) + 1).check_interval
    assert between is not None
    assert between <= (int(ttl) + 1) * (1 - RENEW_AT) / 2


def test_who_comes_back_is_due_when_it_was() -> None:
    """What it missed comes behind `your_id`, older credentials among it: they must not end before the next ones come."""
    clock = Clock()
    ice = minted(clock)
    ice.issue("bob")
    clock.now += TTL * 0.7
    own: list[RtcIceServer] = [{"urls": "turn:own"}]
    again = ice.reissue("bob", own)
    assert again[1:2] == own
    assert again[-1]["username"] == f"{int(clock.now) + TTL}:bob"
    clock.now += TTL * 0.11
    [(client_id, servers)] = renewed(ice)
    assert (client_id, servers[1:2]) == ("bob", own)


def test_who_is_gone_gets_none() -> None:
    clock = Clock()
    ice = minted(clock)
    ice.issue("bob")
    ice.forget("bob")
    ice.forget("nobody")
    clock.now += TTL
    assert renewed(ice) == []


def test_a_new_secret_makes_everybody_due_some_at_a_time() -> None:
    """Old credentials are good for nothing from the moment that the TURN server has the new secret."""
    clock, secret = Clock(), [b"north"]
    ice = minted(clock, secret)
    before = {str(number): ice.issue(str(number))[-1] for number in range(RENEWALS_PER_CHECK + 1)}
    secret[0] = b"south"
    after = renewed(ice)
    assert len(after) == RENEWALS_PER_CHECK
    after += renewed(ice)
    assert len(after) == RENEWALS_PER_CHECK + 1
    assert all(servers[-1]["credential"] != before[client_id]["credential"] for client_id, servers in after)
    assert renewed(ice) == []
