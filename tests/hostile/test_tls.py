"""Attacks on TLS: handshakes that do not end, bytes that are not TLS, and connections that end without a word."""

import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import trio
from OpenSSL import SSL

from tests.harness.frames import TEXT, frame, message, upgrade_request
from tests.harness.processes import relay_process
from tests.harness.relay import Client, RawClient
from tests.harness.tcp import reset
from tests.harness.tls import trusting_context, write_certificate
from tests.hostile.attack import Attack, attack_on, client_hello, in_one_attack, patience, tcp_of, usable

pytestmark = pytest.mark.e2e
SERVERS: Final = ("epoll-tls",)

BIG: Final = "o" * 60_000


@pytest.fixture(params=["epoll", "trio-websocket"])
async def impatient(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Attack]:
    """An attack on a relay with TLS and a short handshake timeout."""
    options = [*write_certificate(tmp_path), "--handshake-timeout", "0.5", "--engine", request.param]
    with relay_process(tmp_path, *options) as server:
        async with attack_on(server, trusting_context()) as attack:
            yield attack


async def is_closed(stream: trio.SocketStream) -> bool:
    """Read until the relay has closed or reset the connection; False if it takes too long."""
    with trio.move_on_after(patience()):
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some(65536):
                pass
        return True
    return False


async def check_departure(a: Client, peer_id: str) -> None:
    """Demand that the client gets `peer_disconnected` with reason `closed`, and is usable."""
    assert await a.receive() == {"type": "peer_disconnected", "peer_id": peer_id, "reason": "closed"}
    await usable(a)


@pytest.mark.parametrize("part", [0, 1, 5, 100])
async def test_an_unfinished_handshake_ends_at_the_handshake_timeout(impatient: Attack, part: int) -> None:
    """Wherever it stops, in a hundred connections at once."""
    streams = [await impatient.tcp() for _ in range(100)]
    for stream in streams:
        await stream.send_all(client_hello(impatient.tls)[:part])
    for stream in streams:
        assert await is_closed(stream)
    refused = await impatient.wait_for_events(100, "connection_refused")
    assert {line["reason"] for line in refused} == {"no_request"}


async def test_a_handshake_that_the_client_does_not_answer_ends_at_the_handshake_timeout(impatient: Attack) -> None:
    """After the relay's part of it."""
    stream = await impatient.tcp()
    await stream.send_all(client_hello(impatient.tls))
    assert await is_closed(stream)


async def test_a_handshake_byte_by_byte_succeeds(attack: Attack) -> None:
    stream = await attack.tcp()
    assert attack.tls is not None
    slow = trio.SSLStream(ByteByByte(stream), attack.tls, server_hostname="127.0.0.1")
    client = RawClient(slow)
    assert (await client.open())["type"] == "your_id"
    await client.send(message(type="ping", t=1))
    assert await client.receive() == {"type": "pong", "t": 1}


class ByteByByte(trio.abc.Stream):
    """A stream that sends one byte at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        for byte in bytes(data):
            await self._stream.send_all(bytes([byte]))

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


NOT_TLS: Final = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "an upgrade request": upgrade_request(),
    "zeros": bytes(1000),
    "every byte but the first of TLS": bytes(range(23, 256)),
    "a WebSocket frame": frame(TEXT, b"x" * 100),
}


@in_one_attack("data", NOT_TLS)
async def test_bytes_that_are_not_tls_get_a_plain_400(attack: Attack, data: bytes) -> None:
    """With the hint to use wss://."""
    client = RawClient(await attack.tcp())
    await client.send(data)
    status, _, body = await client.response()
    assert (status, b"wss://" in body) == (400, True)
    await client.send(upgrade_request())
    assert await client.rest() == b""


BAD_HANDSHAKES: Final = {
    "garbage behind the type": b"\x16" + bytes(range(200)),
    "a record that is too long": b"\x16\x03\x01\xff\xff" + bytes(0xFFFF),
    "an empty record": b"\x16\x03\x01\x00\x00" * 100,
    "a ClientHello of garbage": b"\x16\x03\x01\x00\x64\x01\x00\x00\x60" + bytes(96),
}


@in_one_attack("data", BAD_HANDSHAKES)
async def test_a_broken_handshake_is_logged_and_closed(attack: Attack, data: bytes) -> None:
    before = len(attack.events("tls_handshake_failed"))
    stream = await attack.tcp()
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)
    assert await is_closed(stream)
    await attack.wait_for_events(before + 1, "tls_handshake_failed")


async def test_a_reset_in_the_handshake_costs_nothing(attack: Attack) -> None:
    """The relay logs the end of each connection, however far its handshake was."""
    names = ("tls_handshake_failed", "connection_refused")
    before = len(attack.events(*names))
    for number in range(50):
        stream = await attack.tcp()
        await stream.send_all(client_hello(attack.tls))
        await trio.sleep(0.001 * (number % 4))
        reset(stream)
    await attack.wait_for_events(before + 50, *names)


async def test_a_garbage_record_ends_the_connection(attack: Attack) -> None:
    """As a lost connection does."""
    a, raw, raw_id = await attack.paired_with_raw()
    await tcp_of(raw).send_all(b"\x17\x03\x03\x00\x40" + bytes(64))
    await check_departure(a, raw_id)
    assert await is_closed(tcp_of(raw))


@pytest.mark.parametrize("closes_tls", [False, True], ids=["without close_notify", "with close_notify"])
async def test_a_half_closed_connection_ends(attack: Attack, closes_tls: bool) -> None:
    a, raw, raw_id = await attack.paired_with_raw()
    if closes_tls:
        tls = raw.stream
        assert isinstance(tls, trio.SSLStream)
        with suppress(ssl.SSLWantReadError):
            tls._ssl_object.unwrap()
        await tcp_of(raw).send_all(tls._outgoing.read())
    else:
        await tcp_of(raw).send_eof()
    await check_departure(a, raw_id)
    assert await is_closed(tcp_of(raw))


async def test_a_frame_in_front_of_close_notify_is_relayed(attack: Attack) -> None:
    """Though both arrive together."""
    a, raw, raw_id = await attack.paired_with_raw()
    tls = raw.stream
    assert isinstance(tls, trio.SSLStream)
    tls._ssl_object.write(message(type="offer", sdp="last"))
    with suppress(ssl.SSLWantReadError):
        tls._ssl_object.unwrap()
    await tcp_of(raw).send_all(tls._outgoing.read())
    assert await a.receive() == {"type": "offer", "sdp": "last", "from_peer": True}
    await check_departure(a, raw_id)


async def test_a_client_that_stops_reading_is_slow(attack: Attack) -> None:
    a, _, raw_id = await attack.paired_with_raw()
    received = []

    async def receive() -> None:
        received.append(await a.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        while not received:
            await a.send(type="offer", sdp=BIG)
    assert received == [{"type": "peer_disconnected", "peer_id": raw_id, "reason": "slow"}]


async def test_renegotiation_is_refused(attack: Attack) -> None:
    """Of TLS 1.2 (RFC 5246, 7.2.2): the relay does not do a second handshake, and the client may go on."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    for _ in range(10):
        stream = await attack.tcp()
        tls = SSL.Connection(context, None)
        tls.set_connect_state()
        await shake_hands(tls, stream)
        tls.send(upgrade_request())
        assert tls.renegotiate()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            await shake_hands(tls, stream)
    assert not attack.events("tls_handshake_failed")


async def shake_hands(tls: SSL.Connection, stream: trio.SocketStream) -> None:
    """Do a handshake, or wait for what the relay answers to one."""
    while True:
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            await send_pending(tls, stream)
            tls.bio_write(bytes(await stream.receive_some(65536)))
        else:
            await send_pending(tls, stream)
            return


async def send_pending(tls: SSL.Connection, stream: trio.SocketStream) -> None:
    with suppress(SSL.WantReadError):
        await stream.send_all(tls.bio_read(65536))
