"""Attacks by sockets: clients that do not read, read slowly, vanish or freeze are disconnected and affect no other client."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.harness.frames import CLOSE, PONG, TEXT, frame, message
from tests.harness.processes import peer, relay_process
from tests.harness.relay import Client, RawClient
from tests.harness.tcp import reset
from tests.hostile.attack import Attack, attack_on, tcp_of, usable
from tests.hostile.conftest import ALL_SERVERS

pytestmark = pytest.mark.e2e
SERVERS: Final = ALL_SERVERS

BIG: Final = "o" * 60_000
OFFERS: Final = [{"type": "offer", "sdp": "s" * 4096, "number": number} for number in range(200)]
CANDIDATES: Final = [
    {"type": "candidate", "candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host"}, "number": number}
    for number in range(900)
]


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Attack]:
    """An attack on a relay with a short idle timeout and resume window."""
    with relay_process(tmp_path, "--ping-interval", "0.3", "--idle-timeout", "0.8", "--resume-window", "1") as server:
        async with attack_on(server) as attack:
            yield attack


async def send_until_parted(a: Client, pause: float = 0, **sent: Any) -> dict[str, Any]:
    """Send this message until the peer is disconnected, and return the notification."""
    received: list[dict[str, Any]] = []

    async def hear() -> None:
        received.append(await a.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        while not received:
            await a.send(**sent)
            await trio.sleep(pause)
    return received[0]


async def after_the_parting(a: Client) -> None:
    """Receive the errors for messages that crossed with the end of the pairing, and demand that the client is usable."""
    await a.send(type="ping", t="the last")
    while (received := await a.receive()) != {"type": "pong", "t": "the last"}:
        assert (received["type"], received["code"]) == ("error", "not_paired")
    await usable(a)


async def ended(client: RawClient) -> None:
    """Read until the relay has closed or reset the connection."""
    with suppress(trio.BrokenResourceError):
        await client.rest()


async def write_until_cut(client: RawClient, data: bytes) -> None:
    """Write this again and again, and read nothing, until the relay closes the connection."""
    with pytest.raises(trio.BrokenResourceError):  # noqa: PT012  writing is one act
        while True:
            await client.send(data)


async def test_a_client_that_never_reads(attack: Attack) -> None:
    """A client that does not read its peer's messages is disconnected, and its peer gets the reason `slow`."""
    a, stalled, stalled_id = await attack.paired_with_raw()
    assert await send_until_parted(a, type="offer", sdp=BIG) == {
        "type": "peer_disconnected",
        "peer_id": stalled_id,
        "reason": "slow",
    }
    await after_the_parting(a)
    await ended(stalled)


async def test_a_client_that_reads_a_byte_now_and_then(attack: Attack) -> None:
    """Such a client is disconnected as well."""
    a, slow, slow_id = await attack.paired_with_raw()

    async def sip() -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await slow.stream.receive_some(1):
                await trio.sleep(0.01)

    attack.nursery.start_soon(sip)
    assert await send_until_parted(a, type="offer", sdp=BIG) == {
        "type": "peer_disconnected",
        "peer_id": slow_id,
        "reason": "slow",
    }
    await after_the_parting(a)


async def test_many_clients_that_never_read(attack: Attack) -> None:
    """Two dozen at once are disconnected, one by one."""
    pairs = [await attack.paired_with_raw() for _ in range(24)]
    received: list[dict[str, Any]] = []

    async def overwhelm(a: Client) -> None:
        received.append(await send_until_parted(a, type="offer", sdp=BIG))

    async with trio.open_nursery() as nursery:
        for a, _, _ in pairs:
            nursery.start_soon(overwhelm, a)
    assert {each["peer_id"] for each in received} == {stalled_id for _, _, stalled_id in pairs}
    assert {each["reason"] for each in received} == {"slow"}


@pytest.mark.parametrize(
    "asked",
    [message(type="ping", t=BIG), message(type=BIG), message(type="pair_request", target_id=BIG)],
    ids=["pongs", "unknown types", "refused requests"],
)
async def test_a_client_that_never_reads_its_own_answers(attack: Attack, asked: bytes) -> None:
    """A client that does not read the relay's answers is disconnected, and its peer gets the reason `slow`."""
    a, stalled, stalled_id = await attack.paired_with_raw()
    await write_until_cut(stalled, asked)
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": stalled_id, "reason": "slow"}
    await usable(a)


async def test_a_reset_in_mid_frame(attack: Attack) -> None:
    """A connection that is reset in the middle of a frame is closed, and the half frame is not relayed."""
    a, rude, rude_id = await attack.paired_with_raw()
    await rude.send(message(type="offer", sdp=BIG)[:30_000])
    reset(tcp_of(rude))
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": rude_id, "reason": "closed"}
    await usable(a)


async def test_a_reset_while_being_written_to(attack: Attack) -> None:
    """A connection that is reset while its peer's offers wait for it is closed."""
    a, rude, rude_id = await attack.paired_with_raw()
    for _ in range(10):
        await a.send(type="offer", sdp=BIG)
    reset(tcp_of(rude))
    received = await send_until_parted(a, type="offer", sdp=BIG)
    assert received == {"type": "peer_disconnected", "peer_id": rude_id, "reason": "closed"}
    await after_the_parting(a)


async def test_a_half_closed_socket(attack: Attack) -> None:
    """A client that has closed its side of the TCP connection is disconnected; the relay closes the other side."""
    a, half, half_id = await attack.paired_with_raw()
    await tcp_of(half).send_eof()
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": half_id, "reason": "closed"}
    await ended(half)
    await usable(a)


async def test_a_half_closed_socket_in_mid_frame(attack: Attack) -> None:
    """The same in the middle of a frame, by a client that never reads."""
    a, half, half_id = await attack.paired_with_raw()
    await a.send(type="offer", sdp=BIG)
    await half.send(message(type="offer", sdp=BIG)[:-1])
    await tcp_of(half).send_eof()
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": half_id, "reason": "closed"}
    await usable(a)


async def test_a_close_that_is_never_finished(attack: Attack) -> None:
    """A client that sends a close frame and keeps its socket open is disconnected, and its socket is closed."""
    a, lingering, lingering_id = await attack.paired_with_raw()
    await lingering.send(frame(CLOSE, (1000).to_bytes(2)))
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": lingering_id, "reason": "closed"}
    await ended(lingering)
    await usable(a)


async def test_a_host_that_vanished(impatient: Attack) -> None:
    """A client that answers no ping, like a host without power, is disconnected: its peer gets the reason `timeout`."""
    a, vanished, vanished_id = await impatient.paired_with_raw()
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": vanished_id, "reason": "timeout"}
    await usable(a)
    await ended(vanished)


async def test_a_host_that_vanished_in_mid_frame(impatient: Attack) -> None:
    """Half a frame does not reset the idle timeout."""
    a, vanished, vanished_id = await impatient.paired_with_raw()
    await vanished.send(message(type="offer", sdp=BIG)[:30_000])
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": vanished_id, "reason": "timeout"}
    await usable(a)


async def test_a_host_that_vanished_while_being_written_to(impatient: Attack) -> None:
    """Messages from its peer do not reset its idle timeout."""
    a, _, vanished_id = await impatient.paired_with_raw()

    received = await send_until_parted(a, 0.05, type="candidate", candidate=None)
    assert received == {"type": "peer_disconnected", "peer_id": vanished_id, "reason": "timeout"}
    await after_the_parting(a)


async def test_a_quiet_client_that_answers_pings(impatient: Attack) -> None:
    """A client that sends only pongs stays connected, far beyond the idle timeout."""
    a, quiet, _ = await impatient.paired_with_raw()
    assert (await quiet.receive())["type"] == "paired"
    for _ in range(6):
        opcode, payload = await quiet.frame()
        assert opcode != TEXT
        await quiet.send(frame(PONG, payload))
    await usable(a)
    await quiet.send(message(type="offer", sdp=""))
    assert await a.receive() == {"type": "offer", "sdp": "", "from_peer": True}


async def test_a_frozen_process(impatient: Attack) -> None:
    """A client whose process is stopped, with its socket open, is disconnected: its peer gets the reason `timeout`."""
    a = await impatient.client()
    async with peer(impatient.server.url) as (program, frozen_id):
        await a.send(type="pair_request", target_id=frozen_id)
        assert (await a.receive())["type"] == "paired"
        program.process.send_signal(signal.SIGSTOP)
        assert await a.receive() == {"type": "peer_disconnected", "peer_id": frozen_id, "reason": "timeout"}
    await usable(a)


@asynccontextmanager
async def reading_late(client: RawClient, seconds: float) -> AsyncIterator[list[dict[str, Any]]]:
    """Read all frames from so many seconds from now on; they are in the list at the end of the block."""
    received: list[dict[str, Any]] = []

    async def read() -> None:
        await trio.sleep(seconds)
        while (message := await client.receive())["type"] != "peer_disconnected":
            received.append(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        yield received


@pytest.mark.parametrize("burst", [OFFERS, CANDIDATES], ids=["200 offers of 4 KiB", "900 candidates"])
async def test_a_burst_to_a_client_that_reads(attack: Attack, burst: list[dict[str, Any]]) -> None:
    """A short burst disconnects no client that reads, even a little late: all of it arrives, in order."""
    a, b, b_id = await attack.paired_with_raw()
    assert (await b.receive())["type"] == "paired"
    async with reading_late(b, 0.3) as received:
        for sent in burst:
            await a.send(**sent)
        await a.send(type="unpair")
        assert await a.receive() == {"type": "unpaired", "peer_id": b_id}
    assert received == [sent | {"from_peer": True} for sent in burst]
