"""The interface between the engines and the relay: `ConnectionHandler` upward, `Connection` downward."""

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Any

from msgspec import Struct

from sdpx.relay.core.limits import Limits
from sdpx.relay.core.overload import QueuedBytes
from sdpx.relay.websocket.close_reasons import SLOW_CONSUMER, CloseReason
from sdpx.relay.websocket.send_queue import QueuedFrame, SendQueue
from sdpx.relay.websocket.validator import Violation


class ConnectionHandler(Struct, frozen=True):
    """The relay's callbacks, one set for all connections; none of them waits.

    The first argument is the client's session, which the engines do not look into. `connection` identifies the caller: a
    session that was resumed ignores its earlier connections.
    """

    # A message that came whole at `now`, as the bytes of its text; None for a binary one. Returns the number of frames in the
    # fullest send queue that it was put into.
    on_frame: Callable[[Any, bytes | None, float], int]
    # (session, count, now): control frames and fragments, which end no message; returns a violation if there are too many.
    on_non_message_frames: Callable[[Any, int, float], Violation | None]
    # (session, size): the bytes that are kept of an incomplete message.
    on_partial_message: Callable[[Any, int], None]
    # The seconds from reading a relayed frame to writing it to the receiver's socket.
    on_frame_sent: Callable[[float], None]
    # (session, connection, close_reason): the connection ends; called once, before its close frame is sent.
    on_disconnected: Callable[[Any, object, CloseReason], None]
    # (session, connection, fault): the socket is closed, perhaps for a fault of the relay's own; called once, last of all.
    on_closed: Callable[[Any, object, Exception | None], None]
    # (now): when the process was last found to have been suspended; silence before that is no client's fault.
    resumed_at: Callable[[float], float]


@dataclass(slots=True, eq=False, repr=False)
class Connection:
    """A client's WebSocket connection, which calls the relay back through `handler` with its `session`.

    `end` takes effect once: the relay is notified, and from then on nothing is read or queued. `undelivered` has the senders of
    the frames that were not written.
    """

    _limits: Limits
    _handler: ConnectionHandler
    _session: object
    _total: InitVar[QueuedBytes]
    queue: SendQueue = field(init=False)
    close_reason: CloseReason | None = field(init=False, default=None)
    undelivered: tuple[object, ...] = field(init=False, default=())

    def __post_init__(self, total: QueuedBytes) -> None:
        limits = self._limits
        self.queue = SendQueue(limits.send_queue_frames, limits.send_queue_bytes, total, self._handler.on_frame_sent)

    def post(self, data: bytes, sender: object = None, since: float = 0.0) -> int:
        """Queue a WebSocket frame; a relayed one came from `sender` at `since`.

        Returns the number of frames in the queue, or 0 if the frame was dropped. A client whose queue is full is disconnected.
        """
        depth = self.queue.put(data, sender, since)
        if not depth:
            self.end(SLOW_CONSUMER)
        return depth

    def end(self, close_reason: CloseReason) -> None:
        """End the connection for this reason, unless it has ended already."""
        if self.close_reason is None:
            self.close_reason = close_reason
            self._stop_receiving()
            self.queue.close()  # first: its frames must not count while others are notified
            self._handler.on_disconnected(self._session, self, close_reason)
            self._begin_closing(close_reason)

    def _stop_receiving(self) -> None:
        raise NotImplementedError

    def _begin_closing(self, close_reason: CloseReason) -> None:
        raise NotImplementedError

    def _mark_undelivered(self, frames: list[QueuedFrame]) -> None:
        self.undelivered += tuple(sender for _, sender, _ in frames if sender is not None)
