"""A stream between two sdpx programs: in order, once, bounded, over connections that are cut anywhere."""

import tracemalloc
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdpx.peer.transfer.frames import Abort, Data, Grant, Hello, Violation, decode, encode, encode_data
from sdpx.peer.transfer.stream import GRANT_STEP, MAX_UNCONFIRMED, WINDOW, Aborted, Replaced, Stream


class Pair:
    """Two streams and the two directions of a connection between them."""

    def __init__(self) -> None:
        self.sides = [Stream("a", "pipe"), Stream("b", "pipe")]
        self.wires: list[deque[bytes]] = [deque(), deque()]  # to a, to b
        self.arrived: list[list[bytes]] = [[], []]
        self.connect()

    def connect(self) -> None:
        for side, stream in enumerate(self.sides):
            self.wires[1 - side] = deque([stream.connect()])

    def cut(self) -> None:
        for side, stream in enumerate(self.sides):
            stream.disconnect()
            self.wires[side].clear()
        self.connect()

    def step(self, side: int) -> bool:
        """Let a side send one frame and take one; returns whether anything happened."""
        stream = self.sides[side]
        frame = stream.grant() if stream.grant_pending else stream.next_frame()
        if frame is not None:
            self.wires[1 - side].append(frame)
        if self.wires[side]:
            stream.receive(self.wires[side].popleft())
            return True
        return frame is not None

    def read(self, side: int) -> None:
        while self.sides[side].inbox:
            payload = self.sides[side].pop()
            self.arrived[side].append(bytes(payload))
            self.sides[side].take(payload)

    def settle(self) -> None:
        busy = True
        while busy:
            busy = False
            for side in (0, 1):
                busy |= self.step(side)
                self.read(side)


def connected() -> Pair:
    pair = Pair()
    pair.settle()
    return pair


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 1), st.integers(0, 200_000)),
            st.tuples(st.sampled_from(["step", "read"]), st.integers(0, 1), st.just(0)),
            st.tuples(st.just("cut"), st.just(0), st.just(0)),
        ),
        max_size=200,
    )
)
@settings(deadline=None)
def test_every_message_arrives_once_and_in_order_whatever_is_cut(actions: list[tuple[str, int, int]]) -> None:
    pair, sent = connected(), [list[bytes](), list[bytes]()]
    for number, (action, side, size) in enumerate(actions):
        if action == "send" and pair.sides[side].has_room(size):
            sent[side].append(number.to_bytes(4, "big") + bytes(size))
            if pair.sides[side].has_room(size + 4):
                pair.sides[side].add(sent[side][-1])
            else:
                sent[side].pop()
        elif action == "step":
            pair.step(side)
        elif action == "read":
            pair.read(side)
        elif action == "cut":
            pair.cut()
    pair.settle()
    assert pair.arrived == [sent[1], sent[0]]
    assert [each.unconfirmed for each in pair.sides] == [0, 0]


def test_reader_that_stops_stops_the_sender_at_the_window() -> None:
    pair = connected()
    sender, reader = pair.sides
    count = 0
    for _ in range(2):  # the second round shows that nothing but the reader opens the window
        while sender.has_room(99_999):
            sender.add(bytes(99_999))
            count += 1
        while any([pair.step(0), pair.step(1)]):
            pass
    assert count == WINDOW // 100_000
    assert reader.inbox == count
    pair.read(1)
    pair.settle()
    assert sender.has_room(99_999)


def test_grant_waits_until_it_is_worth_a_frame() -> None:
    pair = connected()
    pair.sides[0].add(bytes(GRANT_STEP - 1))
    while pair.step(0) or pair.step(1):
        pass
    reader = pair.sides[1]
    before = reader.grant_pending
    pair.read(1)
    assert (before, reader.grant_pending, reader.grant_due) == (False, True, True)
    pair.settle()
    assert (reader.grant_pending, reader.grant_due) == (False, False)


def test_side_that_was_started_again_is_noticed() -> None:
    pair = connected()
    pair.sides[0].add(b"x")
    pair.settle()
    pair.sides[1] = Stream("b2", "pipe")
    hello, late = pair.sides[1].connect(), pair.sides[0].connect()
    with pytest.raises(Replaced):
        pair.sides[0].receive(hello)
    pair.sides[1].receive(late)  # it is for a process that has ended
    assert not pair.sides[1].connected


def test_abort_carries_its_reason() -> None:
    pair = connected()
    with pytest.raises(Aborted) as caught:
        pair.sides[0].receive(encode(Abort("disk_full", "No space left")))
    assert caught.value.abort == Abort("disk_full", "No space left")


@pytest.mark.parametrize(
    "frame",
    [
        "text",
        b"",
        b"\x09",
        b"\x00{",
        b"\x00{}",
        encode(Hello("b", "pipe", version=2)),
        encode(Hello("", "pipe")),
        encode(Hello("b", "pipe", received=9, limit=3)),
        encode(Hello("b", "pipe", "a", received=1, limit=3)),
        b"\x02short",
        b"\x03[]",
        b'\x00{"stream":"b","role":"pipe","x":' + b"[" * 100_000,
        b'\x03{"code":"b","reason":"c","x":' + b"[" * 100_000,
        b'\x00{"stream":"\xed\xa0\x80","role":"pipe"}',
    ],
)
def test_frame_that_breaks_the_rules_is_refused(frame: bytes | str) -> None:
    stream = Stream("a", "pipe")
    stream.connect()
    with pytest.raises(Violation):
        stream.receive(frame)


def test_data_and_grants_before_the_hello_are_refused() -> None:
    for frame in (encode_data(b"x"), encode(Grant(0, 5))):
        stream = Stream("a", "pipe")
        stream.connect()
        with pytest.raises(Violation):
            stream.receive(frame)


def test_confirmation_of_what_was_not_sent_is_refused() -> None:
    sender = connected().sides[0]
    sender.add(b"queued, and not sent")
    for taken in (21, 1000):
        with pytest.raises(Violation):
            sender.receive(encode(Grant(taken, 5000)))


def test_data_beyond_the_grant_is_refused() -> None:
    """A hostile sender cannot make the receiver hold more than the window."""
    reader = connected().sides[0]
    for _ in range(WINDOW // 256 // 1024):
        reader.receive(encode_data(bytes(256 * 1024 - 1)))
    with pytest.raises(Violation, match="more than was granted"):
        reader.receive(encode_data(b""))


def test_sender_keeps_a_bounded_amount_whatever_is_granted() -> None:
    """A hostile receiver that grants all and takes nothing cannot make the sender hold a large file in memory."""
    sender, piece = connected().sides[0], bytes(256 * 1024 - 1)
    sender.receive(encode(Grant(0, 2**63)))
    while sender.has_room(len(piece)):
        sender.add(piece)
        sender.next_frame()
    assert sender.unconfirmed == MAX_UNCONFIRMED
    sender.receive(encode(Grant(WINDOW, 2**63)))
    assert sender.has_room(len(piece))


def test_small_frames_take_little_more_memory_than_their_bytes() -> None:
    """A reader that has stopped holds a window full of them."""
    reader = connected().sides[0]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            reader.receive(bytes([1, number % 256]))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 20_000 < 64
    assert bytes(reader.pop()) == b"\0"


@given(st.binary(max_size=64))
def test_decoder_reads_any_bytes_or_refuses_them(data: bytes) -> None:
    try:
        frame = decode(data)
    except Violation:
        return
    if isinstance(frame, Data):
        assert encode_data(frame.payload) == data
