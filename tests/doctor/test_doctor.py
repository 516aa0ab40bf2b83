"""`sdpx doctor` with real relays, proxies, TURN servers and NATs: each fault has its code and its remedy, and no other."""

import errno
import hmac
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from sdpx.doctor import ice_checks, stun
from sdpx.doctor.check import Check
from sdpx.doctor.options import DoctorOptions
from sdpx.doctor.recorder import CheckRecorder
from sdpx.doctor.relay_checks import PINGS, SKEW_SECONDS, RelayChecks
from sdpx.errors import ExitStatus
from sdpx.ice_servers import IceServer, parse_server
from sdpx.log import Log
from sdpx.options import AccessOptions
from sdpx.relay.auth.keys import secret_key, sign
from sdpx.relay.auth.tokens import make_claims
from tests.e2e.test_recipes import proxied, running, wait_for_port
from tests.harness.coturn import LOGIN, coturn, free_port
from tests.harness.namespaces import CLIENT, PUBLIC, Network, behind_nat
from tests.harness.processes import environment, peer, relay, sdpx
from tests.harness.programs import needs
from tests.harness.stun import stun_server
from tests.harness.tls import CA, write_certificate

pytestmark = pytest.mark.e2e


def recorder() -> CheckRecorder:
    return CheckRecorder(Log(len, lambda: 0.0), lambda _name, _target: None)


async def relay_checks(url: str, **options: Any) -> dict[str, Check]:
    checks = recorder()
    await RelayChecks(DoctorOptions(url=url, **options), checks).run()
    return {each.name: each for each in checks.checks}


def problems(checks: dict[str, Check]) -> dict[str, str]:
    return {name: each.code for name, each in checks.items() if each.code}


# ---- the relay ------------------------------------------------------------------------------------------------------


async def test_relay_without_a_fault_has_no_problem() -> None:
    async with relay() as (_, url):
        checks = await relay_checks(url)
    assert problems(checks) == {}
    skipped = {name for name, check in checks.items() if check.result == "skipped"}
    assert skipped == {"tls", "token"}
    assert checks["round trip"].evidence["pings"] == PINGS
    assert abs(checks["clock"].evidence["skew_seconds"]) < SKEW_SECONDS


async def test_closed_port_and_unknown_name_are_distinguished() -> None:
    checks = await relay_checks(f"ws://127.0.0.1:{free_port()}")
    assert problems(checks) == {"tcp": "port_closed"}
    assert list(checks) == ["name resolution", "tcp"]
    assert problems(await relay_checks("ws://relay.invalid:8765")) == {"name resolution": "name_unresolved"}


async def test_certificate_faults_are_distinguished(tmp_path: Path) -> None:
    cafile = str(tmp_path / "ca.pem")
    async with relay(*write_certificate(tmp_path, "relay.test")) as (_, url):
        assert problems(await relay_checks(url)) == {"tls": "certificate_untrusted"}
        named = await relay_checks(url, access=AccessOptions(cafile=cafile))
        assert problems(named) == {"tls": "certificate_name"}
        insecure = await relay_checks(url, access=AccessOptions(insecure=True))
        assert problems(insecure) == {"tls": "certificate_unverified"}


@asynccontextmanager
async def tls_server(chain: Path) -> AsyncIterator[int]:
    """A server that makes TLS handshakes only; yields its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners: Any = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listeners[0].transport_listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("hours", "code", "result"), [(30, "certificate_expires", "warning"), (-1, "certificate_expired", "failed")]
)
async def test_certificate_that_ends_soon_is_a_warning_and_an_ended_one_a_failure(
    hours: int, code: str, result: str, tmp_path: Path
) -> None:
    end = datetime.now(UTC) + timedelta(hours=hours)
    issued = CA.issue_cert("127.0.0.1", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=end)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "chain.pem")
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")
    access = AccessOptions(cafile=str(tmp_path / "ca.pem"))
    async with tls_server(tmp_path / "chain.pem") as port:
        tls = (await relay_checks(f"wss://127.0.0.1:{port}", access=access))["tls"]
    assert (tls.code, tls.result) == (code, result)


async def test_refusals_of_the_relay_are_named_with_their_codes(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-at-least-32-bytes-for-hs256\n")
    async with relay("--auth-secret-file", str(secret)) as (_, url):
        missing = (await relay_checks(url))["upgrade"]
        assert (missing.code, missing.status) == ("unauthorized", ExitStatus.REFUSED)
        assert "--token" in missing.sentence
        ended = await relay_checks(url, access=AccessOptions(token=make_token(secret, -100)))
        assert "expired" in ended["upgrade"].sentence
        soon = await relay_checks(url, access=AccessOptions(token=make_token(secret, 100)))
        assert soon["token"].code == "token_expires"
        assert soon["pairing"].result == "skipped"  # both clients would have the ID of the token
        valid = await relay_checks(url, access=AccessOptions(token=make_token(secret, 1000)))
        assert problems(valid) == {}


def make_token(secret: Path, seconds: int) -> str:
    return sign(make_claims("ann", (), None, time.time(), seconds), secret_key(secret))


async def test_server_that_is_no_relay_is_named() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\n\r\nhi")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listener: trio.SocketListener = (await nursery.start(trio.serve_tcp, serve, 0))[0]
        checks = await relay_checks(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}")
        nursery.cancel_scope.cancel()
    assert problems(checks) == {"upgrade": "relay_unreachable"}
    assert "not a relay" in checks["upgrade"].sentence


async def test_proxy_with_a_short_idle_timeout_is_a_warning_and_peers_resume(tmp_path: Path) -> None:
    """nginx with its recipe, but for `proxy_read_timeout`. Nothing else is a problem, not even for the two peers."""
    async with relay("--trusted-proxy", "127.0.0.1") as (_, url):
        port = free_port()
        command, outside = proxied("nginx", tmp_path, port, int(url.rpartition(":")[2]))
        site = tmp_path / "nginx.conf"
        text, changes = re.subn(r"proxy_read_timeout \w+;", "proxy_read_timeout 2s;", site.read_text())
        assert changes == 1
        site.write_text(text)
        async with running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            await wait_for_port(port)
            arguments = ("--no-stun", "--idle", "20", "--format", "json")
            async with sdpx("doctor", outside, *arguments) as doctor:
                assert await doctor.ended() == ExitStatus.WARNINGS, doctor.lines
    checks = {line["check"]: line for line in doctor.lines if line["event"] == "doctor_check"}
    assert {name: line["code"] for name, line in checks.items() if "code" in line} == {"idle": "idle_closed"}
    assert checks["upgrade"]["evidence"]["server"].startswith("nginx")
    assert checks["peers"]["result"] == "ok"
    assert "raise the idle timeout of the proxy" in doctor.lines[-1]["message"]


async def test_relay_that_closes_an_idle_connection_is_no_idle_timeout_of_a_proxy() -> None:
    async with relay() as (server, url), trio.open_nursery() as nursery:
        checks = recorder()
        nursery.start_soon(RelayChecks(DoctorOptions(url=url, idle=50), checks).check_idle)
        await server.wait_for("client_connected")
        assert await server.end() == 0
    assert [(each.name, each.code) for each in checks.checks] == [("idle", "relay_lost")]
    assert "The relay closed the connection" in checks.checks[0].sentence


# ---- STUN and TURN --------------------------------------------------------------------------------------------------


async def test_stun_server_that_answers_and_one_that_is_silent_are_distinguished() -> None:
    answers = threading.Event()
    with stun_server() as url, stun_server(answers) as silent:
        checks = recorder()
        await ice_checks.check_stun([parse_server(url), parse_server(silent)], [], checks)
    good, bad, nat = checks.checks
    assert (good.result, bad.code, nat.name) == ("ok", "stun_silent", "nat")
    assert good.evidence["ipv4"]["mapped"].startswith("127.0.0.1:")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_turn_server_is_checked_by_each_transport(transport: str, tmp_path: Path) -> None:
    async with coturn(tmp_path) as port:
        checks = recorder()
        for login in (LOGIN, "ann%40example:wrong"):
            server = parse_server(f"turn:{login}@127.0.0.1:{port}?transport={transport}")
            await ice_checks.check_turn([server], None, checks)
    good, wrong = checks.checks
    assert (good.result, good.evidence["data"]) == ("ok", True), good
    assert (wrong.code, wrong.evidence["error"]) == ("turn_refused", 401)


async def test_credentials_of_a_turn_server_that_have_ended_or_end_soon_are_named(tmp_path: Path) -> None:
    secret = "north-by-northwest"
    async with coturn(tmp_path, secret) as port:
        checks = recorder()
        for seconds in (-60, 120, 3600):
            username = f"{int(time.time()) + seconds}:ann"
            password = b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()
            server = IceServer("turn", "127.0.0.1", port, "udp", username, password)
            await ice_checks.check_turn([server], None, checks)
    ended, soon, good = checks.checks
    assert (ended.code, "expired" in ended.sentence) == ("turn_refused", True)
    assert (soon.code, soon.result) == ("turn_expires", "warning")
    assert (good.result, good.evidence["credentials_seconds_left"] > 3500) == ("ok", True)


async def test_hostile_turn_server_is_named() -> None:
    """Its realm and nonce, which the next request repeats, are longer than a message can be; the user is no time."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            while len(request := bytes(await stream.receive_some())) >= stun.HEADER.size:
                attributes = [
                    (stun.ERROR_CODE, b"\0\0\4\1no"),
                    (stun.REALM, bytes(30_000)),
                    (stun.NONCE, bytes(35_450)),
                ]
                await stream.send_all(stun.encode(stun.ALLOCATE | stun.ERROR, request[8:20], attributes))

    checks = recorder()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        server = IceServer("turn", "127.0.0.1", listener.socket.getsockname()[1], "tcp", "9" * 5000, "p")
        await ice_checks.check_turn([server], None, checks)
        nursery.cancel_scope.cancel()
    [check] = checks.checks
    assert (check.code, check.evidence["error"]) == ("turn_refused", 401)


async def test_turn_servers_that_do_not_answer_are_named(tmp_path: Path) -> None:
    port = free_port()
    checks = recorder()
    urls = [f"turn:a:b@127.0.0.1:{port}?transport=tcp", "turn:a:b@turn.invalid", f"turn:a:b@127.0.0.1:{port}"]
    await ice_checks.check_turn([parse_server(url) for url in urls], None, checks)
    assert [each.code for each in checks.checks] == ["turn_unreachable", "turn_unresolved", "turn_unreachable"]
    issued = CA.issue_cert("other.test")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "chain.pem")
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with tls_server(tmp_path / "chain.pem") as port:
        server = parse_server(f"turns:a:b@127.0.0.1:{port}")
        check = (await run_turn(server, str(tmp_path / "ca.pem")))[0]
    assert check.code == "turn_certificate"


async def run_turn(server: IceServer, cafile: str) -> list[Check]:
    checks = recorder()
    await ice_checks.check_turn([server], cafile, checks)
    return checks.checks


# ---- the whole program ----------------------------------------------------------------------------------------------


async def test_program_checks_everything_and_writes_a_report(tmp_path: Path) -> None:
    async with coturn(tmp_path) as port, relay() as (_, url):
        servers = ("--stun", f"stun:127.0.0.1:{port}", "--turn", f"turn:{LOGIN}@127.0.0.1:{port}")
        report = tmp_path / "report.json"
        arguments = (*servers, "--idle", "0.5", "--format", "json", "--report", str(report))
        async with sdpx("doctor", url, *arguments) as doctor:
            assert await doctor.ended() == 0, doctor.lines
    results = {line["check"]: line["result"] for line in doctor.lines if line["event"] == "doctor_check"}
    assert {name for name, result in results.items() if result != "ok"} == {"tls", "token"}
    phases = next(line for line in doctor.lines if line.get("check") == "peers by TURN")["evidence"]["phases_ms"]
    assert phases["ice"] > 0
    assert doctor.lines[-1]["message"] == "No problem found"
    text = report.read_text()
    assert "pass:word" not in text
    assert [json.loads(line)["name"] for line in text.splitlines()[1:]] == list(results)


async def test_failure_is_said_first_and_is_the_exit_status(tmp_path: Path) -> None:
    async with coturn(tmp_path) as port, relay() as (_, url):
        wrong = ("--no-stun", "--turn", f"turn:ann:wrong@127.0.0.1:{port}")
        async with sdpx("doctor", url, *wrong, "--idle", "0", "--format", "json") as doctor:
            assert await doctor.ended() == ExitStatus.ICE_FAILED
    checks = {line["check"]: line.get("code") for line in doctor.lines if line["event"] == "doctor_check"}
    assert {name: code for name, code in checks.items() if code} == {
        "turn": "turn_refused",
        "peers by TURN": "turn_refused",
    }
    assert doctor.lines[-1]["message"].startswith("Failed: turn turn:127.0.0.1")
    assert "user name and password" in doctor.lines[-1]["message"]


async def test_peer_elsewhere_is_connected_to(tmp_path: Path) -> None:
    async with relay() as (_, url), peer(url, "--id", "bob") as (bob, _):
        async with sdpx("doctor", url, "--with", "bob", "--no-stun", "--idle", "0", "--format", "json") as doctor:
            assert await doctor.ended() == 0
        await bob.wait_for("channel_open")
    [check] = [line for line in doctor.lines if line.get("check") == "peers"]
    assert (check["target"], check["result"]) == ("bob", "ok")


# ---- networks -------------------------------------------------------------------------------------------------------

RESTRICTED = "-t nat -A POSTROUTING -o out0 -j MASQUERADE"
SYMMETRIC = f"{RESTRICTED} --random"
NO_UDP = "-A FORWARD -p udp -j DROP"


async def until_listening(prefix: tuple[str, ...]) -> None:
    """Wait for a STUN server in the namespace of this command."""
    with trio.fail_after(30):
        while b":3478" not in (await trio.run_process([*prefix, "ss", "-Hlun"], capture_stdout=True)).stdout:
            await trio.sleep(0.05)


@asynccontextmanager
async def public_servers(network: Network, folder: Path) -> AsyncIterator[None]:
    """Run a relay at the first public address, and a STUN server at both."""
    options = ("-n", "--no-cli", "--no-tls", "--no-dtls", "--no-auth", "--stun-only", "--simple-log")
    files = (f"--pidfile={folder}/pid", f"--userdb={folder}/db", f"--log-file={folder}/log")
    listening = (f"--listening-ip={address}" for address in PUBLIC)
    turnserver = [*network.public, needs("turnserver"), *options, *files, *listening]
    serve = [*network.public, sys.executable, "-m", "sdpx", "serve", "--host", PUBLIC[0], "--port", "8765"]
    quiet: Any = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with (
        subprocess.Popen(turnserver, stdout=subprocess.DEVNULL, **quiet) as turn,
        subprocess.Popen(serve, stdout=subprocess.PIPE, env=environment(), **quiet) as server,
    ):
        try:
            assert server.stdout is not None
            assert b"server_listening" in await trio.to_thread.run_sync(server.stdout.readline)
            await until_listening(network.public)
            yield
        finally:
            for process in (turn, server):
                process.kill()


async def run_doctor(network: Network, url: str, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the program in the client's network; returns its exit status and its lines."""
    command = [*network.client, sys.executable, "-m", "sdpx", "doctor", url, *options]
    command += ["--idle", "0", "--format", "json"]
    done = await trio.run_process(command, capture_stdout=True, stderr=None, check=False, env=environment())
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.long
@pytest.mark.parametrize(
    ("rules", "kind", "codes"),
    [
        ((RESTRICTED,), "endpoint_independent", set()),
        ((SYMMETRIC,), "address_dependent", {"nat_symmetric"}),
        ((RESTRICTED, NO_UDP), None, {"stun_silent", "udp_blocked"}),
    ],
    ids=["restricted", "symmetric", "no-udp"],
)
async def test_network_is_judged_by_what_servers_see(
    rules: tuple[str, ...], kind: str | None, codes: set[str], tmp_path: Path
) -> None:
    with behind_nat(*rules) as network:
        async with public_servers(network, tmp_path):
            stun = [word for address in PUBLIC for word in ("--stun", f"stun:{address}")]
            status, lines = await run_doctor(network, f"ws://{PUBLIC[0]}:8765", *stun)
    checks = {line["check"]: line for line in lines if line["event"] == "doctor_check"}
    assert {line["code"] for line in lines if "code" in line} == codes, lines
    assert (checks["nat"]["evidence"]["kind"] if "nat" in checks else None) == kind
    assert checks["peers"]["result"] == "ok"
    assert checks["addresses"]["evidence"]["addresses"][0]["address"] == CLIENT
    assert status == (ExitStatus.WARNINGS if codes else ExitStatus.OK)


async def test_machine_without_ipv6_has_a_problem_only_with_servers_that_have_nothing_else(tmp_path: Path) -> None:
    both, only = (PUBLIC[0], "2001:db8::5"), ("2001:db8::5",)
    names = {"relay.test": both, "stun.test": both, "six.test": only}
    with behind_nat(RESTRICTED) as network, network.name_hosts(names):
        network.disable_ipv6()
        async with public_servers(network, tmp_path):
            status, lines = await run_doctor(network, "ws://relay.test:8765", "--stun", "stun:stun.test")
        assert {line["code"] for line in lines if "code" in line} == set(), lines
        [stun] = [line for line in lines if line.get("check") == "stun"]
        assert stun["evidence"]["ipv4"]["mapped"].startswith("203.0.113.1:")
        assert "error" in stun["evidence"]["ipv6"]
        assert (status, lines[-1]["message"]) == (0, "No problem found")
        turn = ("--turn", "turn:a:b@six.test", "--turn", "turn:a:b@six.test?transport=tcp")
        status, lines = await run_doctor(network, "ws://six.test:8765", "--stun", "stun:six.test", *turn)
    codes = [line["code"] for line in lines if "code" in line]
    assert codes == ["no_ipv6", "stun_no_route", "turn_no_route", "turn_no_route"], lines
    assert status == ExitStatus.RELAY
    assert lines[-1]["message"].startswith("Failed: tcp six.test:8765 (2 more). First: give the relay an IPv4 address")


async def test_kernel_without_ipv6_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes no socket for it (EAFNOSUPPORT)."""
    make = trio.socket.socket

    def make_socket(family: int, kind: int) -> trio.socket.SocketType:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, kind)

    monkeypatch.setattr(trio.socket, "socket", make_socket)
    with stun_server() as url:
        checks = recorder()
        await ice_checks.check_stun([parse_server(url), parse_server("stun:[::1]:3478")], [], checks)
    assert [each.code for each in checks.checks if each.name == "stun"] == ["", "stun_no_route"]
