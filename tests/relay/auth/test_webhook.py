"""The operator's own say in who comes in, asked of a real HTTP service. Whatever keeps it from saying yes is a no."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.webhook import MAX_ANSWER_BYTES, MAX_REQUESTS
from tests.harness.auth_relay import auth_relay
from tests.harness.credentials import secret_file, token
from tests.harness.webhook_server import Hook, HttpError, hook, says, says_bytes

YES, NO = b'{"allowed": true}', b'{"allowed": false}'


def asking(service: Hook, **more: Any) -> AuthOptions:
    return AuthOptions(auth_webhook=service.url, **more)


async def test_it_is_asked_what_there_is_to_know() -> None:
    async with hook(says(allowed=True)) as service, auth_relay(asking(service)) as relay:
        assert (await relay.ask("/app?id=bob&token=t-1", "Origin: https://a.test"))[0] == 101
        assert (await relay.ask("/", "Authorization: Bearer t-2"))[0] == 101
        assert service.questions == [
            {"id": "bob", "remote": "192.0.2.1:4711", "origin": "https://a.test", "token": "t-1", "path": "/app"},
            {"id": None, "remote": "192.0.2.1:4711", "origin": None, "token": "t-2", "path": "/"},
        ]


async def test_who_may_come_in_gets_its_ice_servers() -> None:
    server = {"urls": ["turn:t.test"], "username": "u", "credential": "c"}
    async with (
        hook(says(allowed=True, ice_servers=[server, {"urls": "stun:s"}])) as service,
        auth_relay(asking(service)) as relay,
    ):
        _, your_id = await relay.ask("/?id=bob")
        assert your_id["ice_servers"] == [server, {"urls": "stun:s"}]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (says(allowed=False), "Connection not authorized"),
        (says(allowed=False, reason=None), "Connection not authorized"),
        (says(allowed=False, reason="Your subscription ended"), "Your subscription ended"),
        (says(allowed=False, reason="No 'guess-me', no!\r\nX: y \x00"), "No '...', no! X: y"),
        (says(allowed=False, reason="x" * 5000), "x" * 200),
    ],
)
async def test_a_no_is_401_with_its_reason(answer: HttpError, message: str) -> None:
    """In one line, not too long, without the token."""
    async with hook(answer) as service, auth_relay(asking(service)) as relay:
        status, body = await relay.ask("/?token=guess-me")
        assert (status, body["code"], body["message"]) == (401, "unauthorized", message)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (says(500, allowed=True), "status 500"),
        (says(201, allowed=True), "status 201"),
        (says(302, allowed=True), "status 302"),
        (says(401, allowed=True), "status 401"),
        (says(), "does not have the form"),
        (says(allowed="true"), "does not have the form"),
        (says(allowed=1), "does not have the form"),
        (says(allowed=None), "does not have the form"),
        (says(allowed=True, ice_servers="turn:t"), "does not have the form"),
        (says(allowed=True, ice_servers=[{"username": "u"}]), "does not have the form"),
        (says_bytes(b""), "does not have the form"),
        (says_bytes(b"true"), "does not have the form"),
        (says_bytes(b'{"allowed": true'), "does not have the form"),
        (says_bytes(b"\xff\xfe"), "does not have the form"),
        (says_bytes(b"[" * 50_000), "does not have the form"),
        (says_bytes(b'{"allowed": true}' + b" " * MAX_ANSWER_BYTES), "longer than"),
    ],
)
async def test_anything_but_a_yes_is_503_and_told_of(answer: HttpError, word: str) -> None:
    async with hook(answer) as service, auth_relay(asking(service)) as relay:
        status, body = await relay.ask("/?token=t")
        assert (status, body["code"]) == (503, "auth_unavailable")
        assert word in relay.log.of("auth_webhook_failed")[0]["reason"]


async def test_a_service_that_is_not_there_lets_nobody_in() -> None:
    """It is told of now and then, not for each client."""
    async with hook(says(allowed=True)) as service:
        pass
    async with auth_relay(asking(service)) as relay:
        for _ in range(3):
            assert (await relay.ask())[0] == 503
        assert len(relay.log.of("auth_webhook_failed")) == 1
        assert "retry-after" in await relay.headers()


@pytest.mark.parametrize("url", ["http://1.2.3.400/", "http://u:secret@xn--/"])
async def test_a_service_that_can_never_be_reached_lets_nobody_in(url: str) -> None:
    """Names that no resolver takes: the client hears of it, and the log, without the URL."""
    async with auth_relay(AuthOptions(auth_webhook=url)) as relay:
        assert (await relay.ask())[0] == 503
        assert "the request failed" in relay.log.of("auth_webhook_failed")[0]["reason"]
        assert not relay.log.of("internal_error")


async def test_an_answer_is_to_ones_own_question() -> None:
    """A service that says more than it was asked for: the rest is no answer to who comes next."""
    yes, no = (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) for body in (YES, NO))

    async def answer(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # what was not read resets the connection
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


async def test_a_service_that_is_slow_lets_nobody_in() -> None:
    async def never(_: Hook) -> tuple[int, bytes]:
        await trio.sleep_forever()
        raise AssertionError

    async with hook(never) as service, auth_relay(asking(service, auth_webhook_timeout=0.3)) as relay:
        assert (await relay.ask())[0] == 503
        assert "within 0.3 s" in relay.log.of("auth_webhook_failed")[0]["reason"]


async def test_what_is_in_flight_is_bounded_and_nobody_is_lost() -> None:
    async def slow(_: Hook) -> tuple[int, bytes]:
        await trio.sleep(0.05)
        return 200, b'{"allowed": true}'

    async with hook(slow) as service, auth_relay(asking(service, auth_webhook_timeout=30)) as relay:
        statuses: list[int] = []

        async def come() -> None:
            statuses.append((await relay.ask())[0])

        async with trio.open_nursery() as nursery:
            for _ in range(MAX_REQUESTS * 2):
                nursery.start_soon(come)
        assert statuses == [101] * MAX_REQUESTS * 2
        assert 1 < service.most_at_once <= MAX_REQUESTS


async def test_an_id_that_is_asked_for_by_two_at_once_goes_to_one() -> None:
    """While the service thinks nobody has it: who comes second hears that it is taken."""

    async def both(service: Hook) -> tuple[int, bytes]:
        with trio.fail_after(5):
            while len(service.questions) < 2:
                await trio.sleep(0.01)
        return 200, b'{"allowed": true}'

    async with hook(both) as service, auth_relay(asking(service)) as relay:
        statuses: list[int] = []

        async def come() -> None:
            statuses.append((await relay.ask("/?id=bob"))[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come)
            nursery.start_soon(come)
        assert sorted(statuses) == [101, 409]
        assert not relay.log.of("internal_error")


async def test_token_and_service_both_have_to_agree(tmp_path: Path) -> None:
    """A bad token is not even asked about; a good one is, with the ID that it binds."""
    async with (
        hook(says(allowed=False, reason="no")) as service,
        auth_relay(asking(service, auth_secret_file=str(secret_file(tmp_path)))) as relay,
    ):
        assert "JSON Web Token" in (await relay.ask("/?token=bad"))[1]["message"]
        assert service.questions == []
        assert (await relay.ask(f"/?token={token(sub='bob')}"))[1]["message"] == "no"
        assert service.questions[0]["id"] == "bob"
        service.answer = says(allowed=True)
        assert await relay.ask(f"/?token={token(sub='bob')}") == (101, {"type": "your_id", "id": "bob"})


async def test_a_no_counts_as_a_failed_attempt_and_an_outage_does_not() -> None:
    async with hook(says(allowed=False)) as service, auth_relay(asking(service)) as relay:
        statuses = [(await relay.ask())[0] for _ in range(30)]
        assert 429 in statuses
    async with auth_relay(asking(service)) as relay:
        assert {(await relay.ask())[0] for _ in range(30)} == {503}


async def test_a_relay_that_stops_does_not_wait_for_the_service() -> None:
    async def never(_: Hook) -> tuple[int, bytes]:
        await trio.sleep_forever()
        raise AssertionError

    async with (
        hook(never) as service,
        auth_relay(asking(service, auth_webhook_timeout=30)) as relay,
        trio.open_nursery() as nursery,
    ):

        async def come() -> None:
            with pytest.raises(AssertionError, match="without an answer"):
                await relay.ask()

        nursery.start_soon(come)
        while not service.questions:
            await trio.sleep(0.01)
        relay.acceptor.stop()
        with trio.fail_after(5):
            await relay.relay.wait_closed()
