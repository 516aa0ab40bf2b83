"""The general frame parser: fragments, binary messages, control frames, and violations of RFC 6455."""

from typing import Final

import pytest
from hypothesis import strategies as st

from sdpx.relay.websocket.protocol import CloseReceived, FrameParser, ParserEvent, PingReceived
from sdpx.relay.websocket.validator import Violation
from tests.harness.frames import BINARY, CLOSE, MASK, PING, PONG, TEXT, frame

CONTINUATION: Final = 0x0
MAX_BYTES: Final = 4096
MAX_FRAGMENTS: Final = 8
MASKS: Final = st.sampled_from([bytes(4), MASK]) | st.binary(min_size=4, max_size=4)
Plain = tuple[int, bytes]  # a frame's first byte and its payload


def found_in(*chunks: bytes) -> list[ParserEvent]:
    parser = FrameParser(MAX_BYTES, MAX_FRAGMENTS)
    found: list[ParserEvent] = []
    for chunk in chunks:
        found += parser.parse(chunk[: parser.validate(chunk)])
    return found


HALF: Final = frame(TEXT, b'{"type":', fin=False)
OTHER_HALF: Final = frame(CONTINUATION, b'"ping"}')


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HALF + OTHER_HALF, ['{"type":"ping"}']),
        (HALF + frame(PING, b"x") + OTHER_HALF, [PingReceived(b"x"), '{"type":"ping"}']),
        (frame(TEXT, b"one") + frame(PONG) + frame(TEXT, b"two"), ["one", "two"]),
        (frame(BINARY, b"o", fin=False) + frame(CONTINUATION, b"ne"), [b"one"]),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82\xac"), ["€"]),
        (frame(CLOSE, (1000).to_bytes(2) + b"bye") + b"\xff", [CloseReceived(1000, "bye")]),
        (frame(CLOSE), [CloseReceived(1005, "")]),
        (frame(TEXT, b"one") + HALF, ["one"]),
    ],
)
def test_fragments_are_joined_to_messages(data: bytes, found: list[ParserEvent]) -> None:
    """In one piece or byte by byte; bytes behind a close frame are ignored."""
    assert found_in(data) == found_in(*[bytes([byte]) for byte in data]) == found


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff", 1002),
        (HALF + frame(TEXT, b"x"), 1002),
        (frame(CLOSE, (1006).to_bytes(2)), 1002),
        (frame(TEXT, b"\xff", fin=False), 1007),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"x"), 1007),
        (frame(TEXT, bytes(MAX_BYTES), fin=False) + frame(CONTINUATION, b"x"), 1009),
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * MAX_FRAGMENTS, 1008),
    ],
)
def test_a_violation_is_reported_behind_the_messages_before_it(data: bytes, code: int) -> None:
    *right, wrong = found_in(frame(BINARY, b"right") + data)
    assert right == [b"right"]
    assert isinstance(wrong, Violation)
    assert wrong.code == code


def test_frames_and_the_memory_of_an_incomplete_message_are_counted() -> None:
    """All frames, those that end no message, and an upper bound of the memory."""
    parser = FrameParser(MAX_BYTES, MAX_FRAGMENTS)
    parser.validate(frame(TEXT, b"x") + frame(PING) + HALF + OTHER_HALF[:3])
    assert (parser.frames, parser.extra_frames) == (3, 2)
    assert parser.unfinished == 4 * (len(b'{"type":') + 3)
    parser.validate(OTHER_HALF[3:])
    assert (parser.frames, parser.extra_frames, parser.unfinished) == (4, 2, 0)
