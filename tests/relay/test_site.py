"""The page, its parts, the client module, and the relay's numbers, over HTTP."""

import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from sdpx.relay.auth.keys import secret_key, sign
from sdpx.relay.auth.tokens import make_claims
from sdpx.relay.site import CONTENT_SECURITY_POLICY, WEB
from sdpx.remedies import REMEDIES
from tests.harness.processes import peer, relay, sdpx

pytestmark = pytest.mark.e2e
HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9"}


def at(url: str, path: str) -> str:
    return f"http{url.removeprefix('ws')}{path}"


async def get(url: str, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.request(
            method, at(url, path), headers={name.replace("_", "-"): headers[name] for name in headers}
        )


async def test_browser_gets_the_page_and_other_programs_the_description() -> None:
    async with relay() as (_, url):
        page = await get(url, "/", **HTML)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert (await get(url, "/")).status_code == 426
        assert (await get(url, "/elsewhere", **HTML)).status_code == 404
        for part in (WEB / "assets").iterdir():
            answer = await get(url, f"/assets/{part.name}")
            assert (answer.status_code, answer.content) == (200, part.read_bytes())
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await get(url, "/assets/remedies.json")).json() == {
            code: each.remedy for code, each in REMEDIES.items()
        }
        assert (await get(url, "/assets/../sdpx.js")).status_code in (200, 404)


def test_page_has_no_inline_script_or_style() -> None:
    text = (WEB / "index.html").read_text("utf-8")
    assert "<style" not in text
    assert " style=" not in text
    assert text.count("<script") == text.count('<script type="module" src=')
    assert "http" not in text


def test_scripts_of_the_page_can_be_read_by_safari_16() -> None:
    """Lookbehind in a regular expression is a syntax error before 16.4, after which nothing of the page runs."""
    for part in (WEB / "sdpx.js", *(WEB / "assets").iterdir()):
        text = part.read_text("utf-8")
        assert not re.search(r"\(\?<[=!]", text), part.name
        assert not re.search(r"\bimport\b[^;\n]*\bwith\b|^\s*static \{|^\s*using ", text, re.MULTILINE), part.name
        assert not (
            part.name.endswith(".css")
            and re.search(r"^\s*&|:has\(|@layer|@scope|light-dark\(|oklch", text, re.MULTILINE)
        )


async def test_no_page_leaves_the_port_to_programs() -> None:
    async with relay("--no-page") as (_, url):
        assert (await get(url, "/", **HTML)).status_code == 426
        for path in ("/sdpx.js", "/stats.json", "/qr.svg?pair=bob"):
            assert (await get(url, path)).status_code == 404


@pytest.mark.parametrize(
    ("options", "origin", "allowed"),
    [
        ((), "https://app.example", "https://app.example"),
        (("--allow-origin", "https://app.example"), "https://app.example", "https://app.example"),
        (("--allow-origin", "https://app.example"), "https://other.example", None),
    ],
)
async def test_client_module_is_for_pages_of_allowed_origins(
    options: tuple[str, ...], origin: str, allowed: str | None
) -> None:
    async with relay(*options) as (_, url):
        module = await get(url, "/sdpx.js", Origin=origin)
    assert module.status_code == 200
    assert module.headers["content-type"] == "text/javascript; charset=utf-8"
    assert module.headers.get("access-control-allow-origin") == allowed


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("pair=bob", 200),
        ("pair=bob&scheme=https&path=/signal/", 200),
        ("", 400),
        ("pair=b%20b", 400),
        ("pair=bob&scheme=javascript", 400),
        ("pair=bob&path=//evil.example/", 400),
        ("pair=bob&path=/x", 400),
    ],
)
async def test_code_encodes_links_to_the_page_only(query: str, status: int) -> None:
    async with relay() as (_, url):
        answer = await get(url, f"/qr.svg?{query}")
    assert answer.status_code == status
    assert (answer.headers["content-type"] == "image/svg+xml") == (status == 200)


async def test_numbers_are_for_this_machine_only_where_there_is_no_authentication() -> None:
    async with relay() as (_, url), peer(url, "--id", "bob"):
        body = (await get(url, "/stats.json")).json()
        assert (body["now"]["clients"], "clients" in body, len(body["history"]) > 0) == (1, False, True)
        assert "bob" not in str(body)
        assert (await get(url, "/stats.json", X_Forwarded_For="198.51.100.1")).status_code == 403
        for host in ("evil.test", f"evil.test:{url.rpartition(':')[2]}"):  # DNS rebinding
            assert (await get(url, "/stats.json", Host=host)).status_code == 403
        for host in ("localhost", "[::1]:8765"):
            assert (await get(url, "/stats.json", Host=host)).status_code == 200
        assert (await get(url, "/clients/bob", "DELETE")).status_code == 403


async def test_administrator_sees_and_disconnects_clients(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-at-least-32-bytes-for-hs256\n")

    def bearer(**more: Any) -> str:
        claims = make_claims("ann", (), None, time.time(), 600) | more
        return f"Bearer {sign(claims, secret_key(secret))}"

    async with relay("--auth-secret-file", str(secret)) as (server, url):
        token = bearer(sub="bob").removeprefix("Bearer ")
        async with peer(url, "--token", token, "--no-reconnect") as (bob, _):
            assert (await get(url, "/stats.json")).status_code == 401
            plain = await get(url, "/stats.json", Authorization=bearer())
            assert (plain.status_code, "clients" in plain.json()) == (200, False)
            for claim in ("yes", 1, None):
                assert "clients" not in (await get(url, "/stats.json", Authorization=bearer(admin=claim))).json()
            assert (await get(url, "/clients/bob", "DELETE", Authorization=bearer())).status_code == 403
            admin = {"Authorization": bearer(admin=True)}
            [client] = (await get(url, "/stats.json", **admin)).json()["clients"]
            assert (client["id"], client["peer"], client["suspended"]) == ("bob", None, False)
            assert (await get(url, "/clients/nobody", "DELETE", **admin)).status_code == 404
            assert (await get(url, "/clients/bob", "DELETE", **admin)).json() == {"disconnected": True}
            assert (await server.wait_for("client_disconnected"))["code"] == 1008
            await bob.ended()


async def test_token_may_be_a_subprotocol_and_the_page_has_the_relays_own_origin(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-at-least-32-bytes-for-hs256\n")
    token = sign(make_claims("ann", (), None, time.time(), 600), secret_key(secret))
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    upgrade |= {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA=="}

    async def open_from(url: str, origin: str, *protocols: str) -> int:
        return (await get(url, "/", Origin=origin, Sec_WebSocket_Protocol=", ".join(protocols), **upgrade)).status_code

    strict = ("--auth-secret-file", str(secret), "--allow-origin", "https://app.example")
    async with relay(*strict) as (server, url):
        own = at(url, "")
        for origin, protocols, status in (
            (own, ("sdpx.v1",), 401),
            (own, ("sdpx.v1", "sdpx.token.x.y.z"), 401),
            ("https://other.example", ("sdpx.v1", f"sdpx.token.{token}"), 403),
        ):
            assert await open_from(url, origin, *protocols) == status
    async with relay(*strict, "--no-page") as (_, url):
        assert await open_from(url, at(url, ""), "sdpx.v1", f"sdpx.token.{token}") == 403
    assert token not in str(server.lines)


async def test_peer_prints_its_link_and_code() -> None:
    async with relay() as (_, url), sdpx("peer", "--url", url, "--id", "bob", "--qr") as bob:
        await bob.wait_for("id_assigned")
        assert await bob.end() == 0
    lines = bob.stderr.decode().splitlines()
    assert lines[-1] == f"{at(url, '/')}#pair=bob"
    assert len(lines) > 10
