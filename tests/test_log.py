"""The log: format, order of keys, bounds, and readers that stall or close."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sdpx.events import Error, Event, LogDropped, peer, serve, webrtc
from sdpx.log import LibraryHandler, Log, _simple_form, timestamp
from sdpx.log_sink import QUEUE_BYTES, Kept, ThreadSink
from sdpx.options import Format, Level
from sdpx.runtime import reader_is_gone
from tests.harness.log import LogRecorder
from tests.harness.processes import wait_until

NOON = 1_800_000_000.25
GUARD_SECONDS = 60.0  # for threads, on a busy machine


def make_log(*, level: Level = "debug", form: Format = "json", started: float | None = None) -> tuple[Log, LogRecorder]:
    sink = LogRecorder()
    return Log(sink.put, lambda: NOON, level=level, form=form, started=started), sink


def ignore(*_: object) -> None:
    pass


def make_logger(log: Log, name: str) -> logging.Logger:
    """Return a logger of a library that writes to this log only."""
    logger = logging.Logger(name)  # noqa: LOG001  not the process's own
    logger.addHandler(LibraryHandler(log))
    return logger


def test_line_has_the_common_keys_before_the_events_own() -> None:
    log, sink = make_log()
    log.emit(serve.Paired("a", "b"))
    [line] = sink.lines
    assert line == (
        b'{"ts":"2027-01-15T08:00:00.250000Z","level":"info","event":"paired",'
        b'"message":"Pairing successful: a <-> b","client_id":"a","peer_id":"b"}\n'
    )


def test_line_of_a_peer_ends_with_the_milliseconds_since_its_start() -> None:
    log, sink = make_log(started=NOON - 1.5)
    log.emit(webrtc.Closing())
    log.emit(webrtc.OfferSent(7))
    assert [list(line)[4:] for line in sink.records] == [["ms"], ["bytes", "ms"]]
    assert sink.records[0]["ms"] == 1500


def test_events_below_the_threshold_are_not_logged() -> None:
    log, sink = make_log(level="warning")
    log.emit(serve.Paired("a", "b"))
    log.emit(serve.MessageRefused("a", "bad_json"))
    log.emit(Error("x", "y"))
    assert [line["level"] for line in sink.records] == ["warning", "error"]


def test_dropped_lines_are_counted_and_reported_once() -> None:
    log, sink = make_log()
    sink.room = 1
    for _ in range(4):
        log.emit(webrtc.Closing())
    sink.room = 1000
    log.emit(webrtc.Closed())
    log.emit(webrtc.Closed())
    assert [line["event"] for line in sink.records] == ["closing", "log_dropped", "closed", "closed"]
    assert sink.records[1]["count"] == 3
    assert log.total_dropped == 3


UNSAFE = "\x00\x1b[2J\x7f\x9b\n\u061c\u200e\u2028\u2029\u202e\u2066\u2069"


@pytest.mark.parametrize("form", ["json", "text"])
def test_line_has_no_character_that_controls_a_terminal(form: Format) -> None:
    """C0 and C1 controls, DEL, line separators and bidirectional controls are escaped; in JSON the value is as received."""
    log, sink = make_log(form=form)
    log.emit(peer.ChannelMessage(text=f"Grüße 👋{UNSAFE}"))
    [line] = sink.lines
    text = line.decode()
    assert not set(UNSAFE) - set("[2J") & set(text.removesuffix("\n"))
    assert "Grüße 👋" in text
    if form == "json":
        assert sink.records[0]["text"] == f"Grüße 👋{UNSAFE}"
    else:
        assert text.startswith("08:00:00.250 info    channel_message")


def test_decoded_message_has_no_character_that_controls_a_terminal() -> None:
    """`jq -r .message` writes no terminal sequence of a foreign ID; the key has the ID as received."""
    log, sink = make_log()
    log.emit(peer.PairRequested(f"bob{UNSAFE}"))
    [line] = sink.records
    assert not set(UNSAFE) - set("[2J") & set(line["message"])
    assert line["target_id"] == f"bob{UNSAFE}"


def test_forwarded_line_has_who_behind_the_common_keys() -> None:
    log, sink = make_log()
    log.forward({"ts": "t", "level": "info", "event": "e", "message": "m", "id": "x"}, "bob")
    assert sink.lines == [b'{"ts":"t","level":"info","event":"e","message":"m","who":"bob","id":"x"}\n']


@pytest.mark.parametrize(
    ("theirs", "ours"), [("info", "debug"), ("warning", "warning"), ("error", "error"), ("debug", None)]
)
def test_library_record_is_logged_as_an_event(theirs: str, ours: str | None) -> None:
    """INFO becomes debug; DEBUG, where aiortc writes whole SDP bodies, is disabled."""
    log, sink = make_log()
    logger = make_logger(log, "aiortc.rtc")
    getattr(logger, theirs)("said %s", "so")
    assert [(line["event"], line["level"], line["message"], line["logger"]) for line in sink.records] == (
        [("library", ours, "said so", "aiortc.rtc")] if ours else []
    )


def test_library_exception_is_one_line_without_a_traceback() -> None:
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


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = ThreadSink(writer, ignore)
    for number in range(200):
        assert sink.put([b"%d\n" % number])
    assert sink.close(GUARD_SECONDS)
    assert os.read(reader, 10_000) == b"".join(b"%d\n" % number for number in range(200))


def test_stalled_reader_does_not_delay_the_exit(pipe: tuple[int, int]) -> None:
    """`put` returns 0 instead of blocking; `close` returns after its timeout."""
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, lambda *_: gone.set(), max_lines=10)
    taken = sum(sink.put([b"x" * 10_000]) for _ in range(200))
    assert 10 <= taken < 200
    assert not sink.close(0.05)
    os.close(reader)  # frees the thread before the descriptor can become another test's
    assert gone.wait(GUARD_SECONDS)
    assert sink.close(GUARD_SECONDS)


def test_lines_are_queued_as_long_as_there_is_room(pipe: tuple[int, int]) -> None:
    """Lines that are written make room."""
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, lambda *_: gone.set(), max_lines=5)
    sink.put([b"x" * 100_000])  # more than the pipe takes: the thread waits in it
    wait_until(lambda: not sink._lines, "the thread has taken the line")
    assert [sink.put([b"y\n"] * 3), sink.put([b"y\n"] * 3), sink.put([b"y\n"])] == [3, 2, 0]
    os.close(reader)  # frees the thread before the descriptor can become another test's
    assert gone.wait(GUARD_SECONDS)
    assert sink.close(GUARD_SECONDS)


def test_long_lines_are_bounded_in_bytes(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, lambda *_: gone.set())
    megabyte = b"x" * (1 << 20)
    lines = [megabyte] * 2 * (QUEUE_BYTES >> 20)
    taken = sink.put(lines) + sink.put(lines)
    assert QUEUE_BYTES <= taken << 20 <= QUEUE_BYTES + (2 << 20)
    assert sink.put([b"a short one\n"]) == 0  # until there is room again: one event has the sum
    received = 0
    while received < taken << 20:
        received += len(os.read(reader, 1 << 20))
    assert sink.put([megabyte]) == 1
    os.close(reader)
    assert gone.wait(GUARD_SECONDS)
    assert sink.close(GUARD_SECONDS)


def test_messages_are_queued_beyond_the_bounds_and_reported_when_written(pipe: tuple[int, int]) -> None:
    """Queued messages take no room from other lines."""
    reader, writer = pipe
    written: list[int] = []
    sink = ThreadSink(writer, ignore, max_lines=5, on_written=written.append)
    message = Kept(b"x" * 100_000 + b"\n")
    assert [sink.put([message]) for _ in range(100)] == [1] * 100
    assert [sink.put([b"y\n"]) for _ in range(6)] == [1, 1, 1, 1, 1, 0]
    assert written == []
    received = 0
    while received < 100 * len(message) + 10:
        received += len(os.read(reader, 1 << 20))
    assert sink.close(GUARD_SECONDS)
    assert sum(written) == 100


def test_a_stalled_reader_costs_one_event(pipe: tuple[int, int]) -> None:
    """Short lines and long ones are summed up, also if the program ends then."""
    reader, writer = pipe
    sink = ThreadSink(writer, ignore)
    log = Log(sink.put, lambda: 1.0)
    long = webrtc.OfferCreated(0, "x" * 100_000)
    log.emit(long)
    wait_until(lambda: not sink._lines, "the thread has taken the line, and waits in its write")
    for _ in range(200):
        log.emit(long)
        log.emit(webrtc.Closing())
    dropped = log.total_dropped
    assert dropped > 200
    log.end()
    received = b""
    while not received.endswith(b'"count":%d}\n' % dropped):
        received += os.read(reader, 1 << 20)
    assert received.count(b'"log_dropped"') == 1
    assert sink.close(GUARD_SECONDS)


def test_message_is_delivered_in_order_and_below_the_threshold_at_once() -> None:
    log, sink = make_log()
    done: list[str] = []
    for text in "ab":
        log.deliver(peer.ChannelMessage(text=text), partial(done.append, text))
    assert (log.undelivered, done) == (2, [])
    log.note_written(1)
    assert (log.undelivered, done) == (1, ["a"])
    quiet, sink = make_log(level="warning")
    quiet.deliver(peer.ChannelMessage(text="c"), partial(done.append, "c"))
    assert (sink.lines, done) == ([], ["a", "c"])


def test_message_is_logged_while_other_lines_are_dropped() -> None:
    log, sink = make_log()
    sink.room = 0
    log.emit(webrtc.Closing())
    log.deliver(peer.ChannelMessage(text="a"), ignore)
    assert sink.events == ["channel_message"]
    assert log.total_dropped == 1


def test_lines_of_several_threads_are_all_written(pipe: tuple[int, int]) -> None:
    """The lines of each thread keep their order."""
    reader, writer = pipe
    sink = ThreadSink(writer, ignore)

    def write(thread: int) -> None:
        for number in range(2000):
            assert sink.put([b"%d %d\n" % (thread, number)]) == 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    received = b""
    while received.count(b"\n") < 8000:
        received += os.read(reader, 65_536)
    assert sink.close(GUARD_SECONDS)
    lines = [tuple(map(int, line.split())) for line in received.splitlines()]
    assert sorted(lines, key=lambda line: line[0]) == [
        (thread, number) for thread in range(4) for number in range(2000)
    ]


def test_lines_of_a_batch_have_one_timestamp_and_are_queued_at_its_end() -> None:
    """A line of another thread does not join the batch."""
    sink, seconds = LogRecorder(), count(1)
    log = Log(sink.put, lambda: float(next(seconds)))
    log.begin_batch()
    log.emit(serve.ClientConnected("a", "x:1"))
    log.emit(serve.RelayRefused("offer", "a", None, "not_paired"))
    log.emit(serve.Relayed("offer", "b", "a", 9))
    assert sink.lines == []
    log.emit_from_thread(LogDropped(1))
    log.end_batch()
    log.emit(serve.ClientConnected("c", "x:3"))
    lines = sink.records
    assert [line.get("client_id") for line in lines] == [None, "a", "a", "b", "c"]
    assert [line["ts"][17:19] for line in lines[1:4]] == ["01", "01", "01"]
    assert lines[4]["ts"] > lines[3]["ts"]


def test_dropped_lines_of_a_batch_are_counted() -> None:
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


def test_closed_pipe_is_reported_once(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    gone = threading.Event()
    sink = ThreadSink(writer, lambda *_: gone.set())
    assert not reader_is_gone(writer)
    os.close(reader)
    assert reader_is_gone(writer)
    sink.put([b"a line without a reader\n"])
    assert gone.wait(GUARD_SECONDS)
    assert sink.close(GUARD_SECONDS)


def test_non_blocking_pipe_gets_every_line(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    sink = ThreadSink(writer, ignore)
    for _ in range(100):
        sink.put([b"x" * 4095 + b"\n"])
    received = b""
    while len(received) < 409_600:
        received += os.read(reader, 65_536)
    assert sink.close(GUARD_SECONDS)
    assert received == (b"x" * 4095 + b"\n") * 100


def test_failed_writes_are_reported_and_a_cut_line_is_completed(tmp_path: Path) -> None:
    """At a file size limit; once there is room again, the lines that follow are written, and the loss is reported."""
    path = tmp_path / "log"
    program = f"""
import os, resource, time
from sdpx.log_sink import ThreadSink
failures, recoveries = [], []
fd = os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT)
sink = ThreadSink(fd, lambda error, lines: failures.append((error.strerror, lines)), on_recovery=recoveries.append)
resource.setrlimit(resource.RLIMIT_FSIZE, (6, -1))
sink.put([b"one\\n", b"two\\n", b"three\\n"])
while not failures: time.sleep(0.001)
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
sink.put([b"four\\n"])
print(sink.close(), failures, recoveries)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=GUARD_SECONDS
    )
    assert done.stdout == "True [('File too large', 1)] [1]\n"
    assert path.read_bytes() == b"one\ntwo\nfour\n"


@given(st.integers(0, 1 << 40), st.sampled_from(["offer", "answer", "candidate"]))
def test_rendered_event_equals_the_encoded_event(size: int, kind: str) -> None:
    """The line of `relayed` is the same with `emit_rendered` and `emit`, within a batch and outside."""
    sink = LogRecorder()
    log = Log(sink.put, lambda: 1.0)
    line = f"{log.head_of(serve.Relayed)}{serve.Relayed.rendered(kind, 'a', 'b-2._')}"
    log.emit(serve.Relayed(kind, "a", "b-2._", size))
    log.emit_rendered(line, size)
    log.begin_batch()
    log.emit_rendered(line, size)
    log.end_batch()
    assert len(sink.lines) == 3
    assert len(set(sink.lines)) == 1


SIMPLE = [kind for module in (serve, webrtc) for kind in vars(module).values() if isinstance(kind, type)]
SIMPLE = [kind for kind in SIMPLE if issubclass(kind, Event) and _simple_form(kind)[0]]


@given(
    st.sampled_from(SIMPLE),
    st.lists(st.text() | st.text("aä\\\"%{}'\x7f\n"), min_size=9),
    st.floats(0, 1e9).map(lambda ms: round(ms, 3)) | st.sampled_from([nan, inf, -inf]),
    st.sampled_from([None, 0.5]),
)
def test_event_of_strings_and_numbers_equals_the_encoded_event(
    kind: type[Event], texts: list[str], number: float, started: float | None
) -> None:
    """The line is the same whether one operator renders it or the encoder, also with values that have to be escaped."""
    log, sink = make_log(started=started)
    fields = zip(structs.fields(kind), texts, strict=False)
    event = kind(*({str: text, int: len(text), float: number}[field.type] for field, text in fields))
    log.emit(event)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdpx.log._simple_text", lambda _: "")
        log.emit(event)
    assert len(set(sink.lines)) == 1


def test_events_of_every_session_are_rendered_by_one_operator() -> None:
    events = {serve.ClientConnected, serve.PairRequested, serve.Paired, serve.Unpaired, serve.ClientDisconnected}
    assert events <= set(SIMPLE)


@pytest.mark.parametrize("options", [{"form": "text"}, {"level": "warning"}, {"started": 0.0}])
def test_other_lines_are_not_rendered(options: dict[str, Any]) -> None:
    """Lines of a log for people or with `ms`, and lines that are not shown, are not rendered in advance."""
    assert not Log(LogRecorder().put, lambda: 1.0, **options).head_of(serve.Relayed)
