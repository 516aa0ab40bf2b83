"""Failed attempts are slowed, by address."""

from sdpx.relay.core.failed_auth import ADDRESSES_KEPT, ATTEMPTS_AT_ONCE, FailedAuthLimit


def test_some_at_once_and_then_a_steady_rate() -> None:
    attempts = FailedAuthLimit(2)
    for _ in range(int(ATTEMPTS_AT_ONCE)):
        assert attempts.may_try("a", 0)
        attempts.failed("a", 0)
    assert not attempts.may_try("a", 0)
    assert attempts.seconds_to_wait("a", 0) == 0.5
    assert attempts.may_try("a", 0.5)
    assert attempts.may_try("b", 0)


def test_attempts_side_by_side_win_nothing() -> None:
    """They are below zero, and have to be waited for; but not for ever."""
    attempts = FailedAuthLimit(1)
    for _ in range(1000):
        attempts.failed("a", 0)
    assert attempts.seconds_to_wait("a", 0) == ATTEMPTS_AT_ONCE + 1
    assert attempts.may_try("a", ATTEMPTS_AT_ONCE + 1)


def test_who_fails_seldom_never_notices() -> None:
    attempts = FailedAuthLimit(1)
    for second in range(1000):
        assert attempts.may_try("a", second)
        attempts.failed("a", second)


def test_zero_is_no_limit() -> None:
    attempts = FailedAuthLimit(0)
    for _ in range(100):
        attempts.failed("a", 0)
    assert attempts.may_try("a", 0)
    assert attempts.seconds_to_wait("a", 0) == 0


def test_what_is_kept_is_bounded() -> None:
    attempts = FailedAuthLimit(1)
    for number in range(ADDRESSES_KEPT * 2):
        attempts.failed(str(number), 0)
    assert len(attempts._of) == ADDRESSES_KEPT
