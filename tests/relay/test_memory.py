"""Memory of connections that have ended: it is freed at once, without the garbage collector."""

import gc
import ssl
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.tls_stream import TlsStream
from tests.harness.frames import CLOSE, TEXT, frame, message, upgrade_request
from tests.harness.relay import OpenRelay, RelayHarness
from tests.harness.tls import CA, trusting_context

LIMITS = Limits(resume_window=2.0)
LONGER_THAN_ALL_TIMEOUTS = 100.0
TIMES = 3

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CA.issue_cert("relay.test").configure_cert(TLS)
CLIENT_TLS = trusting_context()

Flow = Callable[[RelayHarness], Awaitable[None]]


async def unfinished_frame(relay: RelayHarness) -> None:
    client = relay.raw()
    await client.open()
    await client.send(frame(TEXT, b"x" * 1000)[:500])
    await wait_all_tasks_blocked()


async def unfinished_message(relay: RelayHarness) -> None:
    client = relay.raw()
    await client.open()
    await client.send(frame(TEXT, b"x" * 1000, fin=False))
    await wait_all_tasks_blocked()


async def violation(relay: RelayHarness) -> None:
    client = relay.raw()
    await client.open()
    await client.send(frame(3))
    assert await client.close_code() == 1002


async def close_handshake(relay: RelayHarness) -> None:
    client = relay.raw()
    await client.open()
    await client.send(frame(CLOSE, b"\x03\xe8"))
    assert await client.close_code() == 1000


async def silence(relay: RelayHarness) -> None:
    await relay.raw().open()
    await trio.sleep(LIMITS.idle_timeout + 1)


async def unread_response(relay: RelayHarness) -> None:
    await relay.narrow().send(upgrade_request())
    await trio.sleep(LIMITS.handshake_timeout + 1)


async def undelivered_frames(relay: RelayHarness) -> None:
    """Both clients of a pairing send to each other, and are lost."""
    a, b = relay.raw(), relay.narrow()
    await a.open()
    await a.send(message(type="pair_request", target_id=(await b.open())["id"]))
    await a.receive()
    await b.receive()
    for client in (a, b) * 3:
        await client.send(message(type="offer", sdp="x" * 5000))
    await wait_all_tasks_blocked()


async def expired_sessions(relay: RelayHarness) -> None:
    """Resumable clients of a pairing with frames on the way; one is resumed, and both are lost until their sessions end."""
    a, b = relay.raw(), relay.raw()
    await a.open("/?seq=1")
    your_id = await b.open("/?seq=1")
    await a.send(message(type="pair_request", target_id=your_id["id"], client_seq=1))
    await a.receive()
    await b.receive()
    await a.send(message(type="offer", sdp="x", client_seq=2))
    await b.send(message(type="offer", sdp="x", client_seq=1))
    await wait_all_tasks_blocked()
    for client in (a, b):
        await client.stream.aclose()
    again = relay.raw()
    assert (await again.open(f"/?seq=1&resume={your_id['resume_token']}"))["resumed"]


async def garbage(relay: RelayHarness) -> None:
    client = relay.raw()
    await client.send(b"GARBAGE\r\n\r\n")
    assert (await client.response())[0] == 400


async def unfinished_request(relay: RelayHarness) -> None:
    await relay.raw().send(b"GET / HTTP/1.1\r\n")
    await trio.sleep(LIMITS.handshake_timeout + 1)


async def silent_connection(relay: RelayHarness) -> None:
    relay.raw()
    await wait_all_tasks_blocked()


async def fault(relay: RelayHarness) -> None:
    """An exception of the relay's own while it handles a frame."""
    client = relay.raw()
    session_id = (await client.open())["id"]
    del relay.session(session_id).rate_limit
    with suppress(Exception):
        await client.send(message(type="ping"))
        await client.rest()


def tls_connection(relay: RelayHarness) -> tuple[trio.abc.Stream, ssl.MemoryBIO, ssl.MemoryBIO, ssl.SSLObject]:
    ours, theirs = relay.socket_pair()
    relay.serve(TlsStream(theirs, TLS))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    return ours, incoming, outgoing, CLIENT_TLS.wrap_bio(incoming, outgoing, server_hostname="relay.test")


async def silent_tls_connection(relay: RelayHarness) -> None:
    tls_connection(relay)
    await wait_all_tasks_blocked()


async def abandoned_tls_handshake(relay: RelayHarness) -> None:
    stream, _, outgoing, tls = tls_connection(relay)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    await stream.send_all(outgoing.read())
    await wait_all_tasks_blocked()


async def failed_tls_handshake(relay: RelayHarness) -> None:
    stream, *_ = tls_connection(relay)
    await stream.send_all(b"\x16\x03\x01\x00\x05hello")
    await wait_all_tasks_blocked()


async def request_without_tls(relay: RelayHarness) -> None:
    stream, *_ = tls_connection(relay)
    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
    await wait_all_tasks_blocked()


async def unfinished_message_over_tls(relay: RelayHarness) -> None:
    stream, incoming, outgoing, tls = tls_connection(relay)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            await stream.send_all(outgoing.read())
            incoming.write(await stream.receive_some())
    tls.write(upgrade_request() + frame(TEXT, b"x" * 1000, fin=False))
    await stream.send_all(outgoing.read())
    await wait_all_tasks_blocked()


PLAIN_FLOWS = [
    unfinished_frame,
    unfinished_message,
    violation,
    close_handshake,
    silence,
    unread_response,
    undelivered_frames,
    expired_sessions,
    garbage,
    unfinished_request,
    silent_connection,
    fault,
]
TLS_FLOWS = [
    silent_tls_connection,
    abandoned_tls_handshake,
    failed_tls_handshake,
    request_without_tls,
    unfinished_message_over_tls,
]


@pytest.mark.parametrize("flow", PLAIN_FLOWS + TLS_FLOWS, ids=lambda flow: flow.__name__)
async def test_an_ended_connection_leaves_no_reference_cycle(
    autojump_clock: MockClock, open_relay: OpenRelay, flow: Flow
) -> None:
    """With the garbage collector off, nothing is left for it: no connection, session, stream, parser or TLS object."""

    async def churn(relay: RelayHarness) -> None:
        await flow(relay)
        for client_end in relay._streams[::2]:
            client_end.close()
        relay._streams.clear()
        await trio.sleep(LONGER_THAN_ALL_TIMEOUTS)

    async with open_relay(LIMITS) as relay:
        await churn(relay)  # what is imported and cached at first use
        gc.collect()
        gc.disable()
        try:
            for _ in range(TIMES):
                await churn(relay)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = sorted({type(each).__qualname__ for each in gc.garbage})
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert left == []


async def test_a_connection_keeps_nothing_of_a_large_message(autojump_clock: MockClock, open_relay: OpenRelay) -> None:
    """Once the message has been handled and answered, while the client stays connected."""
    large = message(type="ping", t="x" * 60_000)
    async with open_relay(LIMITS) as relay:
        clients = [relay.raw() for _ in range(20)]
        for client in clients:
            await client.open()
        tracemalloc.start()
        try:
            for client in clients:
                await client.send(large)
                assert (await client.receive())["type"] == "pong"
            await wait_all_tasks_blocked()
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept / len(clients) < 20_000
