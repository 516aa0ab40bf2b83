"""Attacks with requests: whatever comes before the WebSocket opens is answered in a valid form."""

import json
import ssl
from typing import Final, NamedTuple

import pytest
import trio

from tests.harness.frames import KEY, TEXT, frame, upgrade_request
from tests.harness.relay import RawClient
from tests.hostile.attack import (
    Attack,
    client_hello,
    in_one_attack,
    patience,
    usable,
)
from tests.hostile.conftest import ENGINES

pytestmark = pytest.mark.e2e
SERVERS: Final = ENGINES

PLAIN: Final = b"GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n"


class Refused(NamedTuple):
    """The request of an attacker, and the status and code that answer it."""

    data: bytes
    status: int
    code: str = "bad_request"


async def refusal(client: RawClient) -> tuple[int, str]:
    """Read an answer that closes the connection: its status and the code in its JSON body."""
    status, headers, body = await client.response()
    told = json.loads(body)
    assert list(told) == ["code", "message"]
    assert told["message"]
    assert "close" in headers["connection"]
    assert await client.rest() == b""
    return status, told["code"]


async def check(attack: Attack, refused: Refused) -> None:
    """Send it all at once and demand the answer soon."""
    client = await attack.connect()
    await client.send(refused.data)
    with trio.fail_after(patience()):
        assert await refusal(client) == (refused.status, refused.code)


def but(old: bytes, new: bytes, target: str = "/") -> bytes:
    """Return a good request for a WebSocket with one thing changed."""
    good = upgrade_request(target)
    assert old in good
    return good.replace(old, new)


def with_line(line: bytes) -> bytes:
    """Return a good request for a WebSocket with one more header."""
    return but(b"Host: relay.test\r\n", b"Host: relay.test\r\n" + line + b"\r\n")


NO_HTTP: Final = {
    "every byte there is": bytes(range(256)) * 8,
    "zeros": bytes(4096),
    "a word": b"hello\r\n\r\n",
    "JSON": b'{"type": "ping"}\r\n\r\n',
    "SMTP": b"EHLO relay.test\r\n\r\n",
    "PROXY": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + PLAIN,
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no version": b"GET / HTTP\r\nHost: relay.test\r\n\r\n",
    "a method of no letters": b"G@T / HTTP/1.1\r\nHost: relay.test\r\n\r\n",
    "a target of two words": b"GET / / HTTP/1.1\r\nHost: relay.test\r\n\r\n",
}


@in_one_attack("data", NO_HTTP)
async def test_bytes_that_are_not_http_get_400(attack: Attack, data: bytes) -> None:
    """Garbage is answered 400, and the connection is closed."""
    await check(attack, Refused(data, 400))


async def test_a_tls_client_gets_the_error_that_the_port_has_no_tls(attack: Attack) -> None:
    """A ClientHello is answered with a plain sentence about wss://."""
    client = await attack.connect()
    await client.send(client_hello(ssl.create_default_context()))
    status, _, body = await client.response()
    assert (status, b"wss://" in body) == (400, True)
    assert await client.rest() == b""


VERSIONS: Final = {
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "HTTP/1.2": PLAIN.replace(b"1.1", b"1.2"),
    "HTTP/9.9": but(b"HTTP/1.1", b"HTTP/9.9"),
}


@in_one_attack("data", VERSIONS)
async def test_another_version_of_http_is_refused(attack: Attack, data: bytes) -> None:
    """505, in HTTP/1.1, which all of them can read."""
    await check(attack, Refused(data, 505))


def plain(method: bytes, target: bytes = b"/", rest: bytes = b"\r\n") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: relay.test\r\n" + rest


BODY: Final = b"Content-Length: 9\r\n\r\na=1&b=two"
REQUESTS: Final = {
    "GET": Refused(plain(b"GET"), 426, "upgrade_required"),
    "GET with a query": Refused(plain(b"GET", b"/?id=x"), 426, "upgrade_required"),
    "GET of HTTP/1.0": Refused(b"GET / HTTP/1.0\r\n\r\n", 426, "upgrade_required"),
    "GET with a body": Refused(plain(b"GET", rest=BODY), 426, "upgrade_required"),
    "GET of h2c": Refused(but(b"Upgrade: websocket", b"Upgrade: h2c"), 426, "upgrade_required"),
    "GET elsewhere": Refused(plain(b"GET", b"/index.html"), 404, "not_found"),
    "GET outside": Refused(plain(b"GET", b"/../../etc/passwd"), 404, "not_found"),
    "POST": Refused(plain(b"POST", rest=BODY), 405, "method_not_allowed"),
    "POST in chunks": Refused(
        plain(b"POST", rest=b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), 405, "method_not_allowed"
    ),
    "POST that waits for a 100": Refused(
        plain(b"POST", rest=b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"), 405, "method_not_allowed"
    ),
    **{
        method.decode(): Refused(plain(method, target), 405, "method_not_allowed")
        for method, target in [
            (b"PUT", b"/"),
            (b"DELETE", b"/"),
            (b"OPTIONS", b"*"),
            (b"TRACE", b"/"),
            (b"CONNECT", b"elsewhere.test:443"),
            (b"get", b"/"),
        ]
    },
    "POST for a WebSocket": Refused(but(b"GET", b"POST"), 405, "method_not_allowed"),
}


@in_one_attack("refused", REQUESTS)
async def test_a_plain_request_gets_a_description_of_the_service(attack: Attack, refused: Refused) -> None:
    """426, 404 or 405 with a sentence, and never a wait for a body."""
    await check(attack, refused)


async def test_a_head_request_is_answered_without_a_body(attack: Attack) -> None:
    """RFC 9110, 9.3.2."""
    client = await attack.connect()
    await client.send(plain(b"HEAD"))
    with trio.fail_after(patience()):
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert answer.index(b"\r\n\r\n") + 4 == len(answer)


VERSION: Final = b"Sec-WebSocket-Version: 13\r\n"
KEY_LINE: Final = f"Sec-WebSocket-Key: {KEY}\r\n".encode()
FLAWED: Final = {
    "no version": Refused(but(VERSION, b""), 426, "upgrade_required"),
    "version 8": Refused(but(b"13", b"8"), 426, "upgrade_required"),
    "version 13 twice": Refused(but(VERSION, VERSION * 2), 426, "upgrade_required"),
    "version ''": Refused(but(b"13", b""), 426, "upgrade_required"),
    "no key": Refused(but(KEY_LINE, b""), 400),
    "two keys": Refused(but(KEY_LINE, KEY_LINE * 2), 400),
    "a short key": Refused(but(KEY.encode(), b"c2hvcnQ="), 400),
    "a long key": Refused(but(KEY.encode(), b"A" * 4096), 400),
    "a key that is no base64": Refused(but(KEY.encode(), b"!" * 24), 400),
    "no Connection": Refused(but(b"Connection: Upgrade\r\n", b""), 400),
    "another Connection": Refused(but(b"Connection: Upgrade", b"Connection: keep-alive"), 400),
    "two upgrades": Refused(but(b"Upgrade: websocket", b"Upgrade: h2c, websocket"), 400),
    "HTTP/1.0": Refused(but(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "a body": Refused(with_line(b"Content-Length: 5") + b"hello", 400),
    "a body to come": Refused(with_line(b"Content-Length: 5"), 400),
    "a body in chunks": Refused(with_line(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "two framings of a body": Refused(with_line(b"Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
    "no Host": Refused(but(b"Host: relay.test\r\n", b""), 400),
    "two Hosts": Refused(with_line(b"Host: elsewhere.test"), 400),
}


@in_one_attack("refused", FLAWED)
async def test_invalid_upgrade_is_refused(attack: Attack, refused: Refused) -> None:
    """No WebSocket opens on it, and the answer says what is missing."""
    await check(attack, refused)


async def test_a_wrong_websocket_version_is_answered_with_the_right_one(attack: Attack) -> None:
    """RFC 6455, 4.4: the answer has `Sec-WebSocket-Version: 13`."""
    client = await attack.connect()
    await client.send(but(b"Version: 13", b"Version: 25"))
    status, headers, _ = await client.response()
    assert (status, headers["sec-websocket-version"]) == (426, "13")


LENGTHS: Final = [b"99999999999999999999", b"9" * 5000, b"-1", b"1e3", b"5, 6", b"", b"\xb2"]
MALFORMED: Final = {
    "NUL in a value": b"X-Test: a\x00b",
    "NUL in a name": b"X-\x00: a",
    "bare CR in a value": b"X-Test: a\rb",
    "Latin-1 in a name": b"X-\xe4: a",
    "no colon": b"X-Test",
    "no name": b": a",
    "a space in front of the colon": b"X-Test : a",
    "two different lengths": b"Content-Length: 5\r\nContent-Length: 6",
    "an unknown coding": b"Transfer-Encoding: gzip",
    **{f"a length of {length[:20]!r}": b"Content-Length: " + length for length in LENGTHS},
}


@in_one_attack("line", MALFORMED)
async def test_a_malformed_header_is_refused(attack: Attack, line: bytes) -> None:
    """Also in a request that would be good without it."""
    await check(attack, Refused(with_line(line), 400))


LENIENT: Final = {
    "bare LF line ends": upgrade_request().replace(b"\r\n", b"\n"),
    "a folded header": with_line(b"X-Test: a\r\n b\r\n\tc"),
    "a folded key": but(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key:\r\n "),
    "spaces around values": but(b": ", b": \t "),
    "Latin-1 in a value": with_line(b"X-Test: \xe4"),
    "UTF-8 in a value": with_line("X-Test: \N{SNOWMAN}".encode()),
    "empty lines in front": b"\r\n\r\n" + upgrade_request(),
    "a target in absolute form": upgrade_request("http://relay.test/"),
    "control signs in a value": with_line(b"X-Test: \x01\x02\x7f"),
    "an expectation": with_line(b"Expect: 100-continue"),
    "a body of no bytes": with_line(b"Content-Length: 0"),
    "an extension": with_line(b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
    "400 headers": with_line(b"\r\n".join(b"X-%d: %d" % (n, n) for n in range(400))),
    "a path of 8 KiB": upgrade_request("/" + "x" * 8192),
}


@in_one_attack("data", LENIENT)
async def test_an_odd_request_opens_a_websocket_that_works(attack: Attack, data: bytes) -> None:
    """Requests that RFC 9112 lets a server accept have one meaning, and nothing is sent before the 101."""
    client = await attack.connect()
    await client.send(data)
    with trio.fail_after(patience()):
        status, headers, _ = await client.response()
        assert (status, "sec-websocket-extensions" in headers) == (101, False)
        assert (await client.receive())["type"] == "your_id"
        await client.send(frame(TEXT, b'{"type": "ping", "t": 1}'))
        assert await client.receive() == {"type": "pong", "t": 1}


async def test_pipelined_requests_get_one_answer(attack: Attack) -> None:
    """The first is answered, the connection closes, and the rest is thrown away."""
    await check(attack, Refused(PLAIN * 100, 426, "upgrade_required"))


async def test_a_websocket_behind_a_plain_request_does_not_open(attack: Attack) -> None:
    """Nor one behind a request with a body: nothing is smuggled in."""
    await check(attack, Refused(PLAIN + upgrade_request("/?id=smuggled"), 426, "upgrade_required"))
    await check(
        attack, Refused(plain(b"POST", rest=BODY) + upgrade_request("/?id=smuggled"), 405, "method_not_allowed")
    )
    assert not [line for line in attack.events("client_connected") if line["client_id"] == "smuggled"]


BEHIND: Final = {
    "a second request": (upgrade_request(), 1002),
    "an unmasked frame": (frame(TEXT, b"{}", masked=False), 1002),
    "a reserved opcode": (b"\x83\x80", 1002),
    "a frame of 2**62 bytes": (b"\x81\xff" + (1 << 62).to_bytes(8), 1009),
    "text that is no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "a close without end": (b"\x88\xff", 1002),
    "more fragments than allowed": (frame(TEXT, fin=False) + frame(0, fin=False) * 2000, 1008),
}


@in_one_attack(("data", "code"), BEHIND)
async def test_bad_frames_right_behind_the_request_are_refused_as_ever(attack: Attack, data: bytes, code: int) -> None:
    """The frames wait until the WebSocket is open, and are then answered with their close code."""
    client = await attack.connect()
    await client.send(upgrade_request() + data)
    with trio.fail_after(patience()):
        status, _, _ = await client.response()
        assert status == 101
        assert await client.close_code() == code
        assert await client.rest() == b""


IDS: Final = [
    "",
    "a%20b",
    "a/b",
    "a%00",
    "a%0d%0aX:1",
    "x" * 65,
    "%ff",
    "%F0%9F%98%80",
    "a&id=b",
    "a&id=a",
    "<b>",
]


@in_one_attack("name", {repr(name[:12]): name for name in IDS})
async def test_a_malformed_id_is_refused(attack: Attack, name: str) -> None:
    """Empty, too long, given twice, or with signs in it that no ID has."""
    await check(attack, Refused(upgrade_request(f"/?id={name}"), 400, "bad_id"))


async def test_a_taken_id_is_refused(attack: Attack) -> None:
    """With 409, time and again; its holder and the peer are served on."""
    a, b = await attack.paired()
    for target in (a, b, attack.pair.a) * 7:
        await check(attack, Refused(upgrade_request(f"/?id={target.id}"), 409, "id_taken"))
    await usable(a, b)


async def test_one_of_many_simultaneous_requests_for_an_id_gets_it(attack: Attack) -> None:
    """The others receive 409."""
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await attack.request("/?id=wanted"))[0])

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(ask)
    assert sorted(statuses) == [101] + [409] * 29
