"""Two sdpx peers of which one stands still: it is noticed in seconds, named, and the connection built again."""

import signal
from itertools import pairwise

import pytest

from tests.harness.processes import Line, Program, peer, relay

pytestmark = pytest.mark.e2e


def last(program: Program, event: str) -> Line:
    return [line for line in program.lines if line["event"] == event][-1]


@pytest.mark.parametrize("who_stands_still", ["initiator", "receiver"])
async def test_a_peer_that_stood_still_is_connected_again(who_stands_still: str) -> None:
    """Neither end is started again by a person: the initiator sends a fresh offer, and lines flow both ways."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id) as (a, _):
        await a.wait_for("channel_open")
        await b.wait_for("channel_open")
        still, awake = (a, b) if who_stands_still == "initiator" else (b, a)
        seen_a, seen_b = len(a.lines), len(b.lines)
        still.process.send_signal(signal.SIGSTOP)
        verdict = await awake.wait_for("diagnosis")
        assert verdict["code"] == "peer_silent"
        assert verdict["retrying"] is True
        assert verdict["silent_ms"] >= 3000
        still.process.send_signal(signal.SIGCONT)
        await a.wait_for("channel_open", after=seen_a)
        await b.wait_for("channel_open", after=seen_b)
        await a.say("again from a")
        await b.say("again from b")
        await b.wait_for("channel_message", text="again from a")
        await a.wait_for("channel_message", text="again from b")
        for program in (a, b):
            connections = [event for event in program.events if event in ("pc_created", "closed")]
            assert all(one != other for one, other in pairwise(connections))  # the old one is closed first


async def test_a_peer_that_never_comes_back_costs_its_retries() -> None:
    """With none left, the verdict is the end, and the exit status that of a lost channel."""
    async with relay() as (_, url), peer(url) as (b, b_id), peer(url, "--pair", b_id, "--retries", "0") as (a, _):
        await a.wait_for("channel_open")
        b.process.send_signal(signal.SIGSTOP)
        verdict = await a.wait_for("diagnosis")
        assert (verdict["code"], verdict["retrying"]) == ("peer_silent", False)
        assert await a.ended() != 0
        assert "connection_retry" not in a.events
        b.process.send_signal(signal.SIGCONT)
