"""Attacks on the bounds of a request: its size, its time, and connections that end within it."""

import random
from typing import Final

import pytest
import trio

from tests.harness.frames import TEXT, frame, upgrade_request
from tests.harness.relay import RawClient
from tests.harness.tcp import reset_on_close
from tests.hostile.attack import (
    Attack,
    half_close,
    in_one_attack,
    patience,
    sends_until_cut,
    tcp_of,
)
from tests.hostile.conftest import ENGINES
from tests.hostile.test_requests import PLAIN, Refused, check, plain, refusal, with_line

pytestmark = pytest.mark.e2e
SERVERS: Final = ENGINES

HASTE: Final = 0.5  # seconds that the hasty relay gives a request
HASTY_OPTIONS: Final = ("--handshake-timeout", str(HASTE))
LINGER: Final = 2.0  # seconds, at most, in which a client that goes on after an answer is cut
BOUND: Final = 16 * 1024 * 1024  # what the kernel's two buffers may swallow by themselves, and some


async def dribble(client: RawClient, data: bytes, size: int, pause: float) -> None:
    """Send a few bytes at a time, over and over, until the relay cuts the connection."""
    try:
        while True:
            for start in range(0, len(data), size):
                await client.send(data[start : start + size])
                await trio.sleep(pause)
    except trio.BrokenResourceError:
        return


TOO_LARGE: Final = {
    "many headers": with_line(b"\r\n".join(b"X-%d: %d" % (n, n) for n in range(5000))),
    "many short headers": with_line(b"\r\n".join([b"a:"] * 1000)),
    "many folds of a header": with_line(b"X-Test: a" + b"\r\n a" * 1000),
    "one huge header": with_line(b"X-Test: " + b"x" * 100_000),
    "a header that is a little too long": with_line(b"X-Test: " + b"x" * 16_384),
    "one huge name": with_line(b"x" * 100_000 + b": a"),
    "a huge path": upgrade_request("/" + "x" * 100_000),
    "a huge query": upgrade_request("/?id=" + "x" * 100_000),
    "a huge method": b"X" * 100_000 + b" / HTTP/1.1\r\nHost: relay.test\r\n\r\n",
    "a head that never ends": b"GET / HTTP/1.1\r\nX-Test: " + b"x" * 100_000,
}


@in_one_attack("data", TOO_LARGE)
async def test_a_head_over_the_bound_is_refused(attack: Attack, data: bytes) -> None:
    """431, as soon as the bound is passed, whether its end ever comes or not."""
    await check(attack, Refused(data, 431))


ENDLESS: Final = {
    "headers": (b"GET / HTTP/1.1\r\n", b"X-Test: a\r\n" * 6000),
    "a header": (b"GET / HTTP/1.1\r\nX-Test: ", b"x" * 65536),
    "a path": (b"GET /", b"x" * 65536),
    "a method": (b"", b"X" * 65536),
    "line ends": (b"", b"\r\n" * 32768),
    "a body": (plain(b"POST", rest=b"Content-Length: 99999999999\r\n\r\n"), b"x" * 65536),
    "requests": (b"", PLAIN * 1500),
}


@in_one_attack(("start", "more"), ENDLESS)
async def test_an_endless_request_is_closed_after_a_bounded_amount(attack: Attack, start: bytes, more: bytes) -> None:
    """The client sends as fast as it can and reads nothing: the relay stops reading, and closes."""
    client = await attack.connect()
    await client.send(start)
    with trio.fail_after(LINGER):
        assert await sends_until_cut(client, more) < BOUND


async def test_twenty_endless_senders_at_once_cost_no_more_than_one(attack: Attack) -> None:
    """Each is closed, and no other client is affected."""
    with trio.fail_after(2 * LINGER):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(sends_until_cut, await attack.connect(), b"GET /" + b"x" * 4096, 0.001)


PIECES: Final = {
    "a request byte by byte": (upgrade_request(), 1, 0.02),
    "header after header": (b"X-Test: a\r\n", 11, 0.05),
    "an endless word": (b"X", 1, 0.02),
}


@pytest.mark.parametrize(("data", "size", "pause"), PIECES.values(), ids=PIECES)
async def test_a_slow_request_ends_at_the_handshake_timeout(
    hasty_attack: Attack, data: bytes, size: int, pause: float
) -> None:
    """Slowloris is answered 408: the time is for the whole head, and a byte more does not prolong it."""
    client = await hasty_attack.connect()
    await client.send(b"GET / HTTP/1.1\r\n" if size > 1 else b"")
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble, client, data, size, pause)
        with trio.fail_after(HASTE + patience()):
            assert await refusal(client) == (408, "timeout")
        assert trio.current_time() - began > HASTE / 2
        nursery.cancel_scope.cancel()


async def test_a_slow_request_that_goes_on_after_its_answer_is_closed(hasty_attack: Attack) -> None:
    """A client that sends on, byte by byte, and never reads, keeps no socket open."""
    client = await hasty_attack.connect()
    with trio.fail_after(HASTE + LINGER):
        assert await sends_until_cut(client, b"X", 0.02) < 1000


UNFINISHED: Final = {
    "half a request": upgrade_request()[:-2],
    "nothing but line ends": b"\r\n\r\n",
    "noise without a line's end": b"\x80" + random.Random(7).randbytes(4096).replace(b"\n", b""),
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "frames without a request": frame(TEXT, b'{"type": "ping"}') * 4,
}


@in_one_attack("data", UNFINISHED)
async def test_an_unfinished_request_ends_at_the_handshake_timeout(hasty_attack: Attack, data: bytes) -> None:
    """With the answer 408, or sooner with 400 if it cannot become a request."""
    client = await hasty_attack.connect()
    await client.send(data)
    with trio.fail_after(HASTE + patience()):
        assert await refusal(client) in [(408, "timeout"), (400, "bad_request")]


async def test_silent_connections_end_at_the_handshake_timeout(hasty_attack: Attack) -> None:
    """Twenty of them, and without a word: they asked for nothing."""
    clients = [await hasty_attack.connect() for _ in range(20)]
    with trio.fail_after(HASTE + patience()):
        for client in clients:
            assert await client.rest() == b""


async def test_the_default_handshake_timeout_is_5_s(attack: Attack) -> None:
    client = await attack.connect()
    began = trio.current_time()
    with trio.fail_after(5 + patience()):
        assert await client.rest() == b""
    assert trio.current_time() - began > 4


async def test_two_hundred_slow_requests_at_once_end_at_the_handshake_timeout(hasty_attack: Attack) -> None:
    """Each is answered 408, and other clients connect meanwhile."""
    received: list[tuple[int, str]] = []

    async def refused() -> None:
        client = await hasty_attack.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble, client, upgrade_request(), 1, 0.1)
            received.append(await refusal(client))
            nursery.cancel_scope.cancel()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(refused)
    assert received == [(408, "timeout")] * 200


async def test_fin_in_the_middle_of_a_request_is_answered(attack: Attack) -> None:
    """A client that has closed only its own side gets 400."""
    client = await attack.connect()
    await client.send(upgrade_request()[:-2])
    await half_close(client)
    with trio.fail_after(patience()):
        assert await refusal(client) == (400, "bad_request")


async def test_fin_and_nothing_else_is_closed(attack: Attack) -> None:
    """At once, and without a word, as a port scan is."""
    client = await attack.connect()
    await half_close(client)
    with trio.fail_after(patience()):
        assert await client.rest() == b""


async def test_fin_right_behind_the_request_frees_the_id(attack: Attack) -> None:
    """A client that will never say anything is no client."""
    client = await attack.connect()
    await client.send(upgrade_request("/?id=half-closed"))
    await half_close(client)
    with trio.fail_after(patience()):
        await client.rest()
    assert (await attack.client("/?id=half-closed")).id == "half-closed"


UNTIL_RESET: Final = {
    "nothing": b"",
    "half a request": upgrade_request()[:40],
    "a plain request": PLAIN,
    "garbage": bytes(1000),
    "a request for a WebSocket": upgrade_request("/?id=reset"),
    "a request and half a frame": upgrade_request("/?id=reset") + frame(TEXT, b'{"type": "ping"}')[:9],
    "a request and a bad frame": upgrade_request("/?id=reset") + b"\xff\xff",
}


@in_one_attack("data", UNTIL_RESET)
async def test_a_reset_costs_nothing(attack: Attack, data: bytes) -> None:
    """Thirty connections that end with RST leave neither a client nor a fault behind."""
    for number in range(30):
        client = await attack.connect()
        reset_on_close(tcp_of(client))
        name = f"reset-{len(attack.opened)}"
        await client.send(data.replace(b"reset", name.encode()))
        await trio.sleep(0.001 * (number % 4))
        await trio.aclose_forcefully(client.stream)
    with trio.fail_after(patience()):
        while (await attack.request(f"/?id={name}"))[0] != 101:  # its earlier connection has not ended
            await trio.sleep(0.01)
