"""The wire, frame by frame: what is taken, what is refused and why, and that nothing of a relayed frame changes."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sdpx import messages
from sdpx.errors import Refusal
from sdpx.messages import PairRequest, PeerFrame, Ping, Pong, Unpair, mark_from_peer, parse, parse_server

HUGE = "9" * 5000


def refusal(text: str) -> Refusal:
    with pytest.raises(Refusal) as refused:
        parse(text)
    return refused.value


def peer_frame(text: str) -> PeerFrame:
    frame = parse(text)
    assert isinstance(frame, PeerFrame)
    return frame


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "{",
            "}",
            "nonsense",
            "[1,",
            '{"type":"ping"',
            '{"type":"ping",}',
            '{"type":"ping"} x',
            '\ufeff{"type":"ping"}',
        ),
        *('{"type":"ping","t":NaN}', '{"type":"ping","t":Infinity}', '{"type":"ping","t":-Infinity}'),
        *('{"type":"ping","t":01}', '{"type":"ping","t":1.}', '{"type":"ping","t":+1}', "{'type':'ping'}"),
        *('{"type":"ping","t":"\\x"}', '{"type":"ping","t":"\x00"}', '{"type":"ping","t":"a\nb"}'),
        *('{"type":"ping","t":"\\ud800"}', '{"type":"ping","t":"\ud800"}'),
        '{"type":"ping","t":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_what_cannot_be_parsed_is_bad_json(text: str) -> None:
    assert refusal(text).code == "bad_json"


@pytest.mark.parametrize(
    "text", ["[]", "5", '"offer"', "null", "true", "{}", '{"type":5}', '{"type":null}', '{"Type":"ping"}']
)
def test_what_is_no_message_is_a_bad_message(text: str) -> None:
    """No object, or no string `type`."""
    assert refusal(text).code == "bad_message"


NOT_STRINGS = ["null", "5", "1e400", "true", "{}", "[]", '["x"]', HUGE]
NOT_CANDIDATES = [
    *(
        "5",
        "true",
        "[]",
        '"candidate:1"',
        '{"candidate":5}',
        '{"candidate":null}',
        '{"sdpMid":5}',
        '{"sdpMLineIndex":"0"}',
    ),
    *('{"sdpMLineIndex":-1}', '{"sdpMLineIndex":65536}', f'{{"sdpMLineIndex":{HUGE}}}', '{"usernameFragment":[]}'),
]


@pytest.mark.parametrize(
    "text",
    [
        *('{"type":"offer"}', '{"type":"answer"}', '{"type":"candidate"}', '{"type":"pair_request"}'),
        *(f'{{"type":"offer","sdp":{value}}}' for value in NOT_STRINGS),
        *(f'{{"type":"answer","sdp":"x","peer_id":{value}}}' for value in NOT_STRINGS),
        *(f'{{"type":"candidate","candidate":null,"peer_id":{value}}}' for value in NOT_STRINGS),
        *(f'{{"type":"pair_request","target_id":{value}}}' for value in NOT_STRINGS),
        *(f'{{"type":"candidate","candidate":{value}}}' for value in NOT_CANDIDATES),
    ],
)
def test_a_key_that_is_missing_or_of_the_wrong_type_is_a_bad_message(text: str) -> None:
    """Every key of every type; the refusal names the type that it answers."""
    refused = refusal(text)
    assert refused.code == "bad_message"
    assert refused.in_reply_to == json.loads(text, parse_int=str)["type"]


@pytest.mark.parametrize(
    "kind", ["your_id", "paired", "peer_disconnected", "unpaired", "error", "ack", "", "OFFER", "x" * 9000]
)
def test_a_type_that_clients_may_not_send_is_unknown(kind: str) -> None:
    """The server's own types too."""
    refused = refusal(json.dumps({"type": kind}))
    assert (refused.code, refused.in_reply_to) == ("unknown_type", kind)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"pair_request","target_id":"b"}', PairRequest("b")),
        (' { "target_id" : "" , "type" : "pair_request" } ', PairRequest("")),
        ('{"type":"unpair","extra":[1e400]}', Unpair()),
        ('{"type":"pong"}', Pong()),
        ('{"type":"offer","type":"pong"}', Pong()),
        ('{"ty\\u0070e":"pong"}', Pong()),
    ],
)
def test_messages_are_read(text: str, message: object) -> None:
    """In any order of keys, however they are spelled; of duplicate keys the last counts."""
    assert parse(text) == message


@pytest.mark.parametrize("t", ["1e400", HUGE, '{"a" : [ 1 ]}', "null", '"x"'])
def test_a_ping_keeps_its_t_as_it_was_written(t: str) -> None:
    message = parse(f'{{"type":"ping","t":{t}}}')
    assert isinstance(message, Ping)
    assert messages.encode(messages.PongReply(message.t)) == f'{{"type":"pong","t":{t}}}'


def test_a_ping_without_t_is_answered_without_t() -> None:
    message = parse('{"type":"ping"}')
    assert isinstance(message, Ping)
    assert messages.encode(messages.PongReply(message.t)) == '{"type":"pong"}'


@pytest.mark.parametrize(
    "candidate",
    ["null", "{}", '{"candidate":""}', '{"candidate":"candidate:1","sdpMid":null,"sdpMLineIndex":0,"new":{}}'],
)
def test_candidates_are_an_init_or_null(candidate: str) -> None:
    assert peer_frame(f'{{"type":"candidate","candidate":{candidate}}}').type == "candidate"


def test_a_peer_frame_tells_its_size_in_bytes() -> None:
    text = '{"type":"offer","sdp":"größe €"}'
    assert peer_frame(text).size == len(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"offer","sdp":"v=0\\r\\n"}',
        f'{{"sdp":"x","big":{HUGE},"type":"offer","tiny":1e-400,"huge":1e400}}',
        '\n { "type" : "answer" , "sdp" : "\\u0000 \\"}" , "type" : "answer" } \t',
    ],
)
def test_a_relayed_frame_is_the_text_that_came_and_one_key_more(text: str) -> None:
    """Numbers of any length, order, spelling and white space survive."""
    assert mark_from_peer(peer_frame(text)) == text.rstrip()[:-1] + ',"from_peer":true}'


@pytest.mark.parametrize(
    "claim", ['"from_peer":false', '"from_peer":"me"', '"fro\\u006d_peer":0', '"from_peer":true,"from_peer":null']
)
def test_from_peer_is_the_relays_word_alone(claim: str) -> None:
    """Whatever the sender wrote there, however it is spelled and however often: one key, and it is true."""
    marked = mark_from_peer(peer_frame(f'{{"type":"offer",{claim},"sdp":"x","n":1e400}}'))
    pairs = json.loads(marked, object_pairs_hook=lambda members: members, parse_float=str)
    assert sorted(pairs) == [("from_peer", True), ("n", "1e400"), ("sdp", "x"), ("type", "offer")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
KNOWN = {"type", "sdp", "peer_id", "candidate", "target_id", "t", "from_peer"}
UNKNOWN = st.dictionaries(st.text().filter(lambda key: key not in KNOWN), JSON, max_size=5)


@given(extra=UNKNOWN, sdp=st.text(), claim=st.none() | JSON, ascii_only=st.booleans())
@example(extra={"": None}, sdp="", claim=False, ascii_only=True)
def test_every_key_and_value_of_a_relayed_frame_arrives_as_sent(
    extra: dict[str, Any], sdp: str, claim: Any, ascii_only: bool
) -> None:
    """For any object that a client may send: the same keys in the same order, the same values, and `from_peer` true."""
    sent = {"type": "offer", "sdp": sdp, **extra} | ({} if claim is None else {"from_peer": claim})
    arrived = json.loads(mark_from_peer(peer_frame(json.dumps(sent, ensure_ascii=ascii_only))))
    assert arrived == sent | {"from_peer": True}
    assert list(arrived) == list(sent | {"from_peer": True})


@given(st.text() | JSON.map(json.dumps) | st.dictionaries(st.sampled_from(sorted(KNOWN)), JSON).map(json.dumps))
def test_any_text_is_a_message_or_a_refusal(text: str) -> None:
    """Never another exception; and what is taken is JSON."""
    try:
        parse(text)
    except Refusal as refused:
        assert refused.code in ("bad_json", "bad_message", "unknown_type")
    else:
        assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "message",
    [
        messages.YourId("a"),
        messages.Paired("a", is_initiator=True),
        messages.PeerDisconnected("a", "left"),
        messages.Unpaired("a"),
        messages.ErrorFrame("c", "m", "t", "r"),
        messages.Description("offer", "x", "a"),
        messages.Candidate(messages.CandidateInit("c", "0", 0, "u")),
        messages.Candidate(None),
    ],
)
def test_what_the_relay_says_a_client_reads(message: Any) -> None:
    """Each frame of the relay survives the way there, with keys that this version does not know."""
    text = messages.encode(message)[:-1] + ',"from_peer":true,"new":{}}'
    assert parse_server(text) == message


def test_a_client_ignores_types_that_it_does_not_know() -> None:
    assert parse_server('{"type":"from_the_future"}') is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"type":"paired"}', '{"type":"offer","sdp":5}', '{"type":"your_id","id":null}']
)
def test_a_client_refuses_what_makes_no_sense(text: str) -> None:
    with pytest.raises(Refusal):
        parse_server(text)
