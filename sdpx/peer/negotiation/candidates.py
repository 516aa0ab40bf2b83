"""The remote candidates of a connection: their order, and when ICE may be notified of their end (RFC 8838). Pure.

Before the remote description is set no candidate can be used: they are kept, in order. The end of candidates counts after a
quiet time, because some stacks send it before their last candidates, and ICE accepts none after it. The end also waits for
names that are being resolved: otherwise ICE would fail before their pairs exist.
"""

from typing import Final

from sdpx.peer.negotiation.sdp import normalize_candidate
from sdpx.protocol.messages import CandidateInit

MAX_EARLY: Final = 256
QUIET_SECONDS: Final = 1.5


class RemoteCandidates:
    """The candidates of one connection. Times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self.early: list[CandidateInit | None] = []
        self._described = False
        self._last = 0.0
        self._ended = False
        self._resolving = 0
        self._end_reported = False

    def add(self, candidate: CandidateInit | None, now: float) -> list[CandidateInit]:
        """Add one from the peer; return those that ICE gets now. Raises ValueError for too many early ones."""
        if not self._described:
            if len(self.early) >= MAX_EARLY:
                raise ValueError(f"More than {MAX_EARLY} candidates came before the description")
            self.early.append(candidate)
            return []
        self._last = now
        if candidate is None or not normalize_candidate(candidate.candidate):
            self._ended = True
            return []
        return [candidate]

    def on_description(self, described: list[CandidateInit | None], now: float) -> list[CandidateInit]:
        """Note that the description, with these candidates, is set; return all that ICE gets now."""
        self._described = True
        early, self.early = self.early, []
        return [ready for candidate in described + early for ready in self.add(candidate, now)]

    def count_resolving(self, change: int) -> None:
        """Note that the resolution of a name has begun (1) or finished (-1)."""
        self._resolving += change

    def end_of_candidates_in(self, now: float) -> float | None:
        """Return in how many seconds ICE may be notified of the end, as far as is known now; None if it may not."""
        if not self._ended or self._resolving or self._end_reported:
            return None
        return max(0.0, self._last + QUIET_SECONDS - now)

    def mark_ended(self) -> None:
        """Note that ICE has been notified of the end."""
        self._end_reported = True
