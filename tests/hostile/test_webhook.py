"""Attacks by way of the authentication webhook: by its clients, and by its answers."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import trio

from sdpx.relay.auth.webhook import MAX_REQUESTS
from tests.harness.processes import relay_process
from tests.harness.webhook_server import WebhookServer, answer_json, webhook_server
from tests.hostile.attack import Attack, attack_on, usable
from tests.hostile.conftest import ENGINES

pytestmark = pytest.mark.e2e

UNAVAILABLE: Final = frozenset({"auth_webhook_failed"})
YES: Final = answer_json(allowed=True)
INVISIBLE: Final = "\u202e\u2066\u2028\u2029\u0085\u009b\u007f\u200b"


@asynccontextmanager
async def attack_with(url: str, folder: Path, *options: str) -> AsyncIterator[Attack]:
    """Open an attack on a relay that asks the webhook at this URL."""
    with relay_process(folder, "--auth-webhook", url, *options) as server:
        async with attack_on(server, expected_errors=UNAVAILABLE) as attack:
            yield attack


class HoldingService:
    """Allows every client at once, but those whose ID begins with "held": these when `release` is set."""

    def __init__(self) -> None:
        self.release = trio.Event()
        self.held = self.most_held = 0

    async def answer(self, service: WebhookServer) -> tuple[int, bytes]:
        if str(service.requests[-1]["id"]).startswith("held"):
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            await self.release.wait()
            self.held -= 1
        return await YES(service)


async def test_clients_that_are_refused_free_no_question_that_the_webhook_works_on(tmp_path: Path) -> None:
    """92 clients ask and get no answer, then 92 more: the webhook has 64 questions at most, all the while."""
    holding = HoldingService()
    async with (
        webhook_server(holding.answer) as service,
        attack_with(service.url, tmp_path, "--auth-webhook-timeout", "2") as attack,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(92):
                nursery.start_soon(expect_unavailable, attack, f"/?id=held-{number}")
        async with trio.open_nursery() as nursery:
            for number in range(92, 184):
                nursery.start_soon(attack.request, f"/?id=held-{number}")
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        assert holding.most_held == MAX_REQUESTS
        holding.release.set()


@pytest.mark.parametrize("engine", ENGINES)
async def test_silent_connections_do_not_displace_clients_that_wait_for_the_webhook(
    tmp_path: Path, engine: str
) -> None:
    """All from one address, which may have 40 pending connections."""
    holding = HoldingService()
    options = ("--max-clients-per-ip", "40", "--auth-webhook-timeout", "30", "--engine", engine)
    statuses: list[int] = []
    async with webhook_server(holding.answer) as service, attack_with(service.url, tmp_path, *options) as attack:

        async def wait_for_answer(number: int) -> None:
            statuses.append((await attack.request(f"/?id=held-{number}"))[0])

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(wait_for_answer, number)
            while holding.held < 20:
                await trio.sleep(0.01)
            for _ in range(200):
                await attack.tcp()
            await attack.wait_for_events(100, "connection_refused")
            holding.release.set()
        assert statuses == [101] * 20


async def test_endless_answers_hold_no_other_client_up(tmp_path: Path) -> None:
    """Each is cut at the bound of its size, and its client refused."""

    async def answer(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async with stream:
                asked = await stream.receive_some()
                while b"\r\n\r\n{" not in asked:
                    asked += await stream.receive_some()
                if b'"id":"endless' not in asked:
                    await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"allowed": true}')
                    return
                await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    await stream.send_all(b" " * 65536)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with attack_with(url, tmp_path, "--auth-webhook-timeout", "30") as attack, trio.open_nursery() as asking:
            for number in range(100):
                asking.start_soon(expect_unavailable, attack, f"/?id=endless-{number}")
            await usable(await attack.client())
        nursery.cancel_scope.cancel()


async def expect_unavailable(attack: Attack, target: str) -> None:
    status, body = await attack.request(target)
    assert (status, json.loads(body)["code"]) == (503, "auth_unavailable")


async def test_characters_that_control_a_terminal_reach_neither_client_nor_log(tmp_path: Path) -> None:
    """In the reason of a denial, in an answer that cannot be used, and in what the client sent."""

    async def answer(service: WebhookServer) -> tuple[int, bytes]:
        if service.requests[-1]["path"] == "/denied":
            return await answer_json(allowed=False, reason=f"no{INVISIBLE}way")(service)
        if service.requests[-1]["path"] == "/odd":
            return 200, INVISIBLE.encode()
        return await YES(service)

    async with webhook_server(answer) as service, attack_with(service.url, tmp_path) as attack:
        denied, odd = await attack.request("/denied"), await attack.request("/odd")
        assert (denied[0], json.loads(denied[1])["message"]) == (401, "no way")
        assert odd[0] == 503
        await attack.wait_for_events(2, "connection_refused")
        shown = "".join([denied[1], odd[1], (tmp_path / "log").read_text()])
        assert not set(INVISIBLE) & set(shown)
        assert "\\u202e" not in shown  # nor escaped: the sentence is that of a person
