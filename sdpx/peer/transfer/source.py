"""The files and directories that a transfer sends: their list, and their contents as records.

Links below a directory are not followed, and links, devices, sockets and pipes are not sent; their number is reported. All
functions block.
"""

import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from sdpx.errors import describe_os_error
from sdpx.peer.transfer import records
from sdpx.peer.transfer.records import RECORD, Choice, Entry, record

MIN_PIECE: Final = 4096
READ_BYTES: Final = 1024 * 1024
MESSAGES_AT_ONCE: Final = 4  # for each change of threads
CHANGED: Final = "it was changed while it was being sent"


class BadSource(Exception):
    """A file or directory cannot be sent; the text is the reason."""


class Item(Struct, frozen=True):
    """An entry, and where it is."""

    entry: Entry
    path: bytes


class Manifest:
    """The files and directories to send: `items` in order, and those that are `skipped`."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.names: list[str] = []
        self.files = 0
        self.directories = 0
        self.size = 0
        self.skipped: list[str] = []  # paths that are neither file nor directory

    def add(self, path: bytes, name: bytes, status: os.stat_result) -> None:
        """Add a file or directory."""
        is_file = stat.S_ISREG(status.st_mode)
        kind: Any = "file" if is_file else "directory"
        size = status.st_size if is_file else 0
        self.items.append(Item(Entry(kind, name, size, status.st_mode & 0o777, status.st_mtime_ns), path))
        self.files += is_file
        self.directories += not is_file
        self.size += size


def scan(paths: Iterable[str]) -> Manifest:
    """Return the manifest of these files and directories, with all below them. Raises `BadSource`."""
    manifest, names = Manifest(), set[str]()
    for given in paths:
        name = Path(given).name if Path(given).name not in ("", "..") else Path(given).resolve().name
        if not name:
            raise BadSource(f"'{given}' has no name that the other side could give it")
        if name in names:
            raise BadSource(f"'{given}': there is another '{name}' to send; both would have the same name")
        path = os.fsencode(given)
        try:
            status = Path(given).stat()  # a link that is named itself is followed
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise BadSource(f"'{given}' is neither a file nor a directory; for a stream there is 'sdpx pipe'")
            names.add(name)
            manifest.names.append(records.shown(os.fsencode(name)))
            manifest.add(path, os.fsencode(name), status)
            if stat.S_ISDIR(status.st_mode):
                _scan_directory(manifest, path, os.fsencode(name))
            elif not os.access(path, os.R_OK):
                raise PermissionError(13, os.strerror(13))
        except OSError as error:
            place = os.fsdecode(error.filename) if error.filename else given
            raise BadSource(f"'{place}' cannot be read: {describe_os_error(error)}") from None
    return manifest


def _scan_directory(manifest: Manifest, path: bytes, name: bytes) -> None:
    for each in sorted(os.scandir(path), key=lambda each: each.name):
        status = each.stat(follow_symlinks=False)
        inner = b"/".join((name, each.name))
        if stat.S_ISREG(status.st_mode):
            manifest.add(each.path, inner, status)
        elif stat.S_ISDIR(status.st_mode):
            manifest.add(each.path, inner, status)
            _scan_directory(manifest, each.path, inner)
        else:
            manifest.skipped.append(records.shown(each.path))


class _Reading:
    """A file that is being read, and how much of it has been."""

    def __init__(self, number: int, descriptor: int, digest: Any, status: os.stat_result, offset: int) -> None:
        self.number = number
        self.descriptor = descriptor
        self.digest = digest
        self.left = status.st_size - offset
        self.status = status


class Packer:
    """Packs the wanted files into messages of records, small ones together; `check` is called often, and may raise."""

    def __init__(self, check: Callable[[], object] = bool) -> None:
        self._check = check
        self._queue: deque[tuple[int, Item, Choice]] = deque()
        self._reading: _Reading | None = None
        self.bytes_done = 0  # of files: sent, or found on the other side
        self.bytes_moved = 0

    def want(self, number: int, item: Item, choice: Choice) -> None:
        """Add a file that the receiver wants."""
        self._queue.append((number, item, choice))

    @property
    def is_idle(self) -> bool:
        """Whether all files that were added are packed."""
        return self._reading is None and not self._queue

    def fill_some(self, size: int) -> list[bytes]:
        """Return the next messages, as many as a thread should make at once; none if there is nothing to send."""
        messages: list[bytes] = []
        while len(messages) < MESSAGES_AT_ONCE and (message := self.fill(size)):
            messages.append(message)
        return messages

    def fill(self, size: int) -> bytes:
        """Return the next message, of at most `size` bytes; an empty one if there is nothing to send."""
        found: list[bytes] = []
        room = size - 1
        for each in self._records():
            parts = each(room) if callable(each) else (each,)
            found += parts
            room -= sum(map(len, parts))
            if room < MIN_PIECE:
                break
        return records.encode_records(found) if found else b""

    def _records(self) -> Iterator[Any]:
        """Yield records; a function returns the parts of one that fits into the room that it is given."""
        while not self.is_idle:
            if self._reading is None:
                yield self._begin(*self._queue.popleft())
            elif self._reading.left:
                yield self._piece
            else:
                yield self._end(self._reading)

    def _begin(self, number: int, item: Item, choice: Choice) -> bytes:
        try:
            descriptor = os.open(item.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            return self._failed(number, item, describe_os_error(error))
        try:
            status = os.fstat(descriptor)
            digest, offset = hashlib.new(records.HASH), 0
            if choice.digest:
                self._hash(digest, descriptor, choice.offset)
                is_same = digest.digest() == choice.digest
                if is_same and choice.whole and choice.offset == status.st_size:
                    self.bytes_done += choice.offset
                    os.close(descriptor)
                    return record(records.SAME, number)
                if is_same and not choice.whole and choice.offset <= status.st_size:
                    offset = choice.offset
                    self.bytes_done += offset
                elif not choice.may_restart:
                    self.bytes_done += item.entry.size
                    os.close(descriptor)
                    return record(records.DIFFERENT, number)
                else:
                    digest = hashlib.new(records.HASH)
                    os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError as error:
            os.close(descriptor)
            return self._failed(number, item, describe_os_error(error))
        if not stat.S_ISREG(status.st_mode) or status.st_size > item.entry.size:
            os.close(descriptor)
            return self._failed(number, item, CHANGED)
        self._reading = _Reading(number, descriptor, digest, status, offset)
        return records.begin(number, offset, status.st_size, status.st_mode & 0o777, status.st_mtime_ns)

    def _hash(self, digest: Any, descriptor: int, size: int) -> None:
        while size and (data := os.read(descriptor, min(size, READ_BYTES))):
            digest.update(data)
            size -= len(data)
            self._check()

    def _failed(self, number: int, item: Item, reason: str) -> bytes:
        self.bytes_done += item.entry.size
        return record(records.FAILED, number, f"the sender cannot read it: {reason}".encode())

    def _piece(self, room: int) -> tuple[bytes, ...]:
        reading = self._reading
        assert reading is not None
        size = min(reading.left, max(room - RECORD.size, 1))
        try:
            data = os.read(reading.descriptor, size)
        except OSError as error:
            return (self._close(record(records.FAILED, reading.number, describe_os_error(error).encode())),)
        if not data:
            return (self._close(record(records.FAILED, reading.number, CHANGED.encode())),)
        reading.digest.update(data)
        reading.left -= len(data)
        self.bytes_done += len(data)
        self.bytes_moved += len(data)
        return RECORD.pack(records.BYTES, reading.number, len(data)), data

    def _end(self, reading: _Reading) -> bytes:
        now = os.fstat(reading.descriptor)
        if (now.st_size, now.st_mtime_ns) != (reading.status.st_size, reading.status.st_mtime_ns):
            return self._close(record(records.FAILED, reading.number, CHANGED.encode()))
        return self._close(record(records.END, reading.number, reading.digest.digest()))

    def _close(self, last: bytes) -> bytes:
        if self._reading is not None:
            os.close(self._reading.descriptor)
            self._reading = None
        return last

    def close(self) -> None:
        """Close the file that is being read."""
        self._close(b"")
