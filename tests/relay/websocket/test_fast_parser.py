"""The fast parser: whole, unfragmented, masked text and control frames, in whatever chunks they arrive."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.websocket import fast_parser
from sdpx.relay.websocket.fast_parser import FastParser
from tests.harness.frames import BINARY, CONTINUATION, MASK, PING, TEXT, frame

MAX_BYTES: Final = 4096
MAX_FRAGMENTS: Final = 8
MASKS: Final = st.sampled_from([bytes(4), MASK]) | st.binary(min_size=4, max_size=4)
Plain = tuple[int, bytes]  # a frame's first byte and its payload


def in_chunks(data: bytes, cuts: set[int]) -> list[bytes]:
    at = sorted(cut for cut in cuts if cut <= len(data))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def a_parser() -> FastParser:
    return FastParser(MAX_BYTES)


SIZES: Final = st.sampled_from([0, 1, 124, 125, 126, 127, 128, 255, 256, 4095, 4096]) | st.integers(0, 300)
PLAIN_TEXTS: Final = st.builds(
    lambda size, letter: (fast_parser.TEXT, letter * size), SIZES, st.sampled_from([b"x", b"\xff"])
)
PLAIN_CONTROL: Final = st.tuples(st.sampled_from([fast_parser.PING, fast_parser.PONG]), st.binary(max_size=125))
PLAIN_FRAMES: Final = st.lists(st.tuples(PLAIN_TEXTS | PLAIN_CONTROL, MASKS), max_size=8)
CUTS: Final = st.sets(st.integers(0, 400) | st.integers(0, 20_000), max_size=12)
UNUSUAL: Final = {
    "a fragment": frame(TEXT, b"half", fin=False),
    "a continuation": frame(CONTINUATION, b"x"),
    "a blob": frame(BINARY, b"x"),
    "a blob with its length in two bytes": frame(BINARY, bytes(200)),
    "a reserved bit": b"\xc1\x81" + MASK + b"x",
    "no such opcode": b"\x83\x81" + MASK + b"x",
    "no mask": frame(TEXT, b"x", masked=False),
    "no mask, and long": frame(TEXT, bytes(200), masked=False),
    "a long ping": frame(PING, bytes(126)),
    "a text that is too long": frame(TEXT, bytes(MAX_BYTES + 1)),
    "a length in eight bytes": frame(TEXT, bytes(1 << 16)),
    "a length of 125 in two bytes": b"\x81\xfe" + (125).to_bytes(2) + MASK + bytes(125),
}


def written(frames: list[tuple[Plain, bytes]]) -> bytes:
    return b"".join(frame(first & 0x0F, payload, mask=mask) for (first, payload), mask in frames)


@given(PLAIN_FRAMES, CUTS)
def test_frames_are_parsed_whole_and_in_order_in_any_chunks(frames: list[tuple[Plain, bytes]], cuts: set[int]) -> None:
    """Nothing is left unparsed."""
    parser = a_parser()
    found = [each for chunk in in_chunks(written(frames), cuts) for each in parser.feed(chunk)]
    assert found == [each for each, _ in frames]
    assert (parser.unparsed, parser.partial) == (b"", 0)


@given(st.builds(written, PLAIN_FRAMES) | st.sampled_from(sorted(UNUSUAL.values())), st.binary(max_size=2), CUTS)
def test_the_single_frame_checks_agree_with_the_parser(data: bytes, behind: bytes, cuts: set[int]) -> None:
    """The checks accept one whole plain frame, and neither part of a frame, nor two frames, nor a frame of another kind."""
    for chunk in (data, data + behind, *in_chunks(data, cuts)):
        parser = a_parser()
        found = list(parser.feed(chunk))
        alone = len(found) == 1 and not parser.unparsed and not parser.partial
        text = found[0][1] if alone and found[0][0] == fast_parser.TEXT else None
        assert fast_parser.single_text(chunk, MAX_BYTES) == text
        assert fast_parser.is_single_control_frame(chunk) == (alone and found[0][0] != fast_parser.TEXT)


@given(st.integers(0, 130) | st.integers(65_500, 65_600), st.integers(0, 40))
def test_a_text_frame_of_two_parts_equals_the_frame_of_both_together(size: int, end_size: int) -> None:
    text, end = b"x" * size, b"y" * end_size
    assert fast_parser.text_frame(text, end) == fast_parser.frame(fast_parser.TEXT, text + end)


@given(PLAIN_FRAMES, st.sampled_from(sorted(UNUSUAL)), st.binary(max_size=20), CUTS)
def test_an_unusual_frame_is_left_unparsed_from_its_first_byte(
    frames: list[tuple[Plain, bytes]], kind: str, behind: bytes, cuts: set[int]
) -> None:
    """The frames before it are parsed; it and all bytes behind it are left as they arrived."""
    whole, rest = written(frames), UNUSUAL[kind] + behind
    parser, found, fed = a_parser(), list[Plain](), 0
    for chunk in in_chunks(whole + rest, cuts):
        found += parser.feed(chunk)
        fed += len(chunk)
        if parser.unparsed:
            break
    assert found == [each for each, _ in frames]
    assert parser.unparsed == rest[: fed - len(whole)]


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        (b"\x82", 1),
        (b"\x01", 1),
        (b"\xc1", 1),
        (b"\x81\x05", 2),
        (b"\x89\xfe", 2),
        (b"\x81\xff", 2),
        (b"\x81\xfe\x00\x7d", 4),
        (b"\x81\xfe\x10\x01", 4),
    ],
)
def test_an_unusual_header_is_detected_at_its_first_deciding_byte(data: bytes, needed: int) -> None:
    """After 1, 2 or 4 bytes: the connection does not wait for the rest of a frame that can only be refused."""
    parser = a_parser()
    for size in range(1, needed + 1):
        assert parser.unparsed == b""
        assert list(parser.feed(data[size - 1 : size])) == []
    assert parser.unparsed == data


@given(st.binary(max_size=300), CUTS)
def test_bytes_of_an_incomplete_frame_are_counted(payload: bytes, cuts: set[int]) -> None:
    """Byte for byte, and no longer once it is whole."""
    parser, data = a_parser(), frame(TEXT, payload)
    came = 0
    for chunk in in_chunks(data, cuts):
        found = list(parser.feed(chunk))
        came += len(chunk)
        assert parser.partial == (came if came < len(data) else 0)
        assert not found or came == len(data)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_frame_has_the_shortest_form_of_its_length(size: int) -> None:
    """RFC 6455, 5.2; a server's frame has no mask."""
    assert fast_parser.frame(fast_parser.TEXT, bytes(size)) == frame(TEXT, bytes(size), masked=False)
