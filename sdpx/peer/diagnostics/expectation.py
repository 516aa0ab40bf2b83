"""`--expect`: the phase of a connection that a peer is started for, whether it was reached, and the sentence if not. Pure."""

from typing import Final, get_args

from sdpx.errors import Ending, ExitStatus
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase
from sdpx.peer.options import Expected

EXPECTED: Final[tuple[Expected, ...]] = get_args(Expected)
_WANTED: Final[dict[Expected, str]] = {
    "exchange": "the offer and answer were exchanged",
    "connected": "the connection was up",
    "channel": "a data channel was open",
    "message": "a message came",
}


class Expectation:
    """The expected phase; with None nothing is expected, and nothing is unmet."""

    def __init__(self, expected: Expected | None) -> None:
        self._expected = expected
        self.is_unmet = expected is not None

    def reach(self, phase: Phase) -> bool:
        """Note the phase that a connection reached, which implies those before it; returns whether it is the expected one."""
        if self._expected is None or phase not in EXPECTED or EXPECTED.index(phase) < EXPECTED.index(self._expected):
            return False
        self.is_unmet = False
        return True

    def failure(self, cause: str, trace: ConnectionTrace | None) -> Ending | None:
        """Return the ending of an unmet expectation, None if it is met.

        `cause` is the end of the wait, `trace` that of the last connection, None if there was no pairing.
        """
        if self._expected is None or not self.is_unmet:
            return None
        so_far = "no peer was paired with this one" if trace is None else _progress(trace)
        reason = f"--expect {self._expected}: {cause} before {_WANTED[self._expected]}; {so_far}"
        return Ending("expectation_not_met", reason, ExitStatus.EXPECTATION_FAILED)


def _progress(trace: ConnectionTrace) -> str:
    if trace.succeeded:
        return f"the connection to {trace.peer_id} was up"
    if not trace.description_received:
        return f"no {'answer' if trace.is_initiator else 'offer'} had come from {trace.peer_id}"
    if "ice" not in trace.reached_at:
        return f"no network path to {trace.peer_id} had been found"
    return f"the DTLS handshake with {trace.peer_id} had not ended"
