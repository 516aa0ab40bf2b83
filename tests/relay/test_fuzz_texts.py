"""Any texts: the codec agrees with the standard library on JSON, and the relay passes a text on unchanged or answers it."""

import json
import re
from typing import Any, Final

import trio
from hypothesis import example, given
from hypothesis import strategies as st
from trio.testing import MockClock

from sdpx.errors import Refusal
from sdpx.protocol import codec
from sdpx.protocol.messages import type_of
from tests.harness.attacker import CLIENT_TYPES, LIMITS, RELAYED, SERVER_TYPES, attacker, frames_of
from tests.harness.examples import examples
from tests.harness.frames import TEXT, frame, upgrade_request
from tests.harness.relay import relay_harness

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
def corrupted_texts(draw: st.DrawFn) -> str:
    """JSON, good or with pieces cut out and put in."""
    text = draw(OBJECTS | OBJECTS | VALUES) + draw(st.sampled_from(["", "", " \r\n\t"]))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.just("") | PIECES | st.characters()) + text[at + draw(st.integers(0, 3)) :]
    return text


def judgement(text: str) -> tuple[str | None, Any]:
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
@given(corrupted_texts() | st.text())
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
        assert not a.is_closed
        assert not b.is_closed
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
@given(st.lists(corrupted_texts(), min_size=1, max_size=6))
@example(['{"type":"offer","sdp":"","x":' + "[" * 1900 + "]" * 1900 + "}", '{"x":' * 800])
@example(['{"type":"offer","sdp":"","from_peer":false,"x":' + "[" * 900 + "]" * 900 + "}"])
def test_any_text_is_relayed_unchanged_or_answered(texts: list[str]) -> None:
    """And both connections stay open."""
    trio.run(send_texts, texts, clock=MockClock(autojump_threshold=0))
