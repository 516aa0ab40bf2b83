"""The files of `sdpx recipe`, each tried with the program that it is for."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from sdpx.cli.guides import DOCS
from sdpx.cli.options import RECIPES
from sdpx.peer.webrtc.peer_connection import host_addresses
from sdpx.relay.core.limits import Limits
from tests.docs import code
from tests.harness.coturn import free_port, wait_for_response
from tests.harness.processes import peer, relay, sdpx
from tests.harness.programs import needs

pytestmark = pytest.mark.e2e
SECRET = "north-by-northwest"


def recipe(name: str) -> str:
    return (DOCS / RECIPES[name][0]).read_text("utf-8")


@asynccontextmanager
async def running(*command: str, **options: Any) -> AsyncIterator[trio.Process]:
    """Run a server until the end of the block."""
    process = await trio.lowlevel.open_process(list(command), stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def wait_for_port(port: int) -> None:
    """Wait until a server listens on this port of loopback."""
    with trio.fail_after(30):
        while True:
            with suppress(OSError):
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return
            await trio.sleep(0.05)


def test_unit_is_valid_for_systemd(tmp_path: Path) -> None:
    unit = tmp_path / "sdpx.service"
    unit.write_text(recipe("systemd").replace("/usr/local/bin/sdpx", sys.executable))
    done = subprocess.run([needs("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_gives_the_relay_time_to_drain() -> None:
    seconds = int(re.findall(r"^TimeoutStopSec=(\d+)$", recipe("systemd"), re.MULTILINE)[0])
    assert seconds > Limits().drain_timeout + 2 * Limits().close_timeout
    command = re.findall(r"^ExecStart=\S+ serve (.*)$", recipe("systemd"), re.MULTILINE)[0].split()
    assert command[0] == "--config"


def test_alert_rules_are_valid_for_prometheus(tmp_path: Path) -> None:
    rules = tmp_path / "alerts.yaml"
    rules.write_text(recipe("prometheus"))
    done = subprocess.run(
        [needs("promtool"), "check", "rules", str(rules)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_metrics_of_alerts_and_dashboard_exist(name: str) -> None:
    documented = re.findall(r"^\| `(sdpx_\w+)`", (DOCS / "operating.md").read_text("utf-8"), re.MULTILINE)
    process = {f"process_{name}" for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds")}
    named = {word.removesuffix("_bucket") for word in re.findall(r"\b(?:sdpx|process)_\w+", recipe(name))}
    assert named
    assert named <= {*documented, *process}


def test_dashboard_is_complete_json_and_its_panels_do_not_overlap() -> None:
    panels = json.loads(recipe("grafana"))["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in panels})
    assert all(target["expr"] for panel in panels for target in panel["targets"])


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(recipe("compose").replace("${PUBLIC_HOST:?}", "127.0.0.1"))
    assert document["services"]["relay"]["build"]["dockerfile"] == Path(RECIPES["container"][0]).name
    return document


async def test_relay_and_turn_server_of_the_compose_file_work_together(tmp_path: Path) -> None:
    """Both run with their options there, but for free ports and the path of the secret: two peers connect through TURN."""
    services, secret, port = compose()["services"], tmp_path / "turn-secret", free_port()
    secret.write_text(f"{SECRET}\n")

    def adapted(text: str) -> str:
        return text.replace("/run/secrets/turn-secret", str(secret)).replace("3478", str(port)).replace("$$", "$")

    [script] = services["turn"]["command"]
    script = adapted(script).replace("turnserver", needs("turnserver"))
    # Clients reach it on loopback here, so that it would relay from there, too.
    more = f" --pidfile={tmp_path}/pid --userdb={tmp_path}/db --relay-ip={host_addresses()[0]}"
    _, *options = (adapted(each) for each in services["relay"]["command"] if not each.startswith(("--port", "--host")))
    code.parse("serve", [*options])
    only = ("--ice-transport", "relay", "--once", "--expect", "channel")
    async with (
        running(*services["turn"]["entrypoint"], script + more, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        relay(*options) as (_, url),
    ):
        with trio.fail_after(20):
            await wait_for_response(port)
        async with (
            sdpx("peer", "--url", url, "--id", "bob", *only) as bob,
            sdpx("peer", "--url", url, "--pair", "bob", "--wait", "10", *only) as alice,
        ):
            for program in (alice, bob):
                await program.end_input()
                assert await program.ended() == 0


def proxied(name: str, folder: Path, port: int, *backends: int) -> tuple[list[str], str]:
    """Write the recipe of a proxy for a port and local backends; returns its command and the URL of the relay behind it."""
    text = recipe(name).replace("127.0.0.1:8765", f"127.0.0.1:{backends[0]}")
    for number, backend in enumerate(backends, 1):
        text = text.replace(f"node{number}:8765", f"127.0.0.1:{backend}")
    url = f"ws://127.0.0.1:{port}" + ("/signal/" if "/signal/" in text else "")
    if name.startswith("nginx"):
        site = text.replace("listen 80", f"listen 127.0.0.1:{port}").replace("/var/log/nginx", str(folder))
        head = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(f"{head}http {{ {paths}\n{site}}}\n")
        return [needs("nginx"), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"], url
    site = text.replace("relay.example.com {", f"http://:{port} {{\n\tbind 127.0.0.1")
    (folder / "Caddyfile").write_text(f"{{\n\tadmin unix/{folder}/admin\n}}\n{site}")
    return [needs("caddy"), "run", "--config", f"{folder}/Caddyfile", "--adapter", "caddyfile"], url


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_peers_connect_through_a_proxy_with_its_recipe(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # Caddy keeps its state there
    async with relay("--trusted-proxy", "127.0.0.1") as (server, url):
        port = free_port()
        command, outside = proxied(name, tmp_path, port, int(url.rpartition(":")[2]))
        async with running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            await wait_for_port(port)
            async with peer(outside, "--id", "bob") as (bob, _):
                async with sdpx("peer", "--url", outside, "--pair", "bob", "--once", "--expect", "channel") as alice:
                    await alice.end_input()
                    assert await alice.ended() == 0
                assert await bob.end() == 0
        assert (await server.wait_for("client_connected"))["remote"].startswith("127.0.0.1")
        assert "proxy_not_trusted" not in server.events


async def reload(name: str, command: list[str], folder: Path) -> None:
    """Let a running proxy load its configuration again."""
    if name == "nginx":
        await trio.run_process([*command, "-s", "reload"], capture_stderr=True)
        return
    changed = folder / "Caddyfile"
    changed.write_text(changed.read_text().replace("reverse_proxy", "header X-Reloaded yes\n\treverse_proxy"))
    options = ["--config", str(changed), "--adapter", "caddyfile", "--address", f"unix/{folder}/admin"]
    await trio.run_process([command[0], "reload", *options], capture_stderr=True)


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_peers_outlive_a_reload_of_the_proxy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx keeps their connections, Caddy closes them: the session goes on, and so does the channel."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with relay("--trusted-proxy", "127.0.0.1") as (server, url):
        port = free_port()
        command, outside = proxied(name, tmp_path, port, int(url.rpartition(":")[2]))
        json = ("--stdin", "json")
        async with running(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            await wait_for_port(port)
            async with (
                peer(outside, "--id", "bob", *json) as (bob, _),
                peer(outside, "--pair", "bob", *json) as (alice, _),
            ):
                for program in (alice, bob):
                    await program.wait_for("channel_open")
                await reload(name, command, tmp_path)
                if name == "caddy":
                    for program in (alice, bob):
                        await program.wait_for("relay_resumed")
                await alice.say('{"send":"still here"}')
                await bob.wait_for("channel_message", text="still here")
                await alice.say('{"unpair":true}')
                await bob.wait_for("ready", reason="left")
                await alice.say('{"pair":"bob"}')
                await bob.wait_for("channel_open", after=bob.events.index("ready", bob.events.index("channel_open")))
                assert "client_disconnected" not in server.events
                assert server.events.count("client_resumed") == (2 if name == "caddy" else 0)
