"""What `--expect` waits for, and when it is so. Pure."""

from typing import Final, get_args

from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase
from sdpx.peer.options import Expected

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


def unmet(expected: Expected, cause: str, evidence: ConnectionTrace | None) -> str:
    """Return the sentence for an expectation that did not come true.

    `cause` is what ended the waiting for it, `evidence` that of the connection there was, None without a pairing.
    """
    so_far = "no peer was paired with this one" if evidence is None else _so_far(evidence)
    return f"--expect {expected}: {cause} before {_WANTED[expected]}; {so_far}"


def _so_far(evidence: ConnectionTrace) -> str:
    who = evidence.peer_id
    if evidence.succeeded:
        return f"the connection to {who} was up"
    if not evidence.description_received:
        return f"no {'answer' if evidence.is_initiator else 'offer'} had come from {who}"
    if "ice" not in evidence.reached_at:
        return f"no network path to {who} had been found"
    return f"the DTLS handshake with {who} had not ended"
