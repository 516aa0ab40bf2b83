"""The authentication webhook, with a real HTTP server. Only a valid answer allows a client."""

import ssl
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio

from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.webhook import MAX_ANSWER_BYTES, MAX_REQUESTS, Webhook, WebhookRequest
from tests.harness.auth_relay import auth_relay
from tests.harness.credentials import secret_file, token
from tests.harness.tls import CA, trusting_context
from tests.harness.webhook_server import Answer, WebhookServer, answer_bytes, answer_json, webhook_server

YES, NO = b'{"allowed": true}', b'{"allowed": false}'


def webhook_options(service: WebhookServer, **more: Any) -> AuthOptions:
    return AuthOptions(auth_webhook=service.url, **more)


async def test_webhook_request_describes_the_client() -> None:
    async with webhook_server(answer_json(allowed=True)) as service, auth_relay(webhook_options(service)) as relay:
        assert (await relay.ask("/app?id=bob&token=t-1", "Origin: https://a.test"))[0] == 101
        assert (await relay.ask("/", "Authorization: Bearer t-2"))[0] == 101
        assert service.requests == [
            {"id": "bob", "remote": "192.0.2.1:4711", "origin": "https://a.test", "token": "t-1", "path": "/app"},
            {"id": None, "remote": "192.0.2.1:4711", "origin": None, "token": "t-2", "path": "/"},
        ]


async def test_allowed_client_gets_the_ice_servers_of_the_answer() -> None:
    server = {"urls": ["turn:t.test"], "username": "u", "credential": "c"}
    async with (
        webhook_server(answer_json(allowed=True, ice_servers=[server, {"urls": "stun:s"}])) as service,
        auth_relay(webhook_options(service)) as relay,
    ):
        _, your_id = await relay.ask("/?id=bob")
        assert your_id["ice_servers"] == [server, {"urls": "stun:s"}]


async def test_nulls_of_an_answer_are_absent_keys() -> None:
    """Serializers write null for what is not set."""
    server = {"urls": "stun:s", "username": None, "credential": None}
    async with (
        webhook_server(answer_json(allowed=True, reason=None, ice_servers=[server])) as service,
        auth_relay(webhook_options(service)) as relay,
    ):
        assert (await relay.ask("/?id=bob"))[1] == {"type": "your_id", "id": "bob", "ice_servers": [{"urls": "stun:s"}]}


async def test_a_question_that_a_suspension_cut_off_is_asked_again() -> None:
    """No time of the client or of the service runs out because the relay did not run."""

    async def second_time(service: WebhookServer) -> tuple[int, bytes]:
        if len(service.requests) == 1:
            await trio.sleep_forever()
        return 200, YES

    async with webhook_server(second_time) as service, trio.open_nursery() as nursery:
        webhook = Webhook(service.url, 0.1, nursery, lambda _now: inf)
        assert (await webhook.ask(WebhookRequest("bob", "192.0.2.1:1", None, None, "/"), "192.0.2.1")).allowed
        assert len(service.requests) > 1


async def test_empty_list_of_ice_servers_reaches_the_client() -> None:
    """An empty list means that the client uses no server; a missing list leaves the choice to the client."""
    async with (
        webhook_server(answer_json(allowed=True, ice_servers=[])) as service,
        auth_relay(webhook_options(service)) as relay,
    ):
        assert (await relay.ask("/?id=bob"))[1]["ice_servers"] == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (answer_json(allowed=False), "Connection not authorized"),
        (answer_json(allowed=False, reason=None), "Connection not authorized"),
        (answer_json(allowed=False, reason="Your subscription ended"), "Your subscription ended"),
        (answer_json(allowed=False, reason="No 'guess-me', no!\r\nX: y \x00"), "No '...', no! X: y"),
        (answer_json(allowed=False, reason="x" * 5000), "x" * 200),
        (answer_json(allowed=False, reason="a\u202eb\u2028c\u2066d\x9be\u200b\x7f"), "a b c d e"),
    ],
)
async def test_denied_client_gets_401_with_the_reason(answer: Answer, message: str) -> None:
    """The reason is one line, truncated, without the token, bidirectional and other invisible characters."""
    async with webhook_server(answer) as service, auth_relay(webhook_options(service)) as relay:
        status, body = await relay.ask("/?token=guess-me")
        assert (status, body["code"], body["message"]) == (401, "unauthorized", message)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (answer_json(500, allowed=True), "status 500"),
        (answer_json(201, allowed=True), "status 201"),
        (answer_json(302, allowed=True), "status 302"),
        (answer_json(401, allowed=True), "status 401"),
        (answer_json(), "does not have the form"),
        (answer_json(allowed="true"), "does not have the form"),
        (answer_json(allowed=1), "does not have the form"),
        (answer_json(allowed=None), "does not have the form"),
        (answer_json(allowed=True, ice_servers="turn:t"), "does not have the form"),
        (answer_json(allowed=True, ice_servers=[{"username": "u"}]), "does not have the form"),
        (answer_bytes(b""), "does not have the form"),
        (answer_bytes(b"true"), "does not have the form"),
        (answer_bytes(b'{"allowed": true'), "does not have the form"),
        (answer_bytes(b"\xff\xfe"), "does not have the form"),
        (answer_bytes(b"[" * 50_000), "does not have the form"),
        (answer_bytes(b'{"allowed": true}' + b" " * MAX_ANSWER_BYTES), "longer than"),
    ],
)
async def test_invalid_answer_refuses_the_client_with_503(answer: Answer, word: str) -> None:
    async with webhook_server(answer) as service, auth_relay(webhook_options(service)) as relay:
        status, body = await relay.ask("/?token=t")
        assert (status, body["code"]) == (503, "auth_unavailable")
        assert word in relay.log.of("auth_webhook_failed")[0]["reason"]


async def test_unreachable_webhook_refuses_clients_and_is_logged_once() -> None:
    """The event is rate-limited."""
    async with webhook_server(answer_json(allowed=True)) as service:
        pass
    async with auth_relay(webhook_options(service)) as relay:
        for _ in range(3):
            assert (await relay.ask())[0] == 503
        assert len(relay.log.of("auth_webhook_failed")) == 1
        assert "retry-after" in await relay.headers()


@pytest.mark.parametrize("url", ["http://1.2.3.400/", "http://u:secret@xn--/"])
async def test_webhook_with_an_unresolvable_host_refuses_clients(url: str) -> None:
    """The event does not contain the URL."""
    async with auth_relay(AuthOptions(auth_webhook=url)) as relay:
        assert (await relay.ask())[0] == 503
        assert "the request failed" in relay.log.of("auth_webhook_failed")[0]["reason"]
        assert not relay.log.of("internal_error")


async def test_surplus_answer_is_not_used_for_the_next_request() -> None:
    """A server that sends two answers to one request does not decide about the next client."""
    yes, no = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) for body in (YES, NO))

    async def answer(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # unread data resets the connection
            async with stream:
                while await stream.receive_some():
                    await stream.send_all(no + yes)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with auth_relay(AuthOptions(auth_webhook=url)) as relay:
            assert [(await relay.ask())[0] for _ in range(4)] == [401] * 4
        nursery.cancel_scope.cancel()


async def never(_: WebhookServer) -> tuple[int, bytes]:
    await trio.sleep_forever()
    raise AssertionError


async def test_webhook_timeout_refuses_the_client() -> None:
    async with (
        webhook_server(never) as service,
        auth_relay(webhook_options(service, auth_webhook_timeout=0.3)) as relay,
    ):
        assert (await relay.ask())[0] == 503
        assert "within 0.3 s" in relay.log.of("auth_webhook_failed")[0]["reason"]


async def test_concurrent_webhook_requests_are_bounded() -> None:
    async def slow(_: WebhookServer) -> tuple[int, bytes]:
        await trio.sleep(0.05)
        return 200, b'{"allowed": true}'

    async with webhook_server(slow) as service, auth_relay(webhook_options(service, auth_webhook_timeout=30)) as relay:
        statuses: list[int] = []

        async def connect() -> None:
            statuses.append((await relay.ask())[0])

        async with trio.open_nursery() as nursery:
            for _ in range(MAX_REQUESTS * 2):
                nursery.start_soon(connect)
        assert statuses == [101] * MAX_REQUESTS * 2
        assert 1 < service.most_concurrent <= MAX_REQUESTS


async def test_one_of_two_concurrent_requests_for_an_id_gets_it() -> None:
    """Both wait for the webhook; the second one is refused because the ID is in use."""

    async def both(service: WebhookServer) -> tuple[int, bytes]:
        with trio.fail_after(30):
            while len(service.requests) < 2:
                await trio.sleep(0.01)
        return 200, b'{"allowed": true}'

    async with webhook_server(both) as service, auth_relay(webhook_options(service)) as relay:
        statuses: list[int] = []

        async def connect() -> None:
            statuses.append((await relay.ask("/?id=bob"))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            nursery.start_soon(connect)
        assert sorted(statuses) == [101, 409]
        assert not relay.log.of("internal_error")


async def test_token_and_webhook_must_both_allow_the_client(tmp_path: Path) -> None:
    """The webhook is not asked about an invalid token; its request has the ID that the token binds."""
    async with (
        webhook_server(answer_json(allowed=False, reason="no")) as service,
        auth_relay(webhook_options(service, auth_secret_file=str(secret_file(tmp_path)))) as relay,
    ):
        assert "JSON Web Token" in (await relay.ask("/?token=bad"))[1]["message"]
        assert service.requests == []
        assert (await relay.ask(f"/?token={token(sub='bob')}"))[1]["message"] == "no"
        assert service.requests[0]["id"] == "bob"
        service.answer = answer_json(allowed=True)
        assert await relay.ask(f"/?token={token(sub='bob')}") == (101, {"type": "your_id", "id": "bob"})


async def test_denial_counts_as_a_failed_attempt_but_an_outage_does_not() -> None:
    async with webhook_server(answer_json(allowed=False)) as service, auth_relay(webhook_options(service)) as relay:
        statuses = [(await relay.ask())[0] for _ in range(30)]
        assert 429 in statuses
    async with auth_relay(webhook_options(service)) as relay:
        assert {(await relay.ask())[0] for _ in range(30)} == {503}


async def test_stopping_relay_does_not_wait_for_the_webhook() -> None:
    async with (
        webhook_server(never) as service,
        auth_relay(webhook_options(service, auth_webhook_timeout=30)) as relay,
        trio.open_nursery() as nursery,
    ):

        async def connect() -> None:
            with pytest.raises(AssertionError, match="without an answer"):
                await relay.ask()

        nursery.start_soon(connect)
        while not service.requests:
            await trio.sleep(0.01)
        relay.acceptor.stop()
        with trio.fail_after(30):
            await relay.relay.wait_closed()


async def test_untrusted_certificate_of_the_webhook_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a trusted one is not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("127.0.0.1").configure_cert(context)

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                await stream.receive_some()
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(YES), YES))

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]  # it is a SocketListener
        options = AuthOptions(auth_webhook=f"https://127.0.0.1:{port}")
        async with auth_relay(options) as relay:
            assert (await relay.ask())[0] == 503
            assert "SSLCertVerificationError" in relay.log.of("auth_webhook_failed")[0]["reason"]
        trusting = trusting_context()
        monkeypatch.setattr("ssl.create_default_context", lambda: trusting)
        async with auth_relay(options) as relay:
            assert (await relay.ask())[0] == 101
        nursery.cancel_scope.cancel()
