"""Asking the relay for a pairing, one at a time, and again while the wanted peer is not there yet."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from sdpx.events import peer
from sdpx.log import Log
from sdpx.peer.policy import NO_REPLY, RELAY_LOST
from sdpx.peer.signaling.backoff import Backoff
from sdpx.protocol.messages import ErrorFrame, PairRequest

ANSWER_SECONDS: Final = 10.0
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 4.0  # a relay grants each client a request for somebody absent every 5 s, and its address more
_MAY_PASS: Final = ("target_not_found", "target_already_paired", "rate_limited")


class PairRequester:
    """`send` queues a frame for the relay and calls back when it is written; False without a relay.

    `chance` is for the waits, uniform in [0, 1). `up_since` tells when the present connection to the relay came up, and None
    while there is none.
    """

    def __init__(
        self,
        send: Callable[[msgspec.Struct, Callable[[], None]], Awaitable[bool]],
        up_since: Callable[[], float | None],
        log: Log,
        chance: Callable[[], float],
    ) -> None:
        self._send = send
        self._up_since = up_since
        self._log = log
        self._chance = chance
        self._target = ""
        self._paired = trio.Event()
        self._answered = trio.Event()
        self._refusal: ErrorFrame | None = None
        self.last_refusal: ErrorFrame | None = None

    async def ask(self, target: str, patience: float = 0.0) -> ErrorFrame | None:
        """Ask to be paired with `target`; for `patience` seconds, as long as it is not there or busy.

        Returns None once the two are paired, whoever asked, or else the refusal; its code is `RELAY_LOST` if the relay went
        meanwhile, and `NO_REPLY` if it does not answer.
        """
        self._target, self._paired = target, trio.Event()
        until = trio.current_time() + patience
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while (refusal := await self._ask_once(target)) is not None:
            left = until - trio.current_time()
            if refusal.code not in _MAY_PASS or left <= 0:
                return refusal
            delay = min(left, backoff.next(self._chance()))
            self._log.emit(peer.PairRetryScheduled(target, refusal.code, round(delay * 1000, 1)))
            with trio.move_on_after(delay):
                await self._paired.wait()
                return None
        return None

    async def _ask_once(self, target: str) -> ErrorFrame | None:
        self._answered, self._refusal = trio.Event(), None
        if not await self._send(PairRequest(target), lambda: self._log.emit(peer.PairRequested(target))):
            self.on_relay_lost()
        if await self._is_answered():
            self.last_refusal = self._refusal
            return self._refusal
        return ErrorFrame(NO_REPLY, f"The relay did not answer the pairing request within {ANSWER_SECONDS:.0f} s")

    async def _is_answered(self) -> bool:
        """Wait for the answer; a relay that is away, to be come back to, answers then."""
        asked = trio.current_time()
        while (since := self._up_since()) is None or trio.current_time() < max(asked, since) + ANSWER_SECONDS:
            with trio.move_on_at(max(asked, trio.current_time() if since is None else since) + ANSWER_SECONDS):
                await self._answered.wait()
                return True
        return False

    def on_paired(self, peer_id: str) -> None:
        """Take note of a pairing, by whoever asked for it."""
        if peer_id == self._target:
            self._refusal = None
            self._paired.set()
            self._answered.set()

    def on_refused(self, error: ErrorFrame) -> None:
        """Take note of what the relay says to a request."""
        if not self._answered.is_set():
            self._refusal = error
            self._answered.set()

    def on_relay_lost(self) -> None:
        """Take note that the relay is gone."""
        self.on_refused(ErrorFrame(RELAY_LOST, "The connection to the relay was lost"))
