"""`sdpx demo`: the story of a handshake, told by three real processes."""

import signal

import pytest

from tests.harness.processes import COMMON, sdpx

pytestmark = pytest.mark.e2e

PHASES = ["relay", "peers", "pairing", "exchange", "connection", "channel", "messages", "end"]


async def test_the_demo_tells_the_whole_story_and_ends_by_itself() -> None:
    """Merged lines with `who` behind the common keys, a message each way, one summary, exit 0."""
    async with sdpx("demo") as demo:
        assert await demo.ended() == 0
    *told, summary = demo.lines
    assert summary["event"] == "demo_finished"
    assert summary["ok"] is True
    assert list(summary["phases"]) == PHASES
    assert all(list(line)[:5] == [*COMMON, "who"] for line in told)
    assert {line["who"] for line in told} == {"relay", "alice", "bob"}
    heard = [(line["who"], line["text"]) for line in told if line["event"] == "channel_message"]
    assert heard == [("bob", "Hello Bob!"), ("alice", "Hello Alice!")]
    assert demo.stderr == b""


async def test_a_demo_that_is_interrupted_has_failed_and_leaves_no_process() -> None:
    """Non-zero, a summary that says so, one sentence."""
    async with sdpx("demo") as demo:
        listening = await demo.wait_for("server_listening", who="relay")
        assert await demo.end(signal.SIGINT) == 1
        assert (await demo.wait_for("demo_finished"))["ok"] is False
        assert (await demo.wait_for("error"))["code"] == "interrupted"
    assert "interrupted" in demo.stderr.decode()
    async with sdpx("peer", "--url", listening["url"], "--no-stun") as late:
        assert await late.ended() == 3
