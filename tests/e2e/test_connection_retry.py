"""Two sdpx peers, one of which is stopped for a while: its silence is diagnosed, and the connection is built again."""

import signal
from itertools import pairwise

import pytest

from tests.harness.processes import relay, two_peers

pytestmark = pytest.mark.e2e


@pytest.mark.long
@pytest.mark.parametrize("stopped", ["initiator", "receiver"])
async def test_connection_to_a_stopped_peer_is_built_again(stopped: str) -> None:
    """The initiator sends another offer on the same pairing, and lines flow both ways; those in between are not lost."""
    async with relay() as (_, url), two_peers(url) as (a, b):
        still, awake = (a, b) if stopped == "initiator" else (b, a)
        seen_a, seen_b = len(a.lines), len(b.lines)
        still.process.send_signal(signal.SIGSTOP)
        meanwhile = [f"{number} " + "x" * 500 for number in range(100)]  # fewer bytes than a pipe holds
        for line in meanwhile:
            await awake.say(line)
        diagnosis = await awake.wait_for("diagnosis")
        assert diagnosis["code"] == "peer_silent"
        assert diagnosis["retrying"] is True
        assert diagnosis["silent_ms"] >= 3000
        still.process.send_signal(signal.SIGCONT)
        await a.wait_for("channel_open", after=seen_a)
        await b.wait_for("channel_open", after=seen_b)
        await a.say("again from a")
        await b.say("again from b")
        await b.wait_for("channel_message", text="again from a")
        await a.wait_for("channel_message", text="again from b")
        texts = [line["text"] for line in still.of("channel_message")]
        assert texts[:-1] == meanwhile
        for program in (a, b):
            assert program.events.count("paired") == 1
            connections = [event for event in program.events if event in ("pc_created", "closed")]
            assert connections[:3] == ["pc_created", "closed", "pc_created"]
            assert all(one != other for one, other in pairwise(connections))  # the old one is closed first
