"""The reasons for which the WebSocket connections of clients end, and how a connection is closed for each of them. Pure."""

from typing import Final

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
GAP: Final = CloseReason("refused", 1002, "A frame is missing: your client_seq has a gap")
ID_LOST: Final = CloseReason("refused", 1012, "Another client has your ID now")
RATE_EXCEEDED: Final = Violation(TOO_FAST.code, TOO_FAST.text)
PARTIAL_MESSAGES: Final = CloseReason(
    "refused", 1008, "The relay has too many incomplete messages; complete yours sooner"
)
DISCONNECTED: Final = CloseReason("closed", 1008, "The operator of the relay disconnected you")
SHUTDOWN: Final = CloseReason("shutdown", 1001, "The relay is stopping; connect again soon")
CANCELLED: Final = CloseReason("closed", ABNORMAL, "The connection was cut")
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
