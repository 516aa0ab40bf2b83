"""The contract of a directory, which holds for each of its implementations: what a call leads to, on which channels."""

from random import Random

import pytest
import trio
from trio.testing import MockClock

from sdpx.relay.cluster.directory import FORGOTTEN, REMOVED, OutgoingFrame
from sdpx.relay.core.limits import Limits
from tests.relay.cluster.directories import PATIENCE, SHORT_LEASE, TestCluster, TestNode


async def paired(one: TestNode, other: TestNode) -> str:
    """Register a on the one node and b on the other, and pair them; returns the pairing."""
    await one.add("a")
    await other.add("b")
    one.directory.pair("a", "b", 7)
    kind, client_id, request, pairing, peer_id = await one.next()
    assert (kind, client_id, request, peer_id) == ("paired", "a", "7", "b")
    assert await other.next() == ("paired", "b", "0", pairing, "a")
    return pairing


def frame(pairing: str, number: int, body: bytes = b"body", receiver: str = "b", sender: str = "a") -> OutgoingFrame:
    return OutgoingFrame(receiver, sender, f"{pairing} {number} {len(body)} {sender}", body, 0.0)


def send(node: TestNode, outgoing: OutgoingFrame) -> None:
    assert node.directory.reserve(outgoing)
    node.directory.send(outgoing)


async def test_an_id_has_one_owner(cluster: TestCluster) -> None:
    """Until it is unregistered by its owner."""
    one, other = await cluster.node(), await cluster.node()
    await one.add("a")
    other.directory.register("a", 2)
    assert await other.next() == ("taken", "a", "2")
    other.directory.unregister("a", "closed")
    other.directory.register("a", 3)
    assert await other.next() == ("taken", "a", "3")
    one.directory.unregister("a", "closed")
    one.directory.register("x", 4)
    assert await one.next() == ("registered", "x", "4")
    await other.add("a")


async def test_two_clients_are_paired_and_the_peer_is_notified_of_the_end_once(cluster: TestCluster) -> None:
    """With the reason; then both can be paired again."""
    one, other = await cluster.node(), await cluster.node()
    pairing = await paired(one, other)
    one.directory.unpair("a", pairing, "left")
    assert await other.next() == ("ended", "b", pairing, "left")
    other.directory.unpair("b", pairing, "left")
    other.directory.pair("b", "a", 8)
    kind, _, _, following, _ = await other.next()
    assert kind == "paired"
    assert following != pairing
    assert await one.next() == ("paired", "a", "0", following, "b")
    one.directory.unregister("a", "timeout")
    assert await other.next() == ("ended", "b", following, "timeout")


async def test_two_clients_of_one_node_are_paired_by_one_entry(cluster: TestCluster) -> None:
    """Neither of them is notified before the other."""
    one = await cluster.node()
    await one.add("a", "b")
    one.directory.pair("a", "b", 5)
    kind, client_id, request, _, peer_id = await one.next()
    assert (kind, client_id, request, peer_id) == ("both_paired", "a", "5", "b")


async def test_refusals_of_pairings(cluster: TestCluster) -> None:
    """In the order of the protocol."""
    one, other = await cluster.node(), await cluster.node()
    await paired(one, other)
    await other.add("c")
    other.directory.pair("c", "nobody", 1)
    other.directory.pair("c", "a", 2)
    other.directory.pair("b", "nobody", 3)
    assert await other.next() == ("refused", "c", "1", "target_not_found")
    assert await other.next() == ("refused", "c", "2", "target_already_paired")
    assert await other.next() == ("refused", "b", "3", "already_paired")


async def test_crossing_requests_make_one_pair(cluster: TestCluster) -> None:
    """One of the two is refused; both name the same pairing."""
    one, other = await cluster.node(), await cluster.node()
    await one.add("a")
    await other.add("b")
    one.directory.pair("a", "b", 1)
    other.directory.pair("b", "a", 1)
    entries = [await one.next(), await other.next()]
    entries.append(await (one if entries[0][2] == "0" else other).next())
    assert sorted(each[0] for each in entries) == ["paired", "paired", "refused"]
    assert len({each[3] for each in entries if each[0] == "paired"}) == 1


async def test_frames_arrive_in_order_with_their_bytes(cluster: TestCluster) -> None:
    """Many of them in one call."""
    one, other = await cluster.node(), await cluster.node()
    pairing = await paired(one, other)
    for number in range(600):
        send(one, frame(pairing, number + 1, bytes([number % 256]) * 50))
    with trio.fail_after(30):
        while len(other.entries) < 600:
            await other.changed.wait()
    for number, (kind, client_id, data) in enumerate(other.entries):
        body = bytes([number % 256]) * 50
        assert (kind, client_id, data) == ("frame", "b", f"{pairing} {number + 1} 50 a\n".encode() + body)
    await one.directory_idle()
    assert one.directory.queued_bytes == 0


async def test_an_undelivered_frame_is_notified(cluster: TestCluster) -> None:
    """To the node of its sender."""
    one, other = await cluster.node(), await cluster.node()
    pairing = await paired(one, other)
    other.directory.notify("a", pairing, "b")
    assert await one.next() == ("unread", "a", pairing, "b")


async def test_a_session_moves_to_the_node_that_asks(cluster: TestCluster) -> None:
    """With what came for it meanwhile, in order, and nothing before."""
    one, other, third = await cluster.node(), await cluster.node(), await cluster.node()
    pairing = await paired(one, other)
    third.directory.ask("b", "d1g357", 3, 9)
    assert await third.next() == ("asking", "b", "9", other.directory.node)
    assert await other.next() == ("asked", "b", "d1g357", "3", third.directory.node, "9")
    send(one, frame(pairing, 1))
    assert (await other.next(with_data=False))[0] == "frame"
    other.directory.freeze("b", third.directory.node, "9")
    assert await other.next() == ("frozen", "b")
    send(one, frame(pairing, 2))
    send(one, frame(pairing, 3))
    await one.directory_idle()
    other.directory.park("b", "d1g357,more", b"\x00state\xff", f"{pairing} a")
    kind, client_id = await third.next(with_data=False)
    assert (kind, client_id) == ("claimed", "b")
    assert [(await third.next(with_data=False))[0] for _ in range(2)] == ["frame", "frame"]
    send(one, frame(pairing, 4))
    assert (await third.next(with_data=False))[0] == "frame"
    assert other.entries == []


@pytest.mark.parametrize("digest", ["d1g357", "wrong"])
async def test_a_parked_session_goes_to_the_first_that_has_a_token(cluster: TestCluster, digest: str) -> None:
    """It has all that came in between; its pairing goes on."""
    one, other = await cluster.node(), await cluster.node()
    pairing = await paired(one, other)
    one.directory.freeze("a")
    assert await one.next() == ("frozen", "a")
    one.directory.park("a", "d1g357", b"state", f"{pairing} b")
    await one.directory_idle()
    other.directory.ask("a", digest, None, 4)
    if digest == "wrong":
        assert await other.next() == ("denied", "a", "4")
        return
    with trio.fail_after(30):
        while not other.entries:
            await other.changed.wait()
    assert other.entries.pop() == ("claimed", "a", b"4 0\nstate")
    other.directory.unpair("b", pairing, "left")
    assert await other.next() == ("ended", "a", pairing, "left")


async def test_an_answer_behind_a_move_still_finds_the_session(cluster: TestCluster) -> None:
    """The node that was asked has parked it before it saw the question."""
    one, other = await cluster.node(), await cluster.node()
    await one.add("a")
    one.directory.freeze("a")
    await one.directory_idle()
    other.directory.ask("a", "d1g357", None, 4)
    assert (await other.next())[0] == "asking"
    one.directory.park("a", "d1g357", b"state", "")
    one.directory.refer("a", "d1g357", None, other.directory.node, "4")
    assert await other.next(with_data=False) == ("claimed", "a")


async def test_a_node_that_is_lost_is_removed_with_its_clients(
    fast_clock: MockClock | None, cluster: TestCluster
) -> None:
    """Soon after the end of the lease: its peers are notified, its IDs are free, and one node reports it."""
    one, other = await cluster.node(SHORT_LEASE), await cluster.node(SHORT_LEASE)
    pairing = await paired(one, other)
    began = trio.current_time()
    one.scope.cancel()
    assert await other.next() == ("ended", "b", pairing, "node_lost")
    assert trio.current_time() - began < 30  # a busy machine; the soak measures it
    _, name, clients = await other.report("node_lost")
    assert (name, clients) == (one.directory.node, 1)
    await other.add("a")


async def test_a_lease_is_over_for_its_node_before_others_remove_it(
    fast_clock: MockClock | None, cluster: TestCluster
) -> None:
    """By its own clock, from the last renewal on that the engine has confirmed."""
    one, other = await cluster.node(SHORT_LEASE), await cluster.node(SHORT_LEASE)
    first = one.directory.lease_end
    assert first <= trio.current_time() + SHORT_LEASE
    with trio.fail_after(PATIENCE):
        while one.directory.lease_end == first:
            await trio.sleep(0.01)
    one.scope.cancel()
    await other.report("node_lost")
    assert first < one.directory.lease_end <= trio.current_time()


async def test_a_node_that_leaves_is_not_lost(cluster: TestCluster) -> None:
    """Its clients' peers are notified at once."""
    one, other = await cluster.node(), await cluster.node()
    pairing = await paired(one, other)
    one.directory.leave()
    assert await other.next() == ("ended", "b", pairing, "closed")
    await trio.sleep(0.1)
    assert [each for each in other.reports if each[0] == "node_lost"] == []


async def test_a_removed_node_changes_nothing_and_comes_back_under_a_new_name(
    fast_clock: MockClock | None, cluster: TestCluster
) -> None:
    """Its name is the fence."""
    one, other = await cluster.node(SHORT_LEASE), await cluster.node(SHORT_LEASE)
    pairing, name = await paired(one, other), one.directory.node
    one.scope.cancel()
    assert await other.next() == ("ended", "b", pairing, "node_lost")
    send(one, frame(pairing, 1))
    one.directory.pair("a", "b", 3)
    cluster.start(one)
    assert await one.verdict() == REMOVED
    assert one.directory.node != name
    one.directory.restore([("a", ""), ("c", "")])
    one.directory.pair("a", "b", 4)
    assert (await one.next())[:3] == ("paired", "a", "4")
    assert (await other.next())[0] == "paired"


async def test_random_concurrent_requests_make_symmetric_pairs(cluster: TestCluster) -> None:
    """Of 300 requests over three nodes each has one answer, and every pairing has two sides."""
    nodes = [await cluster.node() for _ in range(3)]
    random, ids = Random(14), [f"c{number}" for number in range(60)]
    home = {client_id: nodes[number % 3] for number, client_id in enumerate(ids)}
    for client_id, node in home.items():
        await node.add(client_id)
    for number in range(300):
        client_id, target_id = random.sample(ids, 2)
        home[client_id].directory.pair(client_id, target_id, number + 1)
    for node in nodes:
        await node.directory_idle()
    with trio.fail_after(PATIENCE):
        while sum(data.split()[0] != b"0" for node in nodes for _, _, data in node.entries) < 300:
            await trio.sleep(0.01)
    entries = [(kind, client_id, *data.decode().split()) for node in nodes for kind, client_id, data in node.entries]
    sides: dict[str, set[str]] = {}
    answers: list[str] = []
    for kind, client_id, request, *rest in entries:
        if kind != "refused":
            pair = {client_id, rest[1]}
            assert sides.setdefault(rest[0], pair) == pair
        answers += [request] if request != "0" else []
    assert sorted(map(int, answers)) == list(range(1, 301))
    assert len({client_id for pair in sides.values() for client_id in pair}) == 2 * len(sides)


async def test_frames_for_a_full_channel_are_refused(cluster: TestCluster) -> None:
    """The receiver gets an empty frame in place of each, so that no number is missing."""
    one, other = await cluster.node(limits=Limits(send_queue_frames=2)), await cluster.node()
    pairing = await paired(one, other)
    other.directory.freeze("b")
    assert await other.next() == ("frozen", "b")
    for number in range(1, 4):
        send(one, frame(pairing, number))
    assert await one.next() == ("unread", "a", pairing, "b")
    other.directory.park("b", "d", b"state", "")
    await other.directory_idle()
    one.directory.ask("b", "d", None, 2)
    assert (await one.next(with_data=False))[0] == "claimed"
    with trio.fail_after(30):
        while len(one.entries) < 3:
            await one.changed.wait()
    assert [entry.data.partition(b"\n")[2] for entry in one.entries] == [b"body", b"body", b""]


def test_verdicts() -> None:
    """Both lead to a new registration of all clients."""
    assert FORGOTTEN.is_new
    assert REMOVED.is_new
    assert REMOVED.is_removed
