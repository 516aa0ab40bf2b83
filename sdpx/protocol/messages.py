"""The messages of the signaling protocol (version 1), in both directions, as values.

- A message is one JSON object in one text frame; `type` says which. `sdpx.protocol.codec` reads and writes them.
- `Frame` is the form in which the relay passes an offer, answer or candidate on: the bytes as they came, never decoded and
  encoded again. `Description` and `Candidate` are the forms in which a client reads and writes the same messages.
- `seq` and `client_seq` (protocol: Resume) are not part of a message; `sdpx.protocol.sequence` adds and reads them.
"""

from typing import Annotated, Any, Final, Literal, get_args

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from sdpx.errors import Refusal

PROTOCOL: Final = "sdpx.v1"

RelayedType = Literal["offer", "answer", "candidate"]
DisconnectReason = Literal["left", "closed", "timeout", "slow", "shutdown", "refused", "node_lost"]


class CandidateInit(Struct, frozen=True, omit_defaults=True):
    """RTCIceCandidateInit (W3C WebRTC 4.8.1.1). An empty `candidate` means the end of candidates."""

    candidate: str = ""
    sdpMid: str | None = None  # noqa: N815  the W3C's spelling
    sdpMLineIndex: Annotated[int, Meta(ge=0, le=65535)] | None = None  # noqa: N815
    usernameFragment: str | None = None  # noqa: N815


# ---- in both directions -----------------------------------------------------------------------------------------


class Description(Struct, frozen=True):
    """An offer or an answer (RFC 8829). `agent` names the program that made it, if it names itself.

    A `peer_id` or `agent` of null is absent: some serializers write null for a value that is not set.
    """

    type: Literal["offer", "answer"]
    sdp: str
    peer_id: str | UnsetType | None = UNSET
    agent: str | UnsetType | None = UNSET


class Candidate(Struct, frozen=True):
    """A trickled ICE candidate (RFC 8838); null ends the candidates."""

    candidate: CandidateInit | None
    type: Literal["candidate"] = "candidate"
    peer_id: str | UnsetType | None = UNSET


class Frame(Struct, frozen=True, gc=False):
    """An offer, answer or candidate on its way through the relay.

    `body` is the JSON text as the sender wrote it, without the closing brace and without a `from_peer` of the sender's own.
    `size` is the length of the sender's text. `sdp` is the raw value of an offer or answer. Where the sender wrote `seq`,
    `body_without_seq` is the body for a receiver whose frames the relay numbers.
    """

    type: RelayedType
    body: bytes
    size: int
    peer_id: str | None = None
    sdp: Raw | UnsetType = UNSET
    body_without_seq: bytes | None = None


class Pong(Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to `ping`, with the `t` of the ping."""

    t: Raw | UnsetType = UNSET


# ---- client to server -------------------------------------------------------------------------------------------


class PairRequest(Struct, frozen=True, tag_field="type", tag="pair_request"):
    """The client asks to be paired with `target_id`, as initiator."""

    target_id: str


class Unpair(Struct, frozen=True, tag_field="type", tag="unpair"):
    """The client leaves its pairing."""


class Ping(Struct, frozen=True, tag_field="type", tag="ping"):
    """The client asks for a `pong`; `t` is any JSON value and is returned as it was written."""

    t: Raw | UnsetType = UNSET


class ClientAck(Struct, frozen=True, tag_field="type", tag="ack"):
    """The client has received all of the relay's frames up to `seq`."""

    seq: int


ClientMessage = PairRequest | Frame | Unpair | Ping | Pong


# ---- server to client -------------------------------------------------------------------------------------------


class YourId(Struct, frozen=True, tag_field="type", tag="your_id"):
    """The first message of every connection. On a resumed session `client_seq` and `peer_id` give its state."""

    id: str
    resume_token: str | UnsetType = UNSET
    ice_servers: Any = UNSET  # a list of RTCIceServer dictionaries (W3C WebRTC 4.2.4)
    resumed: bool | UnsetType = UNSET
    client_seq: int | UnsetType = UNSET
    peer_id: str | UnsetType | None = UNSET


class IceServers(Struct, frozen=True, tag_field="type", tag="ice_servers"):
    """New ICE servers (RTCIceServer, W3C WebRTC 4.2.4): the credentials of the earlier ones expire soon."""

    ice_servers: list[dict[str, Any]]


class Paired(Struct, frozen=True, tag_field="type", tag="paired"):
    """The client has a peer now; the initiator sends the offer."""

    peer_id: str
    is_initiator: bool


class PeerDisconnected(Struct, frozen=True, tag_field="type", tag="peer_disconnected"):
    """The peer's side ended the pairing. An unknown `reason` of a later relay is accepted."""

    peer_id: str
    reason: str


class Unpaired(Struct, frozen=True, tag_field="type", tag="unpaired"):
    """The answer to `unpair`."""

    peer_id: str


class ErrorFrame(Struct, frozen=True, tag_field="type", tag="error"):
    """The relay refused a frame; the connection stays open."""

    code: str
    message: str
    target_id: str | UnsetType = UNSET
    in_reply_to: str | UnsetType = UNSET


class ServerAck(Struct, frozen=True, tag_field="type", tag="ack"):
    """The relay has accepted all of the client's frames up to `client_seq`."""

    client_seq: int


ServerMessage = (
    YourId | IceServers | Paired | PeerDisconnected | Unpaired | ErrorFrame | Pong | ServerAck | Description | Candidate
)

SERVER_TYPES: Final[dict[str, Any]] = {
    **{each.__struct_config__.tag: each for each in get_args(ServerMessage) if each.__struct_config__.tag},
    "offer": Description,
    "answer": Description,
    "candidate": Candidate,
}


def type_of(message: ClientMessage) -> str:
    """Return the `type` of a client's message."""
    return message.type if isinstance(message, Frame) else str(message.__struct_config__.tag)


def error_frame(refusal: Refusal) -> ErrorFrame:
    """Return the message that the sender of a refused frame receives."""
    return ErrorFrame(
        refusal.code,
        refusal.reason,
        UNSET if refusal.target_id is None else refusal.target_id,
        UNSET if refusal.in_reply_to is None else refusal.in_reply_to,
    )
