"""One stay at a relay, across the sockets that it takes: the rules of `resume` with somebody who waits.

- `send` gives a frame its number and queues it in one go; the task that writes a socket asks `next` for what is due.
- What is kept is bounded. When it is full the sender waits until the relay confirms; after `ROOM_SECONDS` the stay is over.
- A relay that does not confirm for `CONFIRM_SECONDS` is not there, whatever the socket says: it has 0.2 s to do so.
- When the stay is over what is sent goes nowhere, and whoever waits is let go: the news tell why.
"""

import math
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

import msgspec
import trio

from sdpx.errors import Refusal
from sdpx.peer.signaling.resume import ResumeState, SequenceCheck
from sdpx.protocol import messages
from sdpx.protocol.messages import ServerAck, ServerMessage

CONFIRM_SECONDS: Final = 5.0
ROOM_SECONDS: Final = 30.0


class ProtocolViolation(Enum):
    """Why a socket is of no more use."""

    GAP = auto()  # a frame is missing: the next socket brings it
    UNTRUE = auto()  # the relay confirms what was never sent: nothing that it says counts


class ReliableChannel:
    """A stay that has begun, with a socket that was welcomed; `rules` are its numbers."""

    def __init__(self, rules: ResumeState) -> None:
        self._rules = rules
        self._written = 0  # the client_seq up to which the present socket has taken the frames
        self._receipts: deque[tuple[int, Callable[[], None]]] = deque()
        self._has_socket = True
        self.is_over = False
        self._confirm_due = math.inf
        self._changed = trio.Event()

    # ---- out

    async def send(self, message: msgspec.Struct, on_written: Callable[[], None] | None = None) -> bool:
        """Queue a message for this socket or the next one; waits while the queue is full. False if the channel is over.

        `on_written` is called once, in the order of the messages, when a socket has taken the whole frame; never, if none does.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(ROOM_SECONDS):
            while not self.is_over and not self._rules.has_room:
                await self._changed.wait()
        if not self.is_over and not self._rules.has_room:  # without this frame the later ones would make no sense
            self.end()
        if self.is_over:
            return False
        self._rules.send(messages.encode(message))
        if on_written is not None:
            self._receipts.append((self._rules.sent, on_written))
        self._wake()
        return True

    async def next(self) -> tuple[str, int] | None:
        """Wait for the next frame that the present socket is to write; its number is 0 if `written` is not to be told of it.

        None: the channel is over, or the relay confirms nothing and the socket is of no more use.
        """
        while not self.is_over:
            now = trio.current_time()
            if self._ack_due <= now:
                return self._rules.ack(), 0
            if self._has_socket and self._written < self._rules.sent:
                return self._rules.frame(self._written + 1), self._written + 1
            if not self._rules.unconfirmed or not self._has_socket:
                self._confirm_due = math.inf
            elif self._confirm_due == math.inf:
                self._confirm_due = now + CONFIRM_SECONDS
            elif self._confirm_due <= now:
                break
            with trio.move_on_at(min(self._ack_due, self._confirm_due)):
                await self._changed.wait()
        return None

    def written(self, client_seq: int) -> None:
        """Note that the socket has taken the frames up to this one."""
        self._written = max(self._written, client_seq)
        self._rules.written(client_seq)
        while self._receipts and self._receipts[0][0] <= client_seq:
            self._receipts.popleft()[1]()
        self._wake()

    @property
    def _ack_due(self) -> float:
        return math.inf if self._rules.ack_due is None else self._rules.ack_due

    async def flush(self) -> None:
        """Wait until the socket has taken all that was sent, or is gone."""
        while self._has_socket and self._written < self._rules.sent:
            await self._changed.wait()

    # ---- in

    def receive(self, text: str) -> ServerMessage | ProtocolViolation | None:
        """Take a frame of the relay; None if there is nothing more to do for it."""
        arrival = self._rules.receive(text, trio.current_time())
        if arrival is SequenceCheck.GAP:
            return ProtocolViolation.GAP
        if self._rules.ack_due is not None:
            self._wake()
        if arrival is SequenceCheck.DUPLICATE:
            return None
        try:
            message = messages.parse_server(text)
        except Refusal:
            return None  # a frame that makes no sense is no reason to leave
        return self._on_ack(message) if isinstance(message, ServerAck) else message

    def _on_ack(self, taken: ServerAck) -> ProtocolViolation | None:
        if not self._rules.confirm(taken.client_seq):
            return ProtocolViolation.UNTRUE
        self._confirm_due = math.inf
        self.written(self._rules.confirmed)
        return None

    # ---- sockets

    def suspend(self) -> None:
        """Go on without a socket: what is sent is kept."""
        self._has_socket = False
        self._confirm_due = math.inf
        self._wake()

    def resume(self) -> None:
        """Go on with a new socket, which writes all that the relay has not confirmed."""
        self._has_socket = True
        self._written = self._rules.confirmed
        self.written(self._written)

    def end(self) -> None:
        """Let go whoever waits: what is sent from now on goes nowhere."""
        self.is_over = True
        self.suspend()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
