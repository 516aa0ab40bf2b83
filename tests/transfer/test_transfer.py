"""Short versions of the proofs of `just transfer`, and files beside the messages of `sdpx peer`, with real processes."""

import json
import os
from pathlib import Path

import pytest
import trio

from sdpx.peer.negotiation.description import parse_description
from sdpx.peer.webrtc.events import ChannelClosed, MessageReceived
from tests.e2e.test_foreign_client import client
from tests.harness.processes import relay, sdpx, two_peers
from tests.transfer.__main__ import PROOFS, options
from tests.transfer.programs import Transfer

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("proof", "arguments"),
    [
        ("pipe", ["--megabytes", "3"]),
        ("cuts", ["--megabytes", "3", "--cuts", "1", "--pause", "0", "--seed", "3"]),
    ],
)
def test_proof(proof: str, arguments: list[str], tmp_path: Path) -> None:
    PROOFS[proof](tmp_path, options([*arguments, "--seconds", "100"]))


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
    async with relay() as (_, url), client(url) as me:
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
