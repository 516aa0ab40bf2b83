"""Requests pairings from the relay, one at a time, and repeats a request while the target or the relay is not ready."""

from collections.abc import Callable
from typing import Final

import trio

from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.policy import NO_REPLY, RELAY_LOST
from sdpx.peer.signaling.backoff import Backoff
from sdpx.peer.signaling.client import SignalingClient
from sdpx.protocol.messages import ErrorFrame, PairRequest

ANSWER_SECONDS: Final = 10.0
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 4.0  # a relay allows each client one request for an absent target in 5 s, and its address more
_TEMPORARY: Final = ("target_not_found", "target_already_paired", "rate_limited", "engine_unavailable")


class PairRequester:
    """Sends requests through `signaling`; `chance` is for the waits, uniform in [0, 1)."""

    def __init__(self, signaling: SignalingClient, log: Log, chance: Callable[[], float]) -> None:
        self._signaling = signaling
        self._log = log
        self._chance = chance
        self._target = ""
        self._paired = trio.Event()
        self._answered = trio.Event()
        self._refusal: ErrorFrame | None = None
        self.last_refusal: ErrorFrame | None = None

    async def request(self, target: str, wait: float = 0.0) -> ErrorFrame | None:
        """Request the pairing with `target`; for `wait` seconds again, as long as the target is absent or busy.

        Returns None once the two are paired, whichever side requested it, or the refusal. Its code is `RELAY_LOST` if the relay
        connection ended meanwhile, and `NO_REPLY` if the relay did not answer.
        """
        self._target, self._paired = target, trio.Event()
        until = trio.current_time() + wait
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while (refusal := await self._request_once(target)) is not None:
            left = until - trio.current_time()
            if refusal.code not in _TEMPORARY or left <= 0:
                return refusal
            delay = min(left, backoff.next(self._chance()))
            self._log.emit(peer.PairRetryScheduled(target, refusal.code, round(delay * 1000, 1)))
            with trio.move_on_after(delay):
                await self._paired.wait()
                return None
        return None

    async def _request_once(self, target: str) -> ErrorFrame | None:
        self._answered, self._refusal = trio.Event(), None
        if not await self._signaling.send(PairRequest(target), lambda: self._log.emit(peer.PairRequested(target))):
            self.on_relay_lost()
        if await self._is_answered():
            self.last_refusal = self._refusal
            return self._refusal
        return ErrorFrame(NO_REPLY, f"The relay did not answer the pairing request within {ANSWER_SECONDS:.0f} s")

    async def _is_answered(self) -> bool:
        """Wait for the answer; the time for it begins when the relay is connected."""
        sent = trio.current_time()
        deadline = sent + ANSWER_SECONDS
        while trio.current_time() < deadline:
            with trio.move_on_at(deadline):
                await self._answered.wait()
                return True
            since = self._signaling.connected_since
            deadline = (trio.current_time() if since is None else max(sent, since)) + ANSWER_SECONDS
        return False

    def on_paired(self, peer_id: str) -> None:
        """Note a pairing, whichever side requested it."""
        if peer_id == self._target:
            self._refusal = None
            self._paired.set()
            self._answered.set()

    def on_refused(self, error: ErrorFrame) -> None:
        """Note the refusal of a request."""
        if not self._answered.is_set():
            self._refusal = error
            self._answered.set()

    def on_relay_lost(self) -> None:
        """Note that the relay connection ended."""
        self.on_refused(ErrorFrame(RELAY_LOST, "The connection to the relay was lost"))
