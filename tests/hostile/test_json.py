"""Attacks on the JSON of a frame: each is answered by one `error`, and the connection stays usable."""

import json
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.processes import relay_process
from tests.harness.relay import Client
from tests.hostile.attack import Attack, attack_on, in_one_attack, usable

pytestmark = pytest.mark.e2e

TYPED: Final = '{"type":%s}'
PING: Final = '{"type":"ping","t":%s}'
PONG: Final = '{"type":"pong","t":%s}'
MALFORMED: Final = {
    "an open brace": "{",
    "nothing": "",
    "blanks": " \t\r\n",
    "half a word": "nul",
    "a bare word": "ping",
    "half a key": '{"type',
    "half a value": '{"type":"ping"',
    "garbage behind": '{"type":"ping"}x',
    "a NUL behind": '{"type":"ping"}\0',
    "two objects": '{"type":"ping"}{"type":"ping"}',
    "two objects with a comma": '{"type":"ping"},{"type":"ping"}',
    "a trailing comma": '{"type":"ping",}',
    "a missing colon": '{"type" "ping"}',
    "single quotes": "{'type':'ping'}",
    "a key without quotes": '{type:"ping"}',
    "a number as a key": '{"type":"ping",1:2}',
    "a comment": '{"type":"ping"/**/}',
    "a leading zero": '{"type":"ping","t":01}',
    "a plus sign": '{"type":"ping","x":+1}',
    "hexadecimal": '{"type":"ping","x":[0x10]}',
    "a bare exponent": '{"type":"ping","x":1e}',
    "an unknown escape": r'{"type":"ping","x":"\x41"}',
    "half an escape": r'{"type":"ping","x":"\u12"}',
    "a line break in a string": '{"type":"ping","x":"\n"}',
    "a NUL in a string": '{"type":"ping","t":"\0"}',
    "a NUL in a key": '{"type":"ping","\0":1}',
    "a byte order mark": '\ufeff{"type":"ping"}',
    "a no-break space": '\xa0{"type":"ping"}',
}
NO_OBJECTS: Final = ("null", "true", "0", "-1.5e3", '"ping"', '"{}"', "[]", '[{"type":"ping"}]')
PLACES: Final = (
    "%s",
    TYPED,
    '{"type":"offer","sdp":"","x":%s}',
    '{"type":"offer","sdp":"","x":[{"y":[0,%s]}]}',
    '{"type":"offer","sdp":"","from_peer":%s}',
    '{"type":"offer","sdp":%s}',
    '{"type":"pair_request","target_id":%s}',
    PING,
    '{"type":"candidate","candidate":%s}',
    '{"type":"candidate","candidate":{"x":%s}}',
    '{"type":"unpair","x":%s}',
)
NESTS: Final = {
    "lists": "[" * 32_000 + "]" * 32_000,
    "lists that are left open": "[" * 65_000,
    "objects": '{"a":' * 10_000 + "1" + "}" * 10_000,
}
RELAYED_NESTS: Final = {
    "in an unknown key": ('{"type":"offer","sdp":"","x":%s}', '{"type":"offer","sdp":"","x":%s,"from_peer":true}'),
    "in candidate": (
        '{"type":"candidate","candidate":{"x":%s}}',
        '{"type":"candidate","candidate":{"x":%s},"from_peer":true}',
    ),
    "beside a forged from_peer": ('{"type":"answer","sdp":"","x":%s,"from_peer":0}',) * 2,
}
NOT_STRINGS: Final = ("null", "true", "0", "1e400", "[]", '["a"]', "{}")
NOT_STRINGS_OR_NULL: Final = NOT_STRINGS[1:]  # a peer_id of null is absent
NOR_NULL: Final = ("true", "0", "[]", "{}")
WRONG_TYPES: Final[dict[str, Sequence[str]]] = {
    '{"type":"pair_request","target_id":%s}': NOT_STRINGS,
    '{"type":"offer","sdp":%s}': NOT_STRINGS,
    '{"type":"answer","sdp":%s}': NOT_STRINGS,
    '{"type":"offer","sdp":"","peer_id":%s}': NOT_STRINGS_OR_NULL,
    '{"type":"answer","sdp":"","peer_id":%s}': NOT_STRINGS_OR_NULL,
    '{"type":"candidate","candidate":null,"peer_id":%s}': NOT_STRINGS_OR_NULL,
    '{"type":"candidate","candidate":%s}': ("true", "0", "[]", '""', '"candidate:1"', "[{}]"),
    '{"type":"candidate","candidate":{"candidate":%s}}': NOT_STRINGS,
    '{"type":"candidate","candidate":{"sdpMid":%s}}': NOR_NULL,
    '{"type":"candidate","candidate":{"usernameFragment":%s}}': NOR_NULL,
    '{"type":"candidate","candidate":{"sdpMLineIndex":%s}}': (
        *("true", '"0"', "[]", "{}", "-1", "65536", "1.5", "1e400"),
        "9" * 5000,
    ),
}
MISSING_KEYS: Final = (
    '{"type":"pair_request"}',
    '{"type":"offer"}',
    '{"type":"answer","SDP":""}',
    '{"type":"candidate"}',
    '{"type":"candidate","candidat":null}',
)
LAST_COUNTS: Final = {
    '{"type":"offer","type":"ping","t":1,"t":2}': {"type": "pong", "t": 2},
    '{"type":1,"type":"unpair"}': {"code": "not_paired", "in_reply_to": "unpair"},
    '{"type":"ping","type":1}': {"code": "bad_message"},
    '{"type":"pair_request","target_id":1,"target_id":"a"}': {"code": "target_not_found", "target_id": "a"},
    '{"type":"offer","sdp":1,"sdp":""}': {"code": "not_paired"},
    '{"type":"offer","sdp":"","sdp":1}': {"code": "bad_message"},
    '{"type":"candidate","candidate":1,"candidate":null}': {"code": "not_paired"},
    '{"type":"candidate","candidate":{"sdpMid":"0","sdpMid":1}}': {"code": "bad_message"},
    '{"type":"candidate","candidate":{"sdpMid":1,"sdpMid":"0"}}': {"code": "not_paired"},
}
AS_WRITTEN: Final = {
    "1e400": '{"type":"offer","sdp":"","x":1e400}',
    "numbers in odd spellings": '{"x":[-0,-0.0,1.0,1E+2,1e-400,0.1000000000000000055511151231257827]'
    ',"type":"answer","sdp":""}',
    "a number of 5,000 digits": '{"type":"offer","sdp":"","x":-%s}' % ("9" * 5000),
    "a candidate's number of 5,000 digits": '{"type":"candidate","candidate":{"x":%s}}' % ("8" * 5000),
    "a fraction of 5,000 digits": '{"type":"offer","sdp":"","x":0.%s}' % ("3" * 5000),
    "key order and blanks": ' {\t"z" : 1,\n"sdp":"" , "type" :"offer", "a":{ "c":1,"b":2 } }',
    "escapes": r'{"type":"off\u0065r","s\u0064p":"\u0041\/\b\f\r\n\t\"\\","x":"\ud83d\ude00\u2028"}',
    "letters of all planes": '{"type":"offer","sdp":"é\u2028\uffff\U0001f600\U0010fffd","ключ":"ß"}',
    "NUL in strings": r'{"type":"offer","sdp":"a\u0000b","\u0000":"\u0000"}',
    "duplicate keys": '{"type":"offer","sdp":"a","x":1,"x":{"y":1,"y":2},"sdp":"b"}',
    "names that other languages trip over": '{"type":"offer","sdp":"","__proto__":{"x":1},"constructor":0,"":null}',
    "a key of 60 KB": '{"type":"offer","sdp":"","%s":1}' % ("k" * 60_000),
    "5,000 keys": '{"type":"offer","sdp":""' + "".join(f',"k{n}":{n}' for n in range(5_000)) + "}",
    "the server's own keys": '{"type":"offer","sdp":"","code":"x","is_initiator":true,"reason":"left","id":"x"}',
}
FORGED: Final = ("true", "false", "null", "0", '"true"', '{"from_peer":true}', "[true]")
FORGERIES: Final = {
    "in front": '{"from_peer":false,"type":"offer","sdp":"v","x":1e400}',
    "behind": '{"type":"offer","sdp":"v","x":1e400,"from_peer":false}',
    "twice": '{"from_peer":true,"type":"offer","from_peer":false,"sdp":"v","x":1e400}',
    "in escapes": r'{"fro\u006d_peer":false,"type":"offer","sdp":"v","x":1e400}',
    "in escapes and plainly": r'{"from_peer":true,"type":"offer","sdp":"v","\u0066rom_peer":false,"x":1e400}',
}


async def refusal(client: Client, text: str) -> dict[str, Any]:
    """Send a text that is to be refused, and return the error; the client stays usable."""
    await client.socket.send_message(text)
    error = await client.receive()
    assert error["type"] == "error"
    assert error["message"]
    await usable(client)
    return error


@in_one_attack("text", MALFORMED)
async def test_malformed(attack: Attack, text: str) -> None:
    """Text that is not JSON is refused as `bad_json`."""
    assert (await refusal(await attack.client(), text))["code"] == "bad_json"


async def test_no_object(attack: Attack) -> None:
    """JSON that is no object is refused as `bad_message`."""
    client = await attack.client()
    for text in NO_OBJECTS:
        assert (await refusal(client, text))["code"] == "bad_message"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "nan", "inf"])
async def test_not_a_number(attack: Attack, number: str) -> None:
    """NaN and Infinity are not JSON, wherever they stand."""
    client = await attack.client()
    for place in PLACES:
        assert (await refusal(client, place % number))["code"] == "bad_json"


@pytest.mark.parametrize("string", [r'"\ud800"', r'"\udfff"', r'"\udc00\ud800"', r'"\ud800x"', r'{"\ud800":1}'])
async def test_lone_surrogates(attack: Attack, string: str) -> None:
    """An escape that stands for no character is refused, wherever it stands."""
    client = await attack.client()
    for place in PLACES:
        assert (await refusal(client, place % string))["code"] == "bad_json"


@in_one_attack("nest", NESTS)
async def test_deep_nesting(attack: Attack, nest: str) -> None:
    """As many brackets as a frame holds, closed or not, are too many, wherever they stand."""
    client = await attack.client()
    for place in PLACES:
        assert (await refusal(client, place % nest))["code"] == "bad_json"


async def test_100_000_brackets(tmp_path: Path) -> None:
    """Brackets do no harm either where a frame may be longer."""
    with relay_process(tmp_path, "--max-message-size", "1048576") as server:
        async with attack_on(server) as attack:
            client = await attack.client()
            for place in PLACES:
                for nest in ("[" * 100_000 + "]" * 100_000, "[" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000):
                    assert (await refusal(client, place % nest))["code"] == "bad_json"


async def arrives(sender: Client, receiver: Client, text: str, expected: str) -> bool:
    """Send a frame for the peer; return whether it arrived as expected, or else was refused whole as `bad_json`."""
    await sender.socket.send_message(text)
    await sender.send(type="ping")
    answers = [await sender.receive()]
    if answers[0]["type"] == "error":
        assert answers[0]["code"] == "bad_json"
        answers.append(await sender.receive())
    else:
        assert await receiver.socket.get_message() == expected
    assert answers[-1] == {"type": "pong"}
    return len(answers) == 1


@in_one_attack(("sent", "expected"), RELAYED_NESTS)
async def test_nesting_around_the_limit_of_a_relayed_frame(attack: Attack, sent: str, expected: str) -> None:
    """A frame is relayed as it came or refused as `bad_json`, also one that is nested as deeply as just possible."""
    a, b = await attack.paired()

    async def fits(depth: int) -> bool:
        nest = "[" * depth + "]" * depth
        return await arrives(a, b, sent % nest, (expected % nest).replace('"from_peer":0', '"from_peer":true'))

    fitting, too_deep = 1, 32_000
    while too_deep - fitting > 1:
        middle = (fitting + too_deep) // 2
        fitting, too_deep = (middle, too_deep) if await fits(middle) else (fitting, middle)
    around = [await fits(depth) for depth in range(too_deep - 20, too_deep + 20)]
    assert (around[0], around[-1]) == (True, False)
    await usable(a, b)


async def test_nesting_around_the_limit_of_a_ping(attack: Attack) -> None:
    """A `t` is echoed as it came or refused as `bad_json`, also one that is nested as deeply as just possible."""
    client = await attack.client()
    for depth in (*range(1, 900, 50), *range(900, 1100)):
        nest = "[" * depth + "]" * depth
        await client.socket.send_message(PING % nest)
        answer = await client.socket.get_message()
        echoed = PONG % nest
        assert answer == echoed or json.loads(answer)["code"] == "bad_json"
        assert answer == echoed or depth >= 900
    await usable(client)


async def test_a_type_of_60_kb(attack: Attack) -> None:
    """An unknown type is named in the answer, whatever its length."""
    kind = "x" * 60_000
    error = await refusal(await attack.client(), json.dumps({"type": kind}))
    assert (error["code"], error["in_reply_to"]) == ("unknown_type", kind)


@in_one_attack(("template", "values"), {each[0]: each for each in WRONG_TYPES.items()})
async def test_wrong_types(attack: Attack, template: str, values: Sequence[str]) -> None:
    """A key of the wrong type is refused as `bad_message`, with the type of the frame that held it."""
    client = await attack.client()
    for value in values:
        error = await refusal(client, template % value)
        assert (error["code"], error["in_reply_to"]) == ("bad_message", template.split('"')[3])


async def test_missing_keys(attack: Attack) -> None:
    """A key that is missing is refused as `bad_message`, with the type of the frame that lacks it."""
    client = await attack.client()
    for text in MISSING_KEYS:
        error = await refusal(client, text)
        assert (error["code"], error["in_reply_to"]) == ("bad_message", json.loads(text)["type"])


async def test_a_type_that_is_no_string(attack: Attack) -> None:
    """A frame without a string `type` is refused as `bad_message`."""
    client = await attack.client()
    for text in ("{}", '{"Type":"ping"}', '{"":"ping"}', *(TYPED % value for value in NOT_STRINGS)):
        assert (await refusal(client, text))["code"] == "bad_message"


async def test_any_value_is_a_t(attack: Attack) -> None:
    """Whatever value a ping's `t` has, its pong has it as it was written."""
    client = await attack.client()
    for value in (*NOT_STRINGS, "-0", "1e-400", "9" * 5000, r'"\u0000\/"', '{ "b":1,"a" :[ ] }', '{"a":1,"a":2}'):
        await client.socket.send_message(PING % value)
        assert await client.socket.get_message() == PONG % value


@in_one_attack(("text", "expected"), {each[0]: each for each in LAST_COUNTS.items()})
async def test_duplicate_keys(attack: Attack, text: str, expected: dict[str, object]) -> None:
    """Of duplicate keys the last counts."""
    client = await attack.client()
    await client.socket.send_message(text)
    assert expected.items() <= (await client.receive()).items()
    await usable(client)


async def test_nul_in_names(attack: Attack) -> None:
    """A NUL in a type or an ID is a character as any other: it does not end the name."""
    a, b = await attack.paired()
    other = await attack.client()
    offer = json.dumps({"type": "offer", "sdp": "", "peer_id": f"{b.id}\0"})
    assert (await refusal(a, offer))["code"] == "peer_unreachable"
    assert (await refusal(a, json.dumps({"type": "ping\0"})))["code"] == "unknown_type"
    request = json.dumps({"type": "pair_request", "target_id": f"{other.id}\0"})
    assert (await refusal(await attack.client(), request))["code"] == "target_not_found"
    await usable(b, other)


@in_one_attack("text", AS_WRITTEN)
async def test_a_relayed_frame_comes_out_as_it_went_in(attack: Attack, text: str) -> None:
    """The peer gets every byte as it was sent, and `from_peer` behind them."""
    a, b = await attack.paired()
    await a.socket.send_message(text)
    assert await b.socket.get_message() == text.rstrip()[:-1] + ',"from_peer":true}'
    await usable(a, b)


@in_one_attack("text", FORGERIES)
async def test_a_forged_from_peer(attack: Attack, text: str) -> None:
    """However a sender writes `from_peer`, its peer finds the key once, as true, and the rest as it was sent."""
    a, b = await attack.paired()
    for forged in FORGED:
        await a.socket.send_message(text.replace("false", forged))
        received = await b.socket.get_message()
        members = json.loads(received, object_pairs_hook=list)
        assert sorted(members) == [("from_peer", True), ("sdp", "v"), ("type", "offer"), ("x", inf)]
        assert '"x":1e400' in received
    await usable(a, b)


async def test_from_peer_where_nothing_is_relayed(attack: Attack) -> None:
    """The server's own frames never bear `from_peer`, whatever the client wrote."""
    a, b = await attack.client(), await attack.client()
    await a.send(type="pair_request", target_id=b.id, from_peer=True)
    assert await a.receive() == {"type": "paired", "peer_id": b.id, "is_initiator": True}
    assert await b.receive() == {"type": "paired", "peer_id": a.id, "is_initiator": False}
    await a.send(type="ping", from_peer=True)
    assert await a.receive() == {"type": "pong"}
    await a.send(type="unpair", from_peer=True)
    assert await a.receive() == {"type": "unpaired", "peer_id": b.id}
    assert await b.receive() == {"type": "peer_disconnected", "peer_id": a.id, "reason": "left"}


@pytest.mark.parametrize(
    "kind", ["paired", "your_id", "unpaired", "peer_disconnected", "error", "", "Offer", "offer ", "__class__"]
)
async def test_types_that_a_client_may_not_send(attack: Attack, kind: str) -> None:
    """A client that pretends to be the server receives `unknown_type`, and its peer nothing."""
    a, b = await attack.paired()
    forged = {"type": kind, "peer_id": b.id, "id": b.id, "is_initiator": True, "reason": "left", "from_peer": True}
    error = await refusal(a, json.dumps(forged))
    assert (error["code"], error["in_reply_to"]) == ("unknown_type", kind)
    await usable(b)
