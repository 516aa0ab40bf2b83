"""The interface between the engines and the relay: callbacks upward, and the reasons for which a connection ends. Pure."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from sdpx.protocol.messages import DisconnectReason
from sdpx.relay.core.limits import Limits
from sdpx.relay.websocket.validator import UNMASKED_CLOSE, Violation

ABNORMAL: Final = 1006  # RFC 6455, 7.4.1: there was no close frame
PROXY_CODES: Final = (1001, 1012, 1013)  # RFC 6455, 7.4.1, and IANA: going away, service restart, try again later
# Queued bytes up to which a client that is disconnected still gets them: answers, but not a whole queue.
FINAL_FLUSH_BYTES: Final = 16 * 1024


class CloseReason(Struct, frozen=True):
    """Why a connection ends: the reason for the peer, and the close code and sentence for the client and the log."""

    reason: DisconnectReason
    code: int
    text: str


CONNECTION_LOST: Final = CloseReason("closed", ABNORMAL, "")
IDLE_TIMEOUT: Final = CloseReason("timeout", 1008, "You were silent for too long")
TOO_FAST: Final = CloseReason("refused", 1008, "You sent too much, too fast, for too long")
SLOW_CONSUMER: Final = CloseReason("slow", 1008, "You did not read what was sent to you")
WRITE_TIMEOUT: Final = CloseReason("slow", 1008, "Your socket took nothing of what was sent to you")
HANDSHAKE_ABORTED: Final = CloseReason("closed", ABNORMAL, "The WebSocket did not open")
SUPERSEDED: Final = CloseReason("closed", 4001, "Your session was resumed on another connection")
RESTARTING: Final = CloseReason(
    "closed", 1012, "This node of the relay is stopping; resume your session on another one"
)
ID_LOST: Final = CloseReason("refused", 1012, "Another client has your ID now")
PROXY_CLOSED: Final = CloseReason("closed", 1001, "A proxy closed the connection")


def is_connection_loss(close_reason: CloseReason) -> bool:
    """Return whether a connection was lost: no close frame of the client came, and none could be sent to it.

    The close codes by which a proxy ends connections, when it stops or loads its configuration, are those of a loss.
    """
    is_proxys = close_reason.reason == "closed" and close_reason.code in PROXY_CODES
    return (
        is_proxys or close_reason.code == ABNORMAL or close_reason.reason == "timeout" or close_reason == WRITE_TIMEOUT
    )


def flushes_queue(close_reason: CloseReason, queued_bytes: int) -> bool:
    """Return whether the frames in the send queue are written before the close frame.

    A client that closes, or does not read, gets no more frames; on shutdown everything is written as far as time allows.
    """
    if close_reason.reason in ("slow", "closed"):
        return False
    return close_reason.reason == "shutdown" or queued_bytes <= FINAL_FLUSH_BYTES


def flush_timeout(close_reason: CloseReason, limits: Limits) -> float:
    """Return the seconds for writing the frames that precede the close frame."""
    return limits.drain_timeout if close_reason.reason == "shutdown" else limits.close_timeout


def from_violation(violation: Violation) -> CloseReason:
    """Return the close reason of a client that broke a rule, or of a proxy that closed the connection."""
    if violation == UNMASKED_CLOSE:
        return PROXY_CLOSED
    return CloseReason("refused", violation.code, violation.text)


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
