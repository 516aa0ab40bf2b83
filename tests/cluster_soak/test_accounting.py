"""The accounting of the cluster soak detects every fault."""

from tests.cluster_soak.accounting import Direction


def delivered(*numbers: int, sent: int) -> Direction:
    """Return the accounting after so many sent frames, of which these arrived."""
    direction = Direction()
    for number in range(1, sent + 1):
        assert direction.send(float(number)) == number
    for number in numbers:
        direction.receive(number, 10.5)
    return direction


def test_delivered_frames_are_no_fault() -> None:
    figures = delivered(1, 2, 3, sent=3).figures()
    assert (figures.delivered, figures.faults, figures.longest) == (3, 0, 9.5)


def test_missing_frame_is_lost() -> None:
    figures = delivered(1, 3, sent=3).figures()
    assert (figures.lost, figures.faults) == (1, 1)


def test_error_accounts_for_one_missing_frame() -> None:
    direction = delivered(1, sent=3)
    direction.refuse()
    assert direction.figures().lost == 1
    direction.refuse()
    assert direction.figures().faults == 0


def test_repeated_frame_is_doubled() -> None:
    figures = delivered(1, 2, 2, sent=2).figures()
    assert (figures.doubled, figures.faults) == (1, 1)


def test_frame_behind_a_later_one_is_out_of_order() -> None:
    figures = delivered(2, 1, 3, sent=3).figures()
    assert (figures.out_of_order, figures.faults) == (1, 1)


def test_frame_that_was_never_sent_is_altered() -> None:
    assert delivered(7, sent=3).figures().altered == 1


def test_end_of_the_pairing_excuses_pending_frames_once() -> None:
    direction = delivered(1, sent=3)
    direction.end_pairing()
    direction.receive(2, 11.0)
    direction.send(12.0)
    figures = direction.figures()
    assert (figures.ended, figures.lost, figures.doubled) == (1, 1, 0)
