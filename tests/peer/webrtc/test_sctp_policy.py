"""How often SCTP acknowledges, and how much it sends at once."""

from sdpx.peer.webrtc.sctp_policy import LONG_BURST, QUIET, SHORT_BURST, BurstPolicy, SackPolicy


def interval(policy: SackPolicy) -> int:
    """Return how many packets pass until a SACK is due."""
    policy.note_sent()
    return next(count for count in range(1, 100) if policy.note_packet())


def after(policy: SackPolicy, packets: int) -> SackPolicy:
    for _ in range(packets):
        policy.note_packet()
    return policy


def test_acknowledgements_become_rarer_on_a_path_without_loss() -> None:
    assert interval(SackPolicy()) == 2
    assert interval(after(SackPolicy(), QUIET)) == 4
    assert interval(after(SackPolicy(), 4 * QUIET)) == 8


def test_disorder_makes_every_second_packet_acknowledged_again() -> None:
    policy = after(SackPolicy(), 4 * QUIET)
    policy.note_disorder()
    assert interval(policy) == 2


def test_a_long_burst_needs_a_large_window_and_a_path_without_loss() -> None:
    policy = BurstPolicy()
    assert policy.burst(1000) == SHORT_BURST
    policy.note_acknowledged(QUIET + 1)
    assert (policy.burst(64), policy.burst(65)) == (SHORT_BURST, LONG_BURST)
    policy.note_loss()
    assert policy.burst(1000) == SHORT_BURST
