"""`--expect`: which phase meets it, and the sentence if none did."""

import pytest

from sdpx.peer.diagnostics.expectation import EXPECTED, Expectation
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase
from sdpx.peer.options import Expected


@pytest.mark.parametrize("expected", EXPECTED)
def test_a_phase_implies_those_before_it(expected: Expected) -> None:
    """A message means that the channel was open, and so on; ICE alone meets nothing."""
    for reached in EXPECTED:
        expectation = Expectation(expected)
        assert not expectation.reach("ice")
        later = EXPECTED.index(reached) >= EXPECTED.index(expected)
        assert expectation.reach(reached) is later
        assert expectation.is_unmet is not later


def test_without_an_expectation_nothing_is_unmet() -> None:
    """No phase meets it either."""
    expectation = Expectation(None)
    assert not expectation.is_unmet
    assert not expectation.reach("message")


def unmet(expected: Expected, cause: str, trace: ConnectionTrace | None) -> str:
    ending = Expectation(expected).failure(cause, trace)
    assert ending is not None
    return ending.reason


def test_the_sentence_says_what_was_missing() -> None:
    """The sentence names the expected state, the time, and the state that was reached."""
    up = ConnectionTrace("bob", is_initiator=True, reached_at={"exchange": 0.1, "ice": 0.2, "connected": 0.3})
    assert unmet("message", "5 s went by", up) == (
        "--expect message: 5 s went by before a message came; the connection to bob was up"
    )
    assert "no peer was paired" in unmet("channel", "ended by SIGTERM", None)


@pytest.mark.parametrize(
    ("initiator", "received", "reached", "words"),
    [
        (True, False, {}, "no answer had come from bob"),
        (False, False, {}, "no offer had come from bob"),
        (True, True, {"exchange": 0.1}, "no network path to bob had been found"),
        (True, True, {"exchange": 0.1, "ice": 0.2}, "the DTLS handshake with bob had not ended"),
    ],
)
def test_the_sentence_says_how_far_a_pairing_came(
    initiator: bool, received: bool, reached: dict[Phase, float], words: str
) -> None:
    """A connection that was not up is not said to have been."""
    trace = ConnectionTrace("bob", initiator, description_received=received, reached_at=reached)
    assert unmet("channel", "ended by SIGTERM", trace).endswith(f"; {words}")
