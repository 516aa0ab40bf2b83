"""Several nodes and the engine that they share, as real processes: short versions of `just cluster-soak`."""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import yaml

from tests.cluster_soak.engine_loss import engine_loss
from tests.cluster_soak.isolation import isolation
from tests.cluster_soak.node_loss import node_loss
from tests.cluster_soak.outcome import NO_LIMITS, QUICK, Outcome, Scale
from tests.cluster_soak.pairing import pair_requests
from tests.cluster_soak.rolling import roll, rolling_restart
from tests.cluster_soak.traffic import ActivePair, wait_until_settled
from tests.docs import code
from tests.e2e.test_recipes import proxied, recipe, running, wait_for_port
from tests.harness.cluster import Node, cluster
from tests.harness.coturn import free_port
from tests.harness.processes import peer
from tests.harness.redis_server import Kind, needs_redis, redis_server
from tests.harness.tls import write_certificate

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SMALL = replace(QUICK, nodes=2, pairs=8, kills=1, requests=300, drain=0.5, outages=1, slack=10.0)
NEVER = ("diagnosis", "connection_retry", "negotiation_error")


@pytest.fixture(autouse=True)
def engine_is_installed() -> None:
    """Skip the tests where there is no Redis."""
    needs_redis()


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_engine_is_killed_and_restarted_on_its_port(tmp_path: Path, kind: Kind) -> None:
    """The same faults of the engine as in the other tests."""
    async with redis_server(tmp_path, kind=kind) as engine:
        assert await engine.answers()
        engine.suspend()
        assert not await engine.answers()
        engine.resume()
        assert await engine.answers()
        engine.kill()
        assert not await engine.answers()
        await engine.restart()
        assert await engine.answers()


@pytest.mark.parametrize(
    "measure", [rolling_restart, node_loss, engine_loss, isolation, pair_requests], ids=lambda measure: measure.__name__
)
async def test_cluster_meets_its_demands(tmp_path: Path, measure: Callable[[Path, Scale], Awaitable[Outcome]]) -> None:
    outcome = await measure(tmp_path, SMALL)
    assert not outcome.wrong, outcome.render()


async def test_nodes_share_one_port_and_an_engine_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --reuse-port the kernel spreads the connections; clients of different processes are paired."""
    _, certificate, _, key = write_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/ca.pem")
    password, secured = tmp_path / "password", free_port()
    password.write_text("north by northwest\n")
    tls = (
        "--tls-port",
        str(secured),
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--tls-auth-clients",
        "no",
    )
    async with redis_server(tmp_path, *tls, "--requirepass", password.read_text().strip()):
        engine = ("--cluster", f"rediss://localhost:{secured}", "--cluster-password-file", str(password))
        options = (*NO_LIMITS, *engine, "--reuse-port")
        port = free_port()
        nodes = [Node(tmp_path / f"node{number}", port, options) for number in range(2)]
        try:
            for node in nodes:
                await node.start()
            async with trio.open_nursery() as nursery:
                pairs = [ActivePair(number, [port, port], 5) for number in range(8)]
                for pair in pairs:
                    nursery.start_soon(pair.run)
                assert await wait_until_settled(pairs, 20)
                nursery.cancel_scope.cancel()
            assert all(node.events("client_connected") for node in nodes)
        finally:
            for node in nodes:
                node.kill()


@pytest.mark.parametrize("proxy", ["nginx-cluster", "caddy-cluster"])
async def test_recipe_of_a_cluster_can_be_rolled_during_a_conversation(
    proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster's containers as processes, with their options: no frame is lost, no pairing ends, peers come back."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Caddy keeps its state there
    services = yaml.safe_load(recipe("cluster"))["services"]
    assert services["node1"] == services["node2"]
    out, port = Outcome(""), free_port()
    async with redis_server(tmp_path, *services["valkey"]["command"][1:], kind="valkey") as engine:
        options = [each.replace("redis://valkey:6379", engine.url) for each in services["node1"]["command"][1:]]
        options = [each for each in options if not each.startswith(("--host", "--port"))]
        code.parse("serve", [*options])
        options += ["--trusted-proxy=127.0.0.1", "--drain-timeout=1", *NO_LIMITS]
        async with cluster(tmp_path, 2, *options) as nodes:
            command, url = proxied(proxy, tmp_path, port, *[node.port for node in nodes])
            async with running(*command, stderr=subprocess.DEVNULL), trio.open_nursery() as nursery:
                await wait_for_port(port)
                pairs = [ActivePair(number, [port, port], 4) for number in range(8)]
                for pair in pairs:
                    nursery.start_soon(pair.run)
                out.require(await wait_until_settled(pairs, 30), "Not all pairs were paired at first.")
                async with conversation(url):
                    await roll(nodes, out, lambda: all(pair.paired for pair in pairs))
                out.require(await wait_until_settled(pairs, 20, go_on=False), "Not all pairs were settled at the end.")
                nursery.cancel_scope.cancel()
        out.add_clients(pairs)
        out.require(not sum(pair.notices for pair in pairs), "A pairing ended.")
        out.require(all(node.events("client_connected") for node in nodes), "A node had no client.")
        out.add_nodes(nodes)
    assert not out.wrong, out.render()


@asynccontextmanager
async def conversation(url: str) -> AsyncIterator[None]:
    """Let two peers exchange messages before and after the block; their pairing survives it, and another one can follow."""
    async with peer(url, "--id", "alice", "--stdin", "json") as (a, _), peer(url, "--id", "bob") as (b, _):
        await a.say('{"pair":"bob"}')
        await a.wait_for("channel_open")
        yield
        await a.say('{"send":"hello"}')
        await b.wait_for("channel_message", text="hello")
        mark = len(a.lines)
        await a.say('{"unpair":true}')
        await a.wait_for("ready", after=mark)
        await a.say('{"pair":"bob"}')
        await a.wait_for("channel_open", after=mark)
        for program in (a, b):
            assert program.events.count("id_assigned") == 1
            assert program.events.count("relay_resumed") >= 1
            assert "".join(str(line) + "\n" for line in program.lines if line["event"] in NEVER) == ""
        assert "peer_disconnected" not in a.events
        assert [line["reason"] for line in b.of("peer_disconnected")] == ["left"]
