"""The events of `sdpx peer` about a WebRTC connection: negotiation, ICE, DTLS, data channels, diagnosis."""

from msgspec import UNSET, UnsetType

from sdpx.events import Event, WarningEvent


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


class ConnectionRetry(Event, frozen=True):
    """A WebRTC connection that failed or was lost is established again, with a new offer."""

    sentence = "Connecting to {e.peer_id} again, attempt {e.attempt} of {e.retries}."
    peer_id: str
    attempt: int
    retries: int


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
