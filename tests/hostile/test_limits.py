"""Attacks by numbers: floods and churn of connections, of messages, and of guesses at IDs."""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.harness.frames import BINARY, CLOSE, TEXT, frame, message, upgrade_request
from tests.harness.processes import relay_process
from tests.harness.relay import RawClient
from tests.harness.tcp import reset_on_close
from tests.hostile.attack import ELSEWHERE, Attack, attack_on, in_one_attack, patience, usable

pytestmark = pytest.mark.e2e

FREE_GUESSES: Final = 3
GUESSES: Final = 20 + 10  # at once, and one a second while a test runs
FULL: Final = (503, "full")
CROWDED: Final = (429, "too_many_connections")


def guesses(count: int) -> list[bytes]:
    """Return as many pair requests for unknown IDs."""
    return [message(type="pair_request", target_id=f"guess-{number}") for number in range(count)]


async def refusal(client: RawClient) -> tuple[int, str]:
    """Ask for a WebSocket that will not open, and return the status and the code; the connection stays as it is."""
    await client.send(upgrade_request())
    status, headers, body = await client.response()
    assert status != 503 or int(headers["retry-after"]) > 0
    return status, json.loads(body)["code"]


async def until_served(attack: Attack) -> None:
    """Demand that a newcomer is served before long."""
    with trio.fail_after(patience()):
        while True:
            client = await attack.connect()
            await client.send(upgrade_request())
            status, _, _ = await client.response()
            await client.stream.aclose()
            if status == 101:
                return
            await trio.sleep(0.02)


async def answers(client: RawClient, sent: Sequence[bytes]) -> list[dict[str, Any]]:
    """Write all of these at once, read an answer to each, and return those."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"".join(sent))
        return [await client.receive() for _ in sent]


async def answers_until_cut(client: RawClient, sent: Sequence[bytes]) -> list[dict[str, Any]]:
    """Write all of these at once, and return what is answered before the relay ends that, with 1008."""
    received = []

    async def write() -> None:
        with suppress(trio.BrokenResourceError):
            await client.send(b"".join(sent))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        while (answer := await client.frame())[0] != CLOSE:
            received.append(json.loads(answer[1]))
        nursery.cancel_scope.cancel()
    assert int.from_bytes(answer[1][:2]) == 1008
    return received


async def test_more_connections_than_there_may_be(tmp_path: Path) -> None:
    """A full relay answers 503; when some clients have left, others are served, though refused connections linger."""
    with relay_process(tmp_path, "--max-clients", "8") as server:
        async with attack_on(server) as attack:
            clients = [(await attack.raw())[0] for _ in range(6)]
            assert [await refusal(await attack.connect()) for _ in range(40)] == [FULL] * 40
            for client in clients:
                await client.stream.aclose()
            await until_served(attack)


async def test_more_connections_from_one_address_than_there_may_be(tmp_path: Path) -> None:
    """An address at its limit gets 429 and another one is served; when some of its clients have left, it is served again."""
    with relay_process(tmp_path, "--max-clients-per-ip", "4") as server:
        async with attack_on(server) as attack:
            clients = [(await attack.raw())[0] for _ in range(2)]
            assert [await refusal(await attack.connect()) for _ in range(40)] == [CROWDED] * 40
            assert (await (await attack.connect(ELSEWHERE)).open())["type"] == "your_id"
            for client in clients:
                await client.stream.aclose()
            await until_served(attack)


async def test_an_address_that_is_refused_takes_no_places(tmp_path: Path) -> None:
    """Connections beyond an address's share, which it does not close, do not fill the relay for the others."""
    with relay_process(tmp_path, "--max-clients", "12", "--max-clients-per-ip", "5") as server:
        async with attack_on(server) as attack:
            admitted = [await attack.connect(ELSEWHERE) for _ in range(5)]
            for client in admitted:
                await client.open()
            assert [await refusal(await attack.connect(ELSEWHERE)) for _ in range(60)] == [CROWDED] * 60
            await usable(await attack.client())


async def test_no_limit_of_connections(tmp_path: Path) -> None:
    """0 turns both limits of connections off."""
    with relay_process(tmp_path, "--max-clients", "0", "--max-clients-per-ip", "0") as server:
        async with attack_on(server) as attack:
            ids = {(await attack.raw())[1] for _ in range(100)}
            assert len(ids) == 100


async def test_churn_of_connections(attack: Attack) -> None:
    """Hundreds come and go, before and after their WebSocket opens, half of them by a reset."""

    async def come_and_go(number: int) -> None:
        stream = await trio.open_tcp_stream(attack.server.host, attack.server.port)
        if number % 2:
            await RawClient(stream).open()
        if number % 4 >= 2:
            reset_on_close(stream)
        stream.socket.close()

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(come_and_go, number)
    await until_served(attack)
    with trio.fail_after(patience()):
        while len(attack.events("client_disconnected")) < 200:
            await trio.sleep(0.02)


async def test_churn_of_paired_clients(attack: Attack) -> None:
    """A client is notified of each of its peers once, in order."""
    a = await attack.client()
    for _ in range(50):
        raw, raw_id = await attack.raw()
        await raw.send(message(type="pair_request", target_id=a.id))
        assert await a.receive() == {"type": "paired", "peer_id": raw_id, "is_initiator": False}
        await trio.aclose_forcefully(raw.stream)
        assert await a.receive() == {"type": "peer_disconnected", "peer_id": raw_id, "reason": "closed"}
    await usable(a)


FLOODS: Final = {
    "pings": (message(type="ping"), "rate_limited"),
    "malformed": (frame(TEXT, b"{"), "bad_json"),
    "binary": (frame(BINARY, b"{}"), "bad_message"),
    "candidates": (message(type="candidate", candidate=None), "rate_limited"),
    "requests": (message(type="pair_request", target_id="somebody"), "rate_limited"),
}


@in_one_attack(("flood", "code"), FLOODS)
async def test_a_flood_of_messages(attack: Attack, flood: bytes, code: str) -> None:
    """A client that sends too fast gets errors, and is disconnected when it goes on; its peer gets the reason `refused`."""
    a = await attack.client()
    fast, fast_id = await attack.raw()
    await a.pair(fast)
    received = await answers_until_cut(fast, [flood] * 4000)
    assert sum(answer.get("code") == code for answer in received) > 500
    while (last := await a.receive())["type"] == "candidate":
        pass
    assert last == {"type": "peer_disconnected", "peer_id": fast_id, "reason": "refused"}
    await usable(a)


async def test_messages_up_to_the_rate(attack: Attack) -> None:
    """Five seconds' worth of messages at once are all taken, those that are too many are refused one by one."""
    client, _ = await attack.raw()
    received = await answers(client, [message(type="ping", t=number) for number in range(1500)])
    assert received[:1000] == [{"type": "pong", "t": number} for number in range(1000)]
    refused = [answer for answer in received if answer["type"] == "error"]
    assert len(refused) > 200
    assert {(answer["code"], answer["in_reply_to"]) for answer in refused} == {("rate_limited", "ping")}


async def test_no_rate(tmp_path: Path) -> None:
    """`--rate 0` lets a client send as fast as it can."""
    with relay_process(tmp_path, "--rate", "0") as server:
        async with attack_on(server) as attack:
            client, _ = await attack.raw()
            received = await answers(client, [message(type="ping", t=number) for number in range(5000)])
            assert received == [{"type": "pong", "t": number} for number in range(5000)]


async def test_no_rate_to_a_client_that_reads(tmp_path: Path) -> None:
    """With `--rate 0`, a peer that reads gets all that is sent to it, in order, however fast it came."""
    with relay_process(tmp_path, "--rate", "0") as server:
        async with attack_on(server) as attack:
            a, _ = await attack.raw()
            b, b_id = await attack.raw()
            await a.send(message(type="pair_request", target_id=b_id))
            assert (await a.receive())["type"] == (await b.receive())["type"] == "paired"
            sent = [{"type": "candidate", "candidate": None, "number": number} for number in range(3000)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.send, b"".join(message(**each) for each in sent))
                assert [await b.receive() for _ in sent] == [each | {"from_peer": True} for each in sent]


async def test_guesses_at_ids(tmp_path: Path) -> None:
    """Pair requests for unknown IDs are limited by client and by address, while other pairs are served."""
    with relay_process(tmp_path) as server:
        async with attack_on(server) as attack:
            guesser, _ = await attack.raw()
            codes = [answer["code"] for answer in await answers(guesser, guesses(100))]
            assert codes[:FREE_GUESSES] == ["target_not_found"] * FREE_GUESSES
            assert set(codes) == {"target_not_found", "rate_limited"}
            assert codes.count("target_not_found") <= FREE_GUESSES + GUESSES
            [answer] = await answers(guesser, [message(type="pair_request", target_id=attack.pair.a.id)])
            assert (answer["code"], answer["target_id"]) == ("rate_limited", attack.pair.a.id)
            with trio.fail_after(patience()):
                await usable(*await attack.paired())


async def test_guesses_by_many_from_one_address(tmp_path: Path) -> None:
    """Clients of one address share its guesses: each has its free ones, and little more."""
    with relay_process(tmp_path) as server:
        async with attack_on(server) as attack:
            codes = Counter[str]()
            for _ in range(10):
                guesser, _ = await attack.raw()
                codes.update(answer["code"] for answer in await answers(guesser, guesses(20)))
            assert FREE_GUESSES * 10 <= codes["target_not_found"] <= FREE_GUESSES * 10 + GUESSES
            assert codes["rate_limited"] == 200 - codes["target_not_found"]
            await usable(*await attack.paired())


async def test_guesses_that_go_on(tmp_path: Path) -> None:
    """A client that goes on guessing is disconnected."""
    with relay_process(tmp_path) as server:
        async with attack_on(server) as attack:
            guesser, _ = await attack.raw()
            codes = Counter(answer["code"] for answer in await answers_until_cut(guesser, guesses(4000)))
            assert codes["target_not_found"] <= FREE_GUESSES + GUESSES
            assert codes["rate_limited"] > 500


async def test_no_limit_of_guesses(tmp_path: Path) -> None:
    """`--unknown-target-rate 0` lets a client ask for any number of unknown IDs."""
    with relay_process(tmp_path, "--unknown-target-rate", "0") as server:
        async with attack_on(server) as attack:
            guesser, _ = await attack.raw()
            codes = {answer["code"] for answer in await answers(guesser, guesses(200))}
            assert codes == {"target_not_found"}
