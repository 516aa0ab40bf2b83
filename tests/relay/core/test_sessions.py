"""Resume, the relay's side: tokens, numbers, acks, holding and bounds, one rule at a time (PROTOCOL: Resume)."""

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


def resumables(**bounds: float) -> SessionStore:
    numbers = count(1)
    return SessionStore(Limits(**bounds), lambda size: next(numbers).to_bytes(size))  # type: ignore[arg-type]


def opened(relay: SessionStore, client_id: str = "a", frames: int = 0) -> tuple[ReplayBuffer, str]:
    stream, token = relay.open(client_id)
    for _ in range(frames):
        assert relay.append(stream, FRAME)
    return stream, token


def said(relay: SessionStore, stream: ReplayBuffer, text: str | None, now: float = 0.0) -> FrameVerdict | str:
    """What becomes of a client's frame: its turn, or the code of the refusal."""
    try:
        return relay.check(stream, text.encode() if isinstance(text, str) else text, now)
    except Refusal as refusal:
        return refusal.code


def numbered(number: object, kind: str = "offer") -> str:
    return f'{{"type":"{kind}","client_seq":{number}}}'


# ---- the query


def test_the_query_asks_for_numbers_or_for_an_id_or_for_neither() -> None:
    """Keys that mean nothing are ignored, as everywhere."""
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
def test_a_last_that_is_no_number_is_refused(last: list[str]) -> None:
    """With a sentence: who guesses on from there loses frames."""
    answer = parse_resume_request({"resume": ["t"], "last": last})
    assert isinstance(answer, HttpError)
    assert (answer.status, answer.code) == (400, "bad_resume")


def test_two_tokens_are_none() -> None:
    assert isinstance(parse_resume_request({"resume": ["t", "u"]}), HttpError)


# ---- tokens


def test_a_token_is_its_id() -> None:
    """And nothing else is: not the empty one, not one that is nearly it, not one of strange letters."""
    relay = resumables()
    stream, token = opened(relay)
    assert relay.find(token, 0) is stream
    for wrong in ("", token[:-1], token + "A", token.swapcase() + "=", "\N{GRINNING FACE}", "\udc80"):
        assert relay.find(wrong, 0) is None


def test_tokens_are_long_and_unlike() -> None:
    """32 bytes from the source that was given."""
    asked_for: list[int] = []

    def token_bytes(size: int) -> bytes:
        asked_for.append(size)
        return bytes([len(asked_for)]) * size

    relay = SessionStore(Limits(), token_bytes)
    assert relay.open("a")[1] != relay.open("b")[1]
    assert asked_for == [32, 32, 32]  # one is the relay's own secret


def test_the_memory_holds_no_token() -> None:
    """Only digests."""
    relay = resumables()
    stream, token = opened(relay)
    assert token not in repr(relay._by_digest)
    assert token.encode() not in stream.digests


@pytest.mark.parametrize("first", ['{"type":"ping"}', "{", numbered(1), None])
def test_the_old_token_works_until_the_new_sockets_first_frame(first: str | None) -> None:
    """Whatever frame that is; then it never works again, and the new one does."""
    relay = resumables()
    stream, old = opened(relay)
    new = relay.resume(old, 0).token
    assert relay.find(old, 0) is relay.find(new, 0) is stream
    said(relay, stream, first)
    assert (relay.find(old, 0), relay.find(new, 0)) == (None, stream)


def test_a_token_works_again_and_again_while_no_frame_comes() -> None:
    """Each socket was cut before its token was read, or after: what follows a token is one and the same."""
    relay = resumables()
    stream, token = opened(relay)
    [following] = {relay.resume(token, 0).token for _ in range(50)}
    assert following != token
    assert relay.find(token, 0) is relay.find(following, 0) is stream


def test_tokens_that_no_frame_decides_between_are_bounded() -> None:
    """Who bears the latest has no use for the oldest."""
    relay = resumables()
    stream, token = opened(relay)
    tokens = [token]
    for _ in range(2 * TOKENS):
        tokens.append(relay.resume(tokens[-1], 0).token)
    assert [relay.find(each, 0) for each in tokens[-TOKENS:]] == [stream] * TOKENS
    assert [relay.find(each, 0) for each in tokens[:-TOKENS]] == [None] * (TOKENS + 1)
    assert len(relay._by_digest) == len(set(tokens[-TOKENS:])) == TOKENS


def _next_of(materials: Iterator[bytes], _size: int) -> bytes:
    return next(materials)


def test_what_follows_a_token_is_known_to_this_relay_only() -> None:
    """Who had the old one cannot tell the new one."""
    followers = set()
    for secret in (b"x", b"y"):
        materials = iter([secret * 32, b"the same token" * 2])
        relay = SessionStore(Limits(), partial(_next_of, materials))
        followers.add(relay.resume(opened(relay)[1], 0).token)
    assert len(followers) == 2


def test_a_client_that_is_gone_has_no_token() -> None:
    """None of them, and its next self has others."""
    relay = resumables()
    stream, old = opened(relay)
    new = relay.resume(old, 0).token
    relay.end(stream)
    assert relay.find(old, 0) is relay.find(new, 0) is None
    opened(relay)
    assert relay.find(new, 0) is None
    assert len(relay._by_digest) == 1


# ---- to the client


def test_frames_are_numbered_from_one_on_across_sockets() -> None:
    relay = resumables()
    stream, token = opened(relay)
    sent = []
    for step in (lambda: None, lambda: relay.suspend(stream, "closed", 0), lambda: relay.resume(token, 1)):
        step()
        assert relay.append(stream, FRAME)
        sent.append(stream.sent)
    assert sent == [1, 2, 3]


def test_a_resume_brings_what_lies_above_last_as_it_was() -> None:
    relay = resumables()
    stream, token = opened(relay)
    for data in (b"1", b"2", b"3"):
        relay.append(stream, data)
    assert relay.resume(token, 1).frames == [b"2", b"3"]


@pytest.mark.parametrize("last", [None, 0, 1])
def test_what_was_confirmed_once_is_not_sent_again(last: int | None) -> None:
    """Whatever is said on resume, or nothing."""
    relay = resumables()
    stream, token = opened(relay)
    for data in (b"1", b"2", b"3"):
        relay.append(stream, data)
    assert said(relay, stream, '{"type":"ack","seq":2}') is FrameVerdict.ACKED
    assert relay.resume(token, last).frames == [b"3"]


def test_a_last_beyond_what_was_sent_gets_nothing() -> None:
    """It would make the client drop what comes; and the ID waits for one who knows better."""
    relay = resumables()
    stream, token = opened(relay, frames=3)
    relay.suspend(stream, "closed", 0)
    assert relay.find(token, 4) is None
    assert relay.find(token, 3) is stream


def test_acks_make_room() -> None:
    """Cumulatively; late ones do nothing, and count for the rate."""
    relay = resumables()
    stream, _ = opened(relay, frames=5)
    assert said(relay, stream, '{"type":"ack","seq":4}') is FrameVerdict.ACKED
    assert (len(stream), relay.bytes) == (1, stream.bytes)
    assert [said(relay, stream, f'{{"type":"ack","seq":{n}}}') for n in (4, 3, 0)] == [FrameVerdict.DUPLICATE] * 3
    assert said(relay, stream, '{"type":"ack","seq":5}') is FrameVerdict.ACKED
    assert (len(stream), relay.bytes) == (0, 0)


@pytest.mark.parametrize("seq", ["6", "-1", "1.0", "true", '"1"', "null", "[]", "1" * 5000, "01"])
def test_an_ack_of_what_cannot_be_is_refused(seq: str) -> None:
    """And confirms nothing."""
    relay = resumables()
    stream, _ = opened(relay, frames=5)
    assert said(relay, stream, f'{{"type":"ack","seq":{seq}}}') == ("bad_json" if seq == "01" else "bad_message")
    assert said(relay, stream, '{"type":"ack"}') == "bad_message"
    assert len(stream) == 5


# ---- from the client


def test_each_number_is_taken_once() -> None:
    """In order; what was taken before is idle, and confirmed again."""
    relay = resumables()
    stream, _ = opened(relay)
    turns = [said(relay, stream, numbered(n)) for n in (1, 2, 2, 1, 3)]
    assert turns == [
        FrameVerdict.ACCEPT,
        FrameVerdict.ACCEPT,
        FrameVerdict.DUPLICATE,
        FrameVerdict.DUPLICATE,
        FrameVerdict.ACCEPT,
    ]
    assert stream.accepted == 3


@pytest.mark.parametrize("number", ["3", "9" * 18, "1" * 5000])
def test_a_gap_is_told(number: str) -> None:
    """And the number is not taken."""
    relay = resumables()
    stream, _ = opened(relay)
    said(relay, stream, numbered(1))
    assert said(relay, stream, numbered(number)) is FrameVerdict.GAP
    assert stream.accepted == 1


@pytest.mark.parametrize("kind", ["offer", "unpair", "no_such_type", "pair_request", "your_id"])
def test_what_will_be_refused_counts_as_taken(kind: str) -> None:
    """The lobby, or the wire's rules, refuse it later."""
    relay = resumables()
    stream, _ = opened(relay)
    assert said(relay, stream, numbered(1, kind)) is FrameVerdict.ACCEPT
    assert stream.accepted == 1


def test_a_frame_without_a_type_counts_too() -> None:
    relay = resumables()
    stream, _ = opened(relay)
    assert said(relay, stream, '{"client_seq":1,"type":7}') is FrameVerdict.ACCEPT
    assert stream.accepted == 1


@pytest.mark.parametrize("number", ["0", "-1", "1.0", "1e0", '"1"', "true", "null", "[1]"])
def test_a_number_that_is_none_is_refused_and_does_not_count(number: str) -> None:
    relay = resumables()
    stream, _ = opened(relay)
    assert said(relay, stream, numbered(number)) == "bad_message"
    assert (stream.accepted, stream.ack_due) == (0, None)


def test_a_missing_number_is_named_in_the_refusal() -> None:
    relay = resumables()
    stream, _ = opened(relay)
    with pytest.raises(Refusal, match="'client_seq'") as caught:
        relay.check(stream, b'{"type":"offer","sdp":""}', 0)
    assert caught.value.in_reply_to == "offer"


@pytest.mark.parametrize("kind", ["ping", "pong"])
def test_pings_and_pongs_bear_no_number(kind: str) -> None:
    """One that has one is not counted by it."""
    relay = resumables()
    stream, _ = opened(relay)
    assert said(relay, stream, f'{{"type":"{kind}"}}') is FrameVerdict.ACCEPT
    assert said(relay, stream, numbered(7, kind)) is FrameVerdict.ACCEPT
    assert stream.accepted == 0


@pytest.mark.parametrize("text", ["{", "[]", "7", '"client_seq"', None, '{"type":"offer","sdp":"\\ud800"}'])
def test_what_bears_no_number_does_not_count(text: str | None) -> None:
    relay = resumables()
    stream, _ = opened(relay)
    assert said(relay, stream, text) in ("bad_json", "bad_message")
    assert stream.accepted == 0
    assert said(relay, stream, numbered(1)) is FrameVerdict.ACCEPT


def test_a_number_that_can_be_seen_in_what_is_no_json_counts_if_it_is_the_next() -> None:
    """Else the client that sent it, and goes on with the next one, would leave a gap for ever. It is refused once."""
    relay = resumables()
    stream, _ = opened(relay)
    surrogate = '{"type":"offer","sdp":"\\ud800","client_seq":1}'
    assert said(relay, stream, '{"client_seq":2,') == "bad_json"
    assert stream.accepted == 0
    assert said(relay, stream, surrogate) == "bad_json"
    assert stream.accepted == 1
    assert said(relay, stream, surrogate) is FrameVerdict.DUPLICATE
    assert said(relay, stream, numbered(2)) is FrameVerdict.ACCEPT


@pytest.mark.parametrize("form", ['"client_s\\u0065q":1', '"client_seq":9,"client_seq":1', '"client_seq" : 1 '])
def test_the_number_is_found_however_it_is_written(form: str) -> None:
    """Of duplicate keys the last counts."""
    relay = resumables()
    stream, _ = opened(relay)
    assert said(relay, stream, f'{{"type":"unpair",{form}}}') is FrameVerdict.ACCEPT
    assert stream.accepted == 1


def test_one_ack_confirms_all_that_was_taken_in_time() -> None:
    """0.2 s is what the protocol allows."""
    relay = resumables()
    stream, _ = opened(relay)
    said(relay, stream, numbered(1), 1.0)
    said(relay, stream, numbered(2), 1.05)
    assert ACK_SECONDS < 0.2
    assert (relay.next_due, relay.acks(1.09)) == (1 + ACK_SECONDS, [])
    assert relay.acks(1.1) == [(stream, ServerAck(2))]
    assert relay.acks(9) == []
    assert relay.next_due is None
    said(relay, stream, numbered(2), 2.0)
    assert relay.acks(2.2) == [(stream, ServerAck(2))]


def test_a_client_without_a_socket_gets_no_ack() -> None:
    """`your_id` will tell it, so nothing is due on the next socket either."""
    relay = resumables()
    stream, token = opened(relay)
    said(relay, stream, numbered(1), 1.0)
    relay.suspend(stream, "closed", 1.05)
    assert relay.acks(1.2) == []
    assert relay.resume(token, 0).client_seq == 1
    assert relay.acks(9) == []


# ---- ends


def test_a_lost_client_is_held_for_the_window_and_no_longer() -> None:
    """Then it goes for the reason for which it was lost."""
    relay = resumables(resume_window=30)
    stream, token = opened(relay, frames=2)
    assert relay.suspend(stream, "timeout", 5.0) == []
    assert (relay.suspended, relay.suspended_bytes, relay.next_due) == (1, stream.bytes, 35.0)
    assert relay.expired(34.9) == []
    assert relay.expired(35.0) == [Eviction(stream, "timeout")]
    relay.end(stream)
    assert relay.find(token, 0) is None
    assert (relay.suspended, relay.bytes, relay.next_due, relay.totals.expired) == (0, 0, None, 1)


def test_who_comes_back_is_held_no_more() -> None:
    relay = resumables(resume_window=30)
    stream, token = opened(relay)
    relay.suspend(stream, "closed", 0)
    helds = [relay.suspended]
    relay.resume(token, 0)
    assert [*helds, relay.suspended] == [1, 0]
    assert (relay.expired(99), relay.totals.resumed) == ([], 1)


def test_a_window_of_nothing_holds_nobody() -> None:
    """A live socket can still be taken over."""
    relay = resumables(resume_window=0)
    stream, token = opened(relay)
    assert relay.find(token, 0) is stream
    assert relay.suspend(stream, "closed", 0) == [Eviction(stream, "closed")]


def test_the_held_are_bounded_in_number() -> None:
    """Who was lost first makes room."""
    relay = resumables(max_suspended_sessions=2)
    first, *others = (opened(relay, name)[0] for name in "abc")
    for number, stream in enumerate([others[0], first, others[1]]):
        gone = relay.suspend(stream, "closed", number)
    assert gone == [Eviction(others[0], "slow")]
    assert relay.totals.evicted == 1


def test_what_is_kept_for_one_client_is_bounded_in_number() -> None:
    relay = resumables(send_queue_frames=2)
    stream, _ = opened(relay, frames=2)
    assert not relay.append(stream, FRAME)
    assert (len(stream), stream.sent) == (2, 2)


def test_what_is_kept_for_one_client_is_bounded_in_bytes_and_one_frame_always_fits() -> None:
    relay = resumables(send_queue_bytes=1)
    stream, _ = opened(relay, frames=1)
    assert not relay.append(stream, FRAME)
    assert said(relay, stream, '{"type":"ack","seq":1}') is FrameVerdict.ACKED
    assert relay.append(stream, FRAME)


def test_what_is_kept_for_all_is_bounded_and_who_makes_most_be_kept_goes() -> None:
    relay = resumables(max_queued_bytes=8 * FRAME.__sizeof__())
    small, _ = opened(relay, "a", frames=1)
    assert relay.over_budget() == []
    large, _ = opened(relay, "b", frames=8)
    assert relay.over_budget() == [Eviction(large, "slow")]
    relay.end(large)
    assert relay.over_budget() == []
    assert relay.bytes == small.bytes


def test_who_sent_what_nobody_confirmed_is_named() -> None:
    """Once each, in the order in which they sent; the relay's own frames have no sender."""
    relay = resumables()
    stream, _ = opened(relay, frames=1)
    for sender in ("x", "y", "x", "z"):
        relay.append(stream, FRAME, sender)
    said(relay, stream, '{"type":"ack","seq":2}')
    assert relay.end(stream) == ["y", "x", "z"]
    assert relay.end(stream) == []
