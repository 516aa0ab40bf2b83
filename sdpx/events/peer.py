"""The events of `sdpx peer`. Every line ends with `ms`, the milliseconds since the program started."""

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


class WebrtcFeatureUnavailable(WarningEvent, frozen=True):
    """The installed version of a library does not have the private parts that a feature needs; the peer works without it.

    The features are `trickle_ice` (later candidates, several servers, facts about candidate pairs), `dtls_diagnosis` (the
    reasons of failed handshakes, certificates with RSA keys), `flow_control` (a sender is held back, and SCTP is fast) and
    `datagram_batches` (datagrams are sent and received in batches).
    """

    sentence = "The feature '{e.feature}' is unavailable: it does not fit {e.library} {e.version}."
    feature: str
    library: str
    version: str


class IceServerIgnored(WarningEvent, frozen=True):
    """An entry of the relay's list of ICE servers cannot be used. No other server takes its place."""

    sentence = "An ICE server of the relay is ignored: {e.reason}"
    reason: str


class PcCreated(Event, frozen=True):
    """An RTCPeerConnection was created and its state handlers attached."""

    sentence = "Creating new RTCPeerConnection"
    ice_servers: list[str]


class WebrtcStarted(Event, frozen=True):
    """The negotiation started."""

    is_initiator: bool

    def message(self) -> str:
        """Return the sentences of the original design for the role."""
        if self.is_initiator:
            return "Starting WebRTC as initiator... I am the initiator. Creating SDP offer..."
        return "Starting WebRTC as receiver... I am the receiver. Waiting for SDP offer..."


class _Sdp(Event, frozen=True):
    bytes: int
    sdp: str | UnsetType = UNSET


class OfferCreated(_Sdp, frozen=True):
    """The initiator's local description is set."""

    sentence = "Offer created and set as local description."


class OfferSent(_Sdp, frozen=True):
    """The offer was written to the relay."""

    sentence = "Sent offer to signaling server."


class OfferReceived(_Sdp, frozen=True):
    """The peer's offer was received."""

    sentence = "Received offer from peer via signaling server."


class RemoteDescriptionSet(Event, frozen=True):
    """The receiver's remote description is set."""

    sentence = "Set remote description ({e.type}). Creating answer..."
    type: str


class MediaDeclined(Event, frozen=True):
    """An offer has media beside the data channel: those sections are answered `inactive`, or rejected with port 0."""

    sentence = "Media of the offer are not used: {e.inactive} inactive, {e.rejected} rejected."
    inactive: list[str]
    rejected: list[str]


class AnswerCreated(_Sdp, frozen=True):
    """The receiver's local description is set."""

    sentence = "Answer created and set as local description."


class AnswerSent(_Sdp, frozen=True):
    """The answer was written to the relay."""

    sentence = "Sent answer to signaling server."


class AnswerReceived(_Sdp, frozen=True):
    """The peer's answer was received."""

    sentence = "Received answer from peer via signaling server."


class ExchangeComplete(Event, frozen=True):
    """The local peer has set both descriptions and sent its own."""

    sentence = "Set remote description (answer). SDP Offer/Answer exchange complete."


class CandidateSent(Event, frozen=True):
    """A trickled candidate was written to the relay; `candidate_type` is null for the end of candidates."""

    sentence = "Sent candidate to signaling server."
    candidate_type: str | None
    end_of_candidates: bool


class CandidateReceived(Event, frozen=True):
    """A trickled candidate of the peer was received; `candidate_type` is null for the end of candidates."""

    sentence = "Received candidate from peer via signaling server."
    candidate_type: str | None
    end_of_candidates: bool


class CandidateIgnored(Event, frozen=True):
    """A candidate of the peer gets no checks: its address could be that of another party, or there are too many."""

    sentence = "{e._reason}"
    _reason: str


class AddressesSkipped(Event, frozen=True):
    """The machine has more addresses than ICE uses: 16, and none of the bridges of containers."""

    sentence = "Using {e.used} addresses of this machine for candidates, and not {e.skipped} others."
    used: int
    skipped: int


class IceServerFailed(WarningEvent, frozen=True):
    """A STUN or TURN server gave no candidate: it answered with an error `code` (401: wrong credentials), or not at all."""

    sentence = "No candidate from {e.url}: {e._reason}"
    url: str
    code: int | None
    _reason: str


class NegotiationError(WarningEvent, frozen=True):
    """A message of the other peer was invalid or did not arrive; this peer stays usable."""

    sentence = "{e._reason}"
    type: str
    code: str
    _reason: str


class _State(Event, frozen=True):
    state: str


class IceGatheringState(_State, frozen=True):
    """RTCPeerConnection.iceGatheringState changed."""

    sentence = "ICE Gathering State: {e.state}"


class IceConnectionState(_State, frozen=True):
    """RTCPeerConnection.iceConnectionState changed."""

    sentence = "ICE Connection State: {e.state}"


class ConnectionState(_State, frozen=True):
    """RTCPeerConnection.connectionState changed."""

    sentence = "Connection State: {e.state}"


class SignalingState(_State, frozen=True):
    """RTCPeerConnection.signalingState changed."""

    sentence = "Signaling State: {e.state}"


class PathSelected(Event, frozen=True):
    """The connection is established: the candidates that ICE selected, by type and address."""

    sentence = "{e.local_candidate} {e.local_address} -> {e.remote_candidate} {e.remote_address}"
    local_candidate: str
    local_address: str
    remote_candidate: str
    remote_address: str


class ChannelOpen(Event, frozen=True):
    """A data channel is open; `id` is its stream identifier."""

    sentence = "Data channel '{e.label}' is open."
    label: str
    id: int | None = None


class ChannelClosed(Event, frozen=True):
    """A data channel is closed. The next open one takes its place for messages."""

    sentence = "Data channel '{e.label}' is closed."
    label: str
    id: int | None = None


class DataChannelError(WarningEvent, frozen=True):
    """A message of the peer on the stream `id` was faulty and is ignored."""

    sentence = "{e._reason}"
    id: int
    _reason: str


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


class ConnectionRetry(Event, frozen=True):
    """A WebRTC connection that failed or was lost is established again, with a new offer."""

    sentence = "Connecting to {e.peer_id} again, attempt {e.attempt} of {e.retries}."
    peer_id: str
    attempt: int
    retries: int


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


class Diagnosis(WarningEvent, frozen=True):
    """The cause of a failed connection, and the evidence for it. Durations are milliseconds since the attempt started."""

    sentence = "{e._sentence}"
    code: str
    peer_id: str
    is_initiator: bool
    retrying: bool
    after_ms: float
    description_sent: bool
    description_received: bool
    local_candidates: dict[str, int]
    remote_candidates: dict[str, int]
    remote_mdns: int
    silent_stun: list[str]
    turn_refusals: list[str]
    ice_state: str
    dtls: str | None
    silent_ms: float | None
    _sentence: str


class ConnectionSummary(Event, frozen=True):
    """The figures of a connection that was established, logged when it ends."""

    peer_id: str
    is_initiator: bool
    phases: dict[str, float]
    local_candidate: str | None
    remote_candidate: str | None
    bytes_sent: int
    bytes_received: int

    def message(self) -> str:
        """Return the figures in a sentence."""
        took = ", ".join(f"{name} {ms:.0f} ms" for name, ms in self.phases.items())
        pair = f"{self.local_candidate or 'unknown'} to {self.remote_candidate or 'unknown'}"
        return f"Connection over {pair}; {took}; {self.bytes_sent} bytes sent, {self.bytes_received} received."


class Closing(Event, frozen=True):
    """The RTCPeerConnection is being closed."""

    sentence = "Closing RTCPeerConnection..."


class Closed(Event, frozen=True):
    """The RTCPeerConnection is closed."""

    sentence = "RTCPeerConnection closed."
