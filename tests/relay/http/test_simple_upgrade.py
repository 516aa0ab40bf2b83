"""The plain request for a WebSocket: what is known at one look is what would have been judged at leisure."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.http.request import HttpRequest
from sdpx.relay.http.responses import HttpError
from sdpx.relay.http.upgrade import Upgrade, parse_simple_upgrade, parse_upgrade
from tests.harness.frames import KEY, upgrade_request

CHROME = (
    "GET /?id=robot-1.x_ HTTP/1.1\r\nHost: relay.test:8765\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    "Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nUpgrade: websocket\r\n"
    "Origin: https://app.test\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
).encode()


def judged(head: bytes) -> object:
    """What the slow road says of these bytes."""
    connection = h11.Connection(h11.SERVER, 16 * 1024)
    connection.receive_data(head)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError as error:
        return error
    if isinstance(request, h11.Request) and connection.trailing_data[0] == b"":
        return parse_upgrade(HttpRequest.of(request), {})
    return request


@pytest.mark.parametrize(
    ("head", "upgrade"),
    [
        (upgrade_request(), Upgrade(None, None, KEY)),
        (upgrade_request("/?id=a"), Upgrade("a", None, KEY)),
        (upgrade_request("/any/path"), Upgrade(None, None, KEY)),
        (CHROME, Upgrade("robot-1.x_", None, KEY)),
        (upgrade_request().replace(b"Upgrade\r\n", b"keep-alive, Upgrade\r\n"), Upgrade(None, None, KEY)),
    ],
)
def test_what_client_libraries_send_is_known_at_one_look(head: bytes, upgrade: Upgrade) -> None:
    assert parse_simple_upgrade(head) == upgrade == judged(head)


@pytest.mark.parametrize(
    "head",
    [
        upgrade_request()[:-1],
        upgrade_request() + b"x",
        upgrade_request("/?id="),
        upgrade_request("/?id=a&id=b"),
        upgrade_request("/?id=%61"),
        upgrade_request("/?token=x"),
        upgrade_request().replace(b"GET", b"POST"),
        upgrade_request().replace(b"1.1", b"1.0"),
        upgrade_request().replace(b"Version: 13", b"Version: 8"),
        upgrade_request().replace(KEY.encode(), b"c2hvcnQ="),
        upgrade_request().replace(b"Host: relay.test\r\n", b""),
        upgrade_request().replace(b"Host", b"Sec-WebSocket-Protocol: sdpx.v1\r\nHost"),
        upgrade_request().replace(b"Host", b"Content-Length: 1\r\nHost"),
        upgrade_request().replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"),
        upgrade_request().replace(b"Host", b"Upgrade: h2c\r\nHost"),
        upgrade_request().replace(b"Host", b"X: \x7f\r\nHost"),
        upgrade_request().replace(b"Host", b"X: \xe9\r\nHost"),
        upgrade_request().replace(b"\r\n", b"\n"),
        upgrade_request().replace(b"Host", b"X: " + b"x" * 5000 + b"\r\nHost"),
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_anything_else_takes_the_slow_road(head: bytes) -> None:
    assert parse_simple_upgrade(head) is None


PIECES = st.sampled_from(
    [
        *CHROME.splitlines(keepends=True),
        *upgrade_request("/?id=a").splitlines(keepends=True),
        *(
            b"Upgrade: h2c\r\n",
            b"Connection: close\r\n",
            b"Content-Length: 0\r\n",
            b"X:y\r\n",
            b" folded\r\n",
            b"Host: \r\n",
        ),
        *(
            b"connection: UPGRADE\r\n",
            b"Sec-WebSocket-Key:  " + KEY.encode() + b" \r\n",
            b"X: a\tb\r\n",
            b"\n",
            b"a b: c\r\n",
        ),
    ]
)


@given(st.lists(PIECES, max_size=4), st.integers(0, 12), st.sampled_from([CHROME, upgrade_request("/x?id=b")]))
def test_both_roads_lead_to_one_end(pieces: list[bytes], at: int, head: bytes) -> None:
    """Whatever is put into a good request, what is known at one look is judged the same at leisure."""
    lines = head.splitlines(keepends=True)
    bent = b"".join([*lines[:at], *pieces, *lines[at:]])
    upgrade = parse_simple_upgrade(bent)
    assert upgrade is None or judged(bent) == upgrade


def test_a_refusal_is_never_plain() -> None:
    assert isinstance(judged(upgrade_request("/?id=a b".replace(" ", "+"))), HttpError)
    assert parse_simple_upgrade(upgrade_request("/?id=a+b")) is None
