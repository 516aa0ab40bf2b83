"""Resumable sessions: tokens, sequence numbers, acks, suspension and bounds, one rule at a time."""

from collections.abc import Iterator
from functools import partial
from itertools import count

import pytest

from sdpx.errors import Refusal
from sdpx.protocol.messages import ServerAck
from sdpx.relay.core.limits import Limits
from sdpx.relay.core.replay_buffer import ACK_SECONDS, FrameVerdict, ReplayBuffer
from sdpx.relay.core.sessions import TOKENS, Eviction, ResumeRequest, SessionStore
from sdpx.relay.http.responses import HttpError
from sdpx.relay.http.upgrade import parse_resume_request

FRAME = b'{"type":"paired"}'


def session_store(**bounds: float) -> SessionStore:
    numbers = count(1)
    return SessionStore(Limits(**bounds), lambda size: next(numbers).to_bytes(size))  # type: ignore[arg-type]


def opened(store: SessionStore, client_id: str = "a", frames: int = 0) -> tuple[ReplayBuffer, str]:
    buffer, token = store.open(client_id)
    for _ in range(frames):
        assert buffer.append(FRAME)
    return buffer, token


def check(store: SessionStore, buffer: ReplayBuffer, text: str | None, now: float = 0.0) -> FrameVerdict | str:
    """Return how a client's frame is treated: its turn, or the code of the refusal."""
    try:
        return store.check(buffer, text.encode() if isinstance(text, str) else text, now)
    except Refusal as refusal:
        return refusal.code


def numbered(number: object, kind: str = "offer") -> str:
    return f'{{"type":"{kind}","client_seq":{number}}}'


# ---- the query


def test_resume_parameters_of_a_query() -> None:
    """Other values and keys are ignored."""
    assert (
        parse_resume_request({})
        == parse_resume_request({"seq": ["0"]})
        == parse_resume_request({"last": ["x"], "seq": ["yes"]})
        == ResumeRequest()
    )
    assert parse_resume_request({"seq": ["1"]}) == ResumeRequest(numbered=True)
    assert parse_resume_request({"seq": ["1"], "resume": ["t"], "last": ["7"]}) == ResumeRequest(
        numbered=True, token="t", last=7
    )
    assert parse_resume_request({"resume": ["t"]}) == ResumeRequest(token="t")


@pytest.mark.parametrize("last", [[""], ["-1"], ["1.0"], ["x"], ["1", "2"], ["9" * 19], ["\N{ARABIC-INDIC DIGIT ONE}"]])
def test_a_last_that_is_not_a_number_is_refused(last: list[str]) -> None:
    """A client that went on from a guess would lose frames."""
    answer = parse_resume_request({"resume": ["t"], "last": last})
    assert isinstance(answer, HttpError)
    assert (answer.status, answer.code) == (400, "bad_resume")


def test_two_tokens_are_refused() -> None:
    """A request resumes one session."""
    assert isinstance(parse_resume_request({"resume": ["t", "u"]}), HttpError)


# ---- tokens


def test_a_token_finds_its_session() -> None:
    """A similar token, an empty one, or one of other characters finds none."""
    store = session_store()
    buffer, token = opened(store)
    assert store.find(token, 0) is buffer
    for wrong in ("", token[:-1], token + "A", token.swapcase() + "=", "\N{GRINNING FACE}", "\udc80"):
        assert store.find(wrong, 0) is None


def test_tokens_have_32_random_bytes() -> None:
    """From the injected source."""
    asked_for: list[int] = []

    def token_bytes(size: int) -> bytes:
        asked_for.append(size)
        return bytes([len(asked_for)]) * size

    store = SessionStore(Limits(), token_bytes)
    assert store.open("a")[1] != store.open("b")[1]
    assert asked_for == [32, 32, 32]  # one is the relay's own secret


def test_the_store_keeps_digests_of_tokens_only() -> None:
    """So that its memory holds nothing that a client could present."""
    store = session_store()
    buffer, token = opened(store)
    assert token not in repr(store._by_digest)
    assert token.encode() not in buffer.digests


@pytest.mark.parametrize("first", ['{"type":"ping"}', "{", numbered(1), None])
def test_the_old_token_is_valid_until_the_first_frame_on_the_new_connection(first: str | None) -> None:
    """Whatever the frame is; then only the new token is valid."""
    store = session_store()
    buffer, old = opened(store)
    new = store.resume(old, 0).token
    assert store.find(old, 0) is store.find(new, 0) is buffer
    check(store, buffer, first)
    assert (store.find(old, 0), store.find(new, 0)) == (None, buffer)


def test_a_token_can_be_used_repeatedly_while_no_frame_arrives() -> None:
    """Each resume issues the same next token: a connection may end before or after its token was read."""
    store = session_store()
    buffer, token = opened(store)
    [following] = {store.resume(token, 0).token for _ in range(50)}
    assert following != token
    assert store.find(token, 0) is store.find(following, 0) is buffer


def test_valid_tokens_of_a_session_are_bounded() -> None:
    """The latest ones are valid."""
    store = session_store()
    buffer, token = opened(store)
    tokens = [token]
    for _ in range(2 * TOKENS):
        tokens.append(store.resume(tokens[-1], 0).token)
    assert [store.find(each, 0) for each in tokens[-TOKENS:]] == [buffer] * TOKENS
    assert [store.find(each, 0) for each in tokens[:-TOKENS]] == [None] * (TOKENS + 1)
    assert len(store._by_digest) == len(set(tokens[-TOKENS:])) == TOKENS


def _next_of(materials: Iterator[bytes], _size: int) -> bytes:
    return next(materials)


def test_the_next_token_cannot_be_derived_from_the_old_one() -> None:
    """Without the relay's secret."""
    followers = set()
    for secret in (b"x", b"y"):
        materials = iter([secret * 32, b"the same token" * 2])
        store = SessionStore(Limits(), partial(_next_of, materials))
        followers.add(store.resume(opened(store)[1], 0).token)
    assert len(followers) == 2


def test_the_tokens_of_a_session_that_has_ended_are_revoked() -> None:
    """A new session of the same ID has other tokens."""
    store = session_store()
    buffer, old = opened(store)
    new = store.resume(old, 0).token
    store.end(buffer)
    assert store.find(old, 0) is store.find(new, 0) is None
    opened(store)
    assert store.find(new, 0) is None
    assert len(store._by_digest) == 1


# ---- to the client


def test_frames_are_numbered_from_one_across_connections() -> None:
    """Also those that are sent while the session is suspended."""
    store = session_store()
    buffer, token = opened(store)
    sent = []
    for step in (lambda: None, lambda: store.suspend(buffer, "closed", 0), lambda: store.resume(token, 1)):
        step()
        assert buffer.append(FRAME)
        sent.append(buffer.sent)
    assert sent == [1, 2, 3]


def test_resume_replays_the_frames_above_last() -> None:
    """As they were numbered."""
    store = session_store()
    buffer, token = opened(store)
    for data in (b"1", b"2", b"3"):
        buffer.append(data)
    assert store.resume(token, 1).frames == [b"2", b"3"]


@pytest.mark.parametrize("last", [None, 0, 1])
def test_acknowledged_frames_are_not_replayed(last: int | None) -> None:
    """Whatever `last` says."""
    store = session_store()
    buffer, token = opened(store)
    for data in (b"1", b"2", b"3"):
        buffer.append(data)
    assert check(store, buffer, '{"type":"ack","seq":2}') is FrameVerdict.ACKED
    assert store.resume(token, last).frames == [b"3"]


def test_a_last_above_the_highest_seq_finds_no_session() -> None:
    """The client would drop frames; the session stays for a valid request."""
    store = session_store()
    buffer, token = opened(store, frames=3)
    store.suspend(buffer, "closed", 0)
    assert store.find(token, 4) is None
    assert store.find(token, 3) is buffer


def test_acks_remove_frames_from_the_buffer() -> None:
    """An ack covers all frames up to its number; an old one does nothing and counts for the rate."""
    store = session_store()
    buffer, _ = opened(store, frames=5)
    assert check(store, buffer, '{"type":"ack","seq":4}') is FrameVerdict.ACKED
    assert (len(buffer), store.total.bytes) == (1, buffer.size)
    assert [check(store, buffer, f'{{"type":"ack","seq":{n}}}') for n in (4, 3, 0)] == [FrameVerdict.DUPLICATE] * 3
    assert check(store, buffer, '{"type":"ack","seq":5}') is FrameVerdict.ACKED
    assert (len(buffer), store.total.bytes) == (0, 0)


@pytest.mark.parametrize("seq", ["6", "-1", "1.0", "true", '"1"', "null", "[]", "1" * 5000, "01"])
def test_an_invalid_ack_is_refused(seq: str) -> None:
    """An invalid ack acknowledges nothing."""
    store = session_store()
    buffer, _ = opened(store, frames=5)
    assert check(store, buffer, f'{{"type":"ack","seq":{seq}}}') == ("bad_json" if seq == "01" else "bad_message")
    assert check(store, buffer, '{"type":"ack"}') == "bad_message"
    assert len(buffer) == 5


# ---- from the client


def test_each_client_seq_is_accepted_once() -> None:
    """In order; an earlier number is a duplicate."""
    store = session_store()
    buffer, _ = opened(store)
    turns = [check(store, buffer, numbered(n)) for n in (1, 2, 2, 1, 3)]
    assert turns == [
        FrameVerdict.ACCEPT,
        FrameVerdict.ACCEPT,
        FrameVerdict.DUPLICATE,
        FrameVerdict.DUPLICATE,
        FrameVerdict.ACCEPT,
    ]
    assert buffer.accepted == 3


@pytest.mark.parametrize("number", ["3", "9" * 18, "1" * 5000])
def test_a_gap_in_client_seq_is_detected(number: str) -> None:
    """The number is not accepted."""
    store = session_store()
    buffer, _ = opened(store)
    check(store, buffer, numbered(1))
    assert check(store, buffer, numbered(number)) is FrameVerdict.GAP
    assert buffer.accepted == 1


@pytest.mark.parametrize("kind", ["offer", "unpair", "no_such_type", "pair_request", "your_id"])
def test_a_frame_that_is_refused_later_counts_as_accepted(kind: str) -> None:
    """Its type or the pairing table decides later."""
    store = session_store()
    buffer, _ = opened(store)
    assert check(store, buffer, numbered(1, kind)) is FrameVerdict.ACCEPT
    assert buffer.accepted == 1


def test_a_frame_without_a_type_counts_as_accepted() -> None:
    """Its number is valid."""
    store = session_store()
    buffer, _ = opened(store)
    assert check(store, buffer, '{"client_seq":1,"type":7}') is FrameVerdict.ACCEPT
    assert buffer.accepted == 1


@pytest.mark.parametrize("number", ["0", "-1", "1.0", "1e0", '"1"', "true", "null", "[1]"])
def test_an_invalid_client_seq_is_refused_and_does_not_count(number: str) -> None:
    """Nothing is acknowledged."""
    store = session_store()
    buffer, _ = opened(store)
    assert check(store, buffer, numbered(number)) == "bad_message"
    assert (buffer.accepted, buffer.ack_due) == (0, None)


def test_the_refusal_names_the_missing_client_seq() -> None:
    """And the type of the message."""
    store = session_store()
    buffer, _ = opened(store)
    with pytest.raises(Refusal, match="'client_seq'") as caught:
        store.check(buffer, b'{"type":"offer","sdp":""}', 0)
    assert caught.value.in_reply_to == "offer"


@pytest.mark.parametrize("kind", ["ping", "pong"])
def test_pings_and_pongs_carry_no_number(kind: str) -> None:
    """A number in them is ignored."""
    store = session_store()
    buffer, _ = opened(store)
    assert check(store, buffer, f'{{"type":"{kind}"}}') is FrameVerdict.ACCEPT
    assert check(store, buffer, numbered(7, kind)) is FrameVerdict.ACCEPT
    assert buffer.accepted == 0


@pytest.mark.parametrize("text", ["{", "[]", "7", '"client_seq"', None, '{"type":"offer","sdp":"\\ud800"}'])
def test_a_frame_without_a_number_does_not_count(text: str | None) -> None:
    """The next number is still expected."""
    store = session_store()
    buffer, _ = opened(store)
    assert check(store, buffer, text) in ("bad_json", "bad_message")
    assert buffer.accepted == 0
    assert check(store, buffer, numbered(1)) is FrameVerdict.ACCEPT


def test_the_next_client_seq_in_invalid_json_counts() -> None:
    """Else the client, which goes on with the next number, would leave a gap for ever. The frame is refused once."""
    store = session_store()
    buffer, _ = opened(store)
    surrogate = '{"type":"offer","sdp":"\\ud800","client_seq":1}'
    assert check(store, buffer, '{"client_seq":2,') == "bad_json"
    assert buffer.accepted == 0
    assert check(store, buffer, surrogate) == "bad_json"
    assert buffer.accepted == 1
    assert check(store, buffer, surrogate) is FrameVerdict.DUPLICATE
    assert check(store, buffer, numbered(2)) is FrameVerdict.ACCEPT


@pytest.mark.parametrize("form", ['"client_s\\u0065q":1', '"client_seq":9,"client_seq":1', '"client_seq" : 1 '])
def test_client_seq_is_found_in_any_spelling(form: str) -> None:
    """Of duplicate keys the last one counts."""
    store = session_store()
    buffer, _ = opened(store)
    assert check(store, buffer, f'{{"type":"unpair",{form}}}') is FrameVerdict.ACCEPT
    assert buffer.accepted == 1


def test_one_ack_covers_all_accepted_frames_in_time() -> None:
    """The protocol allows 0.2 s."""
    store = session_store()
    buffer, _ = opened(store)
    check(store, buffer, numbered(1), 1.0)
    check(store, buffer, numbered(2), 1.05)
    assert ACK_SECONDS < 0.2
    assert (store.next_due, store.acks(1.09)) == (1 + ACK_SECONDS, [])
    assert store.acks(1.1) == [(buffer, ServerAck(2))]
    assert store.acks(9) == []
    assert store.next_due is None
    check(store, buffer, numbered(2), 2.0)
    assert store.acks(2.2) == [(buffer, ServerAck(2))]


def test_a_suspended_session_gets_no_ack() -> None:
    """`your_id` acknowledges on the next connection, so nothing is due there either."""
    store = session_store()
    buffer, token = opened(store)
    check(store, buffer, numbered(1), 1.0)
    store.suspend(buffer, "closed", 1.05)
    assert store.acks(1.2) == []
    assert store.resume(token, 0).client_seq == 1
    assert store.acks(9) == []


# ---- ends


def test_a_session_is_suspended_for_the_resume_window() -> None:
    """Then it ends with the reason of the loss."""
    store = session_store(resume_window=30)
    buffer, token = opened(store, frames=2)
    assert store.suspend(buffer, "timeout", 5.0) == []
    assert (store.suspended, store.suspended_bytes, store.next_due) == (1, buffer.size, 35.0)
    assert store.expired(34.9) == []
    assert store.expired(35.0) == [Eviction(buffer, "timeout")]
    store.end(buffer)
    assert store.find(token, 0) is None
    assert (store.suspended, store.total.bytes, store.next_due, store.totals.expired) == (0, 0, None, 1)


def test_a_resumed_session_is_not_suspended() -> None:
    """A resumed session does not expire."""
    store = session_store(resume_window=30)
    buffer, token = opened(store)
    store.suspend(buffer, "closed", 0)
    helds = [store.suspended]
    store.resume(token, 0)
    assert [*helds, store.suspended] == [1, 0]
    assert (store.expired(99), store.totals.resumed) == ([], 1)


def test_with_a_resume_window_of_0_no_session_is_suspended() -> None:
    """An open connection can still be taken over."""
    store = session_store(resume_window=0)
    buffer, token = opened(store)
    assert store.find(token, 0) is buffer
    assert store.suspend(buffer, "closed", 0) == [Eviction(buffer, "closed")]


def test_suspended_sessions_are_bounded_in_number() -> None:
    """The one that was suspended first ends."""
    store = session_store(max_suspended_sessions=2)
    first, *others = (opened(store, name)[0] for name in "abc")
    for number, buffer in enumerate([others[0], first, others[1]]):
        gone = store.suspend(buffer, "closed", number)
    assert gone == [Eviction(others[0], "slow")]
    assert store.totals.evicted == 1


def test_suspended_sessions_of_an_address_are_bounded_in_number() -> None:
    """The one of this address that was suspended first ends."""
    store = session_store(max_suspended_per_address=2)
    buffers = [opened(store, name)[0] for name in "abcd"]
    gone = [store.suspend(buffer, "closed", 0, address) for buffer, address in zip(buffers, "xyyy", strict=True)]
    assert gone == [[], [], [], [Eviction(buffers[1], "slow")]]


def test_past_the_bound_of_all_a_session_of_the_address_with_most_ends() -> None:
    """Addresses whose clients come and vanish displace no session of another address."""
    store = session_store(max_suspended_sessions=3)
    buffers = [opened(store, name)[0] for name in "abcd"]
    gone = [store.suspend(buffer, "closed", 0, address) for buffer, address in zip(buffers, "xyyz", strict=True)]
    assert gone == [[], [], [], [Eviction(buffers[1], "slow")]]


def test_an_attempt_with_an_old_last_does_not_supersede_an_open_connection() -> None:
    """A suspended session takes it for the highest ack; 0 is what a client says that keeps no count."""
    store = session_store()
    buffer, token = opened(store, frames=3)
    buffer.acknowledge(2)
    assert [store.find(token, last) for last in (None, 0, 1, 2)] == [buffer, buffer, None, buffer]
    store.suspend(buffer, "closed", 0)
    assert store.find(token, 1) is buffer


def test_a_replay_buffer_is_bounded_in_frames() -> None:
    """The frame too many is not numbered."""
    store = session_store(send_queue_frames=2)
    buffer, _ = opened(store, frames=2)
    assert not buffer.append(FRAME)
    assert (len(buffer), buffer.sent) == (2, 2)


def test_a_replay_buffer_is_bounded_in_bytes_and_one_frame_always_fits() -> None:
    """Whatever its size."""
    store = session_store(send_queue_bytes=1)
    buffer, _ = opened(store, frames=1)
    assert not buffer.append(FRAME)
    assert check(store, buffer, '{"type":"ack","seq":1}') is FrameVerdict.ACKED
    assert buffer.append(FRAME)


def test_all_replay_buffers_together_are_bounded() -> None:
    """The session with the largest buffer ends."""
    store = session_store(max_queued_bytes=8 * FRAME.__sizeof__())
    small, _ = opened(store, "a", frames=1)
    assert store.over_budget() == []
    large, _ = opened(store, "b", frames=8)
    assert store.over_budget() == [Eviction(large, "slow")]
    store.end(large)
    assert store.over_budget() == []
    assert store.total.bytes == small.size


def test_senders_of_unacknowledged_frames_are_returned() -> None:
    """Once each, in the order of sending; the relay's own frames have no sender."""
    store = session_store()
    buffer, _ = opened(store, frames=1)
    for sender in ("x", "y", "x", "z"):
        buffer.append(FRAME, sender)
    check(store, buffer, '{"type":"ack","seq":2}')
    assert store.end(buffer) == ["y", "x", "z"]
    assert store.end(buffer) == []
