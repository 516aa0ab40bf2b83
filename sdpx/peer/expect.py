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


def unmet(expected: Expected, cause: str, peer_id: str | None) -> str:
    """Return the sentence for an expectation that did not come true; `cause` is what ended the waiting for it."""
    so_far = "no peer was paired with this one" if peer_id is None else f"the connection to {peer_id} was up"
    return f"--expect {expected}: {cause} before {_WANTED[expected]}; {so_far}"
