"""The client half of resume (PROTOCOL: Resume): numbering, replay, duplicates, acks, bounds."""

import pytest

from sdpx.peer.signaling.resume import (
    ACK_BYTES,
    ACK_FRAMES,
    ACK_SECONDS,
    ResumeResult,
    ResumeState,
    SequenceCheck,
)
from sdpx.protocol.messages import YourId

UNPAIR = '{"type":"unpair"}'


def opened(**bounds: int) -> ResumeState:
    """Return the state of a client with a session."""
    client = ResumeState(**bounds)
    client.on_your_id(YourId("a", "T1", resumed=False))
    return client


def frame(seq: int, size: int = 0) -> str:
    return f'{{"type":"x","pad":"{"." * size}","seq":{seq}}}'


def resumed(client_seq: int, token: str = "T2") -> YourId:
    return YourId("a", token, resumed=True, client_seq=client_seq, peer_id=None)


def test_the_query_requests_numbers_and_then_the_session() -> None:
    client = ResumeState()
    assert client.query() == [("seq", "1")]
    client.on_your_id(YourId("a", "T1", resumed=False))
    client.receive(frame(1), 0)
    assert client.query() == [("seq", "1"), ("resume", "T1"), ("last", "1")]


def test_sent_frames_are_numbered_from_one() -> None:
    client = opened()
    assert [client.send(UNPAIR) for _ in range(2)] == [
        '{"type":"unpair","client_seq":1}',
        '{"type":"unpair","client_seq":2}',
    ]


def test_unconfirmed_frames_are_due_again_after_a_resume() -> None:
    """Frames sent without a socket are included."""
    client = opened()
    texts = [client.send(UNPAIR) for _ in range(4)]
    assert client.confirm(1)
    assert client.on_your_id(resumed(2)) is ResumeResult.RESUMED
    assert [client.frame(number) for number in range(client.confirmed + 1, client.sent + 1)] == texts[2:]
    assert client.query()[1] == ("resume", "T2")


def test_an_ack_is_due_directly_after_a_resume() -> None:
    """The ack revokes the old token, also if no other frame follows."""
    client = opened()
    client.receive(frame(1), 0)
    assert client.on_your_id(resumed(0)) is ResumeResult.RESUMED
    assert client.ack_due == 0
    assert client.ack() == '{"type":"ack","seq":1}'


def test_an_expired_session_starts_the_numbers_again() -> None:
    """Frames that the relay has not confirmed are dropped: the relay may have taken them."""
    client = opened()
    for _ in range(2):
        client.send(UNPAIR)
    client.receive(frame(1), 0)
    assert client.on_your_id(YourId("b", "T9", resumed=False)) is ResumeResult.EXPIRED
    assert client.unconfirmed == 0
    assert client.query() == [("seq", "1"), ("resume", "T9"), ("last", "0")]
    assert client.send(UNPAIR) == '{"type":"unpair","client_seq":1}'
    assert client.receive(frame(1), 0) is SequenceCheck.NEW


@pytest.mark.parametrize("taken", [0, 4])
def test_an_impossible_client_seq_ends_the_session(taken: int) -> None:
    """The relay claims frames that were never sent, or denies frames that it confirmed."""
    client = opened()
    for _ in range(3):
        client.send(UNPAIR)
    client.confirm(1)
    assert client.on_your_id(resumed(taken)) is ResumeResult.INVALID
    assert client.unconfirmed == 0
    assert client.query() == [("seq", "1")]


def test_without_sequence_numbers_frames_are_unchanged() -> None:
    """A frame is kept until it is written; a `seq` in a received frame is the other peer's own."""
    client = ResumeState()
    assert client.on_your_id(YourId("a")) is ResumeResult.NEW
    assert client.send(UNPAIR) == client.frame(1) == UNPAIR
    client.mark_written(1)
    assert client.unconfirmed == 0
    assert client.receive(frame(7), 0) is client.receive(frame(7), 0) is SequenceCheck.NEW
    assert (client.query(), client.ack_due) == ([("seq", "1")], None)


def test_each_frame_is_received_once() -> None:
    client = opened()
    assert [client.receive(frame(seq), 0) for seq in (1, 2, 2, 1, 3)] == [
        *(SequenceCheck.NEW, SequenceCheck.NEW, SequenceCheck.DUPLICATE, SequenceCheck.DUPLICATE, SequenceCheck.NEW)
    ]
    assert client.receive(frame(5), 0) is SequenceCheck.GAP
    assert client.last == 3


@pytest.mark.parametrize("text", ['{"type":"pong"}', "what?", "[]", '{"type":"x","seq":"1"}', '{"type":"x","seq":0}'])
def test_a_frame_without_a_number_passes(text: str) -> None:
    client = opened()
    assert client.receive(text, 0) is SequenceCheck.NEW
    assert (client.last, client.ack_due) == (0, None)


def test_a_deeply_nested_frame_counts() -> None:
    """Another peer cannot make a client dial again and again with a frame that the relay accepts."""
    client = opened()
    deep = "[" * 100_000 + "]" * 100_000
    assert client.receive(f'{{"type":"offer","sdp":"","x":{deep},"from_peer":true,"seq":1}}', 0) is SequenceCheck.NEW
    assert client.last == 1


def test_received_frames_are_acknowledged_after_a_delay() -> None:
    client = opened()
    client.receive(frame(1), 5.0)
    client.receive(frame(2), 5.05)
    assert (client.ack_due, client.ack()) == (5 + ACK_SECONDS, '{"type":"ack","seq":2}')
    assert client.ack_due is None
    client.receive(frame(2), 6.0)
    assert client.ack_due == 6 + ACK_SECONDS


def test_many_received_frames_are_acknowledged_at_once() -> None:
    """The ack makes room in the relay's replay buffer."""
    client = opened()
    for seq in range(1, ACK_FRAMES + 1):
        client.receive(frame(seq), 5.0 + seq / 1000)
    assert client.ack_due == 5 + ACK_FRAMES / 1000
    client.ack()
    client.receive(frame(ACK_FRAMES + 1, ACK_BYTES), 7.0)
    assert client.ack_due == 7.0


def test_kept_frames_are_bounded_and_acks_make_room() -> None:
    client = opened(max_frames=2)
    rooms = [(client.send(UNPAIR), client.has_room)[1] for _ in range(2)]
    assert rooms == [True, False]
    assert (client.confirm(1), client.has_room) == (True, True)


def test_kept_bytes_are_bounded_and_one_frame_always_fits() -> None:
    client = opened(max_bytes=1)
    assert (client.has_room, client.send(UNPAIR) != "", client.has_room) == (True, True, False)


def test_an_ack_of_an_unsent_frame_is_refused_and_a_late_ack_ignored() -> None:
    client = opened()
    client.send(UNPAIR)
    assert not client.confirm(2)
    assert client.confirm(1)
    assert client.confirm(0)
    assert (client.confirmed, client.has_room) == (1, True)
