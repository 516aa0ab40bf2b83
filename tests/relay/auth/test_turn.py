"""Issue and renewal of TURN credentials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.ice_servers import RtcIceServer
from sdpx.relay.auth.turn import RENEW_AT, RENEWALS_PER_CHECK, IceServerIssuer, turn_server, validate_turn_url

TTL = 1000
URLS = ["turn:turn.test:3478"]


def test_credentials_are_those_that_coturn_computes() -> None:
    """The figures are those of `echo -n EXPIRY:ID | openssl dgst -sha1 -hmac SECRET -binary | base64`."""
    assert turn_server(b"north", URLS, "bob", 1_800_000_000) == {
        "urls": URLS,
        "username": "1800000000:bob",
        "credential": "+pl3W0HFMJAN5h2zHV9KZCz0FwM=",
    }


@pytest.mark.parametrize(
    "url",
    [
        "turn:h",
        "turns:h",
        "turn:h:3478",
        "turn:192.0.2.1:3478?transport=tcp",
        "turn:[2001:db8::1]:3478?transport=udp",
        "turn://h",
        "TURN:h?transport=TCP",
    ],
)
def test_turn_url_is_valid(url: str) -> None:
    """RFC 7065."""
    assert validate_turn_url(url) is None


@pytest.mark.parametrize(
    "url", ["", "h", "stun:h", "turn:", "turn:u:p@h", "turn:h:0", "turn:h:65536", "turn:h?transport=sctp", "turn:h:"]
)
def test_invalid_turn_url_is_named(url: str) -> None:
    error = validate_turn_url(url)
    assert error is not None
    assert f"'{url}'" in error


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def issuer_at(clock: Clock, secret: list[bytes] | None = None) -> IceServerIssuer:
    given_secret = secret or [b"north"]
    return IceServerIssuer(clock, [{"urls": "stun:s"}], URLS, TTL, lambda: given_secret[0])


def renewed(issuer: IceServerIssuer) -> list[tuple[str, list[RtcIceServer]]]:
    sent: list[tuple[str, list[RtcIceServer]]] = []
    issuer.renew(lambda client_id, servers: sent.append((client_id, servers)))
    return sent


def test_client_gets_fixed_servers_own_servers_and_credentials() -> None:
    own: RtcIceServer = {"urls": "turn:own", "username": "u", "credential": "c"}
    fixed, webhooks, turn = issuer_at(Clock()).issue("bob", [own]) or []
    assert (fixed, webhooks, turn["username"]) == ({"urls": "stun:s"}, own, "6000:bob")


def test_issuer_without_turn_urls_keeps_nothing() -> None:
    issuer = IceServerIssuer(Clock())
    assert issuer.issue("bob") is None
    assert issuer.issue("bob", []) == []
    assert issuer.issue("bob", [{"urls": "stun:own"}]) == [{"urls": "stun:own"}]
    assert issuer.check_interval is None
    assert renewed(issuer) == []


def test_credentials_are_renewed_before_they_expire() -> None:
    """The renewal repeats the client's own servers."""
    clock = Clock()
    issuer = issuer_at(clock)
    own: RtcIceServer = {"urls": "stun:own"}
    issuer.issue("bob", [own])
    clock.now += TTL * RENEW_AT - 1
    assert renewed(issuer) == []
    for _ in range(3):
        clock.now += TTL * RENEW_AT
        [(client_id, servers)] = renewed(issuer)
        assert (client_id, servers[1], servers[2]["username"]) == ("bob", own, f"{int(clock.now) + TTL}:bob")
        assert renewed(issuer) == []


@given(st.floats(0.1, 100_000))
def test_check_interval_allows_several_checks_before_expiry(ttl: float) -> None:
    """At least two checks fall between the time of renewal and the expiry."""
    between = IceServerIssuer(Clock(), (), URLS, int(ttl) + 1).check_interval
    assert between is not None
    assert between <= (int(ttl) + 1) * (1 - RENEW_AT) / 2


def test_resuming_keeps_the_time_of_renewal() -> None:
    """Replayed messages may contain older credentials, which must not expire before the next renewal."""
    clock = Clock()
    issuer = issuer_at(clock)
    issuer.issue("bob")
    clock.now += TTL * 0.7
    own: list[RtcIceServer] = [{"urls": "turn:own"}]
    again = issuer.reissue("bob", own) or []
    assert again[1:2] == own
    assert again[-1]["username"] == f"{int(clock.now) + TTL}:bob"
    clock.now += TTL * 0.11
    [(client_id, servers)] = renewed(issuer)
    assert (client_id, servers[1:2]) == ("bob", own)


def test_disconnected_client_gets_no_renewal() -> None:
    clock = Clock()
    issuer = issuer_at(clock)
    issuer.issue("bob")
    issuer.forget("bob")
    issuer.forget("nobody")
    clock.now += TTL
    assert renewed(issuer) == []


def test_new_secret_renews_credentials_although_a_client_has_already_got_new_ones() -> None:
    clock, secret = Clock(), [b"north"]
    issuer = issuer_at(clock, secret)
    issuer.issue("bob")
    secret[0] = b"south"
    issuer.issue("alice")
    assert [client_id for client_id, _ in renewed(issuer)] == ["bob"]


def test_client_that_disconnects_during_a_renewal_is_not_renewed_again() -> None:
    clock = Clock()
    issuer = issuer_at(clock)
    issuer.issue("bob")
    issuer.issue("alice")
    clock.now += TTL
    issuer.renew(lambda _client_id, _servers: issuer.forget("alice"))
    clock.now += TTL
    assert [client_id for client_id, _ in renewed(issuer)] == ["bob"]


def test_new_secret_renews_all_credentials_in_batches() -> None:
    """Credentials are invalid as soon as the TURN server has the new secret."""
    clock, secret = Clock(), [b"north"]
    issuer = issuer_at(clock, secret)
    before = {str(number): (issuer.issue(str(number)) or [])[-1] for number in range(RENEWALS_PER_CHECK + 1)}
    secret[0] = b"south"
    after = renewed(issuer)
    assert len(after) == RENEWALS_PER_CHECK
    after += renewed(issuer)
    assert len(after) == RENEWALS_PER_CHECK + 1
    assert all(servers[-1]["credential"] != before[client_id]["credential"] for client_id, servers in after)
    assert renewed(issuer) == []
