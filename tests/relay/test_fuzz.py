"""The border, under any bytes: a clean refusal comes out, or an answer, and the next client is served at once.

Bytes instead of a request, bytes behind a good one, good frames bent, good JSON bent: all through `Relay.handle`. The
answers of the relay are parsed strictly, by hand; the standard library decides what is JSON.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.errors import Refusal
from sdpx.protocol import codec
from sdpx.protocol.messages import type_of
from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.socket_stream import SocketStream
from tests.harness.examples import examples
from tests.harness.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, upgrade_request
from tests.harness.relay import RawClient, RelayHarness, relay_harness, takes

RELAYED: Final = {"offer", "answer", "candidate"}
CLIENT_TYPES: Final = {*RELAYED, "pair_request", "unpair", "ping", "pong"}
SERVER_TYPES: Final = {"your_id", "paired", "peer_disconnected", "unpaired", "error", "pong", *RELAYED}
NO_CODE: Final = 1005
CLOSE_CODES: Final = {1000, 1001, 1002, NO_CODE, 1007, 1008, 1009}
ARE_YOU_THERE: Final = b"are you there?"
LIMITS: Final = Limits(max_message_size=4096, max_fragments=8)
Json = Any


# ---- reading what the relay says, strictly ----------------------------------------------------------------------


def opened(data: bytes, *, head_only: bool) -> bytes | None:
    """Read an HTTP response: what is behind it if it opens a WebSocket, None if it refuses to, with a reason, and no more."""
    head, end, rest = data.partition(b"\r\n\r\n")
    assert end, "the response has no end"
    first, *lines = head.decode("ascii").split("\r\n")
    assert re.fullmatch(r"HTTP/1\.1 \d{3} .*", first)
    status = HTTPStatus(int(first[9:12]))
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if status == HTTPStatus.SWITCHING_PROTOCOLS:
        return rest
    assert len(rest) == int(headers["content-length"]) or (head_only and not rest)
    if status >= HTTPStatus.BAD_REQUEST and rest:
        assert json.loads(rest).keys() == {"code", "message"}
    return None


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Read a server's frames (RFC 6455, 5): whole, unmasked, no reserved bit, the shortest length, nothing behind a close."""
    frames: list[tuple[int, bytes]] = []
    while data:
        opcode, short = data[0] & 0x0F, data[1]
        assert data[0] & 0xF0 == 0x80, "a fragment, or a reserved bit"
        assert opcode in (TEXT, PING, PONG, CLOSE)
        assert short < 126 or opcode == TEXT, "masked, or a control frame that is too long"
        start = 2 + {126: 2, 127: 8}.get(short, 0)
        size = int.from_bytes(data[2:start]) if start > 2 else short
        assert frame(opcode, data[start : start + size], masked=False) == data[: start + size], (
            "cut, or too long a length"
        )
        assert CLOSE not in dict(frames), "a frame came behind the close frame"
        frames.append((opcode, data[start : start + size]))
        data = data[start + size :]
    return frames


def check_texts(frames: list[tuple[int, bytes]]) -> None:
    """Each text is an object of a type of the protocol, and the first, and only the first, is the client's ID."""
    kinds = [json.loads(payload)["type"] for opcode, payload in frames if opcode == TEXT]
    assert SERVER_TYPES.issuperset(kinds)
    assert [number for number, kind in enumerate(kinds) if kind == "your_id"] == [0][: len(kinds)]


def close_code(frames: list[tuple[int, bytes]]) -> int | None:
    """Return the code of the close frame, if there is one."""
    for opcode, payload in frames:
        if opcode == CLOSE:
            payload[2:].decode()
            return int.from_bytes(payload[:2]) if payload else NO_CODE
    return None


def closes_in(data: bytes) -> set[int]:
    """Return every code that a client can have closed with by sending these bytes: the relay may echo it."""
    found = re.finditer(rb"(?=\x88[\x82-\xfd](.{4})(..))", data, re.DOTALL)
    return {int.from_bytes(bytes(a ^ b for a, b in zip(match[2], match[1], strict=False))) for match in found}


# ---- an attack, and what must hold while it lasts and after -----------------------------------------------------


@dataclass
class Attacker:
    """A client that sends bytes and keeps all that it receives."""

    stream: SocketStream
    received: bytearray = field(default_factory=bytearray)
    over: bool = False

    async def send(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the relay has cut it
                await self.stream.send_all(chunk)
        await wait_all_tasks_blocked()

    async def listen(self) -> None:
        with suppress(trio.ClosedResourceError):  # it has hung up
            async for data in self.stream:
                self.received += data
            self.over = True
        await self.stream.aclose()


async def attacker(relay: RelayHarness) -> Attacker:
    client = Attacker(relay.connect())
    relay.nursery.start_soon(client.listen)
    return client


async def two_others_are_served(relay: RelayHarness) -> None:
    """Dial, pair, and relay an offer."""
    clients = [relay.raw(), relay.raw()]
    for client, name in zip(clients, ("good-1", "good-2"), strict=True):
        await client.open(f"/?id={name}")
    await _send(clients[0], type="pair_request", target_id="good-2")
    assert [(await client.receive())["type"] for client in clients] == ["paired", "paired"]
    await _send(clients[0], type="offer", sdp="v")
    assert await clients[1].receive() == {"type": "offer", "sdp": "v", "from_peer": True}
    for client in clients:
        await client.stream.aclose()


async def _send(client: RawClient, **message: Json) -> None:
    await client.send(frame(TEXT, json.dumps(message).encode()))


async def attack(chunks: list[bytes], hangs_up: bool) -> None:
    """Send these bytes; at the end the attacker hangs up, or asks whether the relay is still there."""
    data = b"".join(chunks)
    async with relay_harness(LIMITS) as relay:
        client = await attacker(relay)
        await client.send(chunks)
        assert await takes(lambda: two_others_are_served(relay)) == 0
        if hangs_up and not client.over:
            await client.stream.send_eof()
        else:
            await client.send([frame(PING, ARE_YOU_THERE)])
        await wait_all_tasks_blocked()
        answered = _is_answered(bytes(client.received))
        if not answered:
            await trio.sleep(LIMITS.idle_timeout + 2 * LIMITS.close_timeout)
            assert client.over, "the relay neither answers nor ends"
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
def bent(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
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
    chunked(st.binary(max_size=200) | bent(REQUESTS) | st.tuples(bent(REQUESTS), FRAMES).map(b"".join)), st.booleans()
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
@given(chunked(bent(FRAMES)), st.booleans(), st.booleans())
@example([frame(CLOSE, (1000).to_bytes(2)) + b"\xff"], False, True)
@example([frame(CLOSE, (1000).to_bytes(2)) + frame(TEXT, b"{")], False, False)
@example([frame(TEXT, b"\xff") + frame(CLOSE, (1000).to_bytes(2))], False, False)
def test_corrupted_frames_end_in_a_close_code(chunks: list[bytes], hangs_up: bool, at_once: bool) -> None:
    """Frames with flipped bits, cut, spliced and repeated, in any chunks, also in the chunk of the request."""
    sent = [b"".join([GOOD_UPGRADE, *chunks[:1]]), *chunks[1:]] if at_once else [GOOD_UPGRADE, *chunks]
    trio.run(attack, sent, hangs_up, clock=MockClock(autojump_threshold=0))


# ---- JSON -------------------------------------------------------------------------------------------------------

VALUES: Final = st.recursive(
    st.sampled_from(["null", "true", "0", "-0.0", "1e400", "9" * 400, '""', '"\\u0000"', '"é😀"', '"\\ud83d\\ude00"']),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{','.join(values)}]")
        | st.lists(inner, max_size=3).map(
            lambda values: "{" + ",".join(f'"{n}":{v}' for n, v in enumerate(values)) + "}"
        )
    ),
    max_leaves=6,
)
KEYS: Final = st.sampled_from(
    [
        "type",
        "sdp",
        "peer_id",
        "candidate",
        "target_id",
        "t",
        "from_peer",
        "seq",
        "x",
        "",
        "\\u0074ype",
        "fro\\u006d_peer",
    ]
)
TYPES: Final = st.sampled_from([*sorted(SERVER_TYPES | CLIENT_TYPES), *sorted(RELAYED), *sorted(RELAYED)])
MEMBER: Final = st.builds(lambda key, value: f'"{key}":{value}', KEYS, VALUES)
NEEDED: Final = [
    '"sdp":"v"',
    '"candidate":null',
    '"candidate":{"candidate":"","sdpMLineIndex":0}',
    '"target_id":"b"',
    "",
]
OBJECTS: Final = st.builds(
    lambda kind, needed, members: "{" + ",".join(filter(None, [f'"type":"{kind}"', *needed, *members])) + "}",
    TYPES,
    st.lists(st.sampled_from(NEEDED), max_size=3),
    st.lists(MEMBER, max_size=3),
)
PIECES: Final = st.sampled_from(
    [*'{}[]",:\\ \n\0', "NaN", "-Infinity", "\\ud800", "\ufeff", "[" * 300, '{"x":' * 5, "1e", "01", "//", "'", "nul"]
)


@st.composite
def bent_texts(draw: st.DrawFn) -> str:
    """JSON, good or with pieces cut out and put in."""
    text = draw(OBJECTS | OBJECTS | VALUES) + draw(st.sampled_from(["", "", " \r\n\t"]))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.just("") | PIECES | st.characters()) + text[at + draw(st.integers(0, 3)) :]
    return text


def judgement(text: str) -> tuple[str | None, Json]:
    """Return the verdict of the standard library on a text, as far as that goes: an error code or None; and what it holds."""
    try:
        found = json.loads(text, parse_constant=_no_json, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return "bad_json", None
    if not isinstance(found, dict) or not isinstance(found.get("type"), str):
        return "bad_message", None
    return None if found["type"] in CLIENT_TYPES else "unknown_type", found


def _number(digits: str) -> tuple[str]:
    """Keep a number as it is written."""
    return (digits,)


def _no_json(constant: str) -> None:
    raise ValueError(constant)


def agrees(code: str | None, deserved: str | None, text: str) -> bool:
    """Return whether a refusal is right: a lone surrogate may be bad_json, and a known type can still lack its keys."""
    if re.search(r"\\u[dD][89a-fA-F]", text) and code == "bad_json":
        return True
    return code == deserved if deserved else code in (None, "bad_message")


@examples(2)
@given(bent_texts() | st.text())
@example('{"type":"offer","sdp":"","x":"\\ud800"}')
@example("[" * 100_000)
@example('{"type":"offer","x":' * 20_000)
def test_the_codec_and_the_standard_library_agree_on_json(text: str) -> None:
    """`parse` refuses with the code that follows, and otherwise finds the same type."""
    deserved, found = judgement(text)
    code, kind = parsed(text)
    assert agrees(code, deserved, text)
    assert code or kind == found["type"]


def parsed(text: str) -> tuple[str | None, str]:
    """Return the code with which `parse` refuses a text, or None and the type that it found."""
    try:
        return None, type_of(codec.parse(text.encode()))
    except UnicodeEncodeError:  # a lone surrogate cannot come in a text frame
        return "bad_json", ""
    except Refusal as refusal:
        return refusal.code, ""


async def send_texts(texts: list[str]) -> None:
    """Send each text to a peer; it arrives as it was, or its sender is notified, once."""
    async with relay_harness(LIMITS) as relay:
        a, b = [await attacker(relay) for _ in "ab"]
        await a.send([upgrade_request("/?id=a")])
        await b.send([upgrade_request("/?id=b")])
        for text in texts:
            await a.send([frame(TEXT, b'{"type":"pair_request","target_id":"b"}')])
            start_a, start_b = len(a.received), len(b.received)
            await a.send([frame(TEXT, text.encode())])
            check_exchange(text, texts_of(a.received[start_a:]), texts_of(b.received[start_b:]))
        assert not a.over
        assert not b.over
    assert relay.log.of("internal_error") == []


def texts_of(received: bytearray) -> list[str]:
    frames = frames_of(bytes(received))
    assert {opcode for opcode, _ in frames} <= {TEXT}
    return [payload.decode() for _, payload in frames]


def check_exchange(text: str, answers: list[str], arrived: list[str]) -> None:
    """One text of one of a pair: either its peer has it, or it has the one answer that the text deserves."""
    deserved, found = judgement(text)
    replies = [json.loads(answer) for answer in answers]
    if not answers:
        assert deserved is None
        assert len(arrived) == (found["type"] in RELAYED)
        assert found["type"] in RELAYED | {"pong"}
    else:
        assert len(replies) == 1
        assert replies[0]["type"] in {"error", "unpaired", "pong"}
        assert replies[0]["type"] == "unpaired" or not arrived
        if deserved:
            assert agrees(replies[0].get("code"), deserved, text)
    if found and found["type"] in RELAYED and arrived:
        assert [key for key, _ in json.loads(arrived[0], object_pairs_hook=list)].count("from_peer") == 1
        assert judgement(arrived[0])[1] == found | {"from_peer": True}


@examples(2)
@given(st.lists(bent_texts(), min_size=1, max_size=6))
@example(['{"type":"offer","sdp":"","x":' + "[" * 1900 + "]" * 1900 + "}", '{"x":' * 800])
@example(['{"type":"offer","sdp":"","from_peer":false,"x":' + "[" * 900 + "]" * 900 + "}"])
def test_any_text_is_relayed_unchanged_or_answered(texts: list[str]) -> None:
    """And both connections stay open."""
    trio.run(send_texts, texts, clock=MockClock(autojump_threshold=0))
