"""The validator for WebSocket frames: valid frames, violations, and the byte at which a violation is found."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.websocket.validator import FrameValidator
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

MAX_BYTES = 1000
MAX_FRAGMENTS = 8


def a_validator() -> FrameValidator:
    return FrameValidator(MAX_BYTES, MAX_FRAGMENTS)


class Bad(NamedTuple):
    """A frame that breaks a rule, after `before`; the rule is broken by its byte number `needed`."""

    data: bytes
    code: int
    needed: int
    before: bytes = b""


MASKED_127 = 0x80 | 127
OPEN_MESSAGE = frame(TEXT, b"half", fin=False)
BAD = {
    "first reserved bit": Bad(b"\xc1", 1002, 1),
    "second reserved bit": Bad(b"\xa1", 1002, 1),
    "third reserved bit": Bad(b"\x91", 1002, 1),
    **{f"opcode {n}": Bad(bytes([0x80 | n]), 1002, 1) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": Bad(bytes([PING]), 1002, 1),
    "fragmented close": Bad(bytes([CLOSE]), 1002, 1),
    "continuation of nothing": Bad(frame(CONTINUATION, b"x"), 1002, 1),
    "continuation after a whole message": Bad(frame(CONTINUATION, b"x"), 1002, 1, frame(TEXT, b"x")),
    "message within a message": Bad(frame(TEXT, b"x"), 1002, 1, OPEN_MESSAGE),
    "unmasked": Bad(frame(TEXT, b"x", masked=False), 1002, 2),
    "unmasked ping": Bad(frame(PING, b"x", masked=False), 1002, 2),
    "ping of 126 bytes": Bad(frame(PING, bytes(126)), 1002, 2),
    "length of 125 in two bytes": Bad(bytes([0x81, 0x80 | 126]) + (125).to_bytes(2), 1002, 4),
    "length of 65535 in eight bytes": Bad(bytes([0x81, MASKED_127]) + (65535).to_bytes(8), 1002, 10),
    "length with the highest bit": Bad(bytes([0x81, MASKED_127]) + (1 << 63).to_bytes(8), 1002, 10),
    "close with half a code": Bad(frame(CLOSE, b"x"), 1002, 7),
    **{
        f"close with {n}": Bad(frame(CLOSE, n.to_bytes(2)), 1002, 8)
        for n in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)
    },
    "close without UTF-8": Bad(frame(CLOSE, (1000).to_bytes(2) + b"\xff."), 1007, 10),
    "one byte too long": Bad(frame(BINARY, bytes(MAX_BYTES + 1)), 1009, 4),
    "far too long": Bad(frame(BINARY, bytes(1 << 16)), 1009, 10),
    "too long in two fragments": Bad(
        frame(CONTINUATION, bytes(11)), 1009, 2, frame(TEXT, bytes(MAX_BYTES - 10), fin=False)
    ),
    "too many fragments": Bad(
        frame(CONTINUATION, b""), 1008, 1, frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * (MAX_FRAGMENTS - 1)
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_violation_is_found_at_the_first_byte_that_proves_it(bad: Bad) -> None:
    """Each rule has its close code and is checked as soon as the bytes that it needs are there."""
    validator = a_validator()
    assert validator.validate(bad.before) == len(bad.before)
    for byte in bad.data[: bad.needed - 1]:
        assert validator.validate(bytes([byte])) == 1
        assert validator.violation is None
    assert validator.validate(bad.data[bad.needed - 1 : bad.needed]) == 0
    assert validator.violation is not None
    assert validator.violation.code == bad.code


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bytes_before_a_violation_in_one_read_are_valid(bad: Bad) -> None:
    """Neither the bad frame nor any byte behind it is."""
    validator = a_validator()
    good = frame(TEXT, b"good") + bad.before
    assert validator.validate(good + bad.data + frame(TEXT, b"behind")) == len(good)
    assert validator.violation is not None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 999, MAX_BYTES])
def test_a_message_of_any_size_up_to_the_bound_passes(size: int) -> None:
    """The bound itself is allowed."""
    validator = a_validator()
    data = frame(TEXT, bytes(size))
    assert validator.validate(data) == len(data)
    assert (validator.frames, validator.extra_frames, validator.violation) == (1, 0, None)


def test_a_message_of_64_kib_passes_a_validator_of_that_size() -> None:
    """A length in eight bytes is valid where it is the shortest form."""
    validator = FrameValidator(1 << 16, 1)
    data = frame(TEXT, bytes(1 << 16))
    assert validator.validate(data) == len(data)
    assert validator.frames == 1


def test_bytes_and_fragments_are_counted_afresh_for_each_message() -> None:
    """Many messages at the bound pass one after the other."""
    validator = a_validator()
    start, end = frame(TEXT, bytes(MAX_BYTES - 1), fin=False), frame(CONTINUATION, b"x")
    assert validator.validate((start + end) * 20) == len(start + end) * 20
    assert validator.frames == 40


def test_control_frames_count_neither_as_bytes_nor_as_fragments() -> None:
    """Pings between the fragments of a message at the bound change nothing."""
    validator = a_validator()
    pings = frame(PING, bytes(125)) * 20
    data = frame(TEXT, bytes(MAX_BYTES - 1), fin=False) + pings + frame(CONTINUATION, b"x")
    assert validator.validate(data) == len(data)
    assert (validator.frames, validator.extra_frames) == (22, 21)


def test_a_frame_counts_when_its_last_byte_has_arrived() -> None:
    """Half a frame does not reset the idle timeout."""
    validator = a_validator()
    data = frame(TEXT, b"hello")
    validator.validate(data[:-1])
    assert validator.frames == 0
    validator.validate(data[-1:])
    assert validator.frames == 1


CONTROL = st.builds(
    frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=st.binary(min_size=4, max_size=4)
)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """The frames of one message, with control frames in between."""
    parts = draw(st.lists(st.binary(max_size=130), min_size=1, max_size=7))
    frames: list[bytes] = []
    for number, part in enumerate(parts):
        opcode = CONTINUATION if number else draw(st.sampled_from([TEXT, BINARY]))
        frames += draw(st.lists(CONTROL, max_size=2))
        frames.append(frame(opcode, part, fin=number == len(parts) - 1))
    return frames


@st.composite
def chunks(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes, cut anywhere."""
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data(), st.lists(messages(), max_size=4))
def test_valid_frames_pass_in_any_chunks(data: st.DataObject, sent: list[list[bytes]]) -> None:
    """Valid frames pass whole and are counted, wherever the bytes are cut."""
    frames = [each for message in sent for each in message]
    validator = a_validator()
    for chunk in data.draw(chunks(b"".join(frames))):
        assert validator.validate(chunk) == len(chunk)
    assert validator.violation is None
    assert validator.frames == len(frames)
    assert validator.extra_frames == sum(each[0] & 0x0F >= CLOSE or not each[0] & 0x80 for each in frames)
    assert (validator.partial, validator.kept) == (0, 0)


@given(st.data(), st.lists(messages(), max_size=3), st.sampled_from(list(BAD.values())))
def test_frames_before_a_violation_pass_in_any_chunks(data: st.DataObject, sent: list[list[bytes]], bad: Bad) -> None:
    """Of the bad frame no more passes than an incomplete header."""
    good = b"".join(each for message in sent for each in message) + bad.before
    validator = a_validator()
    passed = 0
    for chunk in data.draw(chunks(good + bad.data)):
        passed += validator.validate(chunk)
        if validator.violation:
            break
    assert validator.violation is not None
    assert validator.violation.code == bad.code
    assert len(good) <= passed < len(good) + bad.needed


@given(
    st.data(),
    st.sampled_from([b"", *(code.to_bytes(2) for code in (1000, 1001, 1007, 3000, 4999))]),
    st.text(max_size=30),
)
def test_bytes_behind_a_close_frame_are_ignored(data: st.DataObject, code: bytes, reason: str) -> None:
    """In any chunks: the close frame passes whole, and valid or invalid bytes behind it neither pass nor are a violation."""
    sent = frame(TEXT, b"x") + frame(CLOSE, code + reason.encode() if code else b"")
    validator = a_validator()
    passed = sum(validator.validate(chunk) for chunk in data.draw(chunks(sent + b"\xff" + frame(TEXT, b"y"))))
    assert (passed, validator.closed, validator.violation, validator.frames) == (len(sent), True, None, 2)


@given(st.data(), st.lists(messages(), min_size=1, max_size=3))
def test_bytes_of_incomplete_frames_and_messages_are_counted(data: st.DataObject, sent: list[list[bytes]]) -> None:
    """The bytes of the incomplete frame, and the payload of the fragments in front of it."""
    frames = [each for message in sent for each in message]
    whole = data.draw(st.integers(0, len(frames) - 1))
    start = frames[whole][: data.draw(st.integers(0, len(frames[whole]) - 1))]
    validator = a_validator()
    for chunk in data.draw(chunks(b"".join(frames[:whole]) + start)):
        validator.validate(chunk)
    kept = 0
    for each in frames[:whole]:
        size = len(each) - (8 if each[1] & 0x7F == 126 else 6)
        kept = kept if each[0] & 0x0F >= CLOSE else 0 if each[0] & 0x80 else kept + size
    assert (validator.partial, validator.kept) == (len(start), kept)
