"""A frame channel to the relay that outlives its sockets: `ResumeState`, with tasks that wait.

- `send` numbers and keeps a frame; the task that writes a socket takes it by `next_frame` and reports it by `mark_written`.
- The frames kept are bounded. A sender waits for acks while they are full; after `FULL_SECONDS` the channel closes.
- A relay that acknowledges nothing for `ACK_TIMEOUT_SECONDS` is unreachable, whatever the socket says: acks are due in 0.2 s.
- A closed channel drops the frames that are sent and releases every waiting task; the client raises `Disconnected`.
"""

import math
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

import msgspec
import trio

from sdpx.concurrency import RepeatedEvent
from sdpx.errors import Refusal
from sdpx.peer.signaling.resume import ResumeState, SequenceCheck
from sdpx.protocol import codec
from sdpx.protocol.messages import ServerAck, ServerMessage

ACK_TIMEOUT_SECONDS: Final = 5.0
FULL_SECONDS: Final = 30.0


class ProtocolViolation(Enum):
    """Why the present socket must be given up."""

    GAP = auto()  # a frame is missing; the next socket brings it
    BAD_ACK = auto()  # the relay acknowledged a frame that was never sent; its session is unusable


class ReliableChannel:
    """An open channel with a socket, from the relay's first `your_id`; `state` has its sequence numbers."""

    def __init__(self, state: ResumeState) -> None:
        self._state = state
        self._written = 0  # the client_seq up to which the present socket has taken the frames
        self._callbacks: deque[tuple[int, Callable[[], None]]] = deque()
        self._has_socket = True
        self.is_closed = False
        self._ack_timeout_at = math.inf
        self._changed = RepeatedEvent()

    # ---- out

    async def send(self, message: msgspec.Struct, on_written: Callable[[], None] | None = None) -> bool:
        """Queue a message for this socket or the next one; waits while the queue is full. False if the channel is closed.

        `on_written` is called once, in the order of the messages, when a socket has taken the whole frame; never, if none does.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(FULL_SECONDS):
            while not self.is_closed and not self._state.has_room:
                await self._changed.wait()
        if not self.is_closed and not self._state.has_room:  # without this frame the later ones would make no sense
            self.close()
        if self.is_closed:
            return False
        self._state.send(codec.encode(message).decode())
        if on_written is not None:
            self._callbacks.append((self._state.sent, on_written))
        self._changed.set()
        return True

    async def next_frame(self) -> tuple[str, int] | None:
        """Wait for the next frame to write, and its `client_seq` for `mark_written`, which is 0 for an ack.

        Returns None if the channel is closed, or if the relay acknowledges nothing and the socket must be given up.
        """
        while not self.is_closed:
            now, ack_due = trio.current_time(), math.inf if self._state.ack_due is None else self._state.ack_due
            if ack_due <= now:
                return self._state.ack(), 0
            if self._has_socket and self._written < self._state.sent:
                return self._state.frame(self._written + 1), self._written + 1
            if not self._state.unconfirmed or not self._has_socket:
                self._ack_timeout_at = math.inf
            elif self._ack_timeout_at == math.inf:
                self._ack_timeout_at = now + ACK_TIMEOUT_SECONDS
            elif self._ack_timeout_at <= now:
                break
            with trio.move_on_at(min(ack_due, self._ack_timeout_at)):
                await self._changed.wait()
        return None

    def mark_written(self, client_seq: int) -> None:
        """Note that the socket has taken the frames up to this one."""
        self._written = max(self._written, client_seq)
        self._state.mark_written(client_seq)
        while self._callbacks and self._callbacks[0][0] <= client_seq:
            self._callbacks.popleft()[1]()
        self._changed.set()

    async def flush(self) -> None:
        """Wait until the socket has taken all frames, or is lost."""
        while self._has_socket and self._written < self._state.sent:
            await self._changed.wait()

    # ---- in

    def receive(self, text: str) -> ServerMessage | ProtocolViolation | None:
        """Process a frame of the relay; None if it is an ack, a duplicate, or unknown."""
        check = self._state.receive(text, trio.current_time())
        if check is SequenceCheck.GAP:
            return ProtocolViolation.GAP
        if self._state.ack_due is not None:
            self._changed.set()
        if check is SequenceCheck.DUPLICATE:
            return None
        try:
            message = codec.parse_server(text)
        except Refusal:
            return None  # a later relay may have messages that this peer does not know
        if not isinstance(message, ServerAck):
            return message
        if not self._state.confirm(message.client_seq):
            return ProtocolViolation.BAD_ACK
        self._ack_timeout_at = math.inf
        self.mark_written(self._state.confirmed)
        return None

    # ---- sockets

    def suspend(self) -> None:
        """Continue without a socket: frames are kept for the next one."""
        self._has_socket = False
        self._ack_timeout_at = math.inf
        self._changed.set()

    def resume(self) -> None:
        """Continue with a new socket, to which all unconfirmed frames are written."""
        self._has_socket = True
        self._written = self._state.confirmed
        self.mark_written(self._written)

    def close(self) -> None:
        """Close the channel: every waiting task returns, and frames sent from now on are dropped."""
        self.is_closed = True
        self.suspend()
