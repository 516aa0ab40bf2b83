"""Attacks on pairing: all at once, again and again, by third parties, under other clients' names, for absurd IDs."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.harness.frames import message
from tests.harness.processes import relay_process
from tests.harness.relay import Client, RawClient
from tests.hostile.attack import Attack, attack_on, in_one_attack, patience, usable

pytestmark = pytest.mark.e2e

FOR_THE_PEER: Final[list[dict[str, Any]]] = [
    {"type": "offer", "sdp": "v=0"},
    {"type": "answer", "sdp": "v=0"},
    {"type": "candidate", "candidate": None},
]
ABSURD_IDS: Final = {
    "empty": "",
    "60 KB": "x" * 60_000,
    "65 letters": "x" * 65,
    "control characters": "".join(map(chr, range(32))) + "\x7f",
    "lines of a log": 'a"}\n{"event":"server_stopped","level":"error"}\n',
    "letters of all planes": "é\u2028\u202e\uffff\U0001f600" * 500,
    "a path": "../../etc/passwd",
    "a format": "%s%n{0}{client_id}",
    "a number": "1e400",
    "a name of the language": "__class__",
}


async def all_at_once(clients: Sequence[RawClient], data: Sequence[bytes]) -> None:
    """Write to each client what is meant for it, in the same instant."""
    async with trio.open_nursery() as nursery:
        for client, part in zip(clients, data, strict=True):
            nursery.start_soon(client.send, part)


async def answers_to(client: RawClient) -> list[dict[str, Any]]:
    """Return all that the relay has for this client at the moment."""
    await client.send(message(type="ping", t="end"))
    received = []
    while (answer := await client.receive()) != {"type": "pong", "t": "end"}:
        received.append(answer)
    return received


def paired_with(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["peer_id"] for answer in answers if answer["type"] == "paired"]


def refused(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["code"] for answer in answers if answer["type"] == "error"]


async def test_three_that_ask_at_once(attack: Attack) -> None:
    """A asks B, B asks A, C asks B: one pairing results, and each other request gets one `error`."""
    opened = [await attack.raw() for _ in range(3)]
    a, b, c = (client_id for _, client_id in opened)
    targets = {a: b, b: a, c: b}
    for order in [*permutations(opened)] * 8:
        clients = [client for client, _ in order]
        await all_at_once(clients, [message(type="pair_request", target_id=targets[name]) for _, name in order])
        answers = {name: await answers_to(client) for client, name in order}
        one, other = (name for name in answers if paired_with(answers[name]))
        assert (paired_with(answers[one]), paired_with(answers[other])) == ([other], [one])
        roles = sorted(
            each["is_initiator"] for name in (one, other) for each in answers[name] if "is_initiator" in each
        )
        assert roles == [False, True]
        codes = [code for name in answers for code in refused(answers[name])]
        assert len(codes) == 2
        assert set(codes) <= {"already_paired", "target_already_paired"}
        await all_at_once(clients, [message(type="unpair")] * 3)
        for client in clients:
            assert len(await answers_to(client)) in (
                1,
                2,
            )  # the first of a pair receives `unpaired`, the other one all of it


async def test_many_clients_that_request_one_peer(attack: Attack) -> None:
    """Of forty clients that request one client at once, one is paired; the others get `target_already_paired`."""
    wanted = await attack.client()
    requesters = [await attack.raw() for _ in range(40)]
    await all_at_once(
        [requester for requester, _ in requesters], [message(type="pair_request", target_id=wanted.id)] * 40
    )
    answers = {name: await answers_to(requester) for requester, name in requesters}
    [winner] = [name for name in answers if paired_with(answers[name]) == [wanted.id]]
    assert await wanted.receive() == {"type": "paired", "peer_id": winner, "is_initiator": False}
    assert sorted(map(refused, answers.values())) == [[], *[["target_already_paired"]] * 39]
    await usable(wanted)


async def test_churn_of_pairings(tmp_path: Path) -> None:
    """Two clients that pair and part thousands of times receive both frames each time, in order."""
    with relay_process(tmp_path, "--rate", "0") as server:
        async with attack_on(server) as attack:
            a, a_id = await attack.raw()
            b, b_id = await attack.raw()
            for _ in range(30):
                await a.send((message(type="pair_request", target_id=b_id) + message(type="unpair")) * 100)
                for _ in range(100):
                    assert await a.receive() == {"type": "paired", "peer_id": b_id, "is_initiator": True}
                    assert await a.receive() == {"type": "unpaired", "peer_id": b_id}
                    assert await b.receive() == {"type": "paired", "peer_id": a_id, "is_initiator": False}
                    assert await b.receive() == {"type": "peer_disconnected", "peer_id": a_id, "reason": "left"}


async def test_a_storm_of_partings(attack: Attack) -> None:
    """Both of a pair part again and again at once: the pairing ends once, whatever is too much is `not_paired`."""
    (a, _), (b, b_id) = await attack.raw(), await attack.raw()
    await a.send(message(type="pair_request", target_id=b_id))
    assert (await a.receive())["type"] == (await b.receive())["type"] == "paired"
    await all_at_once([a, b], [message(type="unpair") * 400] * 2)
    answers = await answers_to(a), await answers_to(b)
    ends = sorted(answer["type"] for each in answers for answer in each if answer["type"] != "error")
    assert ends == ["peer_disconnected", "unpaired"]
    assert [len(refused(each)) for each in answers] in ([399, 400], [400, 399])
    assert {code for each in answers for code in refused(each)} == {"not_paired"}


@pytest.mark.parametrize("named", [False, True], ids=["without a peer_id", "with a peer_id"])
async def test_a_third_party_that_sends_to_a_pair(attack: Attack, named: bool) -> None:
    """A client without a peer reaches no client, whichever ID it names; the pair gets nothing."""
    a, b = await attack.paired()
    third = await attack.client()
    for target in (a, b):
        for sent in FOR_THE_PEER:
            await third.send(**sent, **({"peer_id": target.id} if named else {}))
            answer = await third.receive()
            assert (answer["code"], answer["in_reply_to"]) == ("not_paired", sent["type"])
    await usable(a, b, third)


async def test_a_paired_third_party_that_sends_to_a_pair(attack: Attack) -> None:
    """A client that names another client than its peer reaches neither; both pairs go on."""
    a, b = await attack.paired()
    c, d = await attack.paired()
    for target in (a, b, c):
        for sent in FOR_THE_PEER:
            await c.send(**sent, peer_id=target.id)
            answer = await c.receive()
            assert (answer["code"], answer["in_reply_to"]) == ("peer_unreachable", sent["type"])
    await usable(a, b, c, d)


async def test_a_third_party_that_ends_a_pair(attack: Attack) -> None:
    """A client without a peer cannot unpair others, whomever it names."""
    a, b = await attack.paired()
    third = await attack.client()
    for target in (a, b):
        await third.send(type="unpair", peer_id=target.id, target_id=target.id)
        assert (await third.receive())["code"] == "not_paired"
    await usable(a, b)


async def test_asking_for_the_busy(attack: Attack) -> None:
    """A client that asks for one of a pair again and again gets `already paired` errors; the pair gets nothing."""
    a, b = await attack.paired()
    third, _ = await attack.raw()
    asked = [a.id, b.id] * 100
    await third.send(b"".join(message(type="pair_request", target_id=target) for target in asked))
    answers = await answers_to(third)
    assert refused(answers) == ["target_already_paired"] * 200
    assert [answer["target_id"] for answer in answers] == asked
    await usable(a, b)


async def test_asking_for_a_second_peer(attack: Attack) -> None:
    """A paired client gets no other peer: neither a free client, nor a paired one, nor the same again."""
    a, b = await attack.paired()
    free, busy = await attack.client(), attack.pair.a
    for target in (free, busy, b):
        await a.send(type="pair_request", target_id=target.id)
        assert (await a.receive())["code"] == "already_paired"
    await usable(a, b, free)


async def test_pairing_with_oneself(attack: Attack) -> None:
    """A client cannot be its own peer, free or paired."""
    a, b = await attack.client(), await attack.client()
    await asks_for_itself(a)
    await a.pair(b)
    await asks_for_itself(a)
    await usable(a, b)


async def asks_for_itself(client: Client) -> None:
    await client.send(type="pair_request", target_id=client.id)
    answer = await client.receive()
    assert (answer["code"], answer["target_id"]) == ("self_pair", client.id)


@in_one_attack("target", ABSURD_IDS)
async def test_absurd_targets(attack: Attack, target: str) -> None:
    """An invalid ID is an unknown ID; the answer names it, and the log shows its start at most."""
    client = await attack.client()
    await client.send(type="pair_request", target_id=target)
    answer = await client.receive()
    assert (answer["code"], answer["target_id"]) == ("target_not_found", target)
    await usable(client)
    with trio.fail_after(patience()):
        while not (lines := [line for line in attack.events("pair_refused") if line["client_id"] == client.id]):
            await trio.sleep(0.02)  # the log has a thread of its own
    [logged] = lines
    assert target.startswith(logged["target_id"])
    assert len(logged["target_id"]) <= 64
