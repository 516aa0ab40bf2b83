"""Executes the effects of decisions: events are logged, and messages go into the receivers' send queues and replay buffers.

- Effects that executing an effect causes, as when a full send queue ends its client, are executed after all earlier ones.
- When all send queues, or all replay buffers, exceed their bound, clients are disconnected (`sdpx.relay.core.overload`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from sdpx.events import Event
from sdpx.protocol import codec
from sdpx.protocol.codec import FROM_PEER
from sdpx.protocol.messages import Pong, ServerMessage, YourId
from sdpx.relay.client import ClientSession
from sdpx.relay.core.overload import QueuedBytes, slowest_readers
from sdpx.relay.core.pairing import Effect, Send
from sdpx.relay.resume import ResumeManager
from sdpx.relay.websocket.close_reasons import SLOW_CONSUMER
from sdpx.relay.websocket.connection import Connection
from sdpx.relay.websocket.fast_parser import text_frame


@dataclass(eq=False, repr=False)
class EffectExecutor:
    """Executes effects for the clients of a relay.

    The `sessions` have the bytes of `queued` in their send queues, `max_bytes` at most; so many are the bytes of all replay
    buffers, too.
    """

    _max_bytes: int
    _sessions: Mapping[str, ClientSession]
    _resume: ResumeManager
    _queued: QueuedBytes
    _log_event: Callable[[Event], None]
    _pending: deque[tuple[Effect, float]] = field(default_factory=deque)
    _is_executing: bool = False
    _replayed: QueuedBytes = field(init=False)

    def __post_init__(self) -> None:
        self._replayed = self._resume.store.total

    def execute(self, effects: Sequence[Effect], now: float = 0.0) -> int:
        """Execute effects of a message that came at `now`, or leave them to the execution that is under way.

        Returns the number of frames in the fullest send queue.
        """
        if self._is_executing:
            self._pending += [(effect, now) for effect in effects]
            return 0
        self._is_executing = True
        deepest = 0
        try:
            for effect in effects:
                depth = self._execute_one(effect, now)
                if depth > deepest:  # noqa: PLR1730  `max` is slower
                    deepest = depth
            while self._pending:
                deepest = max(deepest, self._execute_one(*self._pending.popleft()))
        finally:
            self._is_executing = False
        if self._queued.bytes > self._max_bytes or self._replayed.bytes > self._max_bytes:
            self._evict()
        return deepest

    def forward(
        self, receiver: ClientSession, body: bytes, body_without_seq: bytes | None, sender: object, now: float
    ) -> tuple[bool, int]:
        """Queue a frame of the receiver's peer, without its number as `body_without_seq` if it has one.

        Returns whether it was accepted, and the number of frames in the send queue. The caller calls `execute_pending`.
        """
        was_executing = self._is_executing
        self._is_executing = True  # effects, as when the receiver is ended, come behind the frame
        try:
            if receiver.replay is not None:
                body = body if body_without_seq is None else body_without_seq
                return self._resume.post(receiver, body, FROM_PEER, sender, now)
            assert receiver.connection is not None
            depth = receiver.connection.post(text_frame(body, FROM_PEER), sender, now)
            return depth > 0, depth
        finally:
            self._is_executing = was_executing

    def execute_pending(self) -> None:
        """Execute what `forward` has caused."""
        if self._pending or self._queued.bytes > self._max_bytes or self._replayed.bytes > self._max_bytes:
            self.execute(())

    def _execute_one(self, effect: Effect, now: float) -> int:
        if not isinstance(effect, Send):
            self._log_event(effect)
            return 0
        receiver = self._sessions.get(effect.client_id)
        if receiver is None:  # an earlier effect removed it
            return 0
        return self._send(effect.message, receiver, now)

    def _send(self, message: ServerMessage, receiver: ClientSession, now: float) -> int:
        data = codec.encode(message)
        if receiver.replay is not None and not isinstance(message, YourId | Pong):
            return self._resume.post(receiver, data[:-1], codec.END, None, now)[1]
        return 0 if receiver.connection is None else receiver.connection.post(text_frame(data), None, now)

    def _evict(self) -> None:
        """Disconnect clients until the send queues and the replay buffers are within their bounds."""
        queues = [(each, each.queue.size, each.queue.waiting_since) for each in self.connections()]
        for connection in slowest_readers(queues, self._queued.bytes, self._max_bytes, trio.current_time()):
            connection.end(SLOW_CONSUMER)
        self._resume.evict()

    def connections(self) -> list[Connection]:
        """Return the connections of all sessions that have one."""
        return [each.connection for each in self._sessions.values() if each.connection is not None]
