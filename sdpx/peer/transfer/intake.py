"""The order of a transfer as the receiver sees it: the records that may come, and their meaning for the files. Pure.

Each file that was not refused gets, in the order of the entries, one of: `SAME`, `DIFFERENT`, `FAILED`; or `BEGIN`, `BYTES`...,
`END`, with `FAILED` possible up to there. Any other record is a violation, which ends the transfer.
"""

from collections import deque

from msgspec import Struct

from sdpx.peer.transfer.frames import Violation
from sdpx.peer.transfer.records import (
    BATCH_ENTRIES,
    BEGIN,
    BYTES,
    DIFFERENT,
    DIGEST_BYTES,
    END,
    FAILED,
    SAME,
    Choice,
    Entry,
    Offer,
    parse_begin,
)


class Awaited(Struct, frozen=True):
    """A file that the receiver wants."""

    number: int
    entry: Entry
    choice: Choice


class Begin(Struct, frozen=True):
    """Open the incomplete file, cut to `offset`; `entry` has the present size, mode and time."""

    offset: int
    entry: Entry


class Write(Struct, frozen=True):
    """Append to the open file."""

    data: memoryview


class Finish(Struct, frozen=True):
    """The file is complete if it has this hash."""

    digest: bytes


class Skip(Struct, frozen=True):
    """The file is done without `Finish`: it was there already (no problem), or it will not come."""

    problem: str = ""


Step = Begin | Write | Finish | Skip
MAX_AWAITED = 16 * BATCH_ENTRIES
DIFFERENT_PROBLEM = "another file with this name is there already"


class Intake:
    """The files that are awaited, in order, and the one that is coming. Their number and size are those of the offer."""

    def __init__(self, offer: Offer) -> None:
        self.count = 0  # entries so far
        self._entries = offer.files + offer.directories
        self._size = offer.size
        self._awaited: deque[Awaited] = deque()
        self._left: int | None = None  # bytes of the file that has begun

    def add(self, entry: Entry, choice: Choice) -> int:
        """Note an entry and the choice for it; returns its number."""
        number = self.count
        self.count += 1
        self._size -= entry.size
        if self.count > self._entries or self._size < 0 or len(self._awaited) > MAX_AWAITED:
            raise Violation("There are more files than announced, or than may be announced ahead")
        if entry.kind == "file" and not choice.refused:
            self._awaited.append(Awaited(number, entry, choice))
        return number

    @property
    def is_complete(self) -> bool:
        """Whether all that was offered was announced, and no file is awaited."""
        return self.count == self._entries and not self._awaited

    def take(self, kind: int, number: int, payload: memoryview) -> tuple[Awaited, Step]:
        """Return the file of a record, and the step that follows. Raises `Violation`."""
        if not self._awaited or self._awaited[0].number != number:
            raise Violation("A record is for a file that is not awaited now")
        file = self._awaited[0]
        left = self._left
        step = self._first(kind, file, payload) if left is None else self._next(kind, payload, left)
        if isinstance(step, Finish | Skip):
            self._awaited.popleft()
            self._left = None
        return file, step

    def _first(self, kind: int, file: Awaited, payload: memoryview) -> Step:
        has_some = file.choice.digest != b""
        if kind == BEGIN:
            offset, size, mode, modified = parse_begin(payload)
            resumes = offset > 0 and offset == file.choice.offset and not file.choice.whole
            restarts = offset == 0 and (file.choice.may_restart or not has_some)
            if not (resumes or restarts):
                raise Violation("A file begins where it was not asked for")
            if size > file.entry.size:
                raise Violation("A file is larger than announced")
            self._left = size - offset
            return Begin(offset, Entry("file", file.entry.name, size, mode, modified))
        if kind == SAME and file.choice.whole:
            return Skip()
        if kind == DIFFERENT and has_some:
            return Skip(DIFFERENT_PROBLEM)
        if kind == FAILED:
            return Skip(_reason(payload))
        raise Violation("A file does not begin with its beginning")

    def _next(self, kind: int, payload: memoryview, left: int) -> Step:
        if kind == BYTES and len(payload) <= left:
            self._left = left - len(payload)
            return Write(payload)
        if kind == END and left == 0 and len(payload) == DIGEST_BYTES:
            return Finish(bytes(payload))
        if kind == FAILED:
            return Skip(_reason(payload))
        raise Violation("A file is longer or shorter than announced, or a record is unknown")


def _reason(payload: memoryview) -> str:
    return bytes(payload[:300]).decode(errors="replace")
