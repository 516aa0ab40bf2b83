"""`--stdin json`: which lines are commands, and in which order they are executed."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from sdpx.log import Log
from sdpx.peer.command_runner import CommandRunner
from sdpx.peer.commands import (
    MAX_COMMAND,
    MAX_MESSAGE,
    Close,
    InputRejected,
    Pair,
    SendFile,
    Unpair,
    parse_command,
)
from sdpx.peer.input import QUEUE_BOUND, QUEUE_BYTES, MessageQueue
from sdpx.peer.negotiation.confirmation import Message
from sdpx.peer.options import PeerOptions
from sdpx.peer.session import Session
from tests.harness.log import LogRecorder
from tests.harness.peer import TypedLines


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ('{"send": "grüß dich"}', Message("grüß dich")),
        ('{"send": ""}', Message("")),
        ('{"send": "a", "channel": "robot"}', Message("a", "robot")),
        ('{"channel": "robot", "send_base64": "AA=="}', Message(b"\0", "robot")),
        ('{"send_base64": "AP8="}', Message(b"\x00\xff")),
        ('{"send_base64": ""}', Message(b"")),
        ('{"pair": "robot-1"}', Pair("robot-1")),
        (' { "unpair" : true } ', Unpair()),
        ('{"send_file": "/a b"}', SendFile("/a b")),
        ('{"close": true}', Close()),
    ],
)
def test_command_is_parsed(line: str, command: object) -> None:
    """An object with one key."""
    assert parse_command(line) == command


@pytest.mark.parametrize(
    ("line", "code"),
    [
        *[(line, "bad_json") for line in ("", "hello", "{", '{"send": "x"} {}', "NaN", "[" * 100_000)],
        *[(line, "bad_command") for line in ("{}", "[]", "null", '"send"', '{"sned": "x"}', '{"send": 1}')],
        *[
            (line, "bad_command")
            for line in (
                '{"send": null}',
                '{"unpair": false}',
                '{"send_file": ""}',
                '{"send_file": "a\\u0000"}',
                '{"close": 1}',
                '{"pair": 7}',
            )
        ],
        *[(line, "bad_command") for line in ('{"send": "x", "pair": "y"}', '{"send": "x", "id": 1}')],
        *[
            (line, "duplicate_key")
            for line in (
                '{"send": "a", "send": "b"}',
                '{"send": "a", "channel": "b", "channel": null}',
                '{"unpair": true, "unpair": true}',
                '{"x": 1, "\\u0078": ' + "9" * 30 + "}",
                '{"send": "a", "' + "k" * 500 + '": 1, "' + "k" * 500 + '": 1}',
            )
        ],
        *[(f'{{"send_base64": "{text}"}}', "bad_base64") for text in ("A", "AAA", "é", "A A=", "_-8=")],
        *[(f'{{"pair": "{text}"}}', "bad_id") for text in ("", "a b", "x" * 65)],
        (json.dumps({"send": "x" * (MAX_MESSAGE + 1)}), "too_long"),
        (json.dumps({"send": "é" * (MAX_MESSAGE // 2 + 1)}), "too_long"),
        (json.dumps({"send_base64": base64.b64encode(bytes(MAX_MESSAGE + 1)).decode()}), "too_long"),
    ],
)
def test_invalid_command_is_rejected_with_its_code(line: str, code: str) -> None:
    """The reason stays short however long the line is."""
    with pytest.raises(InputRejected) as caught:
        parse_command(line)
    assert caught.value.code == code
    assert len(caught.value.reason) < 300


def test_key_with_null_is_absent() -> None:
    """Some serializers write null for keys that are not set."""
    assert parse_command('{"send":"x","pair":null,"close":null}') == Message("x")


@pytest.mark.parametrize(
    ("line", "forms"),
    [
        ('{"sned":"x"}', ['{"send": TEXT}']),
        ('{"send":7}', ['{"send": TEXT}']),
        ('{"zzz":7}', ['{"send": TEXT}', '{"pair": ID}', '{"close": true}']),
    ],
)
def test_rejected_command_names_the_nearest_form(line: str, forms: list[str]) -> None:
    with pytest.raises(InputRejected) as caught:
        parse_command(line)
    assert caught.value.code == "bad_command"
    assert all(form in caught.value.reason for form in forms)


@given(st.binary(max_size=50), st.text(st.characters(codec="utf-8"), max_size=50))
def test_message_is_sent_as_written(data: bytes, text: str) -> None:
    """Any bytes and any text, in every JSON spelling; the longest message fits into a line."""
    assert parse_command(json.dumps({"send_base64": base64.b64encode(data).decode()})) == Message(data)
    assert parse_command(json.dumps({"send": text})) == Message(text)
    assert len(json.dumps({"send": "\0" * MAX_MESSAGE})) <= MAX_COMMAND


@given(st.text() | st.text('{}[]":,truesendpaicolo 01').map('{"send":'.__add__))
def test_any_line_is_a_command_or_rejected(line: str) -> None:
    """No line raises another exception."""
    try:
        assert isinstance(parse_command(line), Message | Pair | Unpair | Close)
    except InputRejected:
        return


# ---- executed one by one ------------------------------------------------------------------------------------------


class Peer(Session):
    """A session that notes the commands, with a channel that takes each message while it is open."""

    has_peer = True
    has_addressee = True
    channel_is_open = awaits_channel = False
    lines: TypedLines

    def __init__(self, queue: MessageQueue) -> None:
        self.done: list[object] = []
        self.queue = self._source = queue
        self._pairing = None
        self._options = PeerOptions("ws://relay.test")

    async def pair(self, target: str) -> None:
        self.done.append(("pair", target))

    async def unpair(self) -> None:
        self.done.append("unpair")

    async def quit(self, cause: str = "") -> None:
        self.done.append("close")

    async def take_from(self, queue: MessageQueue) -> None:
        while (item := await queue.next()) is not None:
            self.done.append(item.data)
            await trio.sleep(0.01)
        self.done.append("end")


async def nothing() -> None:
    """Expect nothing."""


Type = Callable[..., Awaitable[None]]


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Peer, MessageQueue, Type, LogRecorder]]:
    """Run commands; `type` types some and waits until none is left that can be executed."""
    log = LogRecorder()
    lines = TypedLines(Log(log.put, trio.current_time))
    queue = MessageQueue(nothing, lines.reject)
    peer = Peer(queue)

    async def type_commands(*commands: dict[str, object], end: bool = False) -> None:
        lines.type(*map(json.dumps, commands))
        if end:
            lines.end()
        await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(CommandRunner(lines, queue, peer).run)
        peer.lines = lines
        yield peer, queue, type_commands, log
        nursery.cancel_scope.cancel()


async def test_messages_wait_for_a_channel_in_their_order(autojump_clock: trio.testing.MockClock) -> None:
    """Messages queued before the channel is open are sent once it is."""
    async with running() as (peer, queue, type_commands, _), trio.open_nursery() as nursery:
        await type_commands({"send": "a"}, {"send_base64": "AA=="}, {"send": "b"}, end=True)
        peer.channel_is_open = True
        nursery.start_soon(peer.take_from, queue)
        await trio.sleep(1)
        assert peer.done == ["a", b"\0", "b", "end"]


async def test_empty_line_is_passed_over() -> None:
    async with running() as (peer, queue, _, log):
        peer.lines.type("", '{"send": "a"}', " \r", '{"pair": "bob"}')
        await wait_all_tasks_blocked()
        assert peer.done == [("pair", "bob")]
        assert await queue.next() == Message("a")
        assert not log.records


async def test_unpair_and_close_follow_the_messages_before_them(autojump_clock: trio.testing.MockClock) -> None:
    """Commands are executed in their order."""
    async with running() as (peer, queue, type_commands, _), trio.open_nursery() as nursery:
        peer.channel_is_open = True
        nursery.start_soon(peer.take_from, queue)
        await type_commands({"send": "a"}, {"send": "b"}, {"unpair": True}, {"send": "c"}, {"close": True})
        await trio.sleep(5)
        assert peer.done == ["a", "b", "unpair", "c", "close"]
        nursery.cancel_scope.cancel()


async def test_close_without_a_channel_drops_and_reports_queued_messages() -> None:
    """The command does not wait for a channel that may never open."""
    async with running() as (peer, _, type_commands, log):
        await type_commands({"send": "a"}, {"send": "b"}, {"close": True})
        assert peer.done == ["close"]
        assert [line["code"] for line in log.of("input_rejected")] == ["not_sent"]
        assert log.records[0]["message"].endswith("2")


async def test_close_does_not_wait_long_for_a_stuck_channel(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The command is executed when the channel has taken no message for `--timeout`."""
    async with running() as (peer, _, type_commands, log):
        peer.channel_is_open = True
        await type_commands({"send": "a"}, {"close": True})
        assert peer.done == []
        await trio.sleep(PeerOptions("ws://relay.test").timeout + 1)
        assert peer.done == ["close"]
        assert log.of("input_rejected")


async def test_unpair_without_a_peer_is_rejected_and_drops_nothing() -> None:
    """Queued messages still wait for the next channel."""
    async with running() as (peer, queue, type_commands, log):
        peer.has_peer = False
        await type_commands({"send": "a"}, {"unpair": True}, {"pair": "bob"})
        assert peer.done == [("pair", "bob")]
        assert [line["code"] for line in log.of("input_rejected")] == ["not_paired"]
        assert await queue.next() == Message("a")


async def test_message_after_a_pairing_is_not_kept_for_the_next_peer() -> None:
    """Such a message is rejected; messages during the next pairing are sent."""
    async with running() as (peer, queue, type_commands, log):
        peer.has_peer = peer.has_addressee = False
        await type_commands({"send": "for alice"}, {"send_base64": "AA=="})
        assert [line["code"] for line in log.of("input_rejected")] == ["not_paired", "not_paired"]
        peer.has_addressee = True
        await type_commands({"send": "for bob"})
        assert await queue.next() == Message("for bob")
        queue.mark_idle()
        assert not queue.unsent


async def test_queue_is_bounded() -> None:
    """With no channel open one message too many is rejected; with a slow channel the input waits."""
    async with running() as (peer, queue, type_commands, log):
        await type_commands(*[{"send": str(n)} for n in range(QUEUE_BOUND + 1)])
        assert [line["code"] for line in log.of("input_rejected")] == ["not_open"]
        peer.awaits_channel = True
        await type_commands({"send": "late"}, {"pair": "bob"})
        assert peer.done == []
        assert await queue.next() == Message("0")
        await wait_all_tasks_blocked()
        assert peer.done == [("pair", "bob")]
        assert len(log.of("input_rejected")) == 1


async def test_queue_is_bounded_in_bytes() -> None:
    """The input waits then: large messages do not fill the memory."""
    async with running() as (peer, queue, type_commands, log):
        peer.awaits_channel = True
        large = "x" * MAX_MESSAGE
        await type_commands(*[{"send": large} for _ in range(100)])
        assert len(queue) == QUEUE_BYTES // MAX_MESSAGE
        assert await queue.next() == Message(large)
        await wait_all_tasks_blocked()
        assert len(queue) == QUEUE_BYTES // MAX_MESSAGE
        assert not log.records


async def test_messages_that_are_left_at_the_end_are_reported() -> None:
    """They wait in the queue, in the command that is being executed, and in lines behind it; other commands do not count."""
    async with running() as (peer, queue, type_commands, log), trio.open_nursery() as nursery:
        peer.awaits_channel = True
        await type_commands(*[{"send": "x"} for _ in range(QUEUE_BOUND + 3)], {"unpair": True}, {"close": True})
        nursery.cancel_scope.cancel()
    assert queue.unsent == QUEUE_BOUND
    [rejected] = log.of("input_rejected")
    assert (rejected["code"], rejected["message"][-3:]) == ("not_sent", ": 3")


async def test_message_put_back_is_sent_first() -> None:
    """A channel that closes during a send loses no message."""
    queue = MessageQueue(nothing, lambda *_: None)
    queue.put(Message("a"))
    queue.put(Message("b"))
    item = await queue.next()
    assert item == Message("a")
    assert queue.unsent
    queue.unread(item)
    assert [await queue.next(), await queue.next()] == [Message("a"), Message("b")]
    assert queue.unsent  # on its way
    queue.mark_idle()
    assert not queue.unsent
