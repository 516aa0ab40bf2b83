"""The records that a receiver takes, and those by which a sender breaks the rules."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.transfer import records
from sdpx.peer.transfer.frames import Violation
from sdpx.peer.transfer.intake import DIFFERENT_PROBLEM, MAX_AWAITED, Begin, Finish, Intake, Skip, Write
from sdpx.peer.transfer.records import (
    BEGIN,
    BYTES,
    DIFFERENT,
    END,
    FAILED,
    SAME,
    Choice,
    Entry,
    Offer,
    begin,
    decode_receiver,
    decode_sender,
    encode,
    encode_records,
    record,
    records_of,
)

DIGEST = bytes(32)
NOTHING = memoryview(b"")


def entry(size: int = 10) -> Entry:
    return Entry("file", b"a", size, 0o644, 5)


def intake(choice: Choice | None = None, size: int = 10) -> Intake:
    found = Intake(Offer(["a"], 1, 0, size))
    found.add(entry(size), choice or Choice())
    return found


def first(offset: int = 0, size: int = 10) -> memoryview:
    return memoryview(begin(0, offset, size, 0o644, 5))[records.RECORD.size :]


def test_file_comes_in_pieces() -> None:
    taken = intake()
    steps = [
        taken.take(BEGIN, 0, first())[1],
        taken.take(BYTES, 0, memoryview(b"12345"))[1],
        taken.take(BYTES, 0, memoryview(b"67890"))[1],
        taken.take(END, 0, memoryview(DIGEST))[1],
    ]
    assert steps == [Begin(0, entry()), Write(memoryview(b"12345")), Write(memoryview(b"67890")), Finish(DIGEST)]
    assert taken.is_complete


def test_incomplete_file_goes_on_from_what_is_there() -> None:
    taken = intake(Choice(4, DIGEST))
    assert taken.take(BEGIN, 0, first(4))[1] == Begin(4, entry())
    with pytest.raises(Violation):
        taken.take(BYTES, 0, memoryview(b"1234567"))


@pytest.mark.parametrize(
    ("kind", "choice", "problem"),
    [
        (SAME, Choice(10, DIGEST, whole=True), ""),
        (DIFFERENT, Choice(10, DIGEST, whole=True, may_restart=False), DIFFERENT_PROBLEM),
        (DIFFERENT, Choice(4, DIGEST, may_restart=False), DIFFERENT_PROBLEM),
    ],
)
def test_file_that_is_there_is_the_same_or_another_one(kind: int, choice: Choice, problem: str) -> None:
    taken = intake(choice)
    assert taken.take(kind, 0, NOTHING)[1] == Skip(problem)
    assert taken.is_complete


def test_sender_may_fail_before_and_within_a_file() -> None:
    taken = intake()
    assert taken.take(FAILED, 0, memoryview(b"no permission"))[1] == Skip("no permission")
    taken = intake()
    taken.take(BEGIN, 0, first())
    assert taken.take(FAILED, 0, memoryview(b"changed"))[1] == Skip("changed")
    assert taken.is_complete


@pytest.mark.parametrize(
    ("kind", "number", "payload", "choice"),
    [
        (BEGIN, 1, first(), Choice()),  # a file that was not announced
        (BEGIN, 0, first(3), Choice()),  # the middle of a file of which nothing is there
        (BEGIN, 0, first(3), Choice(4, DIGEST)),
        (BEGIN, 0, first(10), Choice(10, DIGEST, whole=True)),  # a complete file is never written to
        (BEGIN, 0, first(0), Choice(4, DIGEST, may_restart=False)),  # would drop the bytes that are there
        (BEGIN, 0, first(0, 11), Choice()),  # larger than announced
        (BEGIN, 0, first(0)[1:], Choice()),
        (BEGIN, 0, first(9, 8), Choice()),
        (BYTES, 0, memoryview(b"1"), Choice()),
        (END, 0, memoryview(DIGEST), Choice()),
        (SAME, 0, NOTHING, Choice()),
        (SAME, 0, NOTHING, Choice(4, DIGEST)),
        (DIFFERENT, 0, NOTHING, Choice()),
        (99, 0, NOTHING, Choice()),
    ],
)
def test_record_that_breaks_the_rules_is_refused(kind: int, number: int, payload: memoryview, choice: Choice) -> None:
    with pytest.raises(Violation):
        intake(choice).take(kind, number, payload)


@pytest.mark.parametrize("record", [(BYTES, memoryview(bytes(11))), (END, memoryview(DIGEST)), (BEGIN, first())])
def test_file_is_neither_longer_nor_shorter_than_announced(record: tuple[int, memoryview]) -> None:
    taken = intake()
    taken.take(BEGIN, 0, first())
    with pytest.raises(Violation):
        taken.take(record[0], 0, record[1])


def test_sender_announces_no_more_than_it_has_offered() -> None:
    with pytest.raises(Violation):
        intake().add(entry(0), Choice())
    with pytest.raises(Violation):
        Intake(Offer(["a"], 1, 0, 9)).add(entry(10), Choice())
    endless = Intake(Offer(["a"], 1_000_000, 0, 0))
    for _ in range(MAX_AWAITED + 1):
        endless.add(entry(0), Choice())
    with pytest.raises(Violation):
        endless.add(entry(0), Choice())


def test_refused_files_and_directories_are_not_awaited() -> None:
    taken = Intake(Offer(["a"], 1, 1, 10))
    taken.add(entry(), Choice(refused="no"))
    taken.add(Entry("directory", b"d", 0, 0o755, 0), Choice())
    assert taken.is_complete


def test_records_are_read_as_they_were_written() -> None:
    packed = encode_records([begin(3, 0, 2, 0o600, -1), record(BYTES, 3, b"ab"), record(END, 3, DIGEST)])
    found = [(kind, number, bytes(body)) for kind, number, body in records_of(memoryview(packed))]
    assert [each[:2] for each in found] == [(BEGIN, 3), (BYTES, 3), (END, 3)]
    assert records.parse_begin(memoryview(found[0][2])) == (0, 2, 0o600, -1)
    assert decode_sender(memoryview(packed)) is None
    for cut in (1, 5, 40):
        with pytest.raises(Violation):
            list(records_of(memoryview(packed[:-cut])))


@given(st.binary(max_size=80))
def test_decoders_read_any_bytes_or_refuse_them(data: bytes) -> None:
    for decode in (decode_sender, decode_receiver):
        with suppress(Violation):
            if (message := decode(memoryview(data))) is not None:
                assert decode(memoryview(encode(message))) == message
    with suppress(Violation):
        assert sum(len(body) for _, _, body in records_of(memoryview(data))) <= len(data)


@pytest.mark.parametrize("deep", [b"\x91" * 100_000, b"\x81\x01" * 100_000])
def test_decoders_refuse_what_is_nested_too_deeply_or_not_utf_8(deep: bytes) -> None:
    with pytest.raises(Violation):
        decode_sender(memoryview(b"\x01\x92\xa4done" + deep))
    with pytest.raises(Violation):
        decode_receiver(memoryview(b"\x01\x94\xa7verdict\x01\x02" + deep))
    with pytest.raises(Violation):
        decode_sender(memoryview(b"\x01\x95\xa5offer\x91\xa1\xff\x01\x01\x01"))


def test_negative_sizes_are_refused() -> None:
    bad = encode(Offer(["a"], -1, 0, 0))
    with pytest.raises(Violation):
        decode_sender(memoryview(bad))
