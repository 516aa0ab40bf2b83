"""Short versions of the proofs of `just transfer`, and files beside the messages of `sdpx peer`, with real processes."""

import json
from pathlib import Path

import pytest

from tests.harness.processes import relay, sdpx, two_peers
from tests.transfer.__main__ import PROOFS, options

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
