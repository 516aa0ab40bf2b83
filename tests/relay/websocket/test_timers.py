"""The timer wheel."""

from sdpx.relay.websocket.timers import NEVER, TimerWheel


class Target:
    """An object with a timer."""

    timer_at = NEVER

    def on_timer(self, now: float) -> None:
        raise NotImplementedError  # the wheel says which are due; its owner calls them


def test_a_timer_is_never_early_and_at_most_a_tick_late() -> None:
    """A timer that is cleared leaves nothing behind but an empty tick."""
    wheel, targets = TimerWheel(), [Target() for _ in range(100)]
    for number, target in enumerate(targets):
        wheel.set(target, number / 100, 0)
    for target in targets[::2]:
        wheel.clear(target)
    fired = {time: wheel.due(time / 1000) for time in range(1100)}
    times = [time / 1000 for time, due in fired.items() for _ in due]
    assert [each for due in fired.values() for each in due] == targets[1::2]
    assert all(0 <= time - number / 100 < 0.02 for time, number in zip(times, range(1, 100, 2), strict=True))


def test_distant_timers_share_ticks_of_a_second() -> None:
    """An hour of connections that come and go leaves one tick for each second."""
    wheel, target = TimerWheel(), Target()
    for number in range(100_000):
        now = number * 3600 / 100_000
        wheel.set(target, now + 3600.0, now)
        wheel.clear(target)
    assert len(wheel._targets) == len(wheel._ticks) == 3601
    wheel.set(target, 3600.1, 0)
    assert wheel.due(3600.9) == []
    assert wheel.due(3601) == [target]
