"""`sdpx demo`: a handshake between three real processes."""

import signal

import pytest

from tests.harness.processes import COMMON, sdpx

pytestmark = pytest.mark.e2e

PHASES = ["relay", "peers", "pairing", "exchange", "connection", "channel", "messages", "end"]


async def test_demo_logs_the_whole_handshake_and_exits() -> None:
    """Merged lines with `who` behind the common keys, a message in each direction, one summary, status 0."""
    async with sdpx("demo") as demo:
        assert await demo.ended() == 0
    *lines, summary = demo.lines
    assert summary["event"] == "demo_finished"
    assert summary["ok"] is True
    assert list(summary["phases"]) == PHASES
    assert all(list(line)[:5] == [*COMMON, "who"] for line in lines)
    assert {line["who"] for line in lines} == {"relay", "alice", "bob"}
    received = [(line["who"], line["text"]) for line in lines if line["event"] == "channel_message"]
    assert received == [("bob", "Hello Bob!"), ("alice", "Hello Alice!")]
    assert demo.stderr == b""


async def test_interrupted_demo_fails_and_leaves_no_process() -> None:
    """The exit status is not 0, the summary and one sentence state the cause, and the relay is stopped."""
    async with sdpx("demo") as demo:
        listening = await demo.wait_for("server_listening", who="relay")
        assert await demo.end(signal.SIGINT) == 1
        assert (await demo.wait_for("demo_finished"))["ok"] is False
        assert (await demo.wait_for("error"))["code"] == "interrupted"
    assert "interrupted" in demo.stderr.decode()
    async with sdpx("peer", "--url", listening["url"], "--no-stun") as late:
        assert await late.ended() == 3
