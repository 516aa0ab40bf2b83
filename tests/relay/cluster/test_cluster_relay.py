"""A cluster as its clients see it: lost nodes, a lost engine, and rolling restarts; the directory is in memory."""

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from tests.harness.frames import message, upgrade_request
from tests.harness.relay import Client, ClusterHarness, RawClient, cluster_harness, relay_harness

LEASE = 1.5
LIMITS = Limits(ping_interval=10_000, idle_timeout=20_000, drain_timeout=2)
open_cluster = partial(cluster_harness, LIMITS, lease=LEASE)


async def remote_pair(cluster: ClusterHarness) -> tuple[Client, Client]:
    """Pair a on the first node with b on the second."""
    a, b = await cluster.nodes[0].client("/?id=a"), await cluster.nodes[1].client("/?id=b")
    await a.pair(b)
    return a, b


async def local_pair(cluster: ClusterHarness) -> tuple[Client, Client]:
    """Pair c with d, both on the first node."""
    c, d = await cluster.nodes[0].client("/?id=c"), await cluster.nodes[0].client("/?id=d")
    await c.pair(d)
    return c, d


async def relays(sender: Client, receiver: Client, sdp: str = "v=0") -> None:
    await sender.send(type="offer", sdp=sdp)
    assert await receiver.receive() == {"type": "offer", "sdp": sdp, "from_peer": True}


# ---- the engine cannot be reached


async def test_pairs_of_one_node_go_on_without_the_engine(autojump_clock: MockClock) -> None:
    """They can be ended, too; new pairings are refused, and frames to another node wait."""
    async with open_cluster() as cluster:
        (a, b), (c, d) = await remote_pair(cluster), await local_pair(cluster)
        cluster.memory.is_reachable = False
        await trio.sleep(LEASE)
        await relays(c, d)
        await a.send(type="offer", sdp="waits")
        await c.send(type="unpair")
        assert (await c.receive())["type"] == "unpaired"
        assert (await d.receive())["reason"] == "left"
        await c.send(type="pair_request", target_id="d")
        assert (await c.receive())["code"] == "engine_unavailable"
        cluster.memory.is_reachable = True
        assert (await b.receive())["sdp"] == "waits"
        await c.pair(d)
    assert [each["state"] for each in cluster.log.of("cluster_restored")] == ["kept", "kept"]
    assert len(cluster.log.of("cluster_degraded")) == 2


async def test_frames_that_wait_too_long_are_refused(autojump_clock: MockClock) -> None:
    """After 5 seconds; the pairing goes on, and later frames arrive."""
    async with open_cluster() as cluster:
        a, b = await remote_pair(cluster)
        cluster.memory.is_reachable = False
        began = trio.current_time()
        await a.send(type="offer", sdp="too late")
        assert (await a.receive())["code"] == "peer_unreachable"
        assert 5 <= trio.current_time() - began < 6
        await a.send(type="offer", sdp="in time")
        cluster.memory.is_reachable = True
        assert (await b.receive())["sdp"] == "in time"


async def test_new_clients_are_refused_without_the_engine(autojump_clock: MockClock) -> None:
    """With 503 and Retry-After; the process runs, and is not ready."""
    async with open_cluster() as cluster:
        assert await cluster.nodes[0].raw().page("/readyz") == (200, '{"status":"ready"}\n')
        cluster.memory.is_reachable = False
        waiting = cluster.nodes[0].raw()
        await waiting.send(upgrade_request("/?id=x"))
        await wait_all_tasks_blocked()
        await trio.sleep(LEASE)
        refused = cluster.nodes[0].raw()
        await refused.send(upgrade_request("/?id=y"))
        for client in (waiting, refused):
            code, headers, body = await client.response()
            assert (code, headers["retry-after"], b"engine_unavailable" in body) == (503, "1", True)
        assert (await cluster.nodes[0].raw().page("/healthz"))[0] == 200
        assert await cluster.nodes[0].raw().page("/readyz") == (503, '{"status":"degraded"}\n')
        cluster.memory.is_reachable = True
        await trio.sleep(LEASE)
        assert (await cluster.nodes[0].raw().page("/readyz"))[0] == 200
        assert (await cluster.nodes[0].client("/?id=x")).id == "x"


async def test_an_empty_engine_is_filled_again(autojump_clock: MockClock) -> None:
    """Within two seconds: pairs go on, IDs are taken, and a frame that only the engine had is refused."""
    async with open_cluster() as cluster:
        (a, b), (c, d) = await remote_pair(cluster), await local_pair(cluster)
        await relays(a, b, "before")
        cluster.memory.cut_off.add("node2")
        await a.send(type="offer", sdp="lost")
        await wait_all_tasks_blocked()
        cluster.memory.is_reachable = False
        cluster.memory.cut_off.clear()
        await trio.sleep(3 * LEASE)
        await b.send(type="answer", sdp="waits")
        cluster.memory.wipe()
        cluster.memory.is_reachable = True
        began = trio.current_time()
        assert sorted([(await a.receive())["type"] for _ in range(2)]) == ["answer", "error"]
        assert trio.current_time() - began < 2
        await relays(a, b)
        await relays(c, d)
        taken = cluster.nodes[1].raw()
        await taken.send(upgrade_request("/?id=c"))
        assert (await taken.response())[0] == 409
    assert {each["state"] for each in cluster.log.of("cluster_restored")} == {"forgotten"}


async def test_a_pairing_that_one_side_left_meanwhile_ends(autojump_clock: MockClock) -> None:
    """The other side is notified once the engine is back."""
    async with open_cluster() as cluster:
        a, b = await remote_pair(cluster)
        cluster.memory.is_reachable = False
        await b.send(type="unpair")
        assert (await b.receive())["type"] == "unpaired"
        await trio.sleep(LEASE)
        cluster.memory.wipe()
        cluster.memory.is_reachable = True
        assert await a.receive() == {"type": "peer_disconnected", "peer_id": "b", "reason": "node_lost"}
        await a.pair(b)


async def test_metrics_of_a_cluster(autojump_clock: MockClock) -> None:
    """Nodes, pairs with other nodes, frames, moves and the engine's times; a relay without a cluster has none of them."""
    async with open_cluster() as cluster:
        a, b = await remote_pair(cluster)
        await relays(a, b)
        await relays(b, a)
        await trio.sleep(LEASE)
        page = (await cluster.nodes[0].raw().page("/metrics"))[1]
    for line in (
        "sdpx_cluster_nodes 2.0",
        "sdpx_cluster_remote_pairs 1.0",
        "sdpx_pairs 1.0",
        'sdpx_cluster_frames_total{direction="in"} 1.0',
        'sdpx_cluster_frames_total{direction="out"} 1.0',
        'sdpx_cluster_moves_total{result="in"} 0.0',
        "sdpx_cluster_engine_seconds_count 0.0",
    ):
        assert f"{line}\n" in page
    async with relay_harness(LIMITS) as relay:
        assert "sdpx_cluster" not in (await relay.raw().page("/metrics"))[1]


# ---- a node is lost


async def test_the_peers_of_a_lost_node_can_pair_again(autojump_clock: MockClock) -> None:
    """Within the lease and half a second; no other client is notified, and the lost node's IDs are free."""
    async with open_cluster(nodes=3) as cluster:
        _, b = await remote_pair(cluster)
        e, f = await cluster.nodes[1].client("/?id=e"), await cluster.nodes[2].client("/?id=f")
        await e.pair(f)
        began = trio.current_time()
        cluster.memory.cut_off.add("node1")
        assert await b.receive() == {"type": "peer_disconnected", "peer_id": "a", "reason": "node_lost"}
        assert trio.current_time() - began <= LEASE + 0.5
        again = await cluster.nodes[2].client("/?id=a")
        await again.pair(b)
        await relays(e, f)
        [lost] = cluster.log.of("node_lost")
        assert lost["clients"] == 1


async def test_a_client_of_a_lost_node_gets_a_new_session(autojump_clock: MockClock) -> None:
    """At once when the lease is over, with the ID that it asks for."""
    async with open_cluster() as cluster:
        first = await cluster.nodes[0].raw().open("/?seq=1&id=a")
        cluster.memory.cut_off.add("node1")
        again = cluster.nodes[1].raw()
        your_id = await again.open(f"/?seq=1&id=a&resume={first['resume_token']}&last=0")
        assert (your_id["id"], your_id["resumed"]) == ("a", False)


async def test_a_removed_node_notices_it(autojump_clock: MockClock) -> None:
    """Its clients learn that their peers elsewhere are lost; its own pairs go on, but for an ID that another client has now."""
    async with open_cluster() as cluster:
        (a, b), (c, d) = await remote_pair(cluster), await local_pair(cluster)
        lonely = await cluster.nodes[0].client("/?id=e")
        cluster.memory.cut_off.add("node1")
        assert (await b.receive())["reason"] == "node_lost"
        thief = await cluster.nodes[1].client("/?id=e")
        cluster.memory.cut_off.clear()
        assert (await a.receive())["reason"] == "node_lost"
        assert await lonely.closed() == 1012
        await relays(c, d)
        await a.pair(b)
        await thief.send(type="ping")
        assert (await thief.receive())["type"] == "pong"


async def test_a_node_that_is_cut_off_alone_notices_it(autojump_clock: MockClock) -> None:
    """Its clients learn that their peers elsewhere are lost, 5 s after its lease; its own pairs go on, and so do all others."""
    async with open_cluster() as cluster:
        (a, b), (c, d) = await remote_pair(cluster), await local_pair(cluster)
        began = trio.current_time()
        cluster.memory.cut_off.add("node1")
        assert (await b.receive())["reason"] == "node_lost"
        assert trio.current_time() - began <= LEASE + 0.5
        await relays(c, d)
        await a.send(type="offer", sdp="waits")
        assert (await a.receive())["code"] == "peer_unreachable"
        assert await a.receive() == {"type": "peer_disconnected", "peer_id": "b", "reason": "node_lost"}
        assert LEASE * 0.75 + 5 <= trio.current_time() - began <= LEASE + 5.25
        await a.send(type="pair_request", target_id="b")
        assert (await a.receive())["code"] == "engine_unavailable"
        await relays(c, d)
        cluster.memory.cut_off.clear()
        await trio.sleep(LEASE)
        await a.pair(b)
        await relays(a, b)
    [expired], [restored] = cluster.log.of("lease_expired"), cluster.log.of("cluster_restored")
    assert (expired["node"], expired["lost"]) == ("node1", 1)
    assert (restored["state"], restored["lost"]) == ("removed", 0)


async def test_a_suspended_node_that_is_cut_off_notices_it(autojump_clock: MockClock) -> None:
    """By its clock, as soon as the engine does not answer: it does not wait for another 5 s."""
    async with open_cluster() as cluster:
        a, _ = await remote_pair(cluster)
        cluster.memory.cut_off.add("node1")
        autojump_clock.jump(60)
        began = trio.current_time()
        assert (await a.receive())["reason"] == "node_lost"
        assert trio.current_time() - began <= LEASE / 4 + 0.25


async def test_pairings_outlive_a_short_loss_of_the_engine(autojump_clock: MockClock) -> None:
    """After 5 s beyond the lease each client learns once that its peer is lost; it can pair again when the engine is back."""
    async with open_cluster() as cluster:
        a, b = await remote_pair(cluster)
        cluster.memory.is_reachable = False
        await trio.sleep(LEASE * 0.75 + 4.9)
        cluster.memory.is_reachable = True
        await trio.sleep(LEASE)
        await relays(a, b)
        cluster.memory.is_reachable = False
        await trio.sleep(LEASE + 5.3)
        for client in (a, b):
            assert (await client.receive())["reason"] == "node_lost"
        cluster.memory.is_reachable = True
        await trio.sleep(LEASE)
        await a.pair(b)
    assert [each["lost"] for each in cluster.log.of("lease_expired")] == [1, 1]


# ---- rolling restarts


async def numbered(cluster: ClusterHarness, node: int, client_id: str) -> tuple[RawClient, str]:
    client = cluster.nodes[node].raw()
    return client, (await client.open(f"/?seq=1&id={client_id}"))["resume_token"]


async def stop(cluster: ClusterHarness, node: int) -> None:
    """Stop a node as SIGTERM does."""
    cluster.nodes[node].acceptor.stop()
    await cluster.nodes[node].relay.drain()


async def test_numbered_clients_move_when_their_node_stops(autojump_clock: MockClock) -> None:
    """Both of a pair at once: each gets 1012, comes back elsewhere, and has every frame once and in order."""
    async with open_cluster(nodes=3) as cluster:
        (a, token_a), (b, token_b) = await numbered(cluster, 0, "a"), await numbered(cluster, 0, "b")
        await a.send(message(type="pair_request", target_id="b", client_seq=1))
        assert (await a.receive())["type"] == "paired"
        assert (await b.receive())["seq"] == 1
        await a.send(message(type="offer", sdp="1", client_seq=2))
        await b.send(message(type="answer", sdp="2", client_seq=1))
        cluster.nursery.start_soon(stop, cluster, 0)
        assert await a.close_code() == await b.close_code() == 1012
        assert (await cluster.nodes[0].raw().page("/readyz"))[1] == '{"status":"draining"}\n'
        a, b = cluster.nodes[1].raw(), cluster.nodes[2].raw()
        resumed = await a.open(f"/?seq=1&id=a&resume={token_a}&last=1")
        assert (resumed["resumed"], resumed["peer_id"], resumed["client_seq"]) == (True, "b", 2)
        await a.send(message(type="offer", sdp="3", client_seq=3))
        assert (await b.open(f"/?seq=1&id=b&resume={token_b}&last=1"))["peer_id"] == "a"
        assert [(await b.receive())["sdp"] for _ in range(2)] == ["1", "3"]
        assert [(await a.receive()).get("sdp") for _ in range(1)] == ["2"]
        await b.send(message(type="answer", sdp="4", client_seq=2))
        while (received := await a.receive())["type"] == "ack":
            pass
        assert received["sdp"] == "4"
    assert cluster.log.of("unpaired") == []
    moves = [(each["client_id"], each["result"]) for each in cluster.log.of("session_moved")]
    assert sorted(moves) == [("a", "in"), ("a", "out"), ("b", "in"), ("b", "out")]


async def test_clients_without_numbers_are_notified_of_a_stop_as_ever(autojump_clock: MockClock) -> None:
    """`peer_disconnected` for both sides, and 1001."""
    async with open_cluster() as cluster:
        a, b = await remote_pair(cluster)
        cluster.nursery.start_soon(stop, cluster, 0)
        assert await a.receive() == {"type": "peer_disconnected", "peer_id": "b", "reason": "shutdown"}
        assert await b.receive() == {"type": "peer_disconnected", "peer_id": "a", "reason": "shutdown"}
        assert await a.closed() == 1001
        await trio.sleep(5)
    assert cluster.log.of("node_lost") == []


async def test_the_peer_of_a_client_that_does_not_come_back_is_notified(autojump_clock: MockClock) -> None:
    """When the resume window is over; no node has the session meanwhile."""
    async with open_cluster() as cluster:
        (a, _), b = await numbered(cluster, 0, "a"), await cluster.nodes[1].client("/?id=b")
        await a.send(message(type="pair_request", target_id="b", client_seq=1))
        assert (await b.receive())["type"] == "paired"
        began = trio.current_time()
        cluster.nursery.start_soon(stop, cluster, 0)
        assert (await b.receive())["reason"] == "closed"
        assert LIMITS.resume_window <= trio.current_time() - began < LIMITS.resume_window + 4
        assert (await cluster.nodes[1].client("/?id=a")).id == "a"


async def test_a_session_moves_back_and_forth(autojump_clock: MockClock) -> None:
    """Its client connects to the other node each time, without a close frame in between."""
    async with open_cluster() as cluster:
        (a, token), b = await numbered(cluster, 0, "a"), await cluster.nodes[1].client("/?id=b")
        await a.send(message(type="pair_request", target_id="b", client_seq=1))
        assert (await a.receive())["type"] == (await b.receive())["type"] == "paired"
        for number in range(2, 8):
            await b.send(type="offer", sdp=str(number))
            following = cluster.nodes[(number + 1) % 2].raw()
            token = (await following.open(f"/?seq=1&resume={token}&last={number - 1}"))["resume_token"]
            assert await a.close_code() == 4001
            a = following
            assert (received := await a.receive())["sdp"] == str(number)
            assert received["seq"] == number
            await a.send(message(type="answer", sdp="back", client_seq=number))
            assert (await b.receive())["sdp"] == "back"


# ---- answers that take a while


async def test_frames_behind_a_pair_request_wait_for_its_answer(autojump_clock: MockClock) -> None:
    """Also those of a client that closes its connection at once."""
    async with open_cluster() as cluster:
        a, b = cluster.nodes[0].raw(), await cluster.nodes[1].client("/?id=b")
        await a.open("/?id=a")
        close = b"\x88\x82\0\0\0\0\x03\xe8"
        await a.send(message(type="pair_request", target_id="b") + message(type="offer", sdp="v=0") + close)
        assert [(await b.receive())["type"] for _ in range(3)] == ["paired", "offer", "peer_disconnected"]
        assert await a.close_code() == 1000


@pytest.mark.parametrize("target", ["nobody", "a", "b"])
async def test_refusals_are_those_of_one_relay(autojump_clock: MockClock, target: str) -> None:
    """With the code, the target and the type of the frame."""
    async with open_cluster() as cluster:
        _, _, c = *await remote_pair(cluster), await cluster.nodes[0].client("/?id=c")
        await c.send(type="pair_request", target_id=target)
        error = await c.receive()
        code = "target_not_found" if target == "nobody" else "target_already_paired"
        assert (error["code"], error["target_id"], error["in_reply_to"]) == (code, target, "pair_request")
