"""What `--expect` waits for, and when it is so. Pure."""

from typing import Final, Literal, get_args

from sdpx.peer.evidence import Phase

Expected = Literal["exchange", "connected", "channel", "message"]
EXPECTED: Final[tuple[Expected, ...]] = get_args(Expected)
_WANTED: Final[dict[Expected, str]] = {
    "exchange": "the offer and answer were exchanged",
    "connected": "the connection was up",
    "channel": "a data channel was open",
    "message": "a message came",
}


def is_met(expected: Expected, reached: Phase) -> bool:
    """Tell whether a connection that has reached this phase is what was expected: each phase implies those before it."""
    return reached in EXPECTED and EXPECTED.index(reached) >= EXPECTED.index(expected)


def unmet(expected: Expected, seconds: float, so_far: str) -> str:
    """Return the sentence for an expectation that `seconds` went by without."""
    return f"--expect {expected}: {seconds:g} s went by before {_WANTED[expected]}; {so_far}"
