"""When one says that one is alive, and when the other is not any more."""

from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.heartbeat import BEAT_SECONDS, GRACE_SECONDS, LATE_SECONDS, SILENCE_SECONDS, Act, Heartbeat
from sdpx.peer.signaling.backoff import Backoff


def run(heartbeat: Heartbeat, until: float) -> list[tuple[float, Act]]:
    """Look whenever it asks to be looked at, up to a time; what came of it."""
    acts = []
    while heartbeat.next_look <= until:
        now = heartbeat.next_look
        acts.append((now, heartbeat.look(now)))
        if acts[-1][1] is Act.VANISHED:
            break
    return acts


def test_a_beat_a_second() -> None:
    """The first at once."""
    heartbeat = Heartbeat(100.0)
    assert run(heartbeat, 102.5) == [(100.0 + n, Act.BEAT) for n in range(3)]


def test_three_seconds_of_silence_are_the_end() -> None:
    """From the last sign of life."""
    heartbeat = Heartbeat(0.0)
    run(heartbeat, 1.5)
    heartbeat.heard(1.5)
    acts = run(heartbeat, 10.0)
    assert acts[-1] == (4.5, Act.VANISHED)
    assert heartbeat.last_heard == 1.5


def test_whoever_never_says_a_word_has_vanished_too() -> None:
    """The watch begins when the connection is up."""
    assert run(Heartbeat(5.0), 20.0)[-1] == (5.0 + SILENCE_SECONDS, Act.VANISHED)


def test_a_side_that_stood_still_does_not_blame_the_other() -> None:
    """After a suspension it gives what came meanwhile the time to be read, once."""
    heartbeat = Heartbeat(0.0)
    assert heartbeat.look(0.0) is Act.BEAT
    assert heartbeat.look(3600.0) is Act.BEAT
    assert heartbeat.look(heartbeat.next_look) is Act.VANISHED
    heartbeat = Heartbeat(0.0)
    heartbeat.look(3600.0)
    heartbeat.heard(3600.1)
    assert heartbeat.look(3600.0 + GRACE_SECONDS) is Act.BEAT


@given(st.lists(st.floats(0, SILENCE_SECONDS - 0.01), max_size=50))
def test_whoever_is_heard_in_time_is_never_gone(gaps: list[float]) -> None:
    """However irregular the signs of life are."""
    heartbeat, now = Heartbeat(0.0), 0.0
    for gap in gaps:
        now += gap
        assert Act.VANISHED not in [act for _, act in run(heartbeat, now)]
        heartbeat.heard(now)


@given(st.lists(st.floats(0, LATE_SECONDS), max_size=50))
def test_silence_ends_it_even_if_every_look_is_a_little_late(delays: list[float]) -> None:
    """In a busy program it takes a little longer, and no more."""
    heartbeat = Heartbeat(0.0)
    for delay in [*delays, *[0.0] * 10]:
        now = heartbeat.next_look + delay
        if heartbeat.look(now) is Act.VANISHED:
            assert SILENCE_SECONDS <= now <= SILENCE_SECONDS + BEAT_SECONDS + GRACE_SECONDS
            return
    raise AssertionError("it never ended")


@given(st.floats(0.01, 10), st.floats(1, 100), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=100))
def test_waits_grow_to_their_bound_and_are_half_chance(first: float, longest: float, chances: list[float]) -> None:
    """Never more than the bound, never less than half of what is due; and anew after a success."""
    backoff = Backoff(first, longest)
    for number, chance in enumerate(chances):
        whole = min(longest, first * 2.0 ** min(number, 64))
        assert whole / 2 <= backoff.next(chance) <= whole
    backoff.reset()
    assert backoff.next(0.0) == min(longest, first) / 2
