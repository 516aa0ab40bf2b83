"""The source of a transfer: files and directories with all below them, and nothing else."""

import hashlib
import os
from pathlib import Path

import pytest

from sdpx.peer.transfer import records
from sdpx.peer.transfer.records import BEGIN, BYTES, DIFFERENT, END, FAILED, SAME, Choice, records_of
from sdpx.peer.transfer.source import BadSource, Packer, scan


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def packed(packer: Packer, size: int = 10_000) -> list[tuple[int, int, bytes]]:
    found = []
    while message := packer.fill(size):
        assert len(message) <= size
        found += [(kind, number, bytes(body)) for kind, number, body in records_of(memoryview(message))]
    assert packer.is_idle
    return found


def wanted(*paths: Path, choice: Choice | None = None) -> Packer:
    packer = Packer()
    for number, item in enumerate(scan([str(path) for path in paths]).items):
        packer.want(number, item, choice or Choice())
    return packer


def test_manifest_has_everything_below_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d/empty").mkdir(parents=True)
    (tmp_path / "d/a").write_text("1234")
    (tmp_path / "d/a").chmod(0o604)
    os.utime(tmp_path / "d/a", ns=(5, 7))
    (tmp_path / "d/link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "d/fifo")
    manifest = scan([str(tmp_path / "d") + "/"])
    assert [(each.entry.kind, each.entry.name) for each in manifest.items] == [
        ("directory", b"d"),
        ("file", b"d/a"),
        ("directory", b"d/empty"),
    ]
    found = manifest.items[1].entry
    assert (found.size, found.mode, found.modified) == (4, 0o604, 7)
    assert (manifest.files, manifest.directories, manifest.size) == (1, 2, 4)
    assert sorted(Path(each).name for each in manifest.skipped) == ["fifo", "link"]


def test_name_is_that_of_the_directory_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here/inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here/inner")
    assert scan(["."]).names == ["inner"]
    assert scan([".."]).names == ["here"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("/", "has no name"),
        ("missing", "cannot be read: No such file"),
        ("/dev/null", "neither a file nor a directory"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_once(given: str, reason: str) -> None:
    with pytest.raises(BadSource, match=reason):
        scan([given])


def test_two_files_with_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").touch()
    with pytest.raises(BadSource, match="another 'a'"):
        scan([str(tmp_path / "x/a"), str(tmp_path / "y/a")])


def test_link_that_is_named_itself_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1234")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (item,) = scan([str(tmp_path / "b")]).items
    assert (item.entry.kind, item.entry.name, item.entry.size) == ("file", b"b", 4)


def test_small_files_share_a_message(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number:02}").write_text(str(number))
    packer = wanted(*sorted(tmp_path.iterdir()))
    message = packer.fill(200_000)
    assert packer.is_idle
    assert [kind for kind, _, _ in records_of(memoryview(message))] == [BEGIN, BYTES, END] * 50


def test_large_file_comes_in_pieces(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    (tmp_path / "a").write_bytes(content)
    found = packed(wanted(tmp_path / "a"))
    assert b"".join(body for kind, _, body in found if kind == BYTES) == content
    assert len(found) > 10


def test_only_the_rest_is_sent_of_what_is_there(tmp_path: Path) -> None:
    content = os.urandom(1000)
    (tmp_path / "a").write_bytes(content)
    found = packed(wanted(tmp_path / "a", choice=Choice(400, _sha(content[:400]))))
    assert records.parse_begin(memoryview(found[0][2]))[0] == 400
    assert found[1] == (BYTES, 0, content[400:])
    assert found[2] == (END, 0, _sha(content))


@pytest.mark.parametrize(
    ("choice", "first"),
    [
        (Choice(1000, _sha(bytes(1000)), whole=True, may_restart=False), SAME),
        (Choice(1000, _sha(b"other"), whole=True, may_restart=False), DIFFERENT),
        (Choice(400, _sha(b"other"), may_restart=False), DIFFERENT),
        (Choice(400, _sha(b"other"), may_restart=True), BEGIN),
        (Choice(1000, _sha(b"other"), whole=True, may_restart=True), BEGIN),
        (Choice(1001, _sha(bytes(1000)), may_restart=False), DIFFERENT),
    ],
)
def test_what_is_there_is_compared(tmp_path: Path, choice: Choice, first: int) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    found = packed(wanted(tmp_path / "a", choice=choice))
    assert found[0][0] == first
    if first == BEGIN:
        assert records.parse_begin(memoryview(found[0][2]))[0] == 0
        assert found[-1] == (END, 0, _sha(bytes(1000)))


@pytest.mark.parametrize("change", ["cut", "touched"])
def test_file_that_changes_while_it_is_sent_fails(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(50_000))
    packer = wanted(path)
    packer.fill(10_000)
    os.truncate(path, 100) if change == "cut" else os.utime(path, ns=(1, 1))
    assert packed(packer)[-1][0] == FAILED


def test_file_that_grew_since_it_was_announced_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(10))
    packer = wanted(tmp_path / "a")
    (tmp_path / "a").write_bytes(bytes(11))
    assert [kind for kind, _, _ in packed(packer)] == [FAILED]


def test_file_that_vanished_fails_and_the_others_go_on(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("1")
    packer = wanted(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").unlink()
    found = packed(packer)
    assert (found[0][0], b"No such file" in found[0][2], found[-1][:2]) == (FAILED, True, (END, 1))
