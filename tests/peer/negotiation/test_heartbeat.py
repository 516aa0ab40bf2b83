"""When a heartbeat is sent, and when the peer counts as vanished."""

from hypothesis import given
from hypothesis import strategies as st

from sdpx.peer.negotiation.heartbeat import (
    BEAT_SECONDS,
    GRACE_SECONDS,
    LATE_SECONDS,
    SILENCE_SECONDS,
    Heartbeat,
    HeartbeatAction,
)


def run(heartbeat: Heartbeat, until: float) -> list[tuple[float, HeartbeatAction]]:
    """Check whenever a check is due, until a time or the end; return the action of each check."""
    actions = []
    while heartbeat.next_check <= until:
        now = heartbeat.next_check
        actions.append((now, heartbeat.check(now)))
        if actions[-1][1] is HeartbeatAction.VANISHED:
            break
    return actions


def test_a_beat_is_sent_each_second() -> None:
    """The first is due at once."""
    heartbeat = Heartbeat(100.0)
    assert run(heartbeat, 102.5) == [(100.0 + n, HeartbeatAction.SEND) for n in range(3)]


def test_a_peer_vanishes_after_three_seconds_of_silence() -> None:
    """Silence is measured from the last sign of life."""
    heartbeat = Heartbeat(0.0)
    run(heartbeat, 1.5)
    heartbeat.note_received(1.5)
    actions = run(heartbeat, 10.0)
    assert actions[-1] == (4.5, HeartbeatAction.VANISHED)
    assert heartbeat.last_received == 1.5


def test_a_peer_that_never_sends_vanishes() -> None:
    """Without a sign of life, silence is measured from the creation of the heartbeat."""
    assert run(Heartbeat(5.0), 20.0)[-1] == (5.0 + SILENCE_SECONDS, HeartbeatAction.VANISHED)


def test_a_suspended_process_waits_for_unread_messages() -> None:
    """After its own suspension a side grants the peer one more second, once."""
    heartbeat = Heartbeat(0.0)
    assert heartbeat.check(0.0) is HeartbeatAction.SEND
    assert heartbeat.check(3600.0) is HeartbeatAction.SEND
    assert heartbeat.check(heartbeat.next_check) is HeartbeatAction.VANISHED
    heartbeat = Heartbeat(0.0)
    heartbeat.check(3600.0)
    heartbeat.note_received(3600.1)
    assert heartbeat.check(3600.0 + GRACE_SECONDS) is HeartbeatAction.SEND


@given(st.lists(st.floats(0, SILENCE_SECONDS - 0.01), max_size=50))
def test_a_peer_that_sends_in_time_never_vanishes(gaps: list[float]) -> None:
    """The signs of life may be irregular."""
    heartbeat, now = Heartbeat(0.0), 0.0
    for gap in gaps:
        now += gap
        assert HeartbeatAction.VANISHED not in [action for _, action in run(heartbeat, now)]
        heartbeat.note_received(now)


@given(st.lists(st.floats(0, LATE_SECONDS), max_size=50))
def test_late_checks_delay_the_end_by_a_bounded_time(delays: list[float]) -> None:
    """In a busy process a vanished peer is noticed a little later, but always."""
    heartbeat = Heartbeat(0.0)
    for delay in [*delays, *[0.0] * 10]:
        now = heartbeat.next_check + delay
        if heartbeat.check(now) is HeartbeatAction.VANISHED:
            assert SILENCE_SECONDS <= now <= SILENCE_SECONDS + BEAT_SECONDS + GRACE_SECONDS
            return
    raise AssertionError("the peer never vanished")
