"""A client of the soak: listens all the while, and enters what it says and hears into the books."""

import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import trio

from tests.soak.account import NOBODY, Account
from tests.soak.links import CONNECTION_LOST, SocketStream

PATIENCE: Final = 20.0  # seconds for anything that has to happen
RELAYED: Final = ("offer", "answer", "candidate")
NOWHERE: Final = ("not_paired", "peer_unreachable", "rate_limited")
CANDIDATE: Final = {"candidate": "candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host", "sdpMid": "0"}
BODY: Final = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=sdpx \N{SNOWMAN}\r\n" + random.Random(0).randbytes(30_000).hex()


class Stuck(Exception):
    """The session cannot go on: what had to happen did not. The books say what."""


class Client:
    """One client. `over` is set when its connection is; `leaving` when that is its own doing."""

    def __init__(self, link: SocketStream, account: Account) -> None:
        self.link = link
        self.account = account
        self.id = ""
        self.peer: str | None = None
        self.leaving = False
        self.over = False
        self.errors: Counter[str] = Counter()  # `in_reply_to` and `code` of all others than those for relayed frames
        self.answers = 0  # to `unpair`
        self._number = 0
        self._pings = 0
        self._pongs = 0
        self._news = trio.Event()
        self._listening = trio.CancelScope()

    # ---- hearing ------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Read until the connection is over, or until `deafen`."""
        with self._listening:
            while (text := await self.link.receive()) is not None:
                self._hear(text)
                self._wake()
            self.over = True
            if not self.leaving:
                self.account.complain(f"{self.id or 'A newcomer'} was cut, close code {self.link.code}")
                self._go("closed")
        self._wake()

    def deafen(self) -> None:
        """Stop reading."""
        self._listening.cancel()

    def undeafen(self) -> None:
        """Let `listen` be called again."""
        self._listening = trio.CancelScope()

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something to be heard; raises `Stuck`."""
        with trio.move_on_after(PATIENCE):
            while not condition():
                if self.over and not self.leaving:
                    raise Stuck
                await self._news.wait()
            return
        self.account.complain(f"{self.id or 'A newcomer'} waited {PATIENCE:g} s in vain for {what}")
        raise Stuck

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _hear(self, text: str) -> None:
        message: dict[str, Any] = json.loads(text)
        match message["type"]:
            case "offer" | "answer" | "candidate":
                self.account.received(self.id, text)
            case "pong":
                self._pongs = message["t"]
            case "error":
                self._hear_error(str(message.get("in_reply_to", "")), message["code"])
            case "your_id":
                self.id = message["id"]
                self.account.joined(self.id)
            case _:
                self._hear_of_pairing(message)

    def _hear_error(self, in_reply_to: str, code: str) -> None:
        if in_reply_to in RELAYED and code in NOWHERE:
            self.account.refused(self.id)
            return
        self.errors[f"{in_reply_to} {code}".strip()] += 1
        self.answers += in_reply_to == "unpair"

    def _hear_of_pairing(self, message: dict[str, Any]) -> None:
        peer = message["peer_id"]
        match message["type"]:
            case "paired":
                self.account.paired(self.id, peer)
                self.peer = peer
            case "unpaired":
                self.account.unpaired(self.id, peer)
                self.peer = None
                self.answers += 1
            case "peer_disconnected":
                self.account.peer_disconnected(self.id, peer, message["reason"])
                self.peer = None

    # ---- saying -------------------------------------------------------------------------------------------------

    async def say(self, **message: Any) -> None:
        """Send a message, unless the connection is over."""
        await self.say_text(json.dumps(message, ensure_ascii=False))

    async def say_text(self, text: str) -> None:
        try:
            await self.link.send(text)
        except CONNECTION_LOST:
            await trio.lowlevel.checkpoint()

    async def tell(self, receiver: "Client | None", rng: random.Random, size: int = 0, name: str = "") -> None:
        """Send a numbered frame to the peer, or to nobody; it may name somebody, who is the receiver unless said."""
        kind = rng.choice(RELAYED)
        size = size or rng.choice((20, 200, 2_000, 4_000, 4_000, 20_000))
        self._number += 1
        message: dict[str, Any] = {"type": kind, "number": self._number, "sender": self.id}
        message |= {"candidate": CANDIDATE, "more": BODY[:size]} if kind == "candidate" else {"sdp": BODY[:size]}
        if name or (receiver is not None and rng.random() < 0.7):
            message["peer_id"] = name or (receiver.id if receiver else "")
        text = json.dumps(message, ensure_ascii=rng.random() < 0.5)
        gone = receiver is None or (receiver.leaving and self.peer is None)
        self.account.sent(self.id, NOBODY if receiver is None or gone else receiver.id, self._number, text)
        await self.say_text(text)

    async def pair(self, other: "Client") -> None:
        """Ask for the other and wait until both know it."""
        await self.say(type="pair_request", target_id=other.id)
        await self.until(lambda: self.peer == other.id, "paired, having asked for it")
        await other.until(lambda: other.peer == self.id, "paired, having been asked for")

    async def unpair(self) -> None:
        """Leave the pairing, if it is not over already."""
        answers = self.answers
        await self.say(type="unpair")
        await self.until(lambda: self.answers > answers, "the answer to unpair")

    async def catch_up(self) -> None:
        """Have heard all that the relay had said to this client when it took the ping."""
        self._pings += 1
        number = self._pings
        await self.say(type="ping", t=number)
        await self.until(lambda: self._pongs >= number, "a pong")

    # ---- leaving ------------------------------------------------------------------------------------------------

    def _go(self, *reasons: str, in_order: bool = False) -> None:
        if self.id:
            self.account.ending(self.id, *reasons, in_order=in_order)

    def leave(self, *reasons: str, in_order: bool = False) -> None:
        """Say that what now comes ends this connection, and for which reasons its peer may hear of it."""
        self.leaving = True
        self._go(*reasons, in_order=in_order)

    async def close(self) -> None:
        """End the connection as one should, once all is written."""
        self.leave("closed", in_order=True)
        with suppress(*CONNECTION_LOST):
            await self.link.close()
        await self.until(lambda: self.over, "the end of a connection that it closed")
