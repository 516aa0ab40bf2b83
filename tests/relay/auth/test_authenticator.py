"""Authentication of a whole relay in memory: which request gets a WebSocket, and how each invalid one is refused."""

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.rate_limit import ADDRESS_BURST
from tests.harness.auth_relay import auth_relay
from tests.harness.credentials import KEYS, NOW, SECRET, jwks_file, public_jwk, secret_file, token
from tests.harness.frames import message

SOON = int(NOW) + 60


@pytest.fixture(name="secret")
def with_secret(tmp_path: Path) -> AuthOptions:
    return AuthOptions(auth_secret_file=str(secret_file(tmp_path)), auth_rate=0)


# ---- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_token_is_accepted_in_header_and_query(
    secret: AuthOptions, autojump_clock: MockClock, scheme: str
) -> None:
    good = token(sub="bob", exp=SOON)
    async with auth_relay(secret) as relay:
        assert (await relay.ask("/", f"Authorization: {scheme} {good}"))[0] == 101
    async with auth_relay(secret) as relay:
        assert (await relay.ask(f"/?token={good}"))[0] == 101


@pytest.mark.parametrize(
    ("target", "headers", "word"),
    [
        ("/", [], "A token is required"),
        ("/", ["Authorization: Basic Ym9iOmJvYg=="], "A token is required"),
        ("/", ["Authorization: Bearer"], "not a JSON Web Token"),
        ("/?token=", [], "not a JSON Web Token"),
        ("/?token=garbage", [], "not a JSON Web Token"),
        (f"/?token={token('another secret of thirty-two bytes or more', sub='bob')}", [], "signature"),
        (f"/?token={token(KEYS['RS256'], 'RS256', sub='bob')}", [], "algorithm"),
        (f"/?token={token(exp=NOW - 60)}", [], "expired"),
        (f"/?token={token(nbf=NOW + 60)}", [], "not valid yet"),
        (f"/?token={token(aud='other')}", [], "audience"),
        (f"/?token={token(sub='x' * 65)}", [], "'sub'"),
        (f"/?token={token(pair=7)}", [], "'pair'"),
        (f"/?id=eve&token={token(sub='bob')}", [], "not 'eve'"),
        (f"/?token={token(sub='a')}&token={token(sub='b')}", [], "several"),
        (f"/?token={token(sub='a')}", [f"Authorization: Bearer {token(sub='b')}"], "several"),
    ],
)
async def test_invalid_token_is_refused_with_its_reason(
    secret: AuthOptions, autojump_clock: MockClock, target: str, headers: list[str], word: str
) -> None:
    async with auth_relay(secret) as relay:
        status, body = await relay.ask(target, *headers)
        assert (status, body["code"]) == (401, "unauthorized")
        assert word in body["message"]
        line = relay.log.of("connection_refused")[0]
        assert (line["status"], line["reason"], line["detail"]) == (401, "unauthorized", body["message"])
        assert (await relay.headers(target, *headers))["www-authenticate"] == "bearer"


@pytest.mark.parametrize(
    ("target", "client_id"),
    [
        ("/?id=eve", "eve"),
        ("/?id=a%20b", None),
        ("/?id=a&id=b", None),
        (f"/?token={token(sub='bob', exp=NOW - 60)}", "bob"),
        (f"/?token={token(sub='x' * 65)}", None),
        (f"/?token={token('another secret of thirty-two bytes or more', sub='bob')}", None),
        (f"/?id=eve&token={token(sub='bob')}", "eve"),
    ],
)
async def test_refusal_is_logged_with_the_requested_or_verified_id(
    secret: AuthOptions, autojump_clock: MockClock, target: str, client_id: str | None
) -> None:
    async with auth_relay(secret) as relay:
        assert (await relay.ask(target))[0] in (400, 401)
        assert relay.log.of("connection_refused")[0].get("client_id") == client_id


async def test_refusal_of_a_taken_bound_id_is_logged_with_the_id(
    secret: AuthOptions, autojump_clock: MockClock
) -> None:
    async with auth_relay(secret) as relay:
        await relay.ask(f"/?token={token(sub='bob')}")
        assert (await relay.ask(f"/?token={token(sub='bob')}"))[0] == 409
        assert relay.log.of("connection_refused")[0]["client_id"] == "bob"


async def test_sub_binds_the_client_id(secret: AuthOptions, autojump_clock: MockClock) -> None:
    """`?id=` may be absent or equal to `sub`; a token without `sub` allows any ID."""
    async with auth_relay(secret) as relay:
        assert await relay.ask(f"/?token={token(sub='bob')}") == (101, {"type": "your_id", "id": "bob"})
        assert await relay.ask(f"/?id=al&token={token(sub='al')}") == (101, {"type": "your_id", "id": "al"})
        assert (await relay.ask(f"/?id=any&token={token()}"))[1]["id"] == "any"
        assert (await relay.ask(f"/?token={token(sub='bob')}"))[0] == 409


async def test_only_an_authenticated_client_learns_that_an_id_is_taken(
    secret: AuthOptions, autojump_clock: MockClock
) -> None:
    async with auth_relay(secret) as relay:
        await relay.enter(f"/?token={token(sub='bob')}")
        assert (await relay.ask("/?id=bob"))[0] == 401
        assert (await relay.ask(f"/?id=bob&token={token()}"))[0] == 409


async def test_refusals_have_the_order_of_the_protocol(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A request for which all conditions hold gets the next code as they are taken away one by one."""
    options = AuthOptions(
        auth_secret_file=str(secret_file(tmp_path)), allow_origin=("https://good.test",), auth_rate=0.01
    )
    good, bad = f"id=bob&token={token(exp=SOON)}", "id=bob&token=bad"
    near, far, wrong = "192.0.2.1", "192.0.2.3", "Origin: https://bad.test"
    async with auth_relay(options, Limits(max_clients=2, max_clients_per_ip=1)) as relay:

        async def code(query: str, *headers: str, host: str) -> str:
            return str((await relay.ask(f"/?{query}", *headers, host=host))[1]["code"])

        assert (await relay.ask(f"/?{good}", host=near))[0] == 101
        other = await relay.enter(f"/?token={token(exp=SOON)}", host="192.0.2.2")
        codes = [await code(f"{bad}&seq=1&resume=a&resume=b", wrong, host=near), await code(bad, wrong, host=near)]
        await other.stream.aclose()
        await wait_all_tasks_blocked()
        codes += [await code(bad, wrong, host=near), await code(bad, wrong, host=far)]
        for _ in range(int(ADDRESS_BURST)):
            assert await code(bad, host=far) == "unauthorized"
        codes += [await code(bad, host=far), await code(bad, host="192.0.2.4"), await code(good, host="192.0.2.4")]
        assert codes == [
            "bad_resume",
            "full",
            "too_many_connections",
            "origin",
            "too_many_attempts",
            "unauthorized",
            "id_taken",
        ]
        relay.acceptor.stop()
        assert await code(f"{bad}&seq=1&resume=a&resume=b", wrong, host=near) == "shutting_down"


async def test_full_relay_does_not_reveal_that_an_id_is_taken(secret: AuthOptions, autojump_clock: MockClock) -> None:
    """The relay answers `full` before it checks the token or the ID."""
    async with auth_relay(secret, Limits(max_clients=1)) as relay:
        await relay.enter(f"/?token={token(sub='bob')}")
        for target in ("/?id=bob", "/?id=other", f"/?token={token(sub='bob')}"):
            status, body = await relay.ask(target)
            assert (status, body["code"]) == (503, "full")


async def test_token_of_any_configured_key_is_accepted(tmp_path: Path, autojump_clock: MockClock) -> None:
    jwks = jwks_file(tmp_path, *[public_jwk(key) for key in KEYS.values()])
    options = AuthOptions(auth_secret_file=str(secret_file(tmp_path)), auth_jwks=str(jwks), auth_audience="sdpx")
    async with auth_relay(options) as relay:
        for algorithm, key in {"HS256": SECRET, **KEYS}.items():
            good = token(key, algorithm, aud="sdpx")
            assert (await relay.ask("/", f"Authorization: Bearer {good}"))[0] == 101
        assert (await relay.ask(f"/?token={token()}"))[0] == 401


async def test_relay_without_authentication_ignores_tokens(autojump_clock: MockClock) -> None:
    async with auth_relay(AuthOptions()) as relay:
        assert (await relay.ask("/?token=garbage", "Authorization: Bearer x", "Origin: https://any.test"))[0] == 101


async def test_health_page_needs_no_token(secret: AuthOptions, autojump_clock: MockClock) -> None:
    """`--metrics-port` separates the pages of operators from the port of clients."""
    async with auth_relay(secret) as relay:
        client = relay.raw()
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.response())[0] == 200


# ---- targets of pair requests -------------------------------------------------------------------------------------


async def ask_for(client: Any, target_id: str) -> str:
    await client.send(message(type="pair_request", target_id=target_id))
    answer = await client.receive()
    assert answer.get("target_id", target_id) == target_id
    return str(answer.get("code", answer["type"]))


async def test_pair_claim_limits_pair_requests(secret: AuthOptions, autojump_clock: MockClock) -> None:
    """The check comes after self_pair and already_paired, and before target_not_found."""
    async with auth_relay(secret) as relay:
        await relay.enter(f"/?token={token(sub='robot-1')}")
        await relay.enter(f"/?token={token(sub='alice')}")
        client = await relay.enter(f"/?token={token(sub='me', pair=['robot-*', 'bob'])}")
        asked = ["me", "alice", "nobody", "robot-2", "bob", "robot-1", "alice"]
        assert [await ask_for(client, target_id) for target_id in asked] == [
            *("self_pair", "unauthorized", "unauthorized", "target_not_found", "target_not_found"),
            *("paired", "already_paired"),
        ]


async def test_client_without_allowed_targets_can_be_paired_by_others(
    secret: AuthOptions, autojump_clock: MockClock
) -> None:
    async with auth_relay(secret) as relay:
        robot = await relay.enter(f"/?token={token(sub='robot', pair=[])}")
        client = await relay.enter(f"/?token={token(sub='me')}")
        assert await ask_for(robot, "me") == "unauthorized"
        assert await ask_for(client, "robot") == "paired"


async def test_rate_limit_does_not_reveal_connected_ids(secret: AuthOptions, autojump_clock: MockClock) -> None:
    """A forbidden target uses up the rate limit alike, whether it is connected or not."""
    async with auth_relay(secret, Limits(unknown_target_rate=0.001)) as relay:
        await relay.enter(f"/?token={token(sub='alice')}")
        for target_id in ("alice", "nobody"):
            client = await relay.enter(f"/?token={token(sub=f'me-{target_id}', pair='bob')}")
            answers = [await ask_for(client, target_id) for _ in range(30)]
            assert "rate_limited" in answers


# ---- origins of web pages -----------------------------------------------------------------------------------------


async def test_page_of_another_origin_is_refused(autojump_clock: MockClock) -> None:
    async with auth_relay(AuthOptions(allow_origin=("https://app.test",))) as relay:
        assert (await relay.ask("/", "Origin: https://app.test"))[0] == 101
        assert (await relay.ask("/"))[0] == 101
        status, body = await relay.ask("/", "Origin: https://evil.test")
        assert (status, body["code"]) == (403, "origin")
        assert "'https://evil.test'" in body["message"] == relay.log.of("connection_refused")[0]["detail"]
        assert (await relay.ask("/", "Origin: https://app.test", "Origin: https://evil.test"))[0] == 403


async def test_valid_token_does_not_allow_another_origin(tmp_path: Path, autojump_clock: MockClock) -> None:
    options = AuthOptions(auth_secret_file=str(secret_file(tmp_path)), allow_origin=("https://app.test",))
    async with auth_relay(options) as relay:
        assert (await relay.ask(f"/?token={token()}", "Origin: https://evil.test"))[0] == 403
        assert (await relay.ask("/", "Origin: https://app.test"))[0] == 401


# ---- failed attempts ----------------------------------------------------------------------------------------------


async def test_failed_attempts_are_limited_per_address(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Beyond the burst the relay answers 429, also to a valid token; other addresses are not affected; the limit recovers."""
    async with auth_relay(AuthOptions(auth_secret_file=str(secret_file(tmp_path)))) as relay:
        good = f"/?token={token()}"
        for _ in range(int(ADDRESS_BURST)):
            assert (await relay.ask("/?token=guess"))[0] == 401
        for target in ("/?token=guess", good):
            status, body = await relay.ask(target)
            assert (status, body["code"]) == (429, "too_many_attempts")
        assert int((await relay.headers(good))["retry-after"]) >= 1
        assert (await relay.ask(good, host="192.0.2.2"))[0] == 101
        await trio.sleep(2)
        assert (await relay.ask(good))[0] == 101


async def test_failed_attempts_of_one_ipv6_64_count_together(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with auth_relay(AuthOptions(auth_secret_file=str(secret_file(tmp_path)))) as relay:
        statuses = [(await relay.ask("/", host=f"2001:db8::{number:x}"))[0] for number in range(1, 30)]
        assert statuses.count(401) == ADDRESS_BURST
        assert (await relay.ask("/", host="2001:db8:0:1::1"))[0] == 401


# ---- behind a proxy -----------------------------------------------------------------------------------------------


async def test_trusted_proxy_supplies_the_client_address(autojump_clock: MockClock) -> None:
    """The log and the limits per address use it; headers of other hosts are ignored."""
    options = AuthOptions(trusted_proxy=("10.0.0.0/8",))
    async with auth_relay(options, Limits(max_clients_per_ip=1)) as relay:
        assert (await relay.ask("/", "X-Forwarded-For: 203.0.113.1", host="10.0.0.1"))[0] == 101
        assert (await relay.ask("/", "X-Forwarded-For: 203.0.113.1", host="10.0.0.1"))[0] == 429
        assert (await relay.ask("/", "X-Forwarded-For: 203.0.113.2", host="10.0.0.1"))[0] == 101
        assert (await relay.ask("/", "X-Forwarded-For: 2001:db8::7", host="10.0.0.1"))[0] == 101
        assert (await relay.ask("/", "X-Forwarded-For: 203.0.113.3", host="192.0.2.9"))[0] == 101
        assert [line["remote"] for line in relay.log.of("client_connected")] == [
            *("203.0.113.1", "203.0.113.2", "[2001:db8::7]", "192.0.2.9:4711"),
        ]


async def test_failed_attempts_through_a_proxy_count_per_client(tmp_path: Path, autojump_clock: MockClock) -> None:
    options = AuthOptions(auth_secret_file=str(secret_file(tmp_path)), trusted_proxy=("10.0.0.1",))
    async with auth_relay(options) as relay:
        for _ in range(int(ADDRESS_BURST) + 1):
            status, _ = await relay.ask("/", "X-Forwarded-For: 203.0.113.1", host="10.0.0.1")
        assert status == 429
        assert (await relay.ask("/", "X-Forwarded-For: 203.0.113.2", host="10.0.0.1"))[0] == 401


async def test_pending_connections_of_a_proxy_do_not_evict_each_other(autojump_clock: MockClock) -> None:
    """Before its request a connection cannot be attributed to a client."""
    options = AuthOptions(trusted_proxy=("10.0.0.1",))
    async with auth_relay(options, Limits(max_clients_per_ip=2)) as relay:
        for port in range(1, 6):
            relay.raw(remote=f"10.0.0.1:{port}")
        assert (await relay.ask("/", "X-Forwarded-For: 203.0.113.1", host="10.0.0.1"))[0] == 101
        assert not relay.log.of("connection_refused")


# ---- ICE servers --------------------------------------------------------------------------------------------------


async def test_turn_credentials_are_issued_with_the_id_and_renewed(tmp_path: Path, autojump_clock: MockClock) -> None:
    turn = AuthOptions(
        turn_secret_file=str(secret_file(tmp_path)), turn_url=("turn:t.test", "turns:t.test"), turn_ttl=100
    )
    async with auth_relay(turn) as relay:
        client = relay.raw()
        [first] = (await client.open("/?id=bob"))["ice_servers"]
        assert first["urls"] == ["turn:t.test", "turns:t.test"]
        assert first["username"] == f"{int(NOW) + 100}:bob"
        relay.now += 81
        relay.issuer.renew(relay.relay.send_ice_servers)
        frame = await client.receive()
        assert frame.keys() == {"type", "ice_servers"}
        assert frame["type"] == "ice_servers"
        assert frame["ice_servers"][0]["username"] == f"{int(NOW) + 181}:bob"


async def test_new_turn_secret_renews_credentials_of_connected_clients(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    turn = AuthOptions(turn_secret_file=str(path), turn_url=("turn:t.test",))
    async with auth_relay(turn) as relay:
        client = relay.raw()
        [first] = (await client.open("/?id=bob"))["ice_servers"]
        path.write_text("south")
        await relay.credentials.reload(relay.relay.log_event)
        relay.issuer.renew(relay.relay.send_ice_servers)
        [second] = (await client.receive())["ice_servers"]
        assert first["username"] == second["username"]
        assert first["credential"] != second["credential"]


async def test_resume_token_does_not_replace_authentication(secret: AuthOptions, autojump_clock: MockClock) -> None:
    """A resuming client needs its credentials, also at a full relay, and cannot resume the session of another ID."""
    async with auth_relay(secret, Limits(max_clients=2)) as relay:
        status, bob = await relay.ask(f"/?seq=1&token={token(sub='bob')}")
        assert (status, bob["id"], bob["resumed"]) == (101, "bob", False)
        back = f"seq=1&resume={bob['resume_token']}"
        assert (await relay.ask(f"/?{back}"))[0] == 401
        status, eve = await relay.ask(f"/?{back}&token={token(sub='eve')}")
        assert (status, eve["id"], eve["resumed"]) == (101, "eve", False)
        assert (await relay.ask(f"/?{back}"))[0] == 401
        assert (await relay.ask(f"/?seq=1&resume=x&token={token(sub='al')}"))[0] == 503
        status, again = await relay.ask(f"/?{back}&token={token(sub='bob')}")
        assert (status, again["id"], again["resumed"]) == (101, "bob", True)
