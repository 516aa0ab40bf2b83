"""Attempt: its tasks and its deadline, with a fake connection."""

from collections.abc import Callable

import msgspec
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from sdpx.log import Log
from sdpx.peer.attempt import Attempt
from sdpx.peer.delivery import Delivery
from sdpx.peer.diagnostics.trace import ConnectionTrace
from sdpx.peer.input import MessageQueue
from sdpx.peer.options import PeerOptions
from tests.harness.log import LogRecorder
from tests.harness.peer import FakePeerConnection


async def sent(_frame: msgspec.Struct, on_written: Callable[[], None]) -> None:
    on_written()


def attempt(lost: list[Attempt], log: LogRecorder) -> Attempt:
    """An attempt of the initiator with a deadline of 2 s."""
    now = trio.current_time()
    trace, options = ConnectionTrace("bob", is_initiator=True), PeerOptions("ws://relay.test", timeout=2.0)
    program_log = Log(log.put, trio.current_time)
    delivery = Delivery(MessageQueue(trio.lowlevel.checkpoint, lambda *_: None), program_log, lambda: None)
    made = Attempt(
        FakePeerConnection([]),
        trace,
        now,
        now + 2,
        options,
        program_log,
        sent,
        delivery,
        lambda _phase: None,
        lost.append,
        lambda _attempt, _closed: None,
    )
    made._events_consumed.set()
    return made


async def test_closed_attempt_starts_no_task(autojump_clock: MockClock) -> None:
    """A caller that has not been cancelled yet gets no exception."""
    one, ran = attempt([], LogRecorder()), list[str]()

    async def note(word: str) -> None:
        ran.append(word)

    async with trio.open_nursery() as nursery:
        await nursery.start(one.run_tasks)
        one.start_soon(note, "in time")
        await wait_all_tasks_blocked()
        await one.close()
        await wait_all_tasks_blocked()
        one.start_soon(note, "too late")
    assert ran == ["in time"]


async def test_attempt_is_lost_at_its_deadline(autojump_clock: MockClock) -> None:
    """The error names the missing description; an offer that was written is noted in the trace."""
    lost, log = list[Attempt](), LogRecorder()
    one = attempt(lost, log)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run_tasks)
        await one.offer()
        assert one.trace.description_sent
        await trio.sleep(1.9)
        assert lost == []
        await trio.sleep(0.2)
        assert lost == [one]
        assert log.first("negotiation_error", type="answer", code="timeout")
        await one.close()


async def test_attempt_with_a_channel_has_no_deadline(autojump_clock: MockClock) -> None:
    lost = list[Attempt]()
    one = attempt(lost, LogRecorder())
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run_tasks)
        one.connected = True
        one.trace.reach("channel", 1.0)
        await trio.sleep(5)
        assert lost == []
        await one.close()
