"""`--expect`, watched: whether it has come true, and what to say if it does not."""

import trio

from sdpx.errors import ExpectationFailed
from sdpx.peer.diagnostics.progress import is_met, unmet
from sdpx.peer.diagnostics.trace import ConnectionTrace, Phase
from sdpx.peer.options import Expected


class Expectation:
    """What is expected, or None: then nothing is, and nothing is unmet."""

    def __init__(self, expected: Expected | None) -> None:
        self._expected = expected
        self._met = trio.Event()
        if expected is None:
            self._met.set()

    @property
    def is_unmet(self) -> bool:
        """Whether it has still to come true."""
        return not self._met.is_set()

    def reach(self, phase: Phase) -> bool:
        """Note how far a connection is; returns whether that is what was expected."""
        met = self._expected is not None and is_met(self._expected, phase)
        if met:
            self._met.set()
        return met

    async def wait(self) -> None:
        """Wait until it has come true."""
        await self._met.wait()

    def failure(self, cause: str, evidence: ConnectionTrace | None) -> ExpectationFailed:
        """Return what to end with; `cause` says what ends the waiting, `evidence` how far the pairing came."""
        assert self._expected is not None
        return ExpectationFailed("expectation_not_met", unmet(self._expected, cause, evidence))
