"""Short versions of the proofs of `just transfer`, and files beside the messages of `sdpx peer`, with real processes."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import trio

from sdpx.child_process import child_process
from sdpx.events.webrtc import ChannelClosed
from sdpx.peer.negotiation.description import parse_description
from sdpx.peer.webrtc.events import MessageReceived
from tests.harness.browser import browser
from tests.harness.foreign_client import foreign_client
from tests.harness.processes import relay, sdpx, two_peers
from tests.transfer.__main__ import PROOFS, options
from tests.transfer.programs import Transfer, running, watch

pytestmark = pytest.mark.e2e


@pytest.mark.long
@pytest.mark.parametrize(
    ("proof", "arguments"),
    [
        ("pipe", ["--megabytes", "3"]),
        ("cuts", ["--megabytes", "3", "--cuts", "1", "--pause", "0", "--seed", "3"]),
    ],
)
def test_proof(proof: str, arguments: list[str], tmp_path: Path) -> None:
    PROOFS[proof](tmp_path, options([*arguments, "--seconds", "100"]))


@pytest.mark.long
def test_slow_path_with_a_full_window_is_not_silent(tmp_path: Path) -> None:
    """100 kbit/s, with a queue before it that heartbeats take longer to pass than a peer may be silent."""
    data = os.urandom(110_000)
    (tmp_path / "in").write_bytes(data)
    with (
        (tmp_path / "in").open("rb") as stdin,
        (tmp_path / "out").open("wb") as stdout,
        running(
            tmp_path,
            ["pipe"],
            ["pipe", "bob"],
            stdin=stdin,
            stdout=stdout,
            module=("tests.transfer.slow_peer", "100"),
        ) as (_, a, b),
    ):
        assert watch(a, b, 100)["seconds"] > len(data) / 12_500
        assert [each.count("transfer_interrupted") for each in (a, b)] == [0, 0]
    assert (tmp_path / "out").read_bytes() == data


PAGE = """<!doctype html>
<script type="module">
import { Signaling } from "http://HOST/sdpx.js";
const relay = new Signaling("ws://HOST");
const seen = (window.seen = { bytes: 0, sum: 0, largest: 0 });
let pc;
relay.on("open", ({ id }) => { document.title = id; });
relay.on("offer", async ({ sdp }) => {
  pc = new RTCPeerConnection();
  pc.onicecandidate = ({ candidate }) => relay.send({ type: "candidate", candidate });
  pc.ondatachannel = ({ channel }) => {
    channel.binaryType = "arraybuffer";
    channel.onmessage = ({ data }) => {
      seen.bytes += data.byteLength;
      seen.largest = Math.max(seen.largest, data.byteLength);
      for (const byte of new Uint8Array(data)) seen.sum += byte;
    };
    window.channel = channel;
  };
  await pc.setRemoteDescription({ type: "offer", sdp });
  await pc.setLocalDescription();
  relay.send({ type: "answer", sdp: pc.localDescription.sdp });
});
relay.on("candidate", ({ candidate }) => { pc.addIceCandidate(candidate ?? undefined); });
</script>
"""
SEND = "[...Array(192).keys()].forEach((number) => channel.send(new Uint8Array(65536).fill(number)))"


async def test_pipe_to_a_browser_carries_plain_messages_and_holds_the_page_back(tmp_path: Path) -> None:
    data = os.urandom(600_000)
    async with relay() as (_, url), browser("chromium") as page:
        (tmp_path / "page.html").write_text(PAGE.replace("HOST", url.removeprefix("ws://")))
        await page.open((tmp_path / "page.html").as_uri())
        target = str(await page.wait_for("document.title"))
        command = ("-m", "sdpx", "pipe", target, "--url", url, "--no-stun")
        async with child_process(*command, stderr=subprocess.DEVNULL) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            await program.stdin.send_all(data)
            await page.wait_for(f"seen.bytes === {len(data)}")
            assert await page.evaluate("seen.sum") == sum(data)
            assert 16_384 <= await page.evaluate("seen.largest") <= 262_144
            await page.evaluate(SEND)
            await trio.sleep(1)
            assert await page.evaluate("channel.bufferedAmount") > 4_000_000
            await page.evaluate("channel.close()")
            received = b"".join([each async for each in program.stdout])
            assert await program.wait() == 0
    assert received == b"".join(bytes([number]) * 65_536 for number in range(192))


async def test_peers_send_files_in_both_directions_beside_their_messages(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"of {name}").write_bytes(name.encode() * 300_000)
    folders = [tmp_path / "to-a", tmp_path / "to-b"]
    options = [("--stdin", "json", "--files", str(folder)) for folder in folders]
    async with relay() as (_, url), two_peers(url, alice=options[0], bob=options[1]) as (a, b):
        for program, name in ((a, "a"), (b, "b")):
            await program.say(json.dumps({"send_file": str(tmp_path / f"of {name}")}))
            await program.say(json.dumps({"send": f"from {name}"}))
            await program.say(json.dumps({"send_file": str(tmp_path / "missing")}))
        await b.wait_for("channel_message", text="from a")
        await a.wait_for("channel_message", text="from b")
        for program in (a, b):
            await program.wait_for("file_received")
            assert (await program.wait_for("transfer_failed"))["code"] == "bad_source"
        await a.say('{"close": true}')
        assert await a.ended() == 0
    assert (folders[1] / "of a").read_bytes() == b"a" * 300_000
    assert (folders[0] / "of b").read_bytes() == b"b" * 300_000


async def test_peer_sends_a_file_to_sdpx_receive_and_none_to_a_peer_that_takes_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    command = json.dumps({"send_file": str(tmp_path / "file")})
    common = ("--no-stun", "--wait", "30", "--stdin", "json")
    async with relay() as (_, url), sdpx("peer", "--url", url, "--id", "sender", *common[:1], *common[3:]) as a:
        await a.wait_for("id_assigned")
        arguments = ("receive", str(tmp_path / "in"), "--url", url, "--no-stun", "--from", "sender", "--yes")
        async with sdpx(*arguments) as receiver:
            await a.say(command)
            assert await receiver.ended() == 0
            await a.wait_for("transfer_complete")
        await a.wait_for("ready")
        async with sdpx("peer", "--url", url, "sender", *common) as other:
            await other.wait_for("channel_open")
            await a.wait_for("channel_open", label="chat")
            await a.say(command)
            await a.wait_for("input_rejected", code="no_files")
    assert (tmp_path / "in/file").read_text() == "content"


async def test_other_program_gets_plain_messages_and_a_close_at_the_end(tmp_path: Path) -> None:
    """A client written from the protocol, which names no agent, is at the other end of `sdpx pipe`."""
    data, received = os.urandom(300_000), list[bytes]()
    (tmp_path / "in").write_bytes(data)
    async with relay() as (_, url), foreign_client(url) as me:
        with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
            arguments = ("pipe", me.id, "--url", url, "--no-stun")
            program = Transfer(tmp_path, "pipe", *arguments, stdin=stdin, stdout=stdout)
        try:
            await me.receive("paired")
            await me.pc.accept_offer(parse_description((await me.receive("offer"))["sdp"], "offer"))
            await me.send_description("answer", await me.pc.create_answer(), trickle=False)
            async for event in me.pc.events:
                if isinstance(event, MessageReceived):
                    if not received:
                        await me.pc.channels.send("reply")
                    assert isinstance(event.data, bytes)
                    received.append(event.data)
                    me.pc.channels.release(event.data)
                elif isinstance(event, ChannelClosed):
                    break
            assert await trio.to_thread.run_sync(program.process.wait) == 0
        finally:
            program.process.kill()
    assert b"".join(received) == data
    assert (tmp_path / "out").read_bytes() == b"reply"
