"""PairRequester: which refusals are temporary, for how long requests are repeated, and when the relay counts as silent."""

from collections.abc import Callable

import pytest
import trio
from msgspec import Struct
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.log import Log
from sdpx.peer.pair_requester import ANSWER_SECONDS, LONGEST_WAIT, PairRequester
from sdpx.peer.policy import NO_REPLY, RELAY_LOST
from sdpx.peer.signaling.client import SignalingClient
from sdpx.protocol.messages import ErrorFrame, PairRequest
from tests.harness.log import LogRecorder


class AnsweringRelay(SignalingClient):
    """Answers each request with the next of these refusals, the last one for ever: None is a pairing, "" no answer."""

    connected_since: float | None = 0.0
    is_connected = True

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.requests: list[float] = []
        self.log = LogRecorder()
        self.requester = PairRequester(self, Log(self.log.put, trio.current_time), lambda: 0.0)

    async def send(self, message: Struct, on_written: Callable[[], None] | None = None) -> bool:
        assert isinstance(message, PairRequest)
        assert on_written is not None
        if self.is_connected:
            on_written()
        self.requests.append(trio.current_time())
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if answer is None:
            self.requester.on_paired(message.target_id)
        elif answer:
            self.requester.on_refused(ErrorFrame(answer, "no"))
        return self.is_connected


async def test_without_a_wait_the_first_refusal_counts(autojump_clock: MockClock) -> None:
    relay = AnsweringRelay("target_not_found")
    refusal = await relay.requester.request("bob")
    assert refusal is not None
    assert refusal.code == "target_not_found"
    assert relay.requester.last_refusal == refusal
    assert len(relay.requests) == 1


async def test_a_temporary_refusal_is_requested_again_until_the_wait_is_over(
    autojump_clock: MockClock,
) -> None:
    """The delays grow to their bound, and the last request is sent at the end of the wait."""
    relay = AnsweringRelay("target_not_found", "target_already_paired", "rate_limited", "target_not_found")
    began = trio.current_time()
    refusal = await relay.requester.request("bob", 60)
    assert refusal is not None
    gaps = [later - earlier for earlier, later in zip(relay.requests, relay.requests[1:], strict=False)]
    assert relay.requests[-1] - began == pytest.approx(60)
    assert gaps[:3] == sorted(gaps[:3])
    assert max(gaps) <= LONGEST_WAIT
    assert len(relay.log.of("pair_retry_scheduled")) == len(gaps)


async def test_a_pairing_ends_the_requests(autojump_clock: MockClock) -> None:
    """Whether this side requested it, or the other side did while this one waits to repeat its request."""
    relay = AnsweringRelay("target_not_found", None)
    assert await relay.requester.request("bob", 60) is None
    relay = AnsweringRelay("target_not_found", "target_not_found")
    async with trio.open_nursery() as nursery:

        async def pair() -> None:
            await trio.sleep(0.1)
            relay.requester.on_paired("carol")
            await trio.sleep(0)
            relay.requester.on_paired("bob")

        nursery.start_soon(pair)
        assert await relay.requester.request("bob", 60) is None
    assert len(relay.requests) == 1


@pytest.mark.parametrize("code", ["self_pair", "already_paired", "unauthorized", RELAY_LOST])
async def test_a_permanent_refusal_is_returned_at_once(code: str, autojump_clock: MockClock) -> None:
    relay = AnsweringRelay(code)
    refusal = await relay.requester.request("bob", 60)
    assert refusal is not None
    assert refusal.code == code
    assert len(relay.requests) == 1


async def test_a_silent_relay_is_reported_after_ten_seconds(autojump_clock: MockClock) -> None:
    """A lost relay connection is reported at once."""
    relay = AnsweringRelay("")
    began = trio.current_time()
    refusal = await relay.requester.request("bob", 60)
    assert refusal is not None
    assert refusal.code == NO_REPLY
    assert trio.current_time() - began == ANSWER_SECONDS
    async with trio.open_nursery() as nursery:
        answers: list[ErrorFrame | None] = []

        async def request() -> None:
            answers.append(await relay.requester.request("bob", 60))

        nursery.start_soon(request)
        await wait_all_tasks_blocked()
        relay.requester.on_relay_lost()
    assert [answer and answer.code for answer in answers] == [RELAY_LOST]


async def test_a_request_without_a_relay_connection_fails_at_once(autojump_clock: MockClock) -> None:
    """The request is not logged as sent."""
    relay = AnsweringRelay("")
    relay.is_connected = False
    refusal = await relay.requester.request("bob", 60)
    assert refusal is not None
    assert (refusal.code, trio.current_time() - relay.requests[0]) == (RELAY_LOST, 0)
    assert relay.log.of("pair_requested") == []


async def test_the_time_for_an_answer_begins_when_the_relay_is_connected(autojump_clock: MockClock) -> None:
    """A request that is kept for the next connection is sent then."""
    relay = AnsweringRelay("")
    relay.connected_since = None
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def reconnect() -> None:
            await trio.sleep(25)
            relay.connected_since = trio.current_time()

        nursery.start_soon(reconnect)
        refusal = await relay.requester.request("bob")
    assert refusal is not None
    assert refusal.code == NO_REPLY
    assert trio.current_time() - began == 25 + ANSWER_SECONDS
