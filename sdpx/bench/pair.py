"""A pair of clients: they connect, are paired, and exchange offers and answers."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from sdpx.bench.accounting import Tally, increment
from sdpx.bench.payloads import MessageStream, text_frame
from sdpx.bench.ws_client import NORMAL, CloseInfo, Loop, Target, WsClient

_decoder: Final = msgspec.json.Decoder(dict[str, Any])
RELAY_TYPES: Final = ("error", "peer_disconnected")
RELAY_TYPE_ENDS: Final = tuple(f'{kind}"'.encode() for kind in RELAY_TYPES)
RELAY_BYTES: Final = 1024  # the relay's own messages are shorter


def _decode(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a message; an empty one if it is invalid."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _relay_message(text: bytes) -> dict[str, Any]:
    """Return a message of the relay itself; an empty object for a relayed one, which is usually not parsed."""
    if len(text) > RELAY_BYTES or not any(end in text for end in RELAY_TYPE_ENDS):
        return {}
    message = _decode(text)
    return message if message.get("type") in RELAY_TYPES else {}


class Pair:
    """Two clients, of which the first requests the pairing, and the messages between them.

    `on_ready` is called when both are paired, `on_done` when no message is pending and none will follow, `on_closed` once:
    when both are disconnected, or the pair has failed.
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
        self._on_ready, self._on_done, self._on_closed = on_ready, on_done, on_closed
        self._ids: dict[int, str] = {}
        self._paired = 0
        self._open = 2
        self._closing = False
        self.closed = False
        self.completed = False  # both have closed normally
        self.turns = 0  # how many received messages are still replied to; negative: all
        self._streams = [MessageStream(kind, payload, tally) for kind in ("offer", "answer")]  # by sender
        self._clients = [
            WsClient(loop, target, partial(self._on_text, side), self._on_client_closed) for side in (0, 1)
        ]

    @property
    def has_pending(self) -> bool:
        """Whether a message is pending that can still arrive."""
        return not self.closed and any(stream.tracker.has_pending for stream in self._streams)

    def start(self, in_flight: int, turns: int) -> None:
        """Send so many offers. `turns` received messages are replied to, offers by answers and answers by offers."""
        self.turns = turns
        for _ in range(in_flight):
            self._clients[0].post(self._streams[0].next_frame(time.monotonic()))
        self._clients[0].flush()

    def start_closing(self) -> None:
        """Disconnect both clients with a close frame."""
        self._closing = True
        for client in self._clients:
            client.start_closing()

    def abort(self) -> None:
        """Count pending messages as lost, and close both sockets."""
        if not self.closed:
            for stream in self._streams:
                stream.tracker.finish()
        self._abort()

    def _abort(self) -> None:
        self.closed = True
        for client in self._clients:
            client.abort()

    def _on_text(self, side: int, text: bytes) -> None:
        """Handle a message before the pairing."""
        message = _decode(text)
        match message.get("type"):
            case "your_id":
                self._ids[side] = str(message.get("id"))
                if len(self._ids) == len(self._clients):
                    self._clients[0].post(text_frame({"type": "pair_request", "target_id": self._ids[1]}))
                    self._clients[0].flush()
            case "paired":
                self._clients[side].on_text = self._receiver(side)
                self._paired += 1
                if self._paired == len(self._clients):
                    self._on_ready(self)
            case "error":
                self._fail(self._tally.refused, str(message.get("code")))
            case kind:
                self._fail(self._tally.cut, f"a message of type {kind} before the pairing")

    def _receiver(self, side: int) -> Callable[[bytes], None]:
        """Return the handler of messages after the pairing: the hot path of the load."""
        receive, next_frame = self._streams[1 - side].receive, self._streams[side].next_frame
        post, monotonic = self._clients[side].post, time.monotonic

        def on_text(text: bytes) -> None:
            now = monotonic()
            if message := _relay_message(text):
                self._on_relay_message(side, message)
                return
            receive(text, now)
            if self.turns:
                self.turns -= 1
                post(next_frame(now))
            else:
                self._check_done()

        return on_text

    def _check_done(self) -> None:
        if not self.has_pending and not self._closing:
            self._on_done(self)

    def _on_relay_message(self, side: int, message: dict[str, Any]) -> None:
        if message.get("type") == "error":
            increment(self._tally.refused, str(message.get("code")))
            self._streams[side].tracker.refused()
            self._check_done()
        elif not self._closing:
            self._fail(self._tally.cut, f"peer_disconnected, {message.get('reason')}")

    def _fail(self, counts: dict[str, int], cause: str) -> None:
        """Count why the pair failed. Pending messages are not lost: their senders were notified."""
        increment(counts, cause)
        if not self.closed:
            self._abort()
            self._on_closed(self)

    def _on_client_closed(self, info: CloseInfo) -> None:
        self._open -= 1
        if info.refused:
            self._fail(self._tally.refused, str(info))
        elif not self._closing or info.code != NORMAL:
            self._fail(self._tally.cut, str(info))
        elif not self._open:
            self.closed = self.completed = True
            self._on_closed(self)
