"""Parsing of requests: an upgrade, a page or an HTTP error; and the rendering of responses."""

import json

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdpx.relay.core.sessions import ResumeRequest
from sdpx.relay.http.request import HttpRequest, not_http
from sdpx.relay.http.responses import HttpError, HttpResponse
from sdpx.relay.http.upgrade import Upgrade, parse_plain_request, parse_simple_upgrade, parse_upgrade
from tests.harness.frames import KEY, upgrade_request

GOOD = {
    "host": "relay.test",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def accepted_types(request: HttpRequest) -> HttpResponse:
    return HttpResponse(200, "text/plain", f"for {', '.join(request.elements(b'accept'))}".encode())


PAGES = {"/healthz": accepted_types}


def ask(
    target: str = "/", method: str = "GET", version: str = "1.1", **headers: str | None
) -> Upgrade | HttpResponse | HttpError:
    """Parse a request for a WebSocket with these headers changed (None: left out)."""
    changed = GOOD | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [(name, value) for name, value in changed.items() if value is not None]
    request = h11.Request(method=method, target=target, headers=lines, http_version=version)
    return parse_upgrade(HttpRequest.of(request), PAGES)


def status(answer: Upgrade | HttpResponse | HttpError) -> int:
    assert isinstance(answer, HttpError)
    return answer.status


def test_valid_request_is_an_upgrade() -> None:
    """RFC 6455, 4.2.1."""
    assert ask() == Upgrade(None, None, KEY)


@pytest.mark.parametrize("target", ["/", "/any/path", "/?token=x", "/?seq=2&last=", "/%ff", "http://relay.test/"])
def test_any_path_and_unknown_parameters_are_accepted(target: str) -> None:
    """A reverse proxy may add a path prefix; a later version may add parameters."""
    assert ask(target) == Upgrade(None, None, KEY)


def test_query_asks_for_sequence_numbers_and_resume() -> None:
    """Ambiguous parameters are refused."""
    upgrade = ask("/?seq=1&resume=SECRET&last=7&id=a")
    assert upgrade == Upgrade("a", None, KEY, resume=ResumeRequest(numbered=True, token="SECRET", last=7))
    assert "SECRET" not in repr(upgrade)
    assert ask("/?seq=1") == Upgrade(None, None, KEY, resume=ResumeRequest(numbered=True))
    for query in ("resume=a&resume=b", "resume=a&last=x", "resume=a&last=1&last=2"):
        refused = ask(f"/?seq=1&{query}")
        assert isinstance(refused, HttpError)
        assert (refused.status, refused.code) == (400, "bad_resume")


@pytest.mark.parametrize(
    "headers",
    [
        {"upgrade": "WebSocket"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "UPGRADE"},
        {"content_length": "0"},
        {"origin": "https://elsewhere.test"},
    ],
)
def test_header_lists_are_case_insensitive(headers: dict[str, str]) -> None:
    """Browsers and proxies send these forms."""
    assert ask(**headers) == Upgrade(None, None, KEY)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"connection": None}, 400),
        ({"upgrade": "h2c, websocket"}, 400),
        ({"connection": "keep-alive"}, 400),
        ({"sec_websocket_key": None}, 400),
        ({"sec_websocket_key": ""}, 400),
        ({"sec_websocket_key": "c2hvcnQ="}, 400),
        ({"sec_websocket_key": "!" + KEY[1:]}, 400),
        ({"sec_websocket_key": f"{KEY}, {KEY}"}, 400),
        ({"content_length": "1"}, 400),
        ({"transfer_encoding": "chunked"}, 400),
        ({"sec_websocket_version": None}, 426),
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_version": "13, 8"}, 426),
    ],
)
def test_invalid_upgrade_is_refused(headers: dict[str, str | None], expected: int) -> None:
    """Each rule of RFC 6455, 4.2.1, has its status."""
    assert status(ask("/", "GET", "1.1", **headers)) == expected


def test_upgrade_needs_http_1_1() -> None:
    """HTTP/1.0 has no upgrade."""
    assert status(ask(version="1.0")) == 400


def test_refusal_of_a_version_names_the_supported_one() -> None:
    """RFC 6455, 4.4."""
    answer = ask(sec_websocket_version="8")
    assert isinstance(answer, HttpError)
    assert ("Sec-WebSocket-Version", "13") in answer.headers


@pytest.mark.parametrize("name", ["robot-1", "a.b_c", "x" * 64, "%61bc"])
def test_upgrade_has_the_requested_id(name: str) -> None:
    """The ID is percent-decoded."""
    answer = ask(f"/?id={name}")
    assert isinstance(answer, Upgrade)
    assert answer.client_id == name.replace("%61", "a")


@pytest.mark.parametrize(
    "query", ["id=", "id=a+b", "id=a%00", "id=" + "x" * 65, "id=a&id=b", "id=%ff", "id=a%0a", "id=%F0%9F%98%80"]
)
def test_invalid_id_is_refused(query: str) -> None:
    """An ID is invalid that is empty, too long, given twice, or has other characters."""
    assert status(ask(f"/?{query}")) == 400


@pytest.mark.parametrize(
    ("offered", "answered"),
    [("sdpx.v1", "sdpx.v1"), ("chat, sdpx.v1", "sdpx.v1"), ("chat", None), ("SDPX.V1", None), (None, None)],
)
def test_subprotocol_is_selected_only_if_offered(offered: str | None, answered: str | None) -> None:
    """A client may offer none, or others."""
    assert ask(sec_websocket_protocol=offered) == Upgrade(None, answered, KEY)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        *[("GET", "/", 426), ("HEAD", "/", 426), ("GET", "/?x=1", 426), ("GET", "/index.html", 404)],
        *[("POST", "/", 405), ("OPTIONS", "/x", 405), ("DELETE", "/", 405)],
    ],
)
def test_plain_request_gets_a_description_of_the_service(method: str, target: str, expected: int) -> None:
    """It is shown to a person that opens the URL in a browser."""
    answer = ask(target, method, upgrade=None, connection=None)
    assert isinstance(answer, HttpError)
    assert (answer.status, "sdpx" in answer.message) == (expected, True)


@pytest.mark.parametrize("target", ["/healthz", "/healthz?x=1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_page_is_served_for_get_and_head(method: str, target: str) -> None:
    """The page gets the Accept header."""
    answer = ask(target, method, upgrade=None, connection=None, accept="text/plain, x/y;q=0.5")
    assert isinstance(answer, HttpResponse)
    assert (answer.status, answer.body) == (200, b"for text/plain, x/y;q=0.5")


def test_upgrade_is_accepted_at_the_path_of_a_page() -> None:
    """A WebSocket may use any path."""
    assert ask("/healthz") == Upgrade(None, None, KEY)


def test_post_to_a_page_is_refused() -> None:
    assert status(ask("/healthz", "POST", upgrade=None, connection=None)) == 405


@pytest.mark.parametrize(("target", "expected"), [("/healthz", 200), ("/", 404), ("/x", 404)])
def test_metrics_port_serves_pages_only(target: str, expected: int) -> None:
    """A request for a WebSocket gets the page, too; the error for another path lists the pages."""
    answer = parse_plain_request(
        HttpRequest.of(h11.Request(method="GET", target=target, headers=list(GOOD.items()))), PAGES
    )
    assert answer.status == expected
    assert expected == 200 or b"/healthz" in answer.render()


@pytest.mark.parametrize("protocol", [None, "sdpx.v1"])
def test_head_of_an_upgrade_parses_to_the_same_upgrade(protocol: str | None) -> None:
    """The head contains no text of the client."""
    upgrade = ask("/x?id=robot", host="xn--", cookie="secret", sec_websocket_protocol=protocol)
    assert isinstance(upgrade, Upgrade)
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(upgrade.head())
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert parse_upgrade(HttpRequest.of(request), PAGES) == Upgrade(None, protocol, KEY)


def test_upgrade_by_post_is_refused_with_the_allowed_methods() -> None:
    """RFC 9110, 15.5.6."""
    answer = ask(method="POST")
    assert isinstance(answer, HttpError)
    assert (answer.status, answer.headers) == (405, (("Allow", "GET, HEAD"),))


@pytest.mark.parametrize(
    ("start", "hint", "expected", "word"),
    [
        (b"\x16\x03\x01\x02\x00", 400, 400, "wss://"),
        (b"GET / HTTP/1.1\r\n", 431, 431, "too large"),
        (b"hello\r\n\r\n", 400, 400, "Not a valid HTTP/1.1 request"),
    ],
)
def test_bytes_that_are_not_http_get_an_error_with_that_reason(
    start: bytes, hint: int, expected: int, word: str
) -> None:
    """TLS, an oversized head and other bytes each have a message."""
    answer = not_http(h11.RemoteProtocolError("bad", error_status_hint=hint), start)
    assert answer.status == expected
    assert word in answer.message


ANSWER = HttpError(409, "id_taken", "The ID 'ä' is taken", (("X-Test", "yes"),))


def test_error_is_rendered_as_a_closing_http_response() -> None:
    """An HTTP library reads status, headers and the JSON body `{"code", "message"}` from it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "relay.test")]))
    client.receive_data(ANSWER.render())
    response, data = client.next_event(), client.next_event()
    assert isinstance(response, h11.Response)
    assert isinstance(data, h11.Data)
    assert response.status_code == 409
    assert {(b"connection", b"close"), (b"x-test", b"yes"), (b"content-type", b"application/json")} <= set(
        response.headers
    )
    assert json.loads(bytes(data.data)) == {"code": "id_taken", "message": "The ID 'ä' is taken"}
    assert isinstance(client.next_event(), h11.EndOfMessage)


def test_response_to_head_has_no_body() -> None:
    """RFC 9110, 9.3.2: the same head as for GET."""
    assert ANSWER.render(head_only=True) == ANSWER.render().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def test_response_has_one_connection_header() -> None:
    """A 426 response has its own, which still closes the connection."""
    answer = ask(sec_websocket_version="8")
    assert isinstance(answer, HttpError)
    lines = answer.render().lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"connection:")] == [b"connection: upgrade, close"]


# ---- the parser of simple requests --------------------------------------------------------------------------------

CHROME = (
    "GET /?id=robot-1.x_ HTTP/1.1\r\nHost: relay.test:8765\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    "Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nUpgrade: websocket\r\n"
    "Origin: https://app.test\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
).encode()


def parse_fully(head: bytes) -> object:
    """Parse the request as the full parser does."""
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
def test_requests_of_client_libraries_are_simple(head: bytes, upgrade: Upgrade) -> None:
    assert parse_simple_upgrade(head) == upgrade == parse_fully(head)


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
def test_other_requests_are_not_simple(head: bytes) -> None:
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
def test_simple_parser_agrees_with_the_full_parser(pieces: list[bytes], at: int, head: bytes) -> None:
    """The same holds for a valid request with arbitrary lines inserted."""
    lines = head.splitlines(keepends=True)
    bent = b"".join([*lines[:at], *pieces, *lines[at:]])
    upgrade = parse_simple_upgrade(bent)
    assert upgrade is None or parse_fully(bent) == upgrade


def test_invalid_request_is_not_simple() -> None:
    assert isinstance(parse_fully(upgrade_request("/?id=a b".replace(" ", "+"))), HttpError)
    assert parse_simple_upgrade(upgrade_request("/?id=a+b")) is None
