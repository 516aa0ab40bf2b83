"""A client of the soak: it reads continuously, and accounts for all frames that it sends and receives."""

import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import trio

from sdpx.concurrency import RepeatedEvent
from tests.soak.accounting import NO_RECEIVER, Accounting
from tests.soak.connections import CONNECTION_LOST, Connection

TIMEOUT: Final = 20.0  # seconds for anything that has to happen
RELAYED: Final = ("offer", "answer", "candidate")
UNDELIVERED_CODES: Final = ("not_paired", "peer_unreachable", "rate_limited")
CANDIDATE: Final = {"candidate": "candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host", "sdpMid": "0"}
BODY: Final = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=sdpx \N{SNOWMAN}\r\n" + random.Random(0).randbytes(30_000).hex()


class SessionFailed(Exception):
    """The session cannot continue; the accounting has the violation."""


class Client:
    """One client. `over` is set when its connection has ended; `leaving` if the client is the cause."""

    def __init__(self, connection: Connection, accounting: Accounting) -> None:
        self.connection = connection
        self.accounting = accounting
        self.id = ""
        self.peer: str | None = None
        self.leaving = False
        self.over = False
        self.errors: Counter[str] = Counter()  # by `in_reply_to` and `code`, but for those of relayed frames
        self.answers = 0  # to `unpair`
        self._number = 0
        self._pings = 0
        self._pongs = 0
        self._changed = RepeatedEvent()
        self._listening = trio.CancelScope()

    async def listen(self) -> None:
        """Read until the connection ends, or until `stop_reading`."""
        with self._listening:
            while (text := await self.connection.receive()) is not None:
                self._on_message(text)
                self._changed.set()
            self.over = True
            if not self.leaving:
                self.accounting.report(
                    f"{self.id or 'A new client'} was disconnected, close code {self.connection.code}"
                )
                self._disconnecting("closed")
        self._changed.set()

    def stop_reading(self) -> None:
        """Stop reading."""
        self._listening.cancel()

    def _resume(self) -> None:
        """Allow `listen` to be called again."""
        self._listening = trio.CancelScope()

    async def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a message makes the condition true. Raises `SessionFailed`."""
        with trio.move_on_after(TIMEOUT):
            while not condition():
                if self.over and not self.leaving:
                    raise SessionFailed
                await self._changed.wait()
            return
        self.accounting.report(f"{self.id or 'A new client'} waited {TIMEOUT:g} s for {what}")
        raise SessionFailed

    def _on_message(self, text: str) -> None:
        message: dict[str, Any] = json.loads(text)
        match message["type"]:
            case "offer" | "answer" | "candidate":
                self.accounting.received(self.id, text)
            case "pong":
                self._pongs = message["t"]
            case "error":
                self._on_error(str(message.get("in_reply_to", "")), message["code"])
            case "your_id":
                self.id = message["id"]
                self.accounting.joined(self.id)
            case _:
                self._on_pairing_change(message)

    def _on_error(self, in_reply_to: str, code: str) -> None:
        if in_reply_to in RELAYED and code in UNDELIVERED_CODES:
            self.accounting.refused(self.id)
            return
        self.errors[f"{in_reply_to} {code}".strip()] += 1
        self.answers += in_reply_to == "unpair"

    def _on_pairing_change(self, message: dict[str, Any]) -> None:
        peer = message["peer_id"]
        match message["type"]:
            case "paired":
                self.accounting.paired(self.id, peer)
                self.peer = peer
            case "unpaired":
                self.accounting.unpaired(self.id, peer)
                self.peer = None
                self.answers += 1
            case "peer_disconnected":
                self.accounting.peer_disconnected(self.id, peer, message["reason"])
                self.peer = None

    async def send(self, **message: Any) -> None:
        """Send a message, unless the connection has ended."""
        await self.send_text(json.dumps(message, ensure_ascii=False))

    async def send_text(self, text: str) -> None:
        try:
            await self.connection.send(text)
        except CONNECTION_LOST:
            await trio.lowlevel.checkpoint()

    async def send_frame(self, receiver: "Client | None", rng: random.Random, size: int = 0, name: str = "") -> None:
        """Send a numbered frame to the peer, if there is one; `peer_id` is `name`, or sometimes the receiver."""
        kind = rng.choice(RELAYED)
        size = size or rng.choice((20, 200, 2_000, 4_000, 4_000, 20_000))
        self._number += 1
        message: dict[str, Any] = {"type": kind, "number": self._number, "sender": self.id}
        message |= {"candidate": CANDIDATE, "more": BODY[:size]} if kind == "candidate" else {"sdp": BODY[:size]}
        if name or (receiver is not None and rng.random() < 0.7):
            message["peer_id"] = name or (receiver.id if receiver else "")
        text = json.dumps(message, ensure_ascii=rng.random() < 0.5)
        gone = receiver is None or (receiver.leaving and self.peer is None)
        self.accounting.sent(self.id, NO_RECEIVER if receiver is None or gone else receiver.id, self._number, text)
        await self.send_text(text)

    async def pair(self, other: "Client") -> None:
        """Request the pairing and wait until both clients are paired."""
        await self.send(type="pair_request", target_id=other.id)
        await self.wait_until(lambda: self.peer == other.id, "paired, as requested")
        await other.wait_until(lambda: other.peer == self.id, "paired, as the target")

    async def unpair(self) -> None:
        """End the pairing; it may have ended already."""
        answers = self.answers
        await self.send(type="unpair")
        await self.wait_until(lambda: self.answers > answers, "the answer to unpair")

    async def synchronize(self) -> None:
        """Wait until all messages are received that the relay had queued when it handled the ping."""
        self._pings += 1
        number = self._pings
        await self.send(type="ping", t=number)
        await self.wait_until(lambda: self._pongs >= number, "a pong")

    def _disconnecting(self, *reasons: str, in_order: bool = False) -> None:
        if self.id:
            self.accounting.disconnecting(self.id, *reasons, in_order=in_order)

    def expect_end(self, *reasons: str, in_order: bool = False) -> None:
        """Declare that the connection will end, and the reasons that the peer may be notified of."""
        self.leaving = True
        self._disconnecting(*reasons, in_order=in_order)

    async def close(self) -> None:
        """Close the connection with a close frame."""
        self.expect_end("closed", in_order=True)
        with suppress(*CONNECTION_LOST):
            await self.connection.close()
        await self.wait_until(lambda: self.over, "the end of the closed connection")
