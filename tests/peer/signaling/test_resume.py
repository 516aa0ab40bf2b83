"""Resume, the client's side: numbers, what goes again, what is dropped, when to confirm (PROTOCOL: Resume)."""

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


def met(**bounds: int) -> ResumeState:
    """A client that a relay knows."""
    client = ResumeState(**bounds)
    client.welcome(YourId("a", "T1", resumed=False))
    return client


def frame(seq: int, size: int = 0) -> str:
    return f'{{"type":"x","pad":"{"." * size}","seq":{seq}}}'


def resumed(client_seq: int, token: str = "T2") -> YourId:
    return YourId("a", token, resumed=True, client_seq=client_seq, peer_id=None)


def test_it_asks_for_numbers_and_then_for_its_id_and_what_it_missed() -> None:
    client = ResumeState()
    assert client.query() == [("seq", "1")]
    client.welcome(YourId("a", "T1", resumed=False))
    client.receive(frame(1), 0)
    assert client.query() == [("seq", "1"), ("resume", "T1"), ("last", "1")]


def test_what_it_sends_is_numbered_from_one_on() -> None:
    client = met()
    assert [client.send(UNPAIR) for _ in range(2)] == [
        '{"type":"unpair","client_seq":1}',
        '{"type":"unpair","client_seq":2}',
    ]


def test_after_a_resume_it_sends_again_what_the_relay_did_not_take() -> None:
    """Also what it sent while it had no socket."""
    client = met()
    texts = [client.send(UNPAIR) for _ in range(4)]
    assert client.confirm(1)
    assert client.welcome(resumed(2)) is ResumeResult.RESUMED
    assert [client.frame(number) for number in range(client.confirmed + 1, client.sent + 1)] == texts[2:]
    assert client.query()[1] == ("resume", "T2")


def test_right_behind_a_resume_it_confirms_what_it_has() -> None:
    """So that the old token is void soon, also if there is nothing else to say."""
    client = met()
    client.receive(frame(1), 0)
    assert client.welcome(resumed(0)) is ResumeResult.RESUMED
    assert client.ack_due == 0
    assert client.ack() == '{"type":"ack","seq":1}'


def test_an_expired_session_starts_the_numbers_again() -> None:
    """Frames that the relay has not confirmed are dropped: the relay may have taken them."""
    client = met()
    for _ in range(2):
        client.send(UNPAIR)
    client.receive(frame(1), 0)
    assert client.welcome(YourId("b", "T9", resumed=False)) is ResumeResult.EXPIRED
    assert client.unconfirmed == 0
    assert client.query() == [("seq", "1"), ("resume", "T9"), ("last", "0")]
    assert client.send(UNPAIR) == '{"type":"unpair","client_seq":1}'
    assert client.receive(frame(1), 0) is SequenceCheck.NEW


@pytest.mark.parametrize("taken", [0, 4])
def test_a_relay_that_contradicts_itself_is_dialled_afresh(taken: int) -> None:
    """It says that it took what was never sent, or not what it had confirmed."""
    client = met()
    for _ in range(3):
        client.send(UNPAIR)
    client.confirm(1)
    assert client.welcome(resumed(taken)) is ResumeResult.INVALID
    assert client.unconfirmed == 0
    assert client.query() == [("seq", "1")]


def test_a_relay_without_numbers_gets_and_sends_frames_as_they_are() -> None:
    """Nothing is kept, and a `seq` that a peer wrote is the peer's own."""
    client = ResumeState()
    assert client.welcome(YourId("a")) is ResumeResult.NEW
    assert client.send(UNPAIR) == client.frame(1) == UNPAIR
    client.mark_written(1)
    assert client.unconfirmed == 0
    assert client.receive(frame(7), 0) is client.receive(frame(7), 0) is SequenceCheck.NEW
    assert (client.query(), client.ack_due) == ([("seq", "1")], None)


def test_each_frame_comes_once() -> None:
    client = met()
    assert [client.receive(frame(seq), 0) for seq in (1, 2, 2, 1, 3)] == [
        *(SequenceCheck.NEW, SequenceCheck.NEW, SequenceCheck.DUPLICATE, SequenceCheck.DUPLICATE, SequenceCheck.NEW)
    ]
    assert client.receive(frame(5), 0) is SequenceCheck.GAP
    assert client.last == 3


@pytest.mark.parametrize("text", ['{"type":"pong"}', "what?", "[]", '{"type":"x","seq":"1"}', '{"type":"x","seq":0}'])
def test_what_bears_no_number_is_let_pass(text: str) -> None:
    client = met()
    assert client.receive(text, 0) is SequenceCheck.NEW
    assert (client.last, client.ack_due) == (0, None)


def test_a_frame_that_is_nested_too_deeply_counts() -> None:
    """A peer cannot make a client dial again and again with what the relay could just read."""
    client = met()
    deep = "[" * 100_000 + "]" * 100_000
    assert client.receive(f'{{"type":"offer","sdp":"","x":{deep},"from_peer":true,"seq":1}}', 0) is SequenceCheck.NEW
    assert client.last == 1


def test_it_confirms_what_came_a_little_later() -> None:
    client = met()
    client.receive(frame(1), 5.0)
    client.receive(frame(2), 5.05)
    assert (client.ack_due, client.ack()) == (5 + ACK_SECONDS, '{"type":"ack","seq":2}')
    assert client.ack_due is None
    client.receive(frame(2), 6.0)
    assert client.ack_due == 6 + ACK_SECONDS


def test_it_confirms_at_once_what_is_much() -> None:
    """So that the relay has room."""
    client = met()
    for seq in range(1, ACK_FRAMES + 1):
        client.receive(frame(seq), 5.0 + seq / 1000)
    assert client.ack_due == 5 + ACK_FRAMES / 1000
    client.ack()
    client.receive(frame(ACK_FRAMES + 1, ACK_BYTES), 7.0)
    assert client.ack_due == 7.0


def test_what_it_keeps_is_bounded_and_acks_make_room() -> None:
    client = met(max_frames=2)
    rooms = [(client.send(UNPAIR), client.has_room)[1] for _ in range(2)]
    assert rooms == [True, False]
    assert (client.confirm(1), client.has_room) == (True, True)


def test_what_it_keeps_is_bounded_in_bytes_and_one_frame_always_fits() -> None:
    client = met(max_bytes=1)
    assert (client.has_room, client.send(UNPAIR) != "", client.has_room) == (True, True, False)


def test_an_ack_of_what_was_never_sent_is_told_and_a_late_one_is_nothing() -> None:
    client = met()
    client.send(UNPAIR)
    assert not client.confirm(2)
    assert client.confirm(1)
    assert client.confirm(0)
    assert (client.confirmed, client.has_room) == (1, True)
