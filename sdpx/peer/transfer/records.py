"""The messages of a file transfer, on the link between a sender and a receiver. Pure.

| from | message | meaning |
| --- | --- | --- |
| sender | `Offer` | names and totals of the files, for the question whether they are wanted |
| receiver | `Accept` | it is; a refusal is an abort |
| sender | `Entries` | the next files and directories, numbered from 0 on over all messages |
| receiver | `Choices` | for each entry: the bytes that are there already, or the reason for which it is not wanted |
| sender | records | the contents: of small files several in a message, of a large one a piece |
| receiver | `Results` | for files that have arrived, or have not: the last word on each |
| sender | `Done` | all files have been sent |
| receiver | `Verdict` | the last word on all |
| sender | `Bye` | the verdict has arrived |
"""

import struct
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec

from sdpx.peer.transfer.frames import Violation
from sdpx.protocol.codec import UNREADABLE

BATCH_ENTRIES: Final = 256
HASH: Final = "sha256"
DIGEST_BYTES: Final = 32
RECORD: Final = struct.Struct(">BII")  # kind, number of the file, length
_BEGIN: Final = struct.Struct(">QQIq")

BEGIN: Final = 0  # a file: the offset of its next bytes, its size, mode and time of modification
BYTES: Final = 1
END: Final = 2  # the hash of the whole file
FAILED: Final = 3  # the sender cannot read it: the reason
SAME: Final = 4  # the receiver has the whole file
DIFFERENT: Final = 5  # the receiver has another file


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A file or directory: its relative path, size, permission bits and time of modification in nanoseconds."""

    kind: Literal["file", "directory"]
    name: bytes
    size: Annotated[int, msgspec.Meta(ge=0)]
    mode: int
    modified: int


class Offer(msgspec.Struct, frozen=True, array_like=True, tag="offer"):
    """The offer of a sender: the first names, and the totals."""

    names: list[str]
    files: Annotated[int, msgspec.Meta(ge=0)]
    directories: Annotated[int, msgspec.Meta(ge=0)]
    size: Annotated[int, msgspec.Meta(ge=0)]


class Accept(msgspec.Struct, frozen=True, array_like=True, tag="accept"):
    """The receiver takes the offer."""


class Entries(msgspec.Struct, frozen=True, array_like=True, tag="entries"):
    """The next entries."""

    entries: list[Entry]


class Choice(msgspec.Struct, frozen=True, array_like=True):
    """The receiver's choice for an entry.

    It has the first `offset` bytes of the file, with the hash `digest`; or a `whole` file of that size, which is the same or
    another one. If its bytes are others, the transfer begins at 0 if it `may_restart`, else the file is not sent.
    `refused` is the reason why it is not wanted at all.
    """

    offset: int = 0
    digest: bytes = b""
    whole: bool = False
    may_restart: bool = True
    refused: str = ""


class Choices(msgspec.Struct, frozen=True, array_like=True, tag="choices"):
    """The choices for the entries of one message."""

    choices: list[Choice]


class Result(msgspec.Struct, frozen=True, array_like=True):
    """The receiver's word on a file; `problem` is empty if it has arrived."""

    number: int
    problem: str = ""


class Results(msgspec.Struct, frozen=True, array_like=True, tag="results"):
    """Some results."""

    results: list[Result]


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """All entries and records have been sent."""


class Verdict(msgspec.Struct, frozen=True, array_like=True, tag="verdict"):
    """How many entries are right on the receiver's side, and how many are not."""

    complete: int
    failed: int


class Bye(msgspec.Struct, frozen=True, array_like=True, tag="bye"):
    """The sender has received the verdict."""


FromSender = Offer | Entries | Done | Bye
FromReceiver = Accept | Choices | Results | Verdict
_RECORDS: Final = b"\x00"
_MESSAGE: Final = b"\x01"
_encode: Final = msgspec.msgpack.Encoder().encode
_from_sender: Final[msgspec.msgpack.Decoder[FromSender]] = msgspec.msgpack.Decoder(FromSender)
_from_receiver: Final[msgspec.msgpack.Decoder[FromReceiver]] = msgspec.msgpack.Decoder(FromReceiver)


def shown(name: bytes) -> str:
    """Return a name for people, whatever its bytes."""
    return name.decode(errors="replace")


def encode(message: FromSender | FromReceiver) -> bytes:
    """Return the bytes of a message without records."""
    return _MESSAGE + _encode(message)


def encode_records(records: list[bytes]) -> bytes:
    """Return the bytes of a message of records."""
    return b"".join((_RECORDS, *records))


def record(kind: int, number: int, payload: bytes = b"") -> bytes:
    """Return a record."""
    return RECORD.pack(kind, number, len(payload)) + payload


def begin(number: int, offset: int, size: int, mode: int, modified: int) -> bytes:
    """Return the record that begins a file."""
    return record(BEGIN, number, _BEGIN.pack(offset, size, mode, modified))


def parse_begin(payload: memoryview) -> tuple[int, int, int, int]:
    """Return offset, size, mode and time of modification. Raises `Violation`."""
    if len(payload) != _BEGIN.size:
        raise Violation("The beginning of a file cannot be read")
    offset, size, mode, modified = _BEGIN.unpack(payload)
    if offset > size:
        raise Violation("A file begins behind its end")
    return offset, size, mode & 0o777, modified


def decode_sender(payload: memoryview) -> FromSender | None:
    """Return a message of the sender; None if it has records. Raises `Violation`."""
    if bytes(payload[:1]) == _RECORDS:
        return None
    return _decode(_from_sender, payload)  # type: ignore[no-any-return]


def decode_receiver(payload: memoryview) -> FromReceiver:
    """Return a message of the receiver. Raises `Violation`."""
    return _decode(_from_receiver, payload)  # type: ignore[no-any-return]


def _decode(decoder: Any, payload: memoryview) -> Any:
    if bytes(payload[:1]) != _MESSAGE:
        raise Violation("A message of the transfer has an unknown type")
    try:
        return decoder.decode(payload[1:])
    except UNREADABLE as error:
        raise Violation(f"A message of the transfer cannot be read: {error}") from None


def records_of(payload: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield the records of a message: kind, number of the file, payload. Raises `Violation`."""
    place = 1
    while place < len(payload):
        head = payload[place : place + RECORD.size]
        if len(head) < RECORD.size:
            raise Violation("A record is cut off")
        kind, number, length = RECORD.unpack(head)
        place += RECORD.size
        body = payload[place : place + length]
        if len(body) != length:
            raise Violation("A record is cut off")
        yield kind, number, body
        place += length
