"""The log: form, order of keys, bounds, and readers that stall or go."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest

from sdpx.events import Error, Level, LogDropped, peer, serve
from sdpx.log import QUEUE_BYTES, Format, LibraryHandler, Log, ThreadSink, reader_is_gone, timestamp
from tests.harness.log import LogRecorder

NOON = 1_800_000_000.25


def make_log(*, level: Level = "debug", form: Format = "json", started: float | None = None) -> tuple[Log, LogRecorder]:
    sink = LogRecorder()
    return Log(sink.put, lambda: NOON, level=level, form=form, started=started), sink


def make_logger(log: Log, name: str) -> logging.Logger:
    """Return a logger as a library has one, that only this log hears."""
    logger = logging.Logger(name)  # noqa: LOG001  not the process's own
    logger.addHandler(LibraryHandler(log))
    return logger


def test_a_line_has_the_common_keys_then_the_events_own() -> None:
    log, sink = make_log()
    log.emit(serve.Paired("a", "b"))
    [line] = sink.lines
    assert line == (
        b'{"ts":"2027-01-15T08:00:00.250000Z","level":"info","event":"paired",'
        b'"message":"Pairing successful: a <-> b","client_id":"a","peer_id":"b"}\n'
    )


def test_a_peers_line_ends_with_the_milliseconds_since_its_start() -> None:
    log, sink = make_log(started=NOON - 1.5)
    log.emit(peer.Closing())
    log.emit(peer.OfferSent(7))
    assert [list(line)[4:] for line in sink.records] == [["ms"], ["bytes", "ms"]]
    assert sink.records[0]["ms"] == 1500


def test_levels_below_the_threshold_are_left_out() -> None:
    log, sink = make_log(level="warning")
    log.emit(serve.Paired("a", "b"))
    log.emit(serve.MessageRefused("a", "bad_json"))
    log.emit(Error("x", "y"))
    assert [line["level"] for line in sink.records] == ["warning", "error"]


def test_lines_that_find_no_room_are_counted_and_told_once() -> None:
    log, sink = make_log()
    sink.room = 1
    for _ in range(4):
        log.emit(peer.Closing())
    sink.room = 1000
    log.emit(peer.Closed())
    log.emit(peer.Closed())
    assert [line["event"] for line in sink.records] == ["closing", "log_dropped", "closed", "closed"]
    assert sink.records[1]["count"] == 3
    assert log.total_dropped == 3


def test_text_is_for_a_person_and_holds_no_control_characters() -> None:
    """What a stranger sends cannot steer the terminal that shows it."""
    log, sink = make_log(form="text")
    log.emit(peer.ChannelMessage(text="\x1b[2J\x9b\n"))
    [line] = sink.lines
    assert line.startswith(b"08:00:00.250 info    channel_message")
    assert b"\x1b" not in line
    assert line.count(b"\n") == 1
    assert "\x9b" not in line.decode()


def test_another_programs_line_gets_who_behind_the_common_keys() -> None:
    log, sink = make_log()
    log.forward({"ts": "t", "level": "info", "event": "e", "message": "m", "id": "x"}, "bob")
    assert sink.lines == [b'{"ts":"t","level":"info","event":"e","message":"m","who":"bob","id":"x"}\n']


@pytest.mark.parametrize(
    ("theirs", "ours"), [("info", "debug"), ("warning", "warning"), ("error", "error"), ("debug", None)]
)
def test_what_a_library_says_comes_in_the_same_form(theirs: str, ours: str | None) -> None:
    """Its info is our debug, and its debug, where aiortc writes whole SDP bodies, stays out."""
    log, sink = make_log()
    logger = make_logger(log, "aiortc.rtc")
    getattr(logger, theirs)("said %s", "so")
    assert [(line["event"], line["level"], line["message"], line["logger"]) for line in sink.records] == (
        [("library", ours, "said so", "aiortc.rtc")] if ours else []
    )


def test_a_librarys_exception_is_one_line_without_a_traceback() -> None:
    log, sink = make_log()
    logger = make_logger(log, "trio")
    try:
        raise OSError("no more files")
    except OSError:
        logger.exception("accept failed")
    assert sink.records[0]["message"] == "accept failed (OSError: no more files)"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (1.9999999, "1970-01-01T00:00:02.000000Z"),
        (1795440136.000001, "2026-11-23T13:22:16.000001Z"),
        (1795440136.5, "2026-11-23T13:22:16.500000Z"),
    ],
)
def test_timestamps_are_rounded_to_microseconds(seconds: float, shown: str) -> None:
    assert timestamp(seconds) == shown


def test_timestamps_have_microseconds_and_a_z() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with suppress(OSError):
            os.close(fd)


def test_lines_leave_through_the_thread_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = ThreadSink(writer, lambda: None)
    for number in range(200):
        assert sink.put([b"%d\n" % number])
    sink.close()
    assert os.read(reader, 10_000) == b"".join(b"%d\n" % number for number in range(200))


def test_a_stalled_reader_fills_the_queue_and_does_not_hold_up_the_end(pipe: tuple[int, int]) -> None:
    """`put` never blocks, it says that there is no room; `close` gives up in time."""
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, gone.set, max_lines=10)
    taken = sum(sink.put([b"x" * 10_000]) for _ in range(200))
    assert 10 <= taken < 200
    sink.close(0.05)
    os.close(reader)  # frees the thread before the descriptor can become another test's
    assert gone.wait(5)


def test_of_many_lines_as_many_are_taken_as_there_is_room_for(pipe: tuple[int, int]) -> None:
    """By their number, and the long ones by their bytes, too; what is written makes room again."""
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, gone.set, max_lines=5)
    sink.put([b"x" * 100_000])  # more than the pipe takes: the thread waits in it
    while sink._lines:
        time.sleep(0.001)
    assert [sink.put([b"y\n"] * 3), sink.put([b"y\n"] * 3), sink.put([b"y\n"])] == [3, 2, 0]
    os.close(reader)  # frees the thread before the descriptor can become another test's
    assert gone.wait(5)


def test_long_lines_are_bounded_in_bytes(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, gone.set)
    megabyte = b"x" * (1 << 20)
    lines = [megabyte] * 2 * (QUEUE_BYTES >> 20)
    taken = sink.put(lines) + sink.put(lines)
    assert QUEUE_BYTES <= taken << 20 <= QUEUE_BYTES + (2 << 20)
    assert sink.put([b"a short one\n"]) == 1
    received = 0
    while received < (taken << 20) + len("a short one\n"):
        received += len(os.read(reader, 1 << 20))
    assert sink.put([megabyte]) == 1
    os.close(reader)
    assert gone.wait(5)


def test_no_line_is_lost_between_threads(pipe: tuple[int, int]) -> None:
    """Each of several threads finds its lines in their order, and all of them."""
    reader, writer = pipe
    sink = ThreadSink(writer, lambda: None)

    def write(who: int) -> None:
        for number in range(2000):
            assert sink.put([b"%d %d\n" % (who, number)]) == 1

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    received = b""
    while received.count(b"\n") < 8000:
        received += os.read(reader, 65_536)
    sink.close()
    lines = [tuple(map(int, line.split())) for line in received.splitlines()]
    assert sorted(lines, key=lambda line: line[0]) == [(who, number) for who in range(4) for number in range(2000)]


def test_a_batch_bears_one_moment_and_leaves_at_its_end() -> None:
    """In its order; what another thread has to say in the meantime goes with no batch."""
    sink, seconds = LogRecorder(), count(1)
    log = Log(sink.put, lambda: float(next(seconds)))
    log.begin_batch()
    log.emit(serve.ClientConnected("a", "x:1"))
    log.emit(serve.RelayRefused("offer", "a", None, "not_paired"))
    log.emit(serve.ClientConnected("b", "x:2"))
    assert sink.lines == []
    log.emit_from_thread(LogDropped(1))
    log.end_batch()
    log.emit(serve.ClientConnected("c", "x:3"))
    lines = sink.records
    assert [line.get("client_id") for line in lines] == [None, "a", "a", "b", "c"]
    assert [line["ts"][17:19] for line in lines[1:4]] == ["01", "01", "01"]
    assert lines[4]["ts"] > lines[3]["ts"]


def test_lines_of_a_batch_that_find_no_room_are_counted() -> None:
    sink = LogRecorder()
    sink.room = 2
    log = Log(sink.put, lambda: 1.0)
    log.begin_batch()
    for number in range(5):
        log.emit(serve.ClientConnected(str(number), "x:1"))
    log.end_batch()
    sink.room = 10
    log.emit(serve.ClientConnected("last", "x:1"))
    assert [line.get("client_id", line.get("count")) for line in sink.records] == ["0", "1", 3, "last"]
    assert log.total_dropped == 3


def test_a_reader_that_has_gone_is_reported_once(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, gone.set)
    assert not reader_is_gone(writer)
    os.close(reader)
    assert reader_is_gone(writer)
    sink.put([b"nobody reads this\n"])
    assert gone.wait(5)
    sink.close()


def test_a_pipe_that_somebody_made_non_blocking_still_gets_every_line(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    sink = ThreadSink(writer, lambda: None)
    for _ in range(100):
        sink.put([b"x" * 4095 + b"\n"])
    received = b""
    while len(received) < 409_600:
        received += os.read(reader, 65_536)
    sink.close()
    assert received == (b"x" * 4095 + b"\n") * 100
