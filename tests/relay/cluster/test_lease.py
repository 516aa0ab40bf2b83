"""A node that cannot renew its lease: its decisions by its own clock, and the notifications of the others when it is back."""

from typing import Final

import pytest

from sdpx.relay.cluster.directory import FRAME_SECONDS
from sdpx.relay.cluster.effects import Ended
from tests.relay.cluster.fake_node import LEASE, World

END: Final = LEASE + FRAME_SECONDS  # of the pairings with clients of other nodes, after the start of the last renewal
LOST: Final = [Ended("a", "node_lost")]


@pytest.mark.parametrize(
    ("now", "refused", "ended"),
    [
        (LEASE, 0, []),
        (FRAME_SECONDS + 1, 0, []),
        (FRAME_SECONDS + 1.01, 1, []),
        (END - 0.01, 1, []),
        (END, 2, LOST),
        (1000.0, 2, LOST),
    ],
)
def test_pairings_with_other_nodes_end_when_frames_could_not_wait_longer(
    now: float, refused: int, ended: list[Ended]
) -> None:
    """A frame of second 1 waits 5 s; the pairing, and a frame of second 4, wait for 5 s from the end of the lease on."""
    world = World()
    first = world.nodes[0]
    world.lose_engine(nodes="first")
    for moment in (1.0, 4.0):
        world.now = moment
        first.send("a", b"waits")
    world.now = now
    for _ in range(2):
        first.run(first.node.give_up(world.now))
        assert (len(first.unread), first.ended) == (refused, ended)
    assert first.directory.queued_bytes == (2 - refused) * len(b"waits")
    assert {each for each, member in first.node.members.items() if member.link} == {*"acd"} - {*("a" if ended else "")}


def test_lease_counts_from_the_start_of_the_last_renewal() -> None:
    """Renewals that the engine does not confirm do not count."""
    world = World()
    world.pass_time(10.0)
    assert world.nodes[0].directory.lease_end == 10.0 + LEASE
    world.lose_engine(nodes="first")
    world.pass_time(11.0)
    assert world.nodes[0].directory.lease_end == 10.0 + LEASE
    assert world.nodes[1].directory.lease_end == 11.0 + LEASE


@pytest.mark.parametrize("seconds", [LEASE + 1, END + 1])
def test_node_that_was_cut_off_alone_ends_its_pairings_once(seconds: float) -> None:
    """By itself if that takes long, else on its return, before its first call; its local pair goes on."""
    world = World()
    world.lose_engine(nodes="first")
    world.pass_time(seconds)
    assert world.ended() == [LOST if seconds > END else [], [Ended("b", "node_lost")]]
    world.bring_back()
    world.beat()
    assert world.ended() == [LOST, [Ended("b", "node_lost")]]
    assert world.engine.peer.keys() == {*"cd"}
    first = world.nodes[0]
    assert first.node.is_direct(first.node.members["c"])
    first.node.request_pair(first.node.members["a"], "b")
    world.settle()
    assert world.engine.peer.keys() == {*"abcd"}


@pytest.mark.parametrize("wiped", [False, True])
@pytest.mark.parametrize(("seconds", "goes_on"), [(3 * LEASE, True), (END - LEASE / 4, True), (END + LEASE, False)])
def test_engine_that_was_lost_to_all_nodes(seconds: float, goes_on: bool, wiped: bool) -> None:
    """Pairings that both sides still have go on, with the frames that waited; after the bound no side has them."""
    world = World()
    world.lose_engine(nodes="all")
    world.pass_time(seconds - 1)
    if goes_on:
        world.nodes[0].send("a", b"waits")
    world.pass_time(seconds)
    if wiped:
        world.engine.wipe()
    world.bring_back()
    world.beat()
    world.nodes[0].node.confirm()
    world.nodes[1].node.confirm()
    world.settle()
    assert world.ended() == ([[], []] if goes_on else [LOST, [Ended("b", "node_lost")]])
    assert world.nodes[1].received["b"] == ([b"waits"] if goes_on else [])
    assert world.engine.peer.keys() == {*("abcd" if goes_on else "cd")}


@pytest.mark.parametrize("wiped", [False, True])
def test_other_side_of_a_pairing_that_one_node_gave_up_is_notified(wiped: bool) -> None:
    """When the engine is back; the frames that waited were refused, and do not arrive."""
    world = World()
    world.lose_engine(nodes="all")
    first = world.nodes[0]
    first.send("a", b"waits")
    world.now = END
    first.run(first.node.give_up(world.now))
    assert (first.ended, len(first.unread)) == (LOST, 1)
    if wiped:
        world.engine.wipe()
    world.bring_back()
    world.beat()
    world.nodes[1].node.confirm()
    world.settle()
    assert world.ended() == [LOST, [Ended("b", "node_lost")]]
    assert world.nodes[1].received["b"] == []
    assert world.engine.peer.keys() == {*"cd"}
