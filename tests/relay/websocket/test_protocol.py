"""The general frame parser: fragments, binary messages, control frames, and violations of RFC 6455."""

from typing import Final

import pytest
from hypothesis import strategies as st

from sdpx.relay.websocket.protocol import FrameParser
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, TEXT, frame

FIN: Final = 0x80
MAX_BYTES: Final = 4096
MAX_FRAGMENTS: Final = 8
MASKS: Final = st.sampled_from([bytes(4), MASK]) | st.binary(min_size=4, max_size=4)
Plain = tuple[int, bytes]  # the opcode and the payload


def found_in(*chunks: bytes) -> tuple[list[Plain], int]:
    """The messages and control frames, and the code of the violation, 0 without one."""
    parser = FrameParser(MAX_BYTES, MAX_FRAGMENTS)
    found = [each for chunk in chunks for each in parser.feed(chunk)]
    return [
        (first - FIN, payload) for first, payload in found if first & FIN
    ], parser.violation.code if parser.violation else 0


HALF: Final = frame(TEXT, b'{"type":', fin=False)
OTHER_HALF: Final = frame(CONTINUATION, b'"ping"}')


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HALF + OTHER_HALF, [(TEXT, b'{"type":"ping"}')]),
        (HALF + frame(PING, b"x") + OTHER_HALF, [(PING, b"x"), (TEXT, b'{"type":"ping"}')]),
        (frame(TEXT, b"one") + frame(PONG) + frame(TEXT, b"two"), [(TEXT, b"one"), (PONG, b""), (TEXT, b"two")]),
        (frame(BINARY, b"o", fin=False) + frame(CONTINUATION, b"ne"), [(BINARY, b"one")]),
        ((HALF + OTHER_HALF) * 2, [(TEXT, b'{"type":"ping"}')] * 2),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82\xac"), [(TEXT, "€".encode())]),
        (frame(CLOSE, (1000).to_bytes(2) + b"bye") + b"\xff", [(CLOSE, b"\x03\xe8bye")]),
        (frame(CLOSE), [(CLOSE, b"")]),
        (frame(TEXT, b"one") + HALF, [(TEXT, b"one")]),
    ],
)
def test_fragments_are_joined_to_messages(data: bytes, found: list[Plain]) -> None:
    """In one piece or byte by byte; bytes behind a close frame are ignored."""
    assert found_in(data) == found_in(*[bytes([byte]) for byte in data]) == (found, 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff", 1002),
        (HALF + frame(TEXT, b"x"), 1002),
        (frame(CLOSE, (1006).to_bytes(2)), 1002),
        (frame(TEXT, b"\xff", fin=False), 1007),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"x"), 1007),
        (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION), 1007),
        (frame(TEXT, b"\xe2"), 1007),
        (frame(TEXT, bytes(MAX_BYTES), fin=False) + frame(CONTINUATION, b"x"), 1009),
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * MAX_FRAGMENTS, 1008),
    ],
)
def test_a_violation_is_reported_behind_the_messages_before_it(data: bytes, code: int) -> None:
    assert found_in(frame(BINARY, b"right") + data) == ([(BINARY, b"right")], code)


def test_frames_and_the_memory_of_an_incomplete_message_are_counted() -> None:
    """All frames, those that end no message, and an upper bound of the memory."""
    parser = FrameParser(MAX_BYTES, MAX_FRAGMENTS)
    parser.feed(frame(TEXT, b"x") + frame(PING) + HALF + OTHER_HALF[:3])
    assert (parser.frames, parser.extra_frames) == (3, 2)
    assert parser.unfinished == 4 * (len(b'{"type":') + 3)
    parser.feed(OTHER_HALF[3:])
    assert (parser.frames, parser.extra_frames, parser.unfinished) == (4, 2, 0)
