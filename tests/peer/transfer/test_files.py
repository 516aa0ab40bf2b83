"""A sender and a receiver of files, over connections that are cut, and processes that are started again."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from sdpx.concurrency import leaf_exceptions
from sdpx.errors import Ending, ExitStatus
from sdpx.log import Log
from sdpx.peer.transfer import records
from sdpx.peer.transfer import storage as storage_module
from sdpx.peer.transfer.files import question
from sdpx.peer.transfer.meter import Meter
from sdpx.peer.transfer.receive import Receiver
from sdpx.peer.transfer.records import Accept, Choice, Choices, Done, Entries, Entry, Offer, Result, Results, Verdict
from sdpx.peer.transfer.send import Sender
from sdpx.peer.transfer.source import scan
from tests.harness.links import Connections, linked, new_link
from tests.harness.log import LogRecorder


class Program:
    """A sender or receiver: its link, its log, and how it ended."""

    def __init__(self, role: str) -> None:
        self.link = new_link(role, restarts=True)
        self.records = LogRecorder()
        self.log = Log(self.records.put, trio.current_time)
        self.meter = Meter()
        self.ending: Ending | None = None
        self.done = False
        self.scope = trio.CancelScope()
        self.run: Callable[[], Any]

    async def serve(self) -> None:
        with self.scope:
            try:
                await self.run()
                self.done = True
            except* Ending as group:
                self.ending = leaf_exceptions(group)[0]
                assert self.ending is not None
                await self.link.abort(self.ending.code, self.ending.reason)

    @property
    def outcome(self) -> str:
        return self.ending.code if self.ending else "done" if self.done else "running"


def sender(*paths: Path) -> Program:
    program = Program("send")
    manifest = scan([str(path) for path in paths])
    program.run = Sender(program.link, manifest, program.meter, program.log).run
    return program


def receiver(folder: Path, *, force: bool = False, wanted: bool = True) -> Program:
    program = Program("receive")

    async def is_wanted(_offer: Offer) -> bool:
        await trio.lowlevel.checkpoint()
        return wanted

    program.run = Receiver(program.link, str(folder), program.meter, program.log, is_wanted, force=force).run
    return program


def hostile(role: str, *messages: bytes) -> Program:
    """A program that sends these messages, as a receiver once it has the offer, and reads until the link ends."""
    program = Program(role)

    async def run() -> None:
        await program.link.begin()
        if role == "receive":
            program.link.take(await program.link.receive())
        for message in messages:
            await program.link.send(message)
        while True:
            program.link.take(await program.link.receive())

    program.run = run
    return program


async def transfer(a: Program, b: Program, disturb: Callable[[Connections], Any] | None = None) -> tuple[str, str]:
    """Run both to their end."""
    with trio.fail_after(30):
        async with linked(a.link, b.link) as connections, trio.open_nursery() as nursery:
            nursery.start_soon(a.serve)
            nursery.start_soon(b.serve)
            if disturb is not None:
                await disturb(connections)
    return a.outcome, b.outcome


def tree(folder: Path) -> dict[str, Any]:
    """Everything below a folder, with contents, modes and times."""
    return {
        str(path.relative_to(folder)): (
            path.read_bytes() if path.is_file() else None,
            path.stat().st_mode,
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "source/photos/large"
    path.parent.mkdir(parents=True)
    path.write_bytes(os.urandom(3_000_000))
    return path


@pytest.fixture
def source(large: Path) -> Path:
    """A directory with that file among others."""
    folder = large.parent.parent
    (folder / "photos/2026").mkdir()
    (folder / "photos/empty").mkdir()
    (folder / "photos/none").touch()
    for number in range(300):
        (folder / "photos/2026" / f"{number:03}").write_bytes(os.urandom(number))
    (folder / "photos/2026").chmod(0o700)
    os.utime(folder / "photos/2026", ns=(7, 7))
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


async def test_tree_arrives_with_names_modes_and_times(source: Path, target: Path) -> None:
    a, b = sender(source / "photos"), receiver(target)
    assert await transfer(a, b) == ("done", "done")
    assert tree(target) == tree(source)
    assert len(a.records.of("file_sent")) == len(b.records.of("file_received")) == 302
    assert (a.meter.files, b.meter.files, b.meter.bytes) == (302, 302, b.meter.total)


async def test_connections_that_are_cut_change_nothing(source: Path, target: Path) -> None:
    a, b = sender(source / "photos"), receiver(target)

    cuts = 0

    async def cut(connections: Connections) -> None:
        nonlocal cuts
        while not b.meter.moved:
            await trio.sleep(0)
        while cuts < 10 and not (a.done or b.done):
            await connections.reconnect()
            cuts += 1
            await trio.sleep(0.02)

    assert await transfer(a, b, cut) == ("done", "done")
    assert cuts > 0
    assert tree(target) == tree(source)
    assert len(a.records.of("file_sent")) == 302


def part_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.part"))


@pytest.mark.parametrize("killed", ["sender", "receiver"])
async def test_process_that_is_killed_and_started_again_goes_on_from_the_part(
    large: Path, target: Path, killed: str
) -> None:
    a, b = sender(large), receiver(target)
    again = sender(large) if killed == "sender" else receiver(target)

    async def kill(connections: Connections) -> None:
        while part_size(target) < 500_000:
            await trio.sleep(0)
        (a if killed == "sender" else b).scope.cancel()
        await connections.cut()
        while part_size(target) == 0:
            await trio.sleep(0)
        connections.links[0 if killed == "sender" else 1] = again.link
        connections.nursery.start_soon(again.serve)
        await connections.connect()

    await transfer(a, b, kill)
    outcomes = (again.outcome, b.outcome) if killed == "sender" else (a.outcome, again.outcome)
    assert outcomes == ("done", "done")
    assert (target / "large").read_bytes() == large.read_bytes()
    assert part_size(target) == 0


async def test_second_run_sends_only_what_is_missing(source: Path, target: Path) -> None:
    assert await transfer(sender(source / "photos"), receiver(target)) == ("done", "done")
    (target / "photos/2026/007").unlink()
    large = (target / "photos/large").read_bytes()
    (target / "photos/large").unlink()
    (target / "photos/large.part").write_bytes(large[:2_000_000])
    a, b = sender(source / "photos"), receiver(target)
    assert await transfer(a, b) == ("done", "done")
    assert tree(target) == tree(source)


async def test_one_file_that_is_refused_does_not_stop_the_others(source: Path, target: Path) -> None:
    (target / "photos").mkdir(parents=True)
    (target / "photos/large").write_bytes(b"mine")
    a, b = sender(source / "photos"), receiver(target)
    assert await transfer(a, b) == ("transfer_incomplete", "transfer_incomplete")
    assert (target / "photos/large").read_bytes() == b"mine"
    assert len(b.records.of("file_received")) == 301
    for program in (a, b):
        assert program.ending is not None
        assert program.ending.status is ExitStatus.TRANSFER_FAILED
        assert "1 of 305 files did not arrive" in program.ending.reason
        assert "photos/large: a file with this name is there already" in program.ending.reason
    b = receiver(target, force=True)
    assert await transfer(sender(source / "photos"), b) == ("done", "done")
    assert tree(target) == tree(source)


async def test_file_that_the_sender_cannot_read_fails_on_both_sides(source: Path, target: Path) -> None:
    a, b = sender(source / "photos"), receiver(target)
    (source / "photos/none").unlink()
    assert await transfer(a, b) == ("transfer_incomplete", "transfer_incomplete")
    assert len(b.records.of("file_received")) == 301
    assert [line["file"] for line in a.records.of("file_failed")] == ["photos/none"]


async def test_declined_offer_writes_nothing(source: Path, target: Path) -> None:
    a, b = sender(source / "photos"), receiver(target, wanted=False)
    assert await transfer(a, b) == ("aborted", "declined")
    assert b.ending is not None
    assert b.ending.status is ExitStatus.TRANSFER_REFUSED
    assert not target.exists()


async def test_two_senders_are_told_that_one_has_to_receive(source: Path) -> None:
    a, b = sender(source / "photos"), sender(source / "photos")
    outcomes = await transfer(a, b)
    assert "no_transfer" in outcomes
    assert set(outcomes) <= {"no_transfer", "aborted"}


async def test_full_disk_ends_both_sides_and_keeps_what_has_come(
    large: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = 0, os.write

    def limited(descriptor: int, data: Any) -> int:
        nonlocal written
        if written > 1_000_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += len(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", limited)
    a, b = sender(large), receiver(target)
    assert await transfer(a, b) == ("aborted", "disk_full")
    assert a.ending is not None
    assert "No space left on device. The received bytes are kept" in a.ending.reason
    monkeypatch.undo()
    assert part_size(target) > 900_000
    assert await transfer(sender(large), receiver(target)) == ("done", "done")
    assert (target / "large").read_bytes() == large.read_bytes()


async def test_hostile_sender_ends_with_a_reason(target: Path) -> None:
    assert await transfer(hostile("send", b"\x07garbage"), receiver(target)) == ("aborted", "protocol_error")


@pytest.mark.parametrize(
    "messages",
    [
        [Offer(["a"], 2, 1, 10), Entries([Entry("directory", b"d", 0, 0o700, 0)]), Done()],
        [Offer(["a"], 1, 0, 10), Done()],
        [Offer(["a"], 1, 0, 10), Entries([Entry("file", b"a", 10, 0o600, 0)]), Done()],
        [Offer(["a"], 1, 0, 10), Entries([Entry("file", b"a", 11, 0o600, 0)])],
        [Offer(["a"], 1, 0, 10), Entries([Entry("file", b"a", 5, 0o600, 0), Entry("file", b"b", 5, 0o600, 0)])],
        [Offer(["a"], 0, 1, 0), Offer(["a"], 0, 1, 0)],
        [Offer(["photo"], 1, 0, 10), Entries([Entry("file", b".profile", 10, 0o600, 0)])],
        [Offer(["photo"], 0, 1, 0), Entries([Entry("directory", b".ssh/photo", 0, 0o700, 0)])],
        [Entries([])],
    ],
)
async def test_sender_that_does_not_do_what_it_has_offered_is_refused(
    target: Path, messages: list[records.FromSender]
) -> None:
    """It is never taken for a complete transfer."""
    a, b = hostile("send", *map(records.encode, messages)), receiver(target)
    assert await transfer(a, b) == ("aborted", "protocol_error")


@pytest.mark.parametrize(
    "messages",
    [
        [Verdict(0, 0)],
        [Accept(), Verdict(0, 0)],
        [Accept(), Verdict(1, 0)],
        [Accept(), Verdict(-1, 2)],
        [Accept(), Choices([Choice()] * 5)],
        [Accept(), Results([Result(-1)])],
        [Accept(), Results([Result(2**63)])],
        [Accept(), Accept()],
    ],
)
async def test_receiver_that_ends_before_it_has_everything_is_refused(
    large: Path, messages: list[records.FromReceiver]
) -> None:
    """It is never taken for a complete transfer."""
    a, b = sender(large), hostile("receive", *map(records.encode, messages))
    assert await transfer(a, b) == ("protocol_error", "aborted")


def test_question_is_one_line_whatever_the_names_are() -> None:
    """Names of a hostile sender neither control the terminal nor push the totals off the screen."""
    offer = Offer(["\x1b[2Ja\nb\u202e", "x" * 100_000, "c", "d"], 5, 1, 3_000_000)
    text = question(offer, "bob\x9b", "/tmp")
    assert text.isprintable()
    assert "(5 files, 1 directories, 3.0 MB). Receive into '/tmp'? [y/N]" in text
    assert len(text) < 300


async def test_receiver_has_the_last_word(large: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that changes on the way to the disk is noticed by the hash, and both sides fail."""
    monkeypatch.setattr(storage_module, "_write", lambda file, data: file.digest.update(bytes(len(data))))
    a, b = sender(large), receiver(target)
    assert await transfer(a, b) == ("transfer_incomplete", "transfer_incomplete")
    assert not (target / "large").exists()
