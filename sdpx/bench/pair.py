"""Two clients that meet: both connect, one asks for the other, and they exchange offers and answers, each with a number."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from sdpx.bench.accounting import Tally, count_one
from sdpx.bench.payloads import MessageStream, text_frame
from sdpx.bench.ws_client import NORMAL, Ended, Loop, Target, Wire

_decoder: Final = msgspec.json.Decoder(dict[str, Any])
OWN: Final = ("error", "peer_disconnected")
OWN_MARKS: Final = tuple(f'{kind}"'.encode() for kind in OWN)
OWN_BYTES: Final = 1024  # what the relay says for itself is short


def _decode(text: bytes) -> dict[str, Any]:
    """Return the object that a message is; an empty one if it is none."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _own(text: bytes) -> dict[str, Any]:
    """Return the message if it is one that the relay says for itself; most are not, and are not parsed for that."""
    if len(text) > OWN_BYTES or not any(mark in text for mark in OWN_MARKS):
        return {}
    message = _decode(text)
    return message if message.get("type") in OWN else {}


class Pair:
    """Two clients and what is under way between them.

    `on_ready` is called once both are paired, `on_done` when nothing is under way any more and nothing follows, `on_closed`
    once: when both have left, or the pair came to nothing.
    """

    def __init__(
        self,
        loop: Loop,
        target: Target,
        payload: int,
        tally: Tally,
        on_ready: Callable[["Pair"], None],
        on_done: Callable[["Pair"], None],
        on_closed: Callable[["Pair"], None],
    ) -> None:
        self._tally = tally
        self._on_ready, self._on_done, self._on_over = on_ready, on_done, on_closed
        self._ids: dict[bool, str] = {}
        self._paired = 0
        self._here = 2
        self._leaving = False
        self.is_over = False
        self.is_whole = False  # both have left in peace
        self.turns = 0  # how many more messages follow upon one that came; below 0: no end of them
        self._courses = {True: MessageStream("offer", payload, tally), False: MessageStream("answer", payload, tally)}
        self._wires = {
            asks: Wire(loop, target, partial(self._greeted, asks), self._gone)  # by whether it asks for the other
            for asks in (True, False)
        }

    @property
    def waits(self) -> bool:
        """Whether something is under way that can still come."""
        return not self.is_over and any(course.ledger.waits for course in self._courses.values())

    def start(self, in_flight: int, turns: int) -> None:
        """Send so many offers; each is answered, each answer followed by an offer, until there were so many `turns`."""
        self.turns = turns
        asking = self._wires[True]
        for _ in range(in_flight):
            asking.post(self._courses[True].make(time.monotonic()))
        asking.flush()

    def leave(self) -> None:
        """Both say that they go."""
        self._leaving = True
        for wire in self._wires.values():
            wire.leave()

    def close(self) -> None:
        """Count what is missing, and let the connections go."""
        if not self.is_over:
            for course in self._courses.values():
                course.ledger.close()
        self._drop()

    def _drop(self) -> None:
        self.is_over = True
        for wire in self._wires.values():
            wire.drop()

    # ---- meeting, and talking -----------------------------------------------------------------------------------

    def _greeted(self, asks: bool, text: bytes) -> None:
        message = _decode(text)
        match message.get("type"):
            case "your_id":
                self._ids[asks] = str(message.get("id"))
                if len(self._ids) == len(self._wires):
                    self._wires[True].post(text_frame({"type": "pair_request", "target_id": self._ids[False]}))
                    self._wires[True].flush()
            case "paired":
                self._wires[asks].on_text = self._listener(asks)
                self._paired += 1
                if self._paired == len(self._wires):
                    self._on_ready(self)
            case "error":
                self._fail(self._tally.refused, str(message.get("code")))
            case kind:
                self._fail(self._tally.cut, f"a message of type {kind} before the pairing")

    def _listener(self, asks: bool) -> Callable[[bytes], None]:
        """Return what takes the messages of one side: this is where the load spends its time."""
        take, make, post = self._courses[not asks].take, self._courses[asks].make, self._wires[asks].post
        monotonic = time.monotonic

        def listen(text: bytes) -> None:
            now = monotonic()
            if own := _own(text):
                self._told(asks, own)
                return
            take(text, now)
            if self.turns:
                self.turns -= 1
                post(make(now))
            else:
                self._check_done()

        return listen

    def _check_done(self) -> None:
        if not self.waits and not self._leaving:
            self._on_done(self)

    # ---- what goes wrong, and the end ---------------------------------------------------------------------------

    def _told(self, asks: bool, message: dict[str, Any]) -> None:
        """Take what the relay says for itself."""
        if message.get("type") == "error":
            count_one(self._tally.refused, str(message.get("code")))
            self._courses[asks].ledger.was_refused()
            self._check_done()
        elif not self._leaving:
            self._fail(self._tally.cut, f"peer_disconnected, {message.get('reason')}")

    def _fail(self, where: dict[str, int], why: str) -> None:
        """Note why the pair comes to nothing; what is under way is not lost, for its sender knows."""
        count_one(where, why)
        if not self.is_over:
            self._drop()
            self._on_over(self)

    def _gone(self, how: Ended) -> None:
        self._here -= 1
        if how.refused:
            self._fail(self._tally.refused, str(how))
        elif not self._leaving or how.code != NORMAL:
            self._fail(self._tally.cut, str(how))
        elif not self._here:
            self.is_over = self.is_whole = True
            self._on_over(self)
