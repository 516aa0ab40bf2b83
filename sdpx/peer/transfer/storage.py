"""The directory that a transfer is received into.

- Every path is opened component by component from the directory's descriptor, never through a link, so that nothing is read or
  written outside, even if the tree changes meanwhile.
- A file is written as `NAME.part`, locked, and takes its name when its hash is right: by `link`, which never replaces another
  file, or by `rename` with `force`. The bytes of a file that did not become complete stay in `NAME.part`.
- A directory gets its mode and time at the end, since files are added before.

All functions block, and are called in one thread at a time. They raise OSError; `Refused` is for one entry.
"""

import errno
import fcntl
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sdpx.errors import describe_os_error
from sdpx.peer.transfer.intake import Awaited, Begin, Finish, Skip, Step, Write
from sdpx.peer.transfer.paths import PART, UnsafeName, components, part_name
from sdpx.peer.transfer.records import HASH, Choice, Entry, shown

READ_BYTES: Final = 1024 * 1024
OPEN_DIRECTORIES: Final = 32
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FATAL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE)


class Refused(Exception):
    """An entry cannot be received; the text is the reason."""


class OpenFile:
    """An incomplete file that is being written."""

    def __init__(self, descriptor: int, digest: Any, entry: Entry) -> None:
        self.descriptor = descriptor
        self.digest = digest
        self.entry = entry


class Storage:
    """A directory to receive into, created if missing; `force` replaces files that are there.

    `check` is called often where files are read, and may raise.
    """

    def __init__(self, directory: str, *, force: bool = False, check: Callable[[], object] = bool) -> None:
        self._force = force
        self._check = check
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directories: OrderedDict[tuple[bytes, ...], int] = OrderedDict()
        self._digests: dict[int, Any] = {}  # of incomplete files, by number
        self._parts: set[bytes] = set()  # names of received files that look like those of incomplete ones
        self._metadata: list[Entry] = []  # of directories
        self._file: OpenFile | None = None

    def close(self) -> None:
        """Close all files; incomplete ones stay."""
        self._drop()
        for descriptor in (*self._directories.values(), self._root):
            os.close(descriptor)
        self._directories.clear()

    # ---- choices ------------------------------------------------------------------------------------------------

    def choose(self, number: int, entry: Entry) -> Choice:
        """Return the state of an entry on the disk; a directory is created."""
        try:
            with _refusals():
                parts = components(entry.name)
                if entry.kind == "directory":
                    self._directory(parts)
                    self._metadata.append(entry)
                    return Choice()
                return self._choose_file(number, entry, parts)
        except Refused as refused:
            return Choice(refused=str(refused))

    def _choose_file(self, number: int, entry: Entry, parts: tuple[bytes, ...]) -> Choice:
        parent, name = self._directory(parts[:-1]), parts[-1]
        found = _status(parent, name)
        if found is not None:
            if not stat.S_ISREG(found.st_mode):
                raise Refused("something that is no file has this name already")
            if found.st_size == entry.size:  # it may be the same
                return Choice(entry.size, self._hash(parent, name).digest(), whole=True, may_restart=self._force)
            if not self._force:
                raise Refused("a file with this name is there already, and --force is not set")
        part = part_name(name)
        found = _status(parent, part)
        if found is None:
            return Choice()
        _require_plain(found, part)
        if entry.name + PART in self._parts:
            raise Refused(f"'{shown(part)}' was received before, and would be overwritten")
        if found.st_size == 0:
            return Choice()
        if found.st_size > entry.size:
            if not self._force:
                raise Refused(f"'{shown(part)}' is there, and not the beginning of this file; remove it")
            return Choice()
        self._digests[number] = self._hash(parent, part)
        return Choice(found.st_size, self._digests[number].digest(), may_restart=self._force)

    def _hash(self, parent: int, name: bytes) -> Any:
        digest = hashlib.new(HASH)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            while data := os.read(descriptor, READ_BYTES):
                digest.update(data)
                self._check()
        finally:
            os.close(descriptor)
        return digest

    # ---- contents -----------------------------------------------------------------------------------------------

    def apply(self, file: Awaited, step: Step) -> str | None:
        """Carry out a step for a file; returns its problem, or "" if it is complete, or None if more has to come.

        Further steps of a file that had a problem have to be dropped. A problem of the directory raises OSError.
        """
        try:
            with _refusals():
                match step:
                    case Begin():
                        self._begin(file, step)
                    case Write(data) if self._file is not None:
                        _write(self._file, data)
                    case Finish(digest) if self._file is not None:
                        self._finish(self._file, digest)
                        return ""
                    case Skip(problem):
                        self._drop()
                        self._digests.pop(file.number, None)
                        return problem
        except Refused as refused:
            self._drop()
            return str(refused)
        return None

    def _begin(self, file: Awaited, step: Begin) -> None:
        *_, name = parts = components(file.entry.name)
        digest = self._digests.pop(file.number, None)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(part_name(name), flags, 0o600, dir_fd=self._directory(parts[:-1]))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _require_plain(os.fstat(descriptor), part_name(name))
            os.ftruncate(descriptor, step.offset)
            os.lseek(descriptor, step.offset, os.SEEK_SET)
        except BlockingIOError:
            os.close(descriptor)
            raise Refused("another transfer is receiving this file") from None
        except BaseException:
            os.close(descriptor)
            raise
        self._file = OpenFile(descriptor, digest if step.offset and digest else hashlib.new(HASH), step.entry)

    def _finish(self, file: OpenFile, digest: bytes) -> None:
        *_, name = parts = components(file.entry.name)
        parent, part = self._directory(parts[:-1]), part_name(name)
        if file.digest.digest() != digest:
            os.ftruncate(file.descriptor, 0)  # nothing of it is proven
            raise Refused("its bytes are not those that were sent: the hashes differ")
        os.fchmod(file.descriptor, file.entry.mode)
        os.utime(file.descriptor, ns=(file.entry.modified, file.entry.modified))
        if self._force:
            found = _status(parent, name)
            if found is not None and not stat.S_ISREG(found.st_mode):
                raise Refused("something that is no file has this name now")
            os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
        else:
            _move(parent, part, name)
        if name.endswith(PART):
            self._parts.add(file.entry.name)
        self._drop()

    def finish(self) -> None:
        """Set modes and times of the directories, the innermost first."""
        for entry in reversed(self._metadata):
            with suppress(OSError, Refused):
                descriptor = self._directory(components(entry.name))
                os.fchmod(descriptor, entry.mode & 0o777)
                os.utime(descriptor, ns=(entry.modified, entry.modified))
        self._metadata.clear()

    def _drop(self) -> None:
        if self._file is not None:
            os.close(self._file.descriptor)
            self._file = None

    # ---- directories --------------------------------------------------------------------------------------------

    def _directory(self, parts: tuple[bytes, ...]) -> int:
        """Return the descriptor of a directory below the root, which is created where it is missing."""
        if not parts:
            return self._root
        found = self._directories.get(parts)
        if found is None:
            parent = self._directory(parts[:-1])
            with suppress(FileExistsError):
                os.mkdir(parts[-1], 0o700, dir_fd=parent)
            found = os.open(parts[-1], _DIRECTORY, dir_fd=parent)
            self._directories[parts] = found
            if len(self._directories) > OPEN_DIRECTORIES:
                os.close(self._directories.popitem(last=False)[1])
        else:
            self._directories.move_to_end(parts)
        return found


@contextmanager
def _refusals() -> Iterator[None]:
    """Map the errors of one entry; those of the whole directory stay OSError."""
    try:
        yield
    except UnsafeName as unsafe:
        raise Refused(f"it cannot be written here: {unsafe}") from None
    except OSError as error:
        if error.errno in _FATAL:
            raise
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused("a part of its path is no directory, or a link") from None
        raise Refused(describe_os_error(error)) from None


def _status(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _require_plain(status: os.stat_result, part: bytes) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        raise Refused(f"something that is no incomplete file has the name '{shown(part)}'")


def _write(file: OpenFile, data: memoryview) -> None:
    file.digest.update(data)
    while data:
        data = data[os.write(file.descriptor, data) :]


def _move(parent: int, part: bytes, name: bytes) -> None:
    """Rename a file unless the new name exists."""
    try:
        os.link(part, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        raise Refused("a file with this name is there already, and --force is not set") from None
    except OSError:  # a file system without links
        if _status(parent, name) is not None:
            raise Refused("a file with this name is there already, and --force is not set") from None
        os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
    else:
        os.unlink(part, dir_fd=parent)
