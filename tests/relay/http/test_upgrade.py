"""What a request is answered with: a WebSocket under an ID, or an HTTP status with a sentence."""

import json

import h11
import pytest

from sdpx.relay.core.sessions import ResumeRequest
from sdpx.relay.http.request import HttpRequest, not_http
from sdpx.relay.http.responses import HttpError, HttpResponse
from sdpx.relay.http.upgrade import Upgrade, parse_plain_request, parse_upgrade
from tests.harness.frames import KEY

GOOD = {
    "host": "relay.test",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


PAGES = {"/healthz": lambda accept: HttpResponse(200, "text/plain", f"for {accept}".encode())}


def ask(
    target: str = "/", method: str = "GET", version: str = "1.1", **headers: str | None
) -> Upgrade | HttpResponse | HttpError:
    """Judge a request for a WebSocket with these headers changed (None: left out)."""
    changed = GOOD | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [(name, value) for name, value in changed.items() if value is not None]
    request = h11.Request(method=method, target=target, headers=lines, http_version=version)
    return parse_upgrade(HttpRequest.of(request), PAGES)


def status(verdict: Upgrade | HttpResponse | HttpError) -> int:
    assert isinstance(verdict, HttpError)
    return verdict.status


def test_a_good_request_becomes_a_websocket() -> None:
    """RFC 6455, 4.2.1."""
    assert ask() == Upgrade(None, None, KEY)


@pytest.mark.parametrize("target", ["/", "/any/path", "/?token=x", "/?seq=2&last=", "/%ff", "http://relay.test/"])
def test_any_path_and_unknown_parameters_are_fine(target: str) -> None:
    """A reverse proxy may have put a path in front; a later version may add parameters."""
    assert ask(target) == Upgrade(None, None, KEY)


def test_numbers_and_a_token_are_asked_for_in_the_query() -> None:
    """PROTOCOL, Resume. What asks for them cannot be misread: it is refused."""
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
def test_headers_are_lists_and_tokens_have_no_case(headers: dict[str, str]) -> None:
    """As browsers and proxies really send them."""
    assert ask(**headers) == Upgrade(None, None, KEY)


@pytest.mark.parametrize(
    ("headers", "wanted"),
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
def test_a_flawed_request_for_a_websocket_is_refused(headers: dict[str, str | None], wanted: int) -> None:
    """Each rule of RFC 6455, 4.2.1, has its status."""
    assert status(ask("/", "GET", "1.1", **headers)) == wanted


def test_a_websocket_needs_http_1_1() -> None:
    """HTTP/1.0 knows no upgrade."""
    assert status(ask(version="1.0")) == 400


def test_another_version_learns_which_one_is_spoken() -> None:
    """RFC 6455, 4.4."""
    answer = ask(sec_websocket_version="8")
    assert isinstance(answer, HttpError)
    assert ("Sec-WebSocket-Version", "13") in answer.headers


@pytest.mark.parametrize("name", ["robot-1", "a.b_c", "x" * 64, "%61bc"])
def test_a_client_gets_the_id_that_it_asks_for(name: str) -> None:
    """If it is a name, and free; percent-encoding is undone."""
    verdict = ask(f"/?id={name}")
    assert isinstance(verdict, Upgrade)
    assert verdict.client_id == name.replace("%61", "a")


@pytest.mark.parametrize(
    "query", ["id=", "id=a+b", "id=a%00", "id=" + "x" * 65, "id=a&id=b", "id=%ff", "id=a%0a", "id=%F0%9F%98%80"]
)
def test_a_malformed_id_is_400(query: str) -> None:
    """Empty, too long, given twice, or with other signs in it."""
    assert status(ask(f"/?{query}")) == 400


@pytest.mark.parametrize(
    ("offered", "answered"),
    [("sdpx.v1", "sdpx.v1"), ("chat, sdpx.v1", "sdpx.v1"), ("chat", None), ("SDPX.V1", None), (None, None)],
)
def test_the_subprotocol_is_answered_only_when_offered(offered: str | None, answered: str | None) -> None:
    """Offering none, or others, is fine."""
    assert ask(sec_websocket_protocol=offered) == Upgrade(None, answered, KEY)


@pytest.mark.parametrize(
    ("method", "target", "wanted"),
    [
        *[("GET", "/", 426), ("HEAD", "/", 426), ("GET", "/?x=1", 426), ("GET", "/index.html", 404)],
        *[("POST", "/", 405), ("OPTIONS", "/x", 405), ("DELETE", "/", 405)],
    ],
)
def test_a_plain_request_is_told_what_this_is(method: str, target: str, wanted: int) -> None:
    """A person with a browser learns it from the answer."""
    verdict = ask(target, method, upgrade=None, connection=None)
    assert isinstance(verdict, HttpError)
    assert (verdict.status, "sdpx" in verdict.message) == (wanted, True)


@pytest.mark.parametrize("target", ["/healthz", "/healthz?x=1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_is_served_to_a_plain_request(method: str, target: str) -> None:
    """It knows what the client takes."""
    verdict = ask(target, method, upgrade=None, connection=None, accept="text/plain, x/y;q=0.5")
    assert isinstance(verdict, HttpResponse)
    assert (verdict.status, verdict.body) == (200, b"for text/plain, x/y;q=0.5")


def test_a_page_is_no_obstacle_to_a_websocket() -> None:
    """Any path is accepted."""
    assert ask("/healthz") == Upgrade(None, None, KEY)


def test_a_page_is_not_written_to() -> None:
    assert status(ask("/healthz", "POST", upgrade=None, connection=None)) == 405


@pytest.mark.parametrize(("target", "wanted"), [("/healthz", 200), ("/", 404), ("/x", 404)])
def test_a_port_of_pages_has_nothing_else(target: str, wanted: int) -> None:
    """Also for one who asks for a WebSocket; who is lost learns what there is."""
    verdict = parse_plain_request(
        HttpRequest.of(h11.Request(method="GET", target=target, headers=list(GOOD.items()))), PAGES
    )
    assert verdict.status == wanted
    assert wanted == 200 or b"/healthz" in verdict.render()


@pytest.mark.parametrize("protocol", [None, "sdpx.v1"])
def test_what_was_judged_is_judged_the_same_again(protocol: str | None) -> None:
    """The head that is made of it says all that counts, and nothing of the client's own."""
    upgrade = ask("/x?id=robot", host="xn--", cookie="secret", sec_websocket_protocol=protocol)
    assert isinstance(upgrade, Upgrade)
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(upgrade.head())
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert parse_upgrade(HttpRequest.of(request), PAGES) == Upgrade(None, protocol, KEY)


def test_a_websocket_is_asked_for_with_get() -> None:
    """A POST that wants an upgrade learns which method is allowed."""
    verdict = ask(method="POST")
    assert isinstance(verdict, HttpError)
    assert (verdict.status, verdict.headers) == (405, (("Allow", "GET, HEAD"),))


@pytest.mark.parametrize(
    ("start", "hint", "wanted", "word"),
    [
        (b"\x16\x03\x01\x02\x00", 400, 400, "wss://"),
        (b"GET / HTTP/1.1\r\n", 431, 431, "too large"),
        (b"hello\r\n\r\n", 400, 400, "Not a valid HTTP/1.1 request"),
    ],
)
def test_what_is_not_http_is_answered_all_the_same(start: bytes, hint: int, wanted: int, word: str) -> None:
    """With a sentence that says what the bytes looked like."""
    answer = not_http(h11.RemoteProtocolError("bad", error_status_hint=hint), start)
    assert answer.status == wanted
    assert word in answer.message


ANSWER = HttpError(409, "id_taken", "The ID 'ä' is taken", (("X-Test", "yes"),))


def test_an_answer_is_an_http_response_that_closes() -> None:
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


def test_the_answer_to_head_has_the_length_and_no_body() -> None:
    """RFC 9110, 9.3.2: the same head as for GET."""
    assert ANSWER.render(head_only=True) == ANSWER.render().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def test_an_answer_has_one_connection_header() -> None:
    """426 brings its own, and it still closes."""
    answer = ask(sec_websocket_version="8")
    assert isinstance(answer, HttpError)
    lines = answer.render().lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"connection:")] == [b"connection: upgrade, close"]
