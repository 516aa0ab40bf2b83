"""The events of a peer connection, and its one exception. Pure."""

from typing import Literal

from msgspec import Struct

from sdpx.errors import SdpxError
from sdpx.events import Event
from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation.confirmation import Receipt

StateKind = Literal["iceGatheringState", "iceConnectionState", "connectionState", "signalingState"]


class NegotiationFailed(SdpxError):
    """A description or a candidate could not be used; `code` is that of the `negotiation_error` event."""


class StateChanged(Struct, frozen=True):
    """One of the four states of an RTCPeerConnection (W3C WebRTC, 4.3) is now `state`."""

    kind: StateKind
    state: str


class ChannelOpened(Struct, frozen=True):
    """A data channel is open, whichever side created it; `id` is its stream identifier."""

    label: str
    id: int | None = None


class ChannelClosed(Struct, frozen=True):
    """A data channel is closed."""

    label: str
    id: int | None = None


class MessageReceived(Struct, frozen=True):
    """A message was received, on the first open data channel or on the one with this `label`."""

    data: str | bytes
    label: str | None = None


class HeartbeatReceived(Struct, frozen=True):
    """A message was received on the heartbeat channel; `receipt` is None without counts."""

    receipt: Receipt | None = None


class Overrun(Struct, frozen=True):
    """The other side could not be held back: a message was lost, and no later one will be delivered."""


class Noted(Struct, frozen=True):
    """An event for the log only."""

    event: Event


class IceServerResult(Struct, frozen=True):
    """A STUN or TURN server answered; or refused, with an error `code` (RFC 8489, 14.8); or `reason` says why it did not."""

    server: IceServer
    answered: bool
    code: int | None = None
    reason: str = ""


RtcEvent = (
    StateChanged
    | ChannelOpened
    | ChannelClosed
    | MessageReceived
    | HeartbeatReceived
    | Overrun
    | IceServerResult
    | Noted
)
