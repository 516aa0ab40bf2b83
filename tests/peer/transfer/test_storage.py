"""The files that a receiver writes: only below its directory, only new files, and complete ones only under their name."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpx.peer.transfer import storage as storage_module
from sdpx.peer.transfer.intake import Awaited, Begin, Finish, Skip, Write
from sdpx.peer.transfer.records import Choice, Entry
from sdpx.peer.transfer.storage import Storage

WHEN = 1_600_000_000_123_456_789
CONTENT = b"some content"


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


@pytest.fixture
def storage(folder: Path) -> Iterator[Storage]:
    found = Storage(str(folder))
    yield found
    found.close()


@pytest.fixture
def forced(folder: Path) -> Iterator[Storage]:
    found = Storage(str(folder), force=True)
    yield found
    found.close()


def entry(name: bytes | str = b"a", size: int = len(CONTENT), mode: int = 0o640) -> Entry:
    return Entry("file", os.fsencode(name), size, mode, WHEN)


def receive(storage: Storage, wanted: Entry, content: bytes = CONTENT, digest: bytes | None = None) -> str | None:
    """Receive a file as a sender would send it; returns its problem."""
    choice = storage.choose(0, wanted)
    if choice.refused:
        return choice.refused
    offset = choice.offset if choice.digest == sha(content[: choice.offset]) and not choice.whole else 0
    file = Awaited(0, wanted, choice)
    problems = [
        storage.apply(file, step)
        for step in (
            Begin(offset, wanted),
            Write(memoryview(content[offset:])),
            Finish(digest or sha(content)),
        )
    ]
    return next((each for each in problems if each is not None), None)


def test_file_gets_its_name_mode_and_time_when_it_is_complete(storage: Storage, folder: Path) -> None:
    wanted = entry("sub/deep/a")
    file = Awaited(0, wanted, storage.choose(0, wanted))
    storage.apply(file, Begin(0, wanted))
    storage.apply(file, Write(memoryview(CONTENT)))
    assert [each.name for each in folder.rglob("*") if each.is_file()] == ["a.part"]
    assert storage.apply(file, Finish(sha(CONTENT))) == ""
    found = folder / "sub/deep/a"
    assert [each.name for each in folder.rglob("*") if each.is_file()] == ["a"]
    assert (found.read_bytes(), found.stat().st_mode & 0o7777, found.stat().st_mtime_ns) == (CONTENT, 0o640, WHEN)


def test_set_user_id_and_the_like_are_not_taken_over(storage: Storage, folder: Path) -> None:
    assert receive(storage, entry(mode=0o644)) == ""
    directory = Entry("directory", b"d", 0, 0o7777, WHEN)
    storage.choose(0, directory)
    storage.finish()
    assert (folder / "d").stat().st_mode & 0o7777 == 0o777


def test_directory_without_write_permission_gets_it_at_the_end(storage: Storage, folder: Path) -> None:
    storage.choose(0, Entry("directory", b"d", 0, 0o555, WHEN))
    assert receive(storage, entry("d/a")) == ""
    storage.finish()
    status = (folder / "d").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o555, WHEN)
    (folder / "d").chmod(0o755)


@pytest.mark.parametrize("name", [b"../a", b"/tmp/a", b"a/../../b", b"a\0", b"x" * 300, b"NUL", b"", b"."])
def test_unsafe_name_is_refused(storage: Storage, folder: Path, name: bytes) -> None:
    assert "cannot be written here" in (receive(storage, entry(name)) or "")
    assert list(folder.parent.rglob("*")) == [folder]


def test_link_is_never_followed(storage: Storage, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("keep")
    (folder / "directory").symlink_to(outside)
    (folder / "file").symlink_to(outside / "a")
    (folder / "b.part").symlink_to(outside / "a")
    (folder / "c.part").hardlink_to(outside / "a")
    assert receive(storage, entry("directory/new")) == "a part of its path is no directory, or a link"
    assert storage.choose(0, Entry("directory", b"directory", 0, 0o755, WHEN)).refused
    assert receive(storage, entry("file")) == "something that is no file has this name already"
    assert "no incomplete file" in (receive(storage, entry("b")) or "")
    assert "no incomplete file" in (receive(storage, entry("c")) or "")
    assert [(each.name, each.read_text()) for each in outside.iterdir()] == [("a", "keep")]


def test_link_that_replaces_a_directory_meanwhile_is_not_followed(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    wanted = entry("d/a")
    file = Awaited(0, wanted, storage.choose(0, wanted))
    (folder / "d").rename(folder / "moved")
    (folder / "d").symlink_to(outside)
    storage.apply(file, Begin(0, wanted))
    storage.apply(file, Write(memoryview(CONTENT)))
    storage.apply(file, Finish(sha(CONTENT)))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_is_not_touched_even_with_force(forced: Storage, folder: Path, kind: str) -> None:
    for name in ("a", "b.part"):
        os.mkfifo(folder / name) if kind == "fifo" else (folder / name).mkdir()
    assert "no file" in (receive(forced, entry("a")) or "")
    assert "no incomplete file" in (receive(forced, entry("b")) or "")


def test_existing_file_stays_without_force(storage: Storage, folder: Path) -> None:
    (folder / "a").write_bytes(b"mine")
    assert "--force" in (receive(storage, entry()) or "")
    assert (folder / "a").read_bytes() == b"mine"


def test_existing_file_is_replaced_with_force(forced: Storage, folder: Path) -> None:
    (folder / "a").write_bytes(b"old, with another size")
    assert receive(forced, entry()) == ""
    assert (folder / "a").read_bytes() == CONTENT


def test_existing_file_of_the_same_size_may_be_the_same(storage: Storage, folder: Path) -> None:
    (folder / "a").write_bytes(CONTENT)
    assert storage.choose(0, entry()) == Choice(len(CONTENT), sha(CONTENT), whole=True, may_restart=False)
    file = Awaited(0, entry(), Choice())
    assert storage.apply(file, Skip("")) == ""


def test_file_that_appears_meanwhile_is_not_replaced(storage: Storage, folder: Path) -> None:
    wanted = entry()
    file = Awaited(0, wanted, storage.choose(0, wanted))
    storage.apply(file, Begin(0, wanted))
    storage.apply(file, Write(memoryview(CONTENT)))
    (folder / "a").write_bytes(b"mine")
    assert "--force" in (storage.apply(file, Finish(sha(CONTENT))) or "")
    assert ((folder / "a").read_bytes(), (folder / "a.part").read_bytes()) == (b"mine", CONTENT)


def test_file_system_without_links_is_renamed_on(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_arguments: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "")

    monkeypatch.setattr(os, "link", link)
    assert receive(storage, entry()) == ""
    assert [each.name for each in folder.iterdir()] == ["a"]


def test_incomplete_file_goes_on_where_it_was(folder: Path, storage: Storage) -> None:
    wanted = entry()
    file = Awaited(0, wanted, storage.choose(0, wanted))
    storage.apply(file, Begin(0, wanted))
    storage.apply(file, Write(memoryview(CONTENT[:5])))
    storage.close()
    again = Storage(str(folder))
    choice = again.choose(0, wanted)
    assert choice == Choice(5, sha(CONTENT[:5]), may_restart=False)
    file = Awaited(0, wanted, choice)
    again.apply(file, Begin(5, wanted))
    again.apply(file, Write(memoryview(CONTENT[5:])))
    assert again.apply(file, Finish(sha(CONTENT))) == ""
    assert (folder / "a").read_bytes() == CONTENT
    again.close()
    storage.__init__(str(folder))  # type: ignore[misc]  # for the fixture


def test_foreign_file_with_the_name_of_an_incomplete_one_stays(storage: Storage, folder: Path) -> None:
    (folder / "a.part").write_bytes(b"a download of another program")
    assert "remove it" in storage.choose(0, entry()).refused
    (folder / "a.part").write_bytes(b"foreign")
    assert storage.choose(0, entry()).may_restart is False
    assert (folder / "a.part").read_bytes() == b"foreign"


def test_received_file_that_ends_in_part_is_no_incomplete_one(forced: Storage, folder: Path) -> None:
    assert receive(forced, entry("a.part")) == ""
    assert "was received before" in (receive(forced, entry("a")) or "")
    assert (folder / "a.part").read_bytes() == CONTENT


def test_wrong_hash_leaves_nothing_that_looks_proven(storage: Storage, folder: Path) -> None:
    assert "hashes differ" in (receive(storage, entry(), digest=sha(b"other")) or "")
    assert [(each.name, each.stat().st_size) for each in folder.iterdir()] == [("a.part", 0)]
    assert receive(storage, entry()) == ""


def test_two_transfers_do_not_write_into_one_file(storage: Storage, folder: Path) -> None:
    wanted = entry()
    file = Awaited(0, wanted, storage.choose(0, wanted))
    storage.apply(file, Begin(0, wanted))
    other = Storage(str(folder))
    assert other.apply(file, Begin(0, wanted)) == "another transfer is receiving this file"
    other.close()


def test_long_name_has_a_shortened_one_while_it_is_incomplete(storage: Storage, folder: Path) -> None:
    assert receive(storage, entry("n" * 255)) == ""
    assert [each.name for each in folder.iterdir()] == ["n" * 255]


def test_names_are_bytes(storage: Storage, folder: Path) -> None:
    assert receive(storage, entry(b"\xff\n\x1b[2J")) == ""
    assert [os.fsencode(each.name) for each in folder.iterdir()] == [b"\xff\n\x1b[2J"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_full_disk_ends_everything_and_keeps_what_has_come(
    storage: Storage, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    wanted = entry()
    file = Awaited(0, wanted, storage.choose(0, wanted))
    storage.apply(file, Begin(0, wanted))
    storage.apply(file, Write(memoryview(CONTENT[:5])))

    def write(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match=os.strerror(code)):
        storage.apply(file, Write(memoryview(CONTENT[5:])))
    assert (folder / "a.part").read_bytes() == CONTENT[:5]


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_many_directories_need_few_descriptors(storage: Storage, folder: Path) -> None:
    before = count_descriptors()
    for number in range(200):
        assert receive(storage, entry(f"{number}/a/b/c")) == ""
    assert count_descriptors() - before <= storage_module.OPEN_DIRECTORIES + 1
    assert stat.S_ISREG((folder / "7/a/b/c").stat().st_mode)
