"""Connections before their WebSocket: requests and refusals, timeouts, limits, and the relay's stop."""

import json
import tracemalloc
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.ids import LENGTH, is_name
from sdpx.relay.core.limits import Limits
from tests.harness.frames import PING, frame, message, upgrade_request
from tests.harness.relay import PATIENT, OpenRelay, RelayHarness, relay_harness, takes

HEAD = "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
HEALTH = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


async def ask(relay: RelayHarness, request: str | bytes) -> tuple[int, dict[str, Any]]:
    """Send raw bytes, and return the status and the JSON body of the response."""
    client = relay.raw()
    await client.send(request if isinstance(request, bytes) else request.encode())
    head, _, body = (await client.rest()).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body else {}


def refusals(relay: RelayHarness) -> list[tuple[int | None, str]]:
    return [(line["status"], line["reason"]) for line in relay.log.of("connection_refused")]


# ---- requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_text", "status", "code"),
    [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426, "upgrade_required"),
        ("GET /?id=a HTTP/1.0\r\n\r\n", 426, "upgrade_required"),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405, "method_not_allowed"),
        (HEAD.format(path="/?id=", more=KEY), 400, "bad_id"),
        (HEAD.format(path="/?id=a%20b", more=KEY), 400, "bad_id"),
        (HEAD.format(path="/?id=a&id=b", more=KEY), 400, "bad_id"),
        (HEAD.format(path="/?id=" + "x" * 65, more=KEY), 400, "bad_id"),
        (HEAD.format(path="/", more=""), 400, "bad_request"),
        (HEAD.format(path="/", more="Sec-WebSocket-Key: short\r\n"), 400, "bad_request"),
        (HEAD.format(path="/", more=KEY).replace("13", "12"), 426, "upgrade_required"),
        (HEAD.format(path="/", more=KEY).replace("GET", "PUT"), 405, "method_not_allowed"),
        (HEAD.format(path="/", more=KEY).replace("Connection: Upgrade", "Connection: close"), 400, "bad_request"),
        (HEAD.format(path="/", more=KEY + "Content-Length: 5\r\n"), 400, "bad_request"),
        ("nonsense\r\n\r\n", 400, "bad_request"),
        ("GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found"),
        (HEAD.format(path="/", more=KEY[:-3] + "\xff\r\n").encode("latin-1"), 400, "bad_request"),
        ("\r\n" * 10_000, 431, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n", 400, "bad_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 10_000, 431, "bad_request"),
        ("GET /" + "x" * 100_000, 431, "bad_request"),
    ],
)
async def test_a_request_that_is_not_an_upgrade_gets_a_status_and_a_sentence(
    autojump_clock: MockClock, request_text: str | bytes, status: int, code: str
) -> None:
    """The body is JSON with `code` and `message`."""
    async with relay_harness() as relay:
        answered, body = await ask(relay, request_text)
    assert (answered, body["code"]) == (status, code)
    assert len(body["message"]) > 10


@pytest.mark.parametrize(("size", "status"), [(Limits().head_bytes, 426), (Limits().head_bytes + 1, 431)])
@pytest.mark.parametrize("behind", [0, 20_000])
async def test_the_size_of_a_head_is_bounded(
    open_relay: OpenRelay, autojump_clock: MockClock, size: int, status: int, behind: int
) -> None:
    """Bytes behind the head do not count."""
    start = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
    head = start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"
    async with open_relay() as relay:
        assert (await ask(relay, head + b"x" * behind))[0] == status


async def test_the_response_to_a_head_request_has_no_body(autojump_clock: MockClock) -> None:
    async with relay_harness() as relay:
        assert await ask(relay, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n") == (426, {})


async def test_an_offered_subprotocol_is_accepted(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """`sdpx.v1`, and no other."""
    async with open_relay() as relay:
        assert (await relay.client(subprotocols=["other", "sdpx.v1"])).socket.subprotocol == "sdpx.v1"
        assert (await relay.client(subprotocols=["other"])).socket.subprotocol is None
        assert (await relay.client("/any/path?token=x")).socket.subprotocol is None


@pytest.mark.parametrize("more", ["Host: xn--a\r\n", "Connection: keep-alive\r\n"])
async def test_headers_that_the_library_rejects_are_accepted(
    open_relay: OpenRelay, autojump_clock: MockClock, more: str
) -> None:
    """The WebSocket library gets a request with the headers that the relay has checked, and no others."""
    request = upgrade_request().replace(b"Host: relay.test\r\n", b"" if "Host" in more else b"Host: x\r\n")
    async with open_relay() as relay:
        a = relay.raw()
        await a.send(request.replace(b"\r\n\r\n", f"\r\n{more}\r\n".encode()))
        assert (await a.response())[0] == 101
        assert (await a.receive())["type"] == "your_id"


async def test_frames_behind_the_request_are_handled(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """A client may send them in one segment with the request."""
    async with open_relay() as relay:
        a = relay.raw()
        await a.send(upgrade_request() + message(type="ping") * 2)
        await a.response()
        assert [(await a.receive())["type"] for _ in range(3)] == ["your_id", "pong", "pong"]


# ---- IDs --------------------------------------------------------------------------------------------------------


async def test_a_client_without_an_id_is_given_one(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """17 of 31 letters and digits that look different: over 84 random bits."""
    async with open_relay() as relay:
        firsts = [await relay.raw().open() for _ in range(50)]
    assert all(first == {"type": "your_id", "id": first["id"]} for first in firsts)
    ids = {first["id"] for first in firsts}
    assert len(ids) == 50
    assert all(len(each) == LENGTH == 17 and is_name(each) and not set(each) & set("01ilo") for each in ids)


async def test_one_of_two_simultaneous_requests_gets_an_id(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The other request is refused with 409."""
    async with open_relay() as relay:
        both = [relay.raw(), relay.raw()]
        for client in both:
            await client.send(upgrade_request("/?id=robot"))
        assert sorted([(await client.response())[0] for client in both]) == [101, 409]


async def test_an_id_is_free_again_when_its_client_has_disconnected(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    async with open_relay() as relay:
        first = await relay.client("/?id=robot")
        assert (await ask(relay, upgrade_request("/?id=robot")))[1]["code"] == "id_taken"
        await first.socket.aclose()
        await trio.sleep(1)
        await relay.client("/?id=robot")


async def test_an_id_is_free_again_if_the_client_never_reads_the_response(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """After `handshake_timeout`."""
    async with open_relay() as relay:
        await relay.narrow().send(upgrade_request("/?id=robot"))
        await trio.sleep(Limits().handshake_timeout + 1)
        assert (await relay.client("/?id=robot")).id == "robot"


# ---- timeouts and limits ----------------------------------------------------------------------------------------


async def test_a_silent_connection_is_closed_after_the_handshake_timeout(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Without a response, and logged as `no_request`."""
    async with open_relay(Limits(handshake_timeout=3)) as relay:
        a = relay.raw()
        assert await takes(a.rest) == pytest.approx(3)
        assert await a.rest() == b""
        assert refusals(relay) == [(None, "no_request")]


async def test_a_request_that_arrives_slowly_is_refused_with_408(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Single bytes do not move the deadline."""
    async with open_relay(Limits(handshake_timeout=3)) as relay:
        a = relay.raw()
        for byte in upgrade_request()[:5]:
            await a.send(bytes([byte]))
            await trio.sleep(0.5)
        status, headers, body = await a.response()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["code"] == "timeout"
        assert refusals(relay) == [(408, "timeout")]


@pytest.mark.one_node
async def test_connections_past_a_limit_are_refused(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """429 past the limit of an address, 503 past the limit of all; `/healthz` answers all the same."""
    async with open_relay(Limits(max_clients=2, max_clients_per_ip=0)) as relay:
        a, _ = await relay.pair()
        assert (await ask(relay, upgrade_request()))[1]["code"] == "full"
        assert (await ask(relay, HEALTH))[0] == 200
        await a.socket.aclose()
        await trio.sleep(1)
        await relay.client("/?id=c")
    async with open_relay(Limits(max_clients_per_ip=1)) as relay:
        await relay.client("/?id=a")
        status, body = await ask(relay, upgrade_request())
        assert (status, body["code"]) == (429, "too_many_connections")
        assert (await ask(relay, HEALTH))[0] == 200


async def test_a_silent_connection_is_evicted_for_a_client_of_its_address(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A flood of silent connections keeps no client out."""
    async with open_relay(Limits(max_clients_per_ip=3)) as relay:
        first = relay.raw()
        await trio.sleep(0.1)
        for _ in range(10):
            relay.raw()
        a, b = await relay.pair()
        assert await takes(first.rest) < 0.1
        await a.send(type="offer", sdp="x")
        assert (await b.receive())["sdp"] == "x"


async def test_a_flood_of_silent_connections_does_not_evict_a_client_of_another_address(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """However long its request takes."""
    async with open_relay(Limits(pending=5, max_clients_per_ip=0)) as relay:
        late = relay.raw(remote="192.0.2.1:1")
        for number in range(20):
            relay.raw(remote=f"192.0.2.2:{number}")
            await trio.sleep(0.1)
        assert (await late.open())["type"] == "your_id"


@pytest.mark.one_node
@pytest.mark.parametrize("header", ["X-Forwarded-For: 192.0.2.7", "forwarded: for=192.0.2.7"])
async def test_proxy_that_is_not_trusted_is_logged_once(
    open_relay: OpenRelay, autojump_clock: MockClock, header: str
) -> None:
    async with open_relay() as relay:
        for _ in range(3):
            client = relay.raw(remote="192.0.2.1:1")
            await client.send(HEAD.format(path="/", more=f"{KEY}{header}\r\n").encode())
            assert (await client.response())[0] == 101
        [line] = relay.log.of("proxy_not_trusted")
        assert (line["level"], line["host"]) == ("warning", "192.0.2.1")


@pytest.mark.parametrize(
    "more", ["Cookie: name=Jos\u00e9\r\n", "User-Agent: Kiosk (Z\u00fcrich)\r\n", "X-City: \u5317\u4eac\r\n"]
)
async def test_headers_may_have_bytes_beyond_ascii(open_relay: OpenRelay, autojump_clock: MockClock, more: str) -> None:
    """Cookies, and what proxies add, in UTF-8 or Latin-1."""
    async with open_relay() as relay:
        for encoding in ("utf-8", "latin-1"):
            client = relay.raw()
            await client.send(HEAD.format(path="/", more=KEY + more).encode(encoding, "replace"))
            assert (await client.response())[0] == 101


async def test_empty_lines_in_front_of_a_request_are_ignored(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """RFC 9112, 2.2. They may arrive alone."""
    async with open_relay() as relay:
        client = relay.raw()
        for part in ("\r\n", "\r", "\n" + HEAD.format(path="/", more=KEY)):
            await client.send(part.encode())
            await trio.sleep(0.1)
        assert (await client.response())[0] == 101


@pytest.mark.parametrize(
    ("target", "status"),
    [("http://x/healthz", 200), ("HTTPS://x:8765/healthz?a", 200), ("http://x", 426), ("http://x?id=a", 426)],
)
async def test_target_may_be_in_absolute_form(
    open_relay: OpenRelay, autojump_clock: MockClock, target: str, status: int
) -> None:
    """RFC 9112, 3.2.2."""
    async with open_relay() as relay:
        assert (await ask(relay, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))[0] == status


@pytest.mark.one_node
async def test_pending_connections_are_bounded(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """The oldest ones are closed."""
    async with open_relay(Limits(pending=5, max_clients_per_ip=0, handshake_timeout=50)) as relay:
        silent = []
        for _ in range(8):
            silent.append(relay.raw())
            await trio.sleep(0.1)
        for number, client in enumerate(silent):
            with trio.move_on_after(1) as waited:
                await client.rest()
            assert waited.cancelled_caught == (number >= 3)


async def test_an_evicted_connection_that_was_answered_is_logged_once(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """A client that reads the response and does not close its side is evicted like a silent one."""
    async with open_relay(Limits(pending=1)) as relay:
        lingering = relay.raw()
        await lingering.send(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.1)
        await ask(relay, HEALTH)
        assert refusals(relay) == [(404, "not_found")]


# ---- shutdown ---------------------------------------------------------------------------------------------------


@pytest.mark.one_node
async def test_shutdown_closes_all_clients_and_refuses_new_ones(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """Paired clients get `peer_disconnected`, all get 1001; new requests get 503."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        c = await relay.client("/?id=c")
        relay.acceptor.stop()
        assert (await a.receive())["reason"] == (await b.receive())["reason"] == "shutdown"
        assert [await client.closed() for client in (a, b, c)] == [1001, 1001, 1001]
        await relay.relay.wait_closed()
        status, body = await ask(relay, upgrade_request())
        assert (status, body["code"]) == (503, "shutting_down")


@pytest.mark.one_node
async def test_a_request_that_is_being_read_at_shutdown_is_refused_with_503(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """The response has a `Retry-After`."""
    async with open_relay() as relay:
        a = relay.raw()
        await a.send(upgrade_request()[:20])
        await trio.sleep(1)
        relay.acceptor.stop()
        await a.send(upgrade_request()[20:])
        status, headers, _ = await a.response()
        assert (status, headers["retry-after"]) == (503, "5")


@pytest.mark.one_node
async def test_silent_connections_do_not_delay_shutdown(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """Neither those that were open before, nor new ones."""
    async with open_relay() as relay:
        silent, incomplete = relay.raw(), relay.raw()
        await incomplete.send(b"GET / HT")
        await trio.sleep(0.1)
        relay.acceptor.stop()
        relay.raw()
        await trio.sleep(0.01)
        assert await takes(relay.relay.wait_closed) < 1
        assert await silent.rest() == b""


@pytest.mark.one_node
async def test_a_stalled_client_delays_shutdown_for_a_bounded_time(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """The stalled client does not even read the close frame; the other clients are closed at once."""
    async with open_relay(PATIENT) as relay:
        stalled = relay.narrow()
        await stalled.open("/?id=stalled")
        a = await relay.client("/?id=a")
        await a.send(type="pair_request", target_id="stalled")
        assert (await a.receive())["type"] == "paired"
        relay.acceptor.stop()
        assert (await a.receive())["reason"] == "shutdown"
        assert await takes(a.closed) == 0
        assert await takes(relay.relay.wait_closed) <= Limits().drain_timeout + 2 * Limits().close_timeout


@pytest.mark.one_node
async def test_pings_during_shutdown_are_ignored(open_relay: OpenRelay, autojump_clock: MockClock) -> None:
    """And cause no internal error."""
    async with open_relay() as relay:
        a = relay.raw()
        await a.open()
        relay.acceptor.stop()
        await a.send(frame(PING, b"late") * 20)
        assert await a.close_code() == 1001
    assert not relay.log.of("internal_error")


# ---- faults -----------------------------------------------------------------------------------------------------


class FaultyStream(trio.abc.Stream):
    """A stream whose every read raises an unexpected exception."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise ZeroDivisionError

    async def send_all(self, data: object) -> None: ...

    async def wait_send_all_might_not_block(self) -> None: ...

    async def aclose(self) -> None: ...


async def test_a_fault_in_serving_one_client_does_not_affect_the_others(
    open_relay: OpenRelay, autojump_clock: MockClock
) -> None:
    """The fault is logged, and only that connection ends."""
    async with open_relay() as relay:
        a, b = await relay.pair()
        await relay.acceptor.serve(FaultyStream())
        await a.send(type="offer", sdp="x")
        assert (await b.receive())["type"] == "offer"
    assert relay.log.of("internal_error")


@pytest.mark.one_node
async def test_an_unfinished_request_is_kept_once(open_relay: OpenRelay) -> None:
    """As many pending connections as there may be, each with a long head, take the memory of these heads and not of copies."""
    head, count = b"GET / HTTP/1.1\r\nX: " + b"y" * 15_000, 20
    async with open_relay() as relay:
        clients = [relay.raw() for _ in range(count)]
        await wait_all_tasks_blocked()
        tracemalloc.start()
        try:
            for client in clients:
                await client.send(head)
                await wait_all_tasks_blocked()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size / count < 2.2 * len(head)  # and tasks
