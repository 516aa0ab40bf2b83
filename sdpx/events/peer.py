"""The events of `sdpx peer`. Behind its own keys every line has `ms`, the time since the program began to connect."""

from typing import ClassVar

from msgspec import UNSET, UnsetType

from sdpx.events import Event, Level


class Connecting(Event, frozen=True):
    """The relay is being dialled."""

    sentence: ClassVar[str] = "Connecting to server at {e.url}..."
    url: str


class TlsVerificationDisabled(Event, frozen=True):
    """With `--insecure`."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = (
        "The relay's certificate is not checked (--insecure): whoever is in between can read and change what is signalled"
    )


class Connected(Event, frozen=True):
    """The WebSocket to the relay is open."""

    sentence: ClassVar[str] = "Connected to server."
    url: str


class IdAssigned(Event, frozen=True):
    """The relay gave this peer its ID."""

    sentence: ClassVar[str] = "Your Client ID: {e.id}"
    id: str


class PairRequested(Event, frozen=True):
    """This peer asked to be paired."""

    sentence: ClassVar[str] = "Requesting pairing with {e.target_id}..."
    target_id: str


class Paired(Event, frozen=True):
    """The relay paired this peer."""

    peer_id: str
    is_initiator: bool

    def message(self) -> str:
        """Return the founding design's sentence for this role."""
        role = "initiator" if self.is_initiator else "receiver"
        return f"Paired with {self.peer_id}! You are the {role}."


class PcCreated(Event, frozen=True):
    """An RTCPeerConnection exists; its state handlers are attached."""

    sentence: ClassVar[str] = "Creating new RTCPeerConnection"
    ice_servers: list[str]


class WebrtcStarted(Event, frozen=True):
    """The negotiation begins."""

    is_initiator: bool

    def message(self) -> str:
        """Return the founding design's sentences for this role."""
        if self.is_initiator:
            return "Starting WebRTC as initiator... I am the initiator. Creating SDP offer..."
        return "Starting WebRTC as receiver... I am the receiver. Waiting for SDP offer..."


class _Sdp(Event, frozen=True):
    bytes: int
    sdp: str | UnsetType = UNSET


class OfferCreated(_Sdp, frozen=True):
    """The initiator's local description is set."""

    sentence: ClassVar[str] = "Offer created and set as local description."


class OfferSent(_Sdp, frozen=True):
    """The offer is with the relay."""

    sentence: ClassVar[str] = "Sent offer to signaling server."


class OfferReceived(_Sdp, frozen=True):
    """The peer's offer is here."""

    sentence: ClassVar[str] = "Received offer from peer via signaling server."


class RemoteDescriptionSet(Event, frozen=True):
    """The receiver's remote description is set."""

    sentence: ClassVar[str] = "Set remote description ({e.type}). Creating answer..."
    type: str


class AnswerCreated(_Sdp, frozen=True):
    """The receiver's local description is set."""

    sentence: ClassVar[str] = "Answer created and set as local description."


class AnswerSent(_Sdp, frozen=True):
    """The answer is with the relay."""

    sentence: ClassVar[str] = "Sent answer to signaling server."


class AnswerReceived(_Sdp, frozen=True):
    """The peer's answer is here."""

    sentence: ClassVar[str] = "Received answer from peer via signaling server."


class ExchangeComplete(Event, frozen=True):
    """Both descriptions are set on this side."""

    sentence: ClassVar[str] = "Set remote description (answer). SDP Offer/Answer exchange complete."


class CandidateSent(Event, frozen=True):
    """A trickled candidate is with the relay."""

    sentence: ClassVar[str] = "Sent candidate to signaling server."
    candidate_type: str | None
    end_of_candidates: bool


class CandidateReceived(Event, frozen=True):
    """A trickled candidate of the peer is here; `candidate_type` is null at the end of candidates."""

    sentence: ClassVar[str] = "Received candidate from peer via signaling server."
    candidate_type: str | None
    end_of_candidates: bool


class IceServerFailed(Event, frozen=True):
    """A STUN or TURN server gave no candidate: it refused with an error `code` (401: wrong credentials), or said nothing."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "The server {e.url} gave no candidate: {e._reason}"
    url: str
    code: int | None
    _reason: str


class NegotiationError(Event, frozen=True):
    """What the peer sent could not be used, or did not come; this peer stays usable."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "{e._reason}"
    type: str
    code: str
    _reason: str


class _State(Event, frozen=True):
    state: str


class IceGatheringState(_State, frozen=True):
    """RTCPeerConnection.iceGatheringState changed."""

    sentence: ClassVar[str] = "ICE Gathering State: {e.state}"


class IceConnectionState(_State, frozen=True):
    """RTCPeerConnection.iceConnectionState changed."""

    sentence: ClassVar[str] = "ICE Connection State: {e.state}"


class ConnectionState(_State, frozen=True):
    """RTCPeerConnection.connectionState changed."""

    sentence: ClassVar[str] = "Connection State: {e.state}"


class SignalingState(_State, frozen=True):
    """RTCPeerConnection.signalingState changed."""

    sentence: ClassVar[str] = "Signaling State: {e.state}"


class ChannelOpen(Event, frozen=True):
    """The data channel is open."""

    sentence: ClassVar[str] = "Data channel '{e.label}' is open."
    label: str


class ChannelClosed(Event, frozen=True):
    """The data channel is closed."""

    sentence: ClassVar[str] = "Data channel '{e.label}' is closed."
    label: str


class ChannelMessage(Event, frozen=True):
    """A message came: `text`, or `bytes` and `base64` for binary."""

    sentence: ClassVar[str] = "Received a message from peer."
    text: str | UnsetType = UNSET
    bytes: int | UnsetType = UNSET
    base64: str | UnsetType = UNSET


class ChannelMessageSent(Event, frozen=True):
    """A line of the input was handed to the data channel; `bytes` is its length in UTF-8."""

    sentence: ClassVar[str] = "Sent a message to peer."
    bytes: int


class InputRejected(Event, frozen=True):
    """A line of the input could not be used; the input goes on."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "{e._reason}"
    code: str
    _reason: str


class PeerDisconnected(Event, frozen=True):
    """The relay says that the pairing ended from the other side."""

    sentence: ClassVar[str] = "Peer {e.peer_id} disconnected ({e.reason})."
    peer_id: str
    reason: str


class Ready(Event, frozen=True):
    """A pairing is over and a new one can begin on the same relay connection."""

    sentence: ClassVar[str] = "Ready for new connection."
    peer_id: str
    reason: str


class ServerError(Event, frozen=True):
    """The relay refused a frame of this peer."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "{e._message}"
    code: str
    target_id: str | UnsetType
    in_reply_to: str | UnsetType
    _message: str


class Disconnected(Event, frozen=True):
    """The relay connection is gone."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "Disconnected from server (code {e.code})."
    code: int
    reason: str


class ConnectionRetry(Event, frozen=True):
    """A connection that failed or vanished is built again, from a fresh offer."""

    sentence: ClassVar[str] = "Building the connection to {e.peer_id} again, attempt {e.attempt} of {e.retries}."
    peer_id: str
    attempt: int
    retries: int


class Reconnecting(Event, frozen=True):
    """The relay is not reached; it is dialled again after a wait."""

    level: ClassVar[Level] = "warning"
    attempt: int
    delay_ms: float
    code: str
    reason: str

    def message(self) -> str:
        """Return why, and when the next try is."""
        when = f"in {self.delay_ms} ms" if self.delay_ms else "at once"
        return f"{self.reason}. Dialling again {when}."


class RelayResumed(Event, frozen=True):
    """The relay is back and knows this peer: its ID, its pairing, and all that was sent meanwhile."""

    sentence: ClassVar[str] = "Back at the server after {e.away_ms} ms as {e.id}; nothing was lost."
    id: str
    away_ms: float
    unconfirmed: int


class PairRetryScheduled(Event, frozen=True):
    """The peer that is wanted is not there yet, or busy; it is asked for again after a wait."""

    sentence: ClassVar[str] = "{e.target_id} is not there yet ({e.code}); asking again in {e.delay_ms} ms."
    target_id: str
    code: str
    delay_ms: float


class PairingDeclined(Event, frozen=True):
    """Somebody asked for this peer while its data channel to another outlives a relay that was lost."""

    sentence: ClassVar[str] = "Declined the pairing with {e.peer_id}: the data channel to {e.present_peer_id} is open."
    peer_id: str
    present_peer_id: str


class Diagnosis(Event, frozen=True):
    """Why a connection failed, and the evidence for it. Durations in milliseconds since the connection was begun."""

    level: ClassVar[Level] = "warning"
    sentence: ClassVar[str] = "{e._sentence}"
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
    """What a connection that came up was like; told when it is over."""

    peer_id: str
    is_initiator: bool
    phases: dict[str, float]
    local_candidate: str | None
    remote_candidate: str | None
    bytes_sent: int
    bytes_received: int

    def message(self) -> str:
        """Return the whole in a sentence."""
        took = ", ".join(f"{name} {ms:.0f} ms" for name, ms in self.phases.items())
        pair = f"{self.local_candidate or 'unknown'} to {self.remote_candidate or 'unknown'}"
        return f"Connection over {pair}; {took}; {self.bytes_sent} bytes sent, {self.bytes_received} received."


class Closing(Event, frozen=True):
    """The RTCPeerConnection is being closed."""

    sentence: ClassVar[str] = "Closing RTCPeerConnection..."


class Closed(Event, frozen=True):
    """The RTCPeerConnection is closed and forgotten."""

    sentence: ClassVar[str] = "RTCPeerConnection closed."
