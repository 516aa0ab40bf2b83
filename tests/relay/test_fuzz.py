"""Any bytes: the relay refuses or answers them in a valid form, and serves the next client at once.

Bytes in place of a request, bytes behind a good one, and corrupted frames. The relay's answers are parsed strictly, by hand.
"""

from typing import Final

import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.harness.attacker import (
    CLOSE_CODES,
    LIMITS,
    attacker,
    check_texts,
    close_code,
    closes_in,
    frames_of,
    opened,
)
from tests.harness.examples import examples
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, message, upgrade_request
from tests.harness.relay import RelayHarness, relay_harness, takes

ARE_YOU_THERE: Final = b"are you there?"


async def two_others_are_served(relay: RelayHarness) -> None:
    """Dial, pair, and relay an offer."""
    clients = [relay.raw(), relay.raw()]
    for client, name in zip(clients, ("good-1", "good-2"), strict=True):
        await client.open(f"/?id={name}")
    await clients[0].send(message(type="pair_request", target_id="good-2"))
    assert [(await client.receive())["type"] for client in clients] == ["paired", "paired"]
    await clients[0].send(message(type="offer", sdp="v"))
    assert await clients[1].receive() == {"type": "offer", "sdp": "v", "from_peer": True}
    for client in clients:
        await client.stream.aclose()


async def attack(chunks: list[bytes], hangs_up: bool) -> None:
    """Send these bytes; at the end the attacker hangs up, or asks whether the relay is still there."""
    data = b"".join(chunks)
    async with relay_harness(LIMITS) as relay:
        client = await attacker(relay)
        await client.send(chunks)
        assert await takes(lambda: two_others_are_served(relay)) == 0
        if hangs_up and not client.is_closed:
            await client.stream.send_eof()
        else:
            await client.send([frame(PING, ARE_YOU_THERE)])
        await wait_all_tasks_blocked()
        answered = _is_answered(bytes(client.received))
        if not answered:
            await trio.sleep(LIMITS.idle_timeout + 2 * LIMITS.close_timeout)
            assert client.is_closed, "the relay neither answers nor ends"
        await client.stream.aclose()
        await trio.sleep(LIMITS.handshake_timeout)
        assert not relay.nursery.child_tasks
        assert relay.relay.clients == 0
    assert relay.log.of("internal_error") == []
    check_received(bytes(client.received), data, may_be_cut=hangs_up or answered)


def _is_answered(received: bytes) -> bool:
    return received.endswith(frame(PONG, ARE_YOU_THERE, masked=False))


def check_received(received: bytes, sent: bytes, *, may_be_cut: bool) -> None:
    """Whatever came was clean: nothing at all, an HTTP answer, or frames that end with a close code that has a meaning."""
    if not received:
        return
    behind = opened(received, head_only=sent.startswith(b"HEAD "))
    if behind is not None:
        frames = frames_of(behind)
        check_texts(frames)
        code = close_code(frames)
        assert code in CLOSE_CODES | closes_in(sent) or (code is None and may_be_cut)


# ---- bytes ------------------------------------------------------------------------------------------------------


@st.composite
def corrupted(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """Good bytes with some bits flipped, some cut out, and some from elsewhere put in."""
    data = bytearray(draw(good))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "splice", "repeat"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 20))]
            case "splice":
                data[at:at] = draw(st.binary(min_size=1, max_size=10))
            case "repeat":
                start = draw(st.integers(0, len(data)))
                data[at:at] = data[start : start + draw(st.integers(1, 40))]
    return bytes(data)


@st.composite
def chunked(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> list[bytes]:
    """The bytes in arbitrary chunks."""
    data = draw(whole)
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def joined(parts: st.SearchStrategy[bytes], most: int) -> st.SearchStrategy[bytes]:
    return st.lists(parts, max_size=most).map(b"".join)


HEADERS: Final = st.sampled_from(
    [
        *(b"Upgrade: h2c", b"Connection: close", b"Transfer-Encoding: chunked", b"Content-Length: 5", b"Host: other"),
        *(
            b"Sec-WebSocket-Version: 8",
            b"Sec-WebSocket-Key: x",
            b"Expect: 100-continue",
            b"X: \xff",
            b" folded",
            b": x",
        ),
        *(b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: x, sdpx.v1", b"Origin: null"),
    ]
)
TARGETS: Final = st.just("/") | st.sampled_from(
    ["/x?id=a", "/?id=a&id=b", "/?id=%ff", "/?id=", "/healthz", "/metrics", "http://x/", "*", "/?id=" + "a" * 65]
)
METHODS: Final = st.just(b"GET") | st.sampled_from([b"HEAD", b"POST", b"CONNECT", b"PRI", b"get", b""])


def _request(method: bytes, target: str, headers: list[bytes], cut: int) -> bytes:
    first, *lines = upgrade_request(target).removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line for number, line in enumerate(lines) if number != cut]
    return b"\r\n".join([first.replace(b"GET", method, 1), *kept, *headers, b"", b""])


WHOLE: Final = 99
REQUESTS: Final = st.builds(
    _request, METHODS, TARGETS, st.lists(HEADERS, max_size=3), st.just(WHOLE) | st.just(WHOLE) | st.integers(0, 4)
)
MASKS: Final = st.binary(min_size=4, max_size=4)
TEXTS_IN_BYTES: Final = st.sampled_from(
    [b'{"type":"ping"}', b'{"type":"unpair"}', b'{"type":"offer","sdp":"\xc3\xa9"}', b"{", b"\xff", b'"\xed\xa0\x80"']
)
MESSAGES: Final = st.builds(frame, st.sampled_from([TEXT, TEXT, BINARY]), TEXTS_IN_BYTES, mask=MASKS)
CONTROL: Final = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=MASKS)
CLOSING: Final = st.builds(
    lambda code, reason: frame(CLOSE, code.to_bytes(2) + reason),
    st.integers(999, 1016) | st.integers(0, 65535),
    st.sampled_from([b"", b"bye", b"\xff"]),
) | st.sampled_from([frame(CLOSE), frame(CLOSE, b"\x03")])
FRAGMENTS: Final = st.builds(
    lambda text, at, between: frame(TEXT, text[:at], fin=False) + between + frame(CONTINUATION, text[at:]),
    TEXTS_IN_BYTES,
    st.integers(0, 12),
    st.just(b"") | CONTROL,
)
ODD: Final = st.builds(
    frame, st.integers(0, 15), st.binary(max_size=130), fin=st.booleans(), masked=st.booleans(), mask=MASKS
)
LARGE: Final = st.integers(4000, 70_000).map(lambda size: frame(TEXT, b"x" * size))
FRAMES: Final = joined(st.one_of(MESSAGES, CONTROL, FRAGMENTS, MESSAGES, CLOSING, ODD, LARGE), 8)
GOOD_UPGRADE: Final = upgrade_request("/?id=attacker")


@examples(2)
@given(
    chunked(st.binary(max_size=200) | corrupted(REQUESTS) | st.tuples(corrupted(REQUESTS), FRAMES).map(b"".join)),
    st.booleans(),
)
@example([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], False)
@example([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], False)
@example([b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000], True)
def test_any_bytes_instead_of_a_request_get_a_valid_http_response(chunks: list[bytes], hangs_up: bool) -> None:
    """Or the connection is closed; or, if they happen to be a valid request, it is served."""
    trio.run(attack, chunks, hangs_up, clock=MockClock(autojump_threshold=0))


@examples(2)
@given(chunked(st.binary(max_size=200)), st.booleans())
def test_any_bytes_behind_the_upgrade_end_in_a_close_code(chunks: list[bytes], hangs_up: bool) -> None:
    """Unless they are valid frames, which are answered."""
    trio.run(attack, [GOOD_UPGRADE, *chunks], hangs_up, clock=MockClock(autojump_threshold=0))


@examples(2)
@given(chunked(corrupted(FRAMES)), st.booleans(), st.booleans())
@example([frame(CLOSE, (1000).to_bytes(2)) + b"\xff"], False, True)
@example([frame(CLOSE, (1000).to_bytes(2)) + frame(TEXT, b"{")], False, False)
@example([frame(TEXT, b"\xff") + frame(CLOSE, (1000).to_bytes(2))], False, False)
def test_corrupted_frames_end_in_a_close_code(chunks: list[bytes], hangs_up: bool, at_once: bool) -> None:
    """Frames with flipped bits, cut, spliced and repeated, in any chunks, also in the chunk of the request."""
    sent = [b"".join([GOOD_UPGRADE, *chunks[:1]]), *chunks[1:]] if at_once else [GOOD_UPGRADE, *chunks]
    trio.run(attack, sent, hangs_up, clock=MockClock(autojump_threshold=0))
