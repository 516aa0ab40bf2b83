"""Start of real processes: each invalid option ends it with its own message and status 2; no secret is printed."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio
from trio_websocket import open_websocket, open_websocket_url
from typer.testing import CliRunner

from sdpx.cli import app
from tests.harness.credentials import KEYS, SECRET, jwks_file, public_jwk, secret_file, token, write
from tests.harness.frames import upgrade_request
from tests.harness.processes import environment, relay, sdpx
from tests.harness.tls import CA, write_certificate
from tests.harness.webhook_server import answer_json, webhook_server

pytestmark = pytest.mark.e2e

WIDE = {"COLUMNS": "500", "TERMINAL_WIDTH": "500"}  # a sentence is one line


def run(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    variables = environment() | WIDE | more
    return subprocess.run(
        [sys.executable, "-m", "sdpx", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auth-secret-file", "{empty}"], ["--auth-secret-file", "is empty"]),
        (["--auth-secret-file", "{nowhere}"], ["--auth-secret-file", "No such file"]),
        (["--auth-secret-file", "{key}"], ["--auth-secret-file", "not a shared secret"]),
        (["--auth-jwks", "{empty}"], ["--auth-jwks", "JWK set"]),
        (["--auth-jwks", "{nowhere}"], ["--auth-jwks", "No such file"]),
        (["--auth-audience", "x"], ["--auth-audience", "needs --auth-secret-file"]),
        (["--auth-webhook", "ftp://u:hush@h"], ["--auth-webhook", "not an HTTP URL"]),
        (["--allow-origin", "example.com"], ["--allow-origin", "'example.com'"]),
        (["--trusted-proxy", "10.0.0.0/40"], ["--trusted-proxy", "'10.0.0.0/40'"]),
        (["--tls-cert", "{cert}"], ["--tls-cert", "needs --tls-key"]),
        (["--tls-key", "{key}"], ["--tls-key", "needs --tls-cert"]),
        (["--tls-cert", "{nowhere}", "--tls-key", "{key}"], ["--tls-cert", "No such file"]),
        (["--tls-cert", "{cert}", "--tls-key", "{nowhere}"], ["--tls-cert", "No such file"]),
        (["--tls-cert", "{empty}", "--tls-key", "{key}"], ["--tls-cert", "no PEM certificate"]),
        (["--tls-cert", "{cert}", "--tls-key", "{other}"], ["--tls-cert", "does not belong to the certificate"]),
        (["--turn-secret-file", "{secret}"], ["--turn-secret-file", "needs --turn-url"]),
        (["--turn-url", "turn:h"], ["--turn-url", "needs --turn-secret-file"]),
        (["--turn-url", "stun:h", "--turn-secret-file", "{secret}"], ["--turn-url", "'stun:h'"]),
        (["--config", "{nowhere}"], ["--config", "No such file"]),
        (["--config", "{config}"], ["--config", "[serve] unknown option 'prot'", "did you mean port?"]),
    ],
)
def test_invalid_option_ends_the_start(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    """The option and the reason are on stderr; stdout is empty."""
    write_certificate(tmp_path)
    places = {
        "empty": write(tmp_path / "empty", ""),
        "nowhere": tmp_path / "nowhere",
        "secret": secret_file(tmp_path),
        "cert": tmp_path / "cert.pem",
        "key": tmp_path / "key.pem",
        "other": write(tmp_path / "other.pem", CA.issue_cert("x").private_key_pem.bytes()),
        "config": write(tmp_path / "sdpx.toml", "[serve]\nprot = 1\n"),
    }
    done = CliRunner().invoke(
        app.command_line(), ["serve", "--check", *(each.format(**places) for each in arguments)], env=WIDE
    )
    assert (done.exit_code, done.stdout) == (2, "")
    for word in words:
        assert word in done.stderr
    assert "hush" not in done.stderr


def test_invalid_certificate_prevents_listening(tmp_path: Path) -> None:
    """Without --check, too."""
    write_certificate(tmp_path)
    other = write(tmp_path / "other.pem", CA.issue_cert("x").private_key_pem.bytes())
    done = run("serve", "--port", "0", "--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(other))
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not belong to the certificate" in done.stderr
    assert "Traceback" not in done.stderr


def test_valid_configuration_is_checked_and_printed(tmp_path: Path) -> None:
    """The printed configuration merges all sources, and can be read back."""
    config = write(
        tmp_path / "a.toml",
        "rate = 7\n[serve]\nping-interval = 11\ndrain-timeout = 1\nhandshake-timeout = 2\n[token]\nttl = '5m'\n",
    )
    arguments = [
        "--config",
        str(config),
        "--auth-secret-file",
        str(secret_file(tmp_path)),
        *write_certificate(tmp_path),
    ]
    done = run("serve", *arguments, "--check")
    assert (done.returncode, done.stdout) == (0, "")
    assert "configuration OK" in done.stderr
    done = run(
        *("serve", *arguments, "--ping-interval", "13", "--auth-webhook", "https://u:hush@h/?k=hush", "--print-config"),
        SDPX_PING_INTERVAL="12",
        SDPX_DRAIN_TIMEOUT="3",
        SDPX_ALLOW_ORIGIN="https://a.test https://b.test",
    )
    assert done.returncode == 0
    assert "hush" not in done.stdout + done.stderr
    assert SECRET not in done.stdout
    for line in (
        "ping-interval = 13.0",
        "drain-timeout = 3.0",
        "handshake-timeout = 2.0",
        "rate = 7.0",
        "idle-timeout = 45.0",
    ):
        assert f"{line}\n" in done.stdout
    assert 'allow-origin = ["https://a.test", "https://b.test"]\n' in done.stdout
    masked = run("serve", "--config", str(write(tmp_path / "b.toml", done.stdout)), "--print-config")
    assert (masked.returncode, "'auth-webhook': '***' is where --print-config hides a secret" in masked.stderr) == (
        2,
        True,
    )
    filled_in = write(tmp_path / "c.toml", done.stdout.replace("***", "hush"))
    assert run("serve", "--config", str(filled_in), "--print-config").stdout == done.stdout


def test_token_command_prints_only_the_token(tmp_path: Path) -> None:
    path = str(secret_file(tmp_path))
    done = run("token", "--sub", "bob", "--ttl", "1h", "--pair", "robot-*", "--auth-secret-file", path)
    assert done.returncode == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout)
    assert done.stderr == ""


def test_token_command_warns_of_a_short_secret(tmp_path: Path) -> None:
    path = str(secret_file(tmp_path, "hush"))
    done = CliRunner().invoke(app.command_line(), ["token", "--sub", "bob", "--auth-secret-file", path], env=WIDE)
    assert done.exit_code == 0
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout)
    assert "shorter than 32 bytes" in done.stderr
    assert "hush" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sub", "bob"], ["--auth-secret-file", "required"]),
        (["--auth-secret-file", "{secret}"], ["--sub"]),
        (["--sub", "x" * 65, "--auth-secret-file", "{secret}"], ["--sub", "not a client ID"]),
        (["--sub", "bob", "--auth-secret-file", "{secret}", "--ttl", "soon"], ["--ttl", "'soon'"]),
        (["--sub", "bob", "--auth-secret-file", "{secret}", "--pair", "x" * 65], ["--pair", "not an ID"]),
        (["--sub", "bob", "--auth-secret-file", "/nowhere"], ["--auth-secret-file", "No such file"]),
    ],
)
def test_token_command_names_an_invalid_option(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    secret = secret_file(tmp_path)
    done = CliRunner().invoke(
        app.command_line(), ["token", *(each.format(secret=secret) for each in arguments)], env=WIDE
    )
    assert (done.exit_code, done.stdout) == (2, "")
    assert all(word in done.stderr for word in words)


async def test_printed_token_authenticates_its_client(tmp_path: Path) -> None:
    secret = str(secret_file(tmp_path))
    minted = run("token", "--sub", "bob", "--auth-secret-file", secret).stdout.strip()
    async with relay("--auth-secret-file", secret) as (_, url):
        async with open_websocket_url(f"{url}/?token={minted}") as socket:
            assert json.loads(await socket.get_message())["id"] == "bob"
        answer = await attempt(int(url.rpartition(":")[2]), upgrade_request())
        assert b" 401 " in answer
        status, _, events = await run_peer(url, "--token", minted)
        assert (status, "id_assigned" in events) == (0, True)


async def test_relay_on_a_public_address_warns_without_authentication(tmp_path: Path) -> None:
    for arguments, warned in (
        ([], True),
        (["--allow-origin", "https://a.test"], False),
        (["--auth-secret-file", str(secret_file(tmp_path))], False),
    ):
        async with relay("--host", "0.0.0.0", *arguments) as (server, _):
            await server.end()
            assert ("authentication_disabled" in server.events) is warned
    async with relay() as (server, _):
        await server.end()
        assert "authentication_disabled" not in server.events


async def test_relay_warns_of_a_short_secret(tmp_path: Path) -> None:
    async with relay("--auth-secret-file", str(secret_file(tmp_path, "hush"))) as (server, _):
        assert "hush" not in json.dumps(await server.wait_for("weak_secret"))


# ---- TLS ----------------------------------------------------------------------------------------------------------


async def test_relay_with_a_certificate_accepts_tls_only(tmp_path: Path) -> None:
    async with relay(*write_certificate(tmp_path)) as (server, url):
        line = await server.wait_for("server_listening")
        assert url == f"wss://127.0.0.1:{line['port']}"
        assert line["tls"] is True
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        async with open_websocket("127.0.0.1", line["port"], "/", use_ssl=context) as socket:
            assert json.loads(await socket.get_message())["type"] == "your_id"
        async with httpx.AsyncClient(verify=context) as client:
            assert (await client.get(f"https://127.0.0.1:{line['port']}/healthz")).status_code == 200
            answer = await client.get(f"http://127.0.0.1:{line['port']}/healthz")
            assert (answer.status_code, "wss://" in answer.text) == (400, True)
        assert await server.end() == 0


async def test_sighup_reloads_files_without_disconnecting_clients(tmp_path: Path) -> None:
    """An invalid file is reported, and the previous contents stay in force."""
    secret = secret_file(tmp_path)
    async with relay("--auth-secret-file", str(secret), *write_certificate(tmp_path)) as (server, url):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        port = int(url.rpartition(":")[2])
        async with open_websocket("127.0.0.1", port, f"/?token={token(sub='bob')}", use_ssl=context) as socket:
            await socket.get_message()
            write_certificate(tmp_path, "127.0.0.1")
            secret.write_text("another secret of thirty-two bytes, or more")
            server.process.send_signal(signal.SIGHUP)
            line = await server.wait_for("reloaded")
            assert line["options"] == "--auth-secret-file, --tls-cert"
            (tmp_path / "cert.pem").write_text("broken")
            secret.write_text("")
            server.process.send_signal(signal.SIGHUP)
            await server.wait_for("reload_failed", option="--tls-cert")
            await server.wait_for("reload_failed", option="--auth-secret-file")
            await socket.send_message('{"type":"ping"}')
            assert json.loads(await socket.get_message())["type"] == "pong"
        new = token("another secret of thirty-two bytes, or more", sub="al")
        async with open_websocket("127.0.0.1", port, f"/?token={new}", use_ssl=context) as socket:
            assert json.loads(await socket.get_message())["id"] == "al"
        assert await server.end() == 0


async def test_reload_of_a_blocking_file_does_not_block_the_relay(tmp_path: Path) -> None:
    """The file is a pipe without a writer; the relay still serves, and stops."""
    secret = secret_file(tmp_path)
    async with relay("--auth-secret-file", str(secret), "--log-level", "debug") as (server, url):
        secret.unlink()
        os.mkfifo(secret)
        server.process.send_signal(signal.SIGHUP)
        await trio.sleep(0.3)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http{url[2:]}/healthz")).status_code == 200
        with trio.fail_after(30):
            assert await server.end() == 0


async def test_sighup_without_files_does_not_end_the_relay() -> None:
    async with relay() as (server, _):
        server.process.send_signal(signal.SIGHUP)
        await server.wait_for("reloaded")
        assert await server.end() == 0


# ---- secrets ----------------------------------------------------------------------------------------


async def attempt(port: int, request: bytes) -> bytes:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        answer = b""
        with trio.fail_after(60):  # a guard: the relay closes the connection, or opens a WebSocket
            async for chunk in stream:
                answer += chunk
                if b"your_id" in answer:
                    break
        return answer


UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost: h\r\n"
)
# Requests with a token in every place, valid and malformed; the first one opens a WebSocket if the token is valid.
REQUESTS = (
    b"GET /?token=TOKEN HTTP/1.1\r\n%b\r\n" % UPGRADE,
    b"GET / HTTP/1.1\r\n%bAuthorization: Bearer TOKEN\r\n\r\n" % UPGRADE,
    b"GET / HTTP/1.1\r\n%bAuthorization Bearer TOKEN\r\n\r\n" % UPGRADE,
    b"GET / HTTP/1.1\r\n%bAuthorization: Bearer TOKEN\x00\r\n\r\n" % UPGRADE,
    b"GET /?token=TOKEN HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /healthz?token=TOKEN HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /elsewhere?token=TOKEN HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /?token=TOKEN HTTP/1.1 TOKEN\r\n\r\n",
    b"POST /?token=TOKEN&id=a+b HTTP/1.1\r\n%b\r\n" % UPGRADE,
    b"GET /?id=TOKEN HTTP/1.1\r\n%b\r\n" % UPGRADE,
    b"TOKEN\r\n\r\n",
)


async def assert_peer_hides(secret: str, url: str) -> None:
    """Run a peer with a token that the relay refuses: its output does not contain the token."""
    command = [sys.executable, "-m", "sdpx", "peer", "--no-stun", "--url", f"{url}/?token={secret}"]
    env = environment()
    failed = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=env)
    assert failed.returncode == 6
    assert secret.encode() not in failed.stdout + failed.stderr


async def test_secrets_appear_in_no_log_metric_or_response(tmp_path: Path) -> None:
    """The requirement holds at debug level and for malformed requests. TURN credentials are sent only to their client."""
    secret, jwks = secret_file(tmp_path), jwks_file(tmp_path, public_jwk(KEYS["EdDSA"]))
    turn_secret = write(tmp_path / "turn", "turn-secret-hush")
    good, bad = token(sub="bob"), token("hush" * 10, sub="eve")
    async with webhook_server(answer_json(allowed=True)) as service:
        arguments = ["--auth-secret-file", str(secret), "--auth-jwks", str(jwks), "--log-level", "debug"]
        arguments += ["--auth-webhook", service.url.replace("//", "//hook:webhook-hush@") + "?k=query-hush"]
        arguments += ["--turn-secret-file", str(turn_secret), "--turn-url", "turn:t.test"]
        async with relay(*arguments) as (server, url):
            port = int(url.rpartition(":")[2])
            with_good = [await attempt(port, each.replace(b"TOKEN", good.encode())) for each in REQUESTS]
            with_bad = [await attempt(port, each.replace(b"TOKEN", bad.encode())) for each in REQUESTS]
            async with httpx.AsyncClient() as client:
                metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            for name in ("good", "bad"):
                await assert_peer_hides(token("x" * 40, sub=name), url)
            secret.write_text("")
            server.process.send_signal(signal.SIGHUP)
            await server.wait_for("reload_failed")
            await server.end()
            assert "http_request" in server.events
    assert b"101 Switching" in with_good[0]
    assert b" 401 " in with_bad[0]
    log = json.dumps(server.lines) + server.stderr.decode() + metrics
    all_output = log + b"".join(with_good + with_bad).decode("latin-1")
    hidden = [good, bad, good.rpartition(".")[2], bad.rpartition(".")[2], SECRET, "hush"]
    assert not [each for each in hidden if each in all_output]
    assert "credential" not in log


def test_relay_without_authentication_loads_no_authentication_library() -> None:
    """PyJWT and cryptography would slow the start and take 8 MB."""
    command = [sys.executable, "-X", "importtime", "-m", "sdpx", "serve", "--port", "0", "--log-format", "json"]
    relay = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert relay.stdout is not None
    assert "server_listening" in relay.stdout.readline()
    relay.terminate()
    _, imports = relay.communicate(timeout=30)
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports.splitlines()}
    assert "trio" in loaded
    assert not loaded & {"jwt", "cryptography", "httpx", "tomllib", "asyncio", "aiortc"}


# ---- certificate verification by the peer -----------------------------------------------------------------------------


async def run_peer(url: str, *arguments: str) -> tuple[int | None, str, list[str]]:
    """Run a peer that ends when it has its ID; returns its status, its stderr, and its events."""
    async with sdpx("peer", "--no-stun", "--url", url, *arguments) as program:
        with trio.move_on_after(20):
            while "id_assigned" not in program.events and program.process.poll() is None:
                await trio.sleep(0.02)
        program.process.terminate()
        status = await program.ended()
        return status, program.stderr.decode(), program.events


async def test_peer_verifies_the_certificate_with_cafile(tmp_path: Path) -> None:
    async with relay(*write_certificate(tmp_path)) as (_, url):
        status, _, events = await run_peer(url, "--cafile", str(tmp_path / "ca.pem"))
        assert (status, "id_assigned" in events) == (0, True)
        status, stderr, events = await run_peer(url)
        assert (status, "id_assigned" in events) == (3, False)
        assert "certificate is not trusted" in stderr
        assert "--cafile" in stderr
        status, stderr, events = await run_peer(url, "--insecure")
        assert (status, "id_assigned" in events) == (0, True)
        assert "tls_verification_disabled" in events
        assert "verification is disabled" in stderr
        status, stderr, _ = await run_peer(url.replace("wss", "ws"))
        assert (status, "wss://" in stderr) == (6, True)
    async with relay() as (_, url):
        status, stderr, _ = await run_peer(url.replace("ws", "wss"))
        assert (status, "ws://" in stderr.replace("wss://", "")) == (3, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_certificate_for_another_name_is_reported_as_such(tmp_path: Path, host: str) -> None:
    async with relay(*write_certificate(tmp_path, "relay.test")) as (_, url):
        status, stderr, _ = await run_peer(url.replace("127.0.0.1", host), "--cafile", str(tmp_path / "ca.pem"))
    assert status == 3
    assert "for another name" in stderr
    assert "--cafile" not in stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "wss://h", "--cafile", "/nowhere"], ["--cafile", "No such file"]),
        (["--url", "wss://h", "--cafile", "{empty}"], ["--cafile", "no certificate"]),
        (["--url", "wss://h", "--cafile", "{ca}", "--insecure"], ["--insecure", "contradicts --cafile"]),
        (["--url", "ws://h", "--cafile", "{ca}"], ["--cafile", "wss://"]),
        (["--url", "ws://h", "--insecure"], ["--insecure", "wss://"]),
        (["--token", ""], ["the token is empty", "SDPX_TOKEN"]),
        (["--token", " "], ["the token is empty", "SDPX_TOKEN"]),
    ],
)
def test_contradictory_tls_options_of_the_peer_are_refused(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    write_certificate(tmp_path)
    places = {"empty": write(tmp_path / "empty", ""), "ca": tmp_path / "ca.pem"}
    done = CliRunner().invoke(app.command_line(), ["peer", *(each.format(**places) for each in arguments)], env=WIDE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert all(word in done.stderr for word in words)
