"""The events of `sdpx peer` about the relay connection, pairings and messages; those of a connection are in `webrtc`.

Every line of `sdpx peer` ends with `ms`, the milliseconds since the program started.
"""

from msgspec import UNSET, UnsetType

from sdpx.events import Event, WarningEvent


class Connecting(Event, frozen=True):
    """A connection to the relay is being opened."""

    sentence = "Connecting to server at {e.url}..."
    url: str


class TlsVerificationDisabled(WarningEvent, frozen=True):
    """`--insecure` is set."""

    sentence = (
        "TLS certificate verification is disabled (--insecure): "
        "a machine in the middle can read and change the signaling"
    )


class Connected(Event, frozen=True):
    """The WebSocket to the relay is open."""

    sentence = "Connected to server."
    url: str


class IdAssigned(Event, frozen=True):
    """The relay assigned this peer its ID."""

    sentence = "Your Client ID: {e.id}"
    id: str


class PairRequested(Event, frozen=True):
    """The request for a pairing was written to the relay's socket."""

    sentence = "Requesting pairing with {e.target_id}..."
    target_id: str


class Paired(Event, frozen=True):
    """The relay paired this peer."""

    peer_id: str
    is_initiator: bool

    def message(self) -> str:
        """Return the sentence of the original design for the role."""
        role = "initiator" if self.is_initiator else "receiver"
        return f"Paired with {self.peer_id}! You are the {role}."


class IceServerIgnored(WarningEvent, frozen=True):
    """An entry of the relay's list of ICE servers cannot be used. No other server takes its place."""

    sentence = "An ICE server of the relay is ignored: {e.reason}"
    reason: str


class ChannelMessage(Event, frozen=True):
    """A message was received: `text`, or `bytes` and `base64` if it is binary. This event is never dropped.

    `channel` is the label of its data channel, if that is not the first open one.
    """

    sentence = "Received a message from peer."
    text: str | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    channel: str | UnsetType = UNSET


class ChannelMessageSent(Event, frozen=True):
    """A line of input was queued in the data channel; `bytes` is its length in UTF-8."""

    sentence = "Sent a message to peer."
    bytes: int


class MessagesUnconfirmed(WarningEvent, frozen=True):
    """A pairing ended, and messages may not have reached the other peer: it has not confirmed them."""

    sentence = "{e.peer_id} has not confirmed the last messages ({e.messages}, with {e.bytes} bytes)"
    peer_id: str
    messages: int
    bytes: int


class InputRejected(WarningEvent, frozen=True):
    """Input was not used: a line is invalid, or messages were not sent. Rejected messages make the exit status 15, or 12."""

    sentence = "{e._reason}"
    code: str
    _reason: str


class PeerDisconnected(Event, frozen=True):
    """The other peer ended the pairing, or disconnected from the relay."""

    sentence = "Peer {e.peer_id} disconnected ({e.reason})."
    peer_id: str
    reason: str


class Ready(Event, frozen=True):
    """A pairing ended; this peer can be paired again on the same connection to the relay."""

    sentence = "Ready for new connection."
    peer_id: str
    reason: str


class ServerError(WarningEvent, frozen=True):
    """The relay refused a frame of this peer."""

    code: str
    target_id: str | UnsetType
    in_reply_to: str | UnsetType
    _message: str

    def message(self) -> str:
        """Return the sentence of the relay; it does not name the target that it did not find."""
        return f"No client '{self.target_id}' is connected" if self.code == "target_not_found" else self._message


class Disconnected(WarningEvent, frozen=True):
    """The connection to the relay was lost."""

    sentence = "Disconnected from server (code {e.code})."
    code: int
    reason: str


class Reconnecting(WarningEvent, frozen=True):
    """The relay is unreachable; this peer connects again after a delay."""

    attempt: int
    delay_ms: float
    code: str
    reason: str

    def message(self) -> str:
        """Return the reason, and the time until the next attempt."""
        when = f"in {self.delay_ms / 1000:.1f} s" if self.delay_ms else "at once"
        return f"{self.reason}. Retrying {when}."


class RelayResumed(Event, frozen=True):
    """The session was resumed on a new connection to the relay: ID, pairing and pending messages are kept."""

    id: str
    away_ms: float
    unconfirmed: int

    def message(self) -> str:
        """Return the ID, and for how long it had no connection."""
        return f"Resumed session {self.id} after {self.away_ms / 1000:.1f} s; no message was lost."


class PairRetryScheduled(Event, frozen=True):
    """The target of `--pair` is not connected yet, or busy; the request is repeated after a delay."""

    target_id: str
    code: str
    delay_ms: float

    def message(self) -> str:
        """Return the reason, and the time until the next request."""
        state = "not connected" if self.code == "target_not_found" else "paired with another client"
        return f"'{self.target_id}' is {state}; trying again in {self.delay_ms / 1000:.1f} s."


class PairingDeclined(Event, frozen=True):
    """A pairing was declined: the previous peer, or this one, lost the relay, and still responds on the open data channel."""

    sentence = "Declined the pairing with {e.peer_id}: the data channel to {e.present_peer_id} is open."
    peer_id: str
    present_peer_id: str
