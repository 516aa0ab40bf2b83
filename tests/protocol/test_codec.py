"""The codec: which texts are messages, which are refused with which code, and how a frame is marked for the peer."""

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.errors import Refusal
from sdpx.protocol import codec, messages
from sdpx.protocol.messages import (
    Candidate,
    CandidateInit,
    ClientMessage,
    Description,
    Frame,
    PairRequest,
    Ping,
    Pong,
    Unpair,
)

KNOWN = {"type", "sdp", "peer_id", "candidate", "target_id", "t", "from_peer"}
NOT_STRINGS = ["null", "true", "7", "-1.5e3", "[]", '["x"]', "{}"]


def parse(text: str) -> messages.ClientMessage:
    return codec.parse(text.encode())


def refusal(text: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(text)
    return caught.value


def peer_frame(text: str) -> Frame:
    message = parse(text)
    assert isinstance(message, Frame)
    return message


def mark(frame: Frame) -> str:
    return (frame.body + codec.FROM_PEER).decode()


def marked(text: str) -> str:
    return mark(peer_frame(text))


# ---- what is taken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"pair_request","target_id":"b"}', PairRequest("b")),
        ('{"type":"pair_request","target_id":""}', PairRequest("")),
        ('{"type":"unpair"}', Unpair()),
        ('{"type":"unpair","sdp":7,"candidate":8,"target_id":9}', Unpair()),
        ('{"type":"pong"}', Pong()),
        (' \r\n\t{ "type" : "pong" }\n ', Pong()),
        ('{"type":"pair_request","target_id":"\\u0000"}', PairRequest("\0")),
        ('{"\\u0074ype":"p\\u006fng"}', Pong()),
        ('{"type":"offer","type":"pong"}', Pong()),
        ('{"type":7,"type":"pong"}', Pong()),
        ('{"type":"pair_request","target_id":1,"target_id":"b"}', PairRequest("b")),
    ],
)
def test_a_message_is_recognized_by_its_type(text: str, message: messages.ClientMessage) -> None:
    """Spelling, white space, keys of other types and earlier duplicates make no difference."""
    assert parse(text) == message


@pytest.mark.parametrize("kind", ["offer", "answer"])
def test_the_body_of_a_description_is_its_text(kind: str) -> None:
    """The size is in bytes of UTF-8, and no receiver is named."""
    text = json.dumps({"type": kind, "sdp": "é€😀"}, ensure_ascii=False)
    frame = peer_frame(text)
    assert (frame.type, frame.body, frame.size, frame.peer_id) == (kind, text.encode()[:-1], len(text.encode()), None)


def test_a_frame_may_name_its_receiver() -> None:
    """`peer_id` is decoded, with its escapes."""
    assert peer_frame('{"type":"offer","sdp":"","peer_id":"\\u0062"}').peer_id == "b"


@pytest.mark.parametrize(
    "candidate",
    [
        "null",
        "{}",
        '{"candidate":""}',
        '{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":"u"}',
        '{"candidate":"x","sdpMid":null,"sdpMLineIndex":null,"usernameFragment":null}',
        '{"candidate":"x","sdpMLineIndex":65535,"relayProtocol":"udp"}',
    ],
)
def test_a_candidate_is_an_init_dictionary_or_null(candidate: str) -> None:
    """RTCIceCandidateInit: every key is optional, and unknown ones are allowed."""
    assert peer_frame(f'{{"type":"candidate","candidate":{candidate}}}').type == "candidate"


@pytest.mark.parametrize("space", ["", " "])
def test_a_peer_id_of_null_is_absent(space: str) -> None:
    """For the relay and for a client; the frame is relayed as it was written."""
    text = f'{{"type":"answer","sdp":"","peer_id":null}}{space}'
    frame = peer_frame(text)
    assert (frame.peer_id, frame.body) == (None, text.rstrip()[:-1].encode())
    message = codec.parse_server(text)
    assert isinstance(message, Description)
    assert message.peer_id is None


@pytest.mark.parametrize("t", ["1", "1.0", "null", '"x"', "[1, 2]", '{"a": 1}', "1e400", "9" * 5000])
def test_the_t_of_a_ping_is_returned_as_it_was_written(t: str) -> None:
    """`t` is any JSON value, numbers of any size included."""
    message = parse(f'{{"type":"ping","t":{t}}}')
    assert isinstance(message, Ping)
    assert codec.encode(Pong(message.t)) == f'{{"type":"pong","t":{t}}}'.encode()


def test_a_ping_without_t_is_answered_without_t() -> None:
    """A key that was not there does not appear as null."""
    message = parse('{"type":"ping"}')
    assert isinstance(message, Ping)
    assert codec.encode(Pong(message.t)) == b'{"type":"pong"}'


@pytest.mark.parametrize("value", ["1e400", "-1e400", "9" * 5000, "0." + "1" * 5000, "1E-999", '"\\u0000"', '"\\/"'])
def test_unknown_values_are_relayed_unchanged(value: str) -> None:
    """RFC 8259 allows any number; all digits survive."""
    text = f'{{"type":"offer","sdp":"","x":{value}}}'
    assert marked(text) == text[:-1] + ',"from_peer":true}'


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "}", "offer", "{'type':'pong'}", '{"type":"pong"', '{"type":"pong",}', '{"type":"pong"}x'),
        *('{"type":"pong"}{}', "[1,", '"x', "tru", "01", "+1", ".5", "1.", "0x1", "\ufeff{}", "// {}", "nul"),
        *(
            f'{{"type":"pong","x":{value}}}'
            for value in ("NaN", "Infinity", "-Infinity", "nan", "1e", "-", "undefined")
        ),
        *(f'{{"type":"pong","x":"{string}"}}' for string in ("\n", "\0", "\x1f", "\\x", "\\u12", "\\u00g0")),
        '{"type":"offer","sdp":"\\ud800"}',
        "[" * 60_000,
        '{"x":' * 10_000,
        '{"type":"offer","sdp":"","x":' + "[" * 30_000 + "]" * 30_000 + "}",
    ],
)
def test_text_that_is_not_json_is_bad_json(text: str) -> None:
    """NaN, Infinity, raw control characters, escaped lone surrogates and unbounded nesting included."""
    assert refusal(text).code == "bad_json"


@pytest.mark.parametrize("text", ["null", "true", "7", "1e400", '"type"', "[]", '[{"type":"pong"}]', "[1]"])
def test_json_that_is_not_an_object_is_a_bad_message(text: str) -> None:
    """Such JSON can be parsed, so it is not bad_json."""
    assert refusal(text).code == "bad_message"


@pytest.mark.parametrize("text", ["{}", '{"Type":"pong"}', '{"type":"pong","type":7}'])
def test_an_object_without_a_type_is_a_bad_message(text: str) -> None:
    """The last of duplicate keys counts, and keys are case-sensitive."""
    assert refusal(text).code == "bad_message"


@pytest.mark.parametrize("value", NOT_STRINGS)
@pytest.mark.parametrize(
    ("kind", "keys", "key"),
    [
        (None, '"type":%s', "type"),
        ("pair_request", '"type":"pair_request","target_id":%s', "target_id"),
        ("offer", '"type":"offer","sdp":%s', "sdp"),
        ("answer", '"type":"answer","sdp":%s', "sdp"),
        ("offer", '"type":"offer","sdp":"","peer_id":%s', "peer_id"),
        ("candidate", '"type":"candidate","candidate":null,"peer_id":%s', "peer_id"),
    ],
)
def test_a_key_of_the_wrong_type_is_a_bad_message(kind: str | None, keys: str, key: str, value: str) -> None:
    """The sentence names the key, and `in_reply_to` the message, once its type is known."""
    if key == "peer_id" and value == "null":
        return  # absent
    found = refusal("{" + keys % value + "}")
    assert (found.code, found.in_reply_to) == ("bad_message", kind)
    assert f"'{key}'" in found.reason


@pytest.mark.parametrize("kind", ["pair_request", "offer", "answer", "candidate"])
def test_a_missing_key_is_a_bad_message(kind: str) -> None:
    """The keys that a type needs."""
    found = refusal(f'{{"type":"{kind}"}}')
    assert (found.code, found.in_reply_to) == ("bad_message", kind)


@pytest.mark.parametrize(
    "candidate",
    [
        *("7", '""', "[]", "true", '{"candidate":null}', '{"candidate":7}', '{"sdpMid":7}', '{"usernameFragment":[]}'),
        *(f'{{"sdpMLineIndex":{value}}}' for value in ("-1", "65536", "0.5", '"0"', "1e400", "9" * 5000, "true")),
    ],
)
def test_a_candidate_of_the_wrong_shape_is_a_bad_message(candidate: str) -> None:
    """Each key of RTCIceCandidateInit has its type and range."""
    found = refusal(f'{{"type":"candidate","candidate":{candidate}}}')
    assert (found.code, found.in_reply_to) == ("bad_message", "candidate")


@pytest.mark.parametrize("kind", ["your_id", "paired", "peer_disconnected", "unpaired", "error", "nope", "", "Offer"])
def test_a_type_that_clients_may_not_send_is_unknown(kind: str) -> None:
    """The server's own types are unknown from a client; `in_reply_to` has the type."""
    found = refusal(json.dumps({"type": kind, "target_id": 7}))
    assert (found.code, found.in_reply_to) == ("unknown_type", kind)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"type":7,"x":NaN}', "bad_json"),
        ('{"type":"nope","x":NaN}', "bad_json"),
        ('[{"type":"nope"},', "bad_json"),
        ('{"type":7,"sdp":7}', "bad_message"),
        ('{"type":"nope","sdp":7}', "unknown_type"),
    ],
)
def test_refusal_codes_have_an_order(text: str, code: str) -> None:
    """bad_json comes before bad_message, and that before unknown_type."""
    assert refusal(text).code == code


def test_a_binary_frame_is_a_bad_message() -> None:
    """Messages are text frames."""
    assert codec.binary_refusal().code == "bad_message"


# ---- marking a frame for the peer -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "peer_text"),
    [
        ('{"type":"offer","sdp":"v"}', '{"type":"offer","sdp":"v","from_peer":true}'),
        (' { "sdp":"\\u0041" , "type":"offer" } \n', ' { "sdp":"\\u0041" , "type":"offer" ,"from_peer":true}'),
        (
            '{"type":"candidate","candidate":null,"x":{}}',
            '{"type":"candidate","candidate":null,"x":{},"from_peer":true}',
        ),
        ('{"type":"offer","sdp":"from_peer"}', '{"type":"offer","sdp":"from_peer","from_peer":true}'),
        (
            '{"type":"offer","sdp":"","x":{"from_peer":0}}',
            '{"type":"offer","sdp":"","x":{"from_peer":0},"from_peer":true}',
        ),
    ],
)
def test_the_peer_receives_the_text_as_it_came(text: str, peer_text: str) -> None:
    """`from_peer` is spliced in; spelling, spacing and order of all other keys stay."""
    assert marked(text) == peer_text


@pytest.mark.parametrize("key", ["from_peer", "fro\\u006d_peer", "\\u0066rom_peer"])
@pytest.mark.parametrize("value", ["false", "true", "null", '"x"', '{"a":[1]}', "1e400"])
def test_a_senders_own_from_peer_is_replaced(key: str, value: str) -> None:
    """Whatever its value and spelling, one key is left, and it is the relay's."""
    text = marked(f'{{"{key}":{value},"type":"offer","sdp":"v","{key}":{value},"n":{"9" * 5000}}}')
    pairs = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    assert text.count("from_peer") == 1
    assert "u006" not in text
    assert bytes(pairs["from_peer"]) == b"true"
    assert bytes(pairs["n"]) == b"9" * 5000


def test_a_frame_that_was_parsed_can_be_relayed_at_any_stack_depth() -> None:
    """Nothing behind the parser decodes again."""

    def text(depth: int) -> str:
        return '{"type":"offer","sdp":"v","from_peer":0,"x":' + "[" * depth + "]" * depth + "}"

    def deeper_down(frame: Frame, calls: int) -> str:
        return deeper_down(frame, calls - 1) if calls else mark(frame) + str(codec.sdp_of(frame))

    for depth in range(1, 2000):
        try:
            frame = peer_frame(text(depth))
        except (Refusal, pytest.fail.Exception):
            break
        assert deeper_down(frame, 5)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
UNKNOWN = st.dictionaries(st.text().filter(lambda key: key not in KNOWN), JSON, max_size=5)
FORMS = st.fixed_dictionaries(
    {"ensure_ascii": st.booleans(), "indent": st.sampled_from([None, 0, 2]), "separators": st.just((" , ", " :  "))}
)
FRAMES = st.sampled_from(
    [
        {"type": "offer", "sdp": "v=0\r\n"},
        {"type": "answer", "sdp": "é😀\0", "peer_id": "b"},
        {"type": "candidate", "candidate": None},
        {"type": "candidate", "candidate": {"candidate": "x", "sdpMid": "0", "y": [1]}},
    ]
)


@given(FRAMES, UNKNOWN, st.just({}) | st.fixed_dictionaries({"from_peer": JSON}), FORMS, st.randoms())
def test_every_key_and_value_reaches_the_peer(
    known: dict[str, Any], unknown: dict[str, Any], own: dict[str, Any], form: dict[str, Any], random: Any
) -> None:
    """The peer reads the very object that was sent, in its order, plus `from_peer` true."""
    keys = random.sample([*known, *unknown, *own], len(known) + len(unknown) + len(own))
    sent = {key: (known | unknown | own)[key] for key in keys}
    got: dict[str, Any] = json.loads(marked(json.dumps(sent, **form)))
    assert got == sent | {"from_peer": True}
    assert got["from_peer"] is True
    assert [key for key in got if key != "from_peer"] == [key for key in sent if key != "from_peer"]


PIECES = st.sampled_from(
    [*'{}[]",:\\', '"type"', '"offer"', '"candidate"', '"sdp":"v"', "null", "NaN", "\\ud800", "1e400"]
)
TEXTS = st.one_of(
    st.text(),
    st.text(st.characters(), max_size=30),
    st.lists(PIECES, max_size=15).map("".join),
    st.builds(json.dumps, JSON),
    st.builds(
        lambda text, at, piece: text[:at] + piece + text[at:],
        st.sampled_from(
            ['{"type":"candidate","candidate":{"sdpMLineIndex":0}}', '{"type":"offer","sdp":"v","from_peer":false}']
        ),
        st.integers(0, 50),
        PIECES | st.characters(),
    ),
)


@given(TEXTS)
def test_any_text_is_a_message_or_a_refusal(text: str) -> None:
    """The parser raises nothing else, and every frame can be marked."""
    message: messages.ClientMessage | Refusal
    try:
        message = codec.parse(text.encode(errors="replace"))
    except Refusal as found:
        message = found
    if isinstance(message, Refusal):
        assert message.code in {"bad_json", "bad_message", "unknown_type"}
    elif isinstance(message, Frame):
        assert json.loads(mark(message))["from_peer"] is True
    else:
        assert isinstance(message, PairRequest | Unpair | Ping | Pong)


# ---- the parser of usual frames ---------------------------------------------------------------------------------


RELAYS_OWN = ["from_peer", "fro\\u006d_peer", "seq"]
VALUES = ["true", "null", "0", "1", "-1", "0.5", "1e3", '""', '"0"', "[]", "{}", "9" * 400]


def result(parse: Callable[[bytes], ClientMessage], data: bytes) -> object:
    """Return the message in a text, or the code and the sentence of its refusal."""
    try:
        return parse(data)
    except Refusal as refusal:
        return refusal.code, str(refusal)


def count_general_parses(monkeypatch: pytest.MonkeyPatch, text: str) -> int:
    """Parse a text and return how often `parse_any` was used."""
    parse_any = Mock(wraps=codec.parse_any)
    monkeypatch.setattr(codec, "parse_any", parse_any)
    result(codec.parse, text.encode())
    return parse_any.call_count


@given(TEXTS | st.builds(lambda known, unknown, form: json.dumps(known | unknown, **form), FRAMES, UNKNOWN, FORMS))
def test_both_parsers_return_the_same_frame(text: str) -> None:
    """`parse` returns what `parse_any` does."""
    data = text.encode(errors="replace")
    assert result(codec.parse, data) == result(codec.parse_any, data)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"offer","sdp":"v=0\\r\\n"}',
        '{"sdp":"","peer_id":"b","n":[1,{}],"type":"answer"}',
        '{"type":"offer","sdp":"é"}',
        '{"type":"candidate","candidate":null}',
        '{"type":"offer","sdp":"v","peer_id":null}',
        '{ "type" : "candidate" , "candidate" : {"candidate":"x","sdpMid":null,"y":1} }',
    ],
)
def test_usual_frames_are_parsed_in_one_pass(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Valid frames of the relayed types, without keys of the relay's."""
    assert codec.parse(text.encode()) == codec.parse_any(text.encode())
    assert count_general_parses(monkeypatch, text) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "}",
        '{"type":"offer","sdp":"v"} ',
        *(f'{{"type":"offer","sdp":"v","{key}":{value}}}' for key in RELAYS_OWN for value in VALUES),
        '{"type":"offer","sdp":7}',
        '{"type":"offer","candidate":null}',
        '{"type":"candidate","sdp":"v"}',
        '{"type":"candidate","candidate":"x"}',
        '{"type":"pair_request","target_id":"b"}',
        '{"type":"ping"}',
        '{"type":7,"sdp":"v"}',
        '{"type":"offer","sdp":"v"}}',
        '{"type":"offer","sdp":"v",}',
        '{"type":"offer","sdp":"v","x":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=lambda text: text[:40],
)
def test_other_frames_are_left_to_the_general_parser(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Whether they are valid or not."""
    assert count_general_parses(monkeypatch, text) == 1


# ---- the client's side ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        messages.YourId("a"),
        messages.Paired("b", is_initiator=True),
        messages.PeerDisconnected("b", "closed"),
        messages.Unpaired("b"),
        messages.ErrorFrame("self_pair", "No", target_id="a", in_reply_to="pair_request"),
        messages.ErrorFrame("bad_json", "No"),
        Pong(),
        Description("offer", "v=0"),
        Description("answer", "v=0", peer_id="b"),
        Candidate(None),
        Candidate(CandidateInit("candidate:1", sdpMid="0", sdpMLineIndex=0)),
    ],
)
def test_a_client_reads_the_messages_of_the_relay(message: messages.ServerMessage) -> None:
    """Also with keys that the client does not know."""
    data = codec.encode(message)
    assert codec.parse_server(data) == message
    assert codec.parse_server(data[:-1] + b',"from_peer":true,"new":[1e400]}') == message


def test_an_error_frame_has_the_keys_of_its_refusal() -> None:
    """`target_id` and `in_reply_to` appear only where there is one."""
    plain = codec.encode(messages.error_frame(Refusal("bad_json", "No")))
    full = codec.encode(messages.error_frame(Refusal("c", "No", in_reply_to="pair_request", target_id="b")))
    assert json.loads(plain) == {"type": "error", "code": "bad_json", "message": "No"}
    assert json.loads(full) == {
        "type": "error",
        "code": "c",
        "message": "No",
        "target_id": "b",
        "in_reply_to": "pair_request",
    }


def test_a_client_ignores_types_of_a_later_relay() -> None:
    """`parse_server` returns None."""
    assert codec.parse_server('{"type":"weather","client_seq":7}') is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"type":"your_id"}', '{"type":"paired","peer_id":7}', '{"type":"offer"}']
)
def test_a_client_refuses_text_that_is_not_a_message(text: str) -> None:
    """The other side is not a relay of this protocol."""
    with pytest.raises(Refusal):
        codec.parse_server(text)
