"""The candidates that a peer sends, in what order they come to ICE, and when it may hear that they have ended. Pure.

Before the description none can be used: they are held, in order. The end counts once it is quiet: some stacks say it in
front of the last candidates, and ICE takes nothing more behind it. It waits too for this side's own late candidates and
for names that are still being resolved, or ICE would give up on pairs that are only about to come.
"""

from typing import Final

from sdpx.peer.negotiation.sdp import bare
from sdpx.protocol.messages import CandidateInit

HELD: Final = 256
QUIET_SECONDS: Final = 1.5


class RemoteCandidates:
    """The rules of one connection. Times are in seconds of any clock that never goes back."""

    def __init__(self) -> None:
        self._held: list[CandidateInit | None] = []
        self._open = False
        self._last = 0.0
        self._ended = False
        self._resolving = 0
        self._told = False

    def take(self, candidate: CandidateInit | None, now: float) -> list[CandidateInit]:
        """Take one from the peer; returns what ICE is to have now. Raises ValueError if it is one too many to hold."""
        if not self._open:
            if len(self._held) >= HELD:
                raise ValueError(f"More than {HELD} candidates came before the description")
            self._held.append(candidate)
            return []
        self._last = now
        if candidate is None or not bare(candidate.candidate):
            self._ended = True
            return []
        return [candidate]

    def opened(self, described: list[CandidateInit | None], now: float) -> list[CandidateInit]:
        """Note that the description is set, with the candidates that it had; returns all that ICE is to have now."""
        self._open = True
        held, self._held = self._held, []
        return [ready for candidate in described + held for ready in self.take(candidate, now)]

    def resolving(self, change: int) -> None:
        """Note that a name has begun (1) or finished (-1) to be resolved."""
        self._resolving += change

    def end_of_candidates_in(self, now: float) -> float | None:
        """Return in how many seconds ICE may hear of the end, as far as is known now; None if it may not."""
        if not self._ended or self._resolving or self._told:
            return None
        return max(0.0, self._last + QUIET_SECONDS - now)

    def told(self) -> None:
        """Note that ICE has heard of the end."""
        self._told = True
