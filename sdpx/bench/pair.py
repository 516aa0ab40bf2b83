"""A pair of clients: they connect, are paired, and exchange offers and answers."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from selectors import BaseSelector
from typing import Any, Final

import msgspec

from sdpx.bench.accounting import Tally
from sdpx.bench.payloads import MessageStream, client_frame, decode_object
from sdpx.bench.ws_client import Target, WsClient
from sdpx.relay.websocket.fast_parser import TEXT

RELAY_TYPES: Final = ("error", "peer_disconnected")
RELAY_TYPE_ENDS: Final = tuple(f'{kind}"'.encode() for kind in RELAY_TYPES)
RELAY_BYTES: Final = 1024  # the relay's own messages are shorter


def _relay_message(text: bytes) -> dict[str, Any]:
    """Return a message of the relay itself; an empty object for a relayed one, which is usually not parsed."""
    if len(text) > RELAY_BYTES or not any(end in text for end in RELAY_TYPE_ENDS):
        return {}
    message = decode_object(text)
    return message if message.get("type") in RELAY_TYPES else {}


class Pair:
    """Two clients, each of its target; the first requests the pairing, and messages are exchanged between them.

    With `once` they exchange an offer and an answer when they are paired, and disconnect. If one client fails, both end.
    """

    def __init__(
        self, selector: BaseSelector, targets: Sequence[Target], payload: int, tally: Tally, *, once: bool = False
    ) -> None:
        self._tally = tally
        self._once = once
        self._ids: dict[int, str] = {}
        self._receivers = 0
        self._closing = False
        self.replies = 1 if once else -1  # how many received messages are still replied to; negative: all
        self._streams = [MessageStream(kind, payload, tally) for kind in ("offer", "answer")]  # by sender
        self._clients = [
            WsClient(selector, target, tally, partial(self._on_text, side), self._close)
            for side, target in enumerate(targets)
        ]

    @property
    def paired(self) -> bool:
        """Whether both clients were paired."""
        return self._receivers == len(self._clients)

    @property
    def closed(self) -> bool:
        """Whether both clients are disconnected."""
        return self._clients[0].closed and self._clients[1].closed

    @property
    def completed(self) -> bool:
        """Whether both clients were closed with a close handshake that they began."""
        return all(client.completed for client in self._clients)

    @property
    def has_pending(self) -> bool:
        """Whether a message is pending that can still arrive."""
        return not self.closed and any(stream.has_pending for stream in self._streams)

    def start(self, in_flight: int) -> None:
        """Send so many offers; offers are replied to by answers, and answers by offers."""
        for _ in range(in_flight):
            self._clients[0].post(self._streams[0].next_frame(time.monotonic()))
        self._clients[0].flush()

    def abort(self) -> None:
        """Count pending messages as lost, and close both sockets."""
        if not self.closed:
            for stream in self._streams:
                stream.finish()
        self._close()

    def _close(self) -> None:
        """Close both sockets. Pending messages are not lost: their senders were notified, or the connection was."""
        for client in self._clients:
            client.abort()

    def _on_text(self, side: int, text: bytes) -> None:
        """Handle a message before the pairing."""
        message = decode_object(text)
        match message.get("type"):
            case "your_id":
                self._ids[side] = str(message.get("id"))
                if len(self._ids) == len(self._clients):
                    request = msgspec.json.encode({"type": "pair_request", "target_id": self._ids[1]})
                    self._clients[0].post(client_frame(TEXT, request))
                    self._clients[0].flush()
            case "paired":
                self._clients[side].on_text = self._receiver(side)
                self._receivers += 1
                if self.paired and self._once:
                    self.start(1)
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
            if self.replies:
                self.replies -= 1
                post(next_frame(now))
            else:
                self._check_done()

        return on_text

    def _check_done(self) -> None:
        if self._once and not self.has_pending and not self._closing:
            self._closing = True
            for client in self._clients:
                client.start_closing()

    def _on_relay_message(self, side: int, message: dict[str, Any]) -> None:
        if message.get("type") == "error":
            self._tally.refused[str(message.get("code"))] += 1
            self._streams[side].refuse()
            self._check_done()
        elif not self._closing:
            self._fail(self._tally.cut, f"peer_disconnected, {message.get('reason')}")

    def _fail(self, counts: Counter[str], cause: str) -> None:
        counts[cause] += 1
        self._close()
