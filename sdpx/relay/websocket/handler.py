"""What a connection and the relay know of each other, whichever way the WebSocket is served. Pure."""

from collections.abc import Hashable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from sdpx.protocol.messages import DisconnectReason
from sdpx.relay.websocket.validator import Violation

ABNORMAL: Final = 1006  # RFC 6455, 7.4.1: no close frame came
# What a client that is let go may still be sent: answers, not whole outboxes.
FINAL_FLUSH_BYTES: Final = 16 * 1024


class CloseReason(Struct, frozen=True):
    """How a client went: the word for its peer, the close code and the sentence for the client and the log."""

    reason: DisconnectReason
    code: int
    text: str


CONNECTION_LOST: Final = CloseReason("closed", ABNORMAL, "")
IDLE_TIMEOUT: Final = CloseReason("timeout", 1008, "You were silent for too long")
SLOW_CONSUMER: Final = CloseReason("slow", 1008, "You did not read what was sent to you")
WRITE_TIMEOUT: Final = CloseReason("slow", 1008, "Your socket took nothing of what was sent to you")
HANDSHAKE_ABORTED: Final = CloseReason("closed", ABNORMAL, "The WebSocket did not open")
SUPERSEDED: Final = CloseReason("closed", 4001, "You came back on another connection")


def is_connection_loss(departure: CloseReason) -> bool:
    """Tell whether a socket was lost: no close frame came or went, or nobody was there any more to have one."""
    return departure.code == ABNORMAL or departure.reason == "timeout" or departure == WRITE_TIMEOUT


def from_violation(violation: Violation) -> CloseReason:
    """Return how a client goes that broke a rule."""
    return CloseReason("refused", violation.code, violation.text)


class ConnectionHandler(Protocol):
    """The relay, as the connection of one client sees it. Nothing here waits."""

    def on_text(self, data: bytes, now: float) -> bool:
        """Take the bytes of a text message, if it is one that goes a short way; else `on_frame` is to have it."""

    def on_frame(self, frame: str | bytes, now: float) -> int:
        """Take a message that came at `now`; returns how many frames wait in the fullest outbox that it put one into."""

    def on_non_message_frames(self, count: int, now: float) -> Violation | None:
        """Count frames that end no message, control frames and fragments; returns what is wrong if they are too many."""

    def on_partial_message(self, size: int) -> None:
        """Hear how many bytes are kept of a message that is not whole."""

    def on_relayed(self, seconds: float) -> None:
        """Hear how long a relayed frame took, from being read whole to being handed to this client's socket."""

    def on_disconnected(self, departure: CloseReason) -> None:
        """Hear that the client is gone, and how: once, and before its farewell."""

    def on_closed(self, fault: Exception | None) -> None:
        """Hear that its socket is closed, and whether a fault of the relay's own ended it: once, and last of all."""


class QueueStatus(Protocol):
    """What waits for one client: how many frames, how many bytes of memory, and since when nothing left."""

    bytes: int
    last_progress: float

    def __len__(self) -> int:
        """Return how many frames wait."""


class FrameSender(Hashable, Protocol):
    """Who sent a frame, as the connection sees it that the frame is for."""

    def hear(self, text: str) -> None:
        """Be told what became of it."""


class ClientConnection(Protocol):
    """The connection of one client, as the relay sees it."""

    departure: CloseReason | None

    @property
    def outbox(self) -> QueueStatus:
        """What waits to be read by this client."""

    @property
    def lost(self) -> Sequence[FrameSender]:
        """Once the connection is over: who sent what was never sent on."""

    def begin_with(self, texts: Sequence[str]) -> None:
        """Queue what precedes all other frames, before the WebSocket opens; it may be more than an outbox holds."""

    def post(self, text: str, sender: FrameSender | None = None, since: float = 0.0) -> int:
        """Send a frame, or queue it; of a relayed one `sender` sent it, and it came at `since`.

        Returns how many wait in this client's outbox, or 0 if the frame was not taken. A client that lets it fill is let go.
        """

    def relay(self, data: bytes, sender: FrameSender, since: float) -> int:
        """Send the frame that came as `data`, ASCII and ending with a brace, marked: as `post` would."""

    def end(self, departure: CloseReason) -> None:
        """End the connection, for this reason unless it has ended for another already."""
