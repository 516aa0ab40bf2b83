"""The events of a peer connection, and its one exception. Pure."""

from dataclasses import dataclass
from typing import Literal

from sdpx.events import Event
from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation.confirmation import Receipt

StateKind = Literal["ice_gathering", "ice_connection", "connection", "signaling"]


class NegotiationFailed(Exception):
    """A description or a candidate could not be used; `code` is that of the `negotiation_error` event."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StateChanged:
    """One of the four states of an RTCPeerConnection (W3C WebRTC, 4.3) is now `state`."""

    kind: StateKind
    state: str


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """A data channel is open, whichever side created it; `id` is its stream identifier."""

    label: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """A data channel is closed."""

    label: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message was received, on the first open data channel or on the one with this `label`."""

    data: str | bytes
    label: str | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """A message was received on the heartbeat channel; `receipt` is None without counts."""

    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Overrun:
    """The other side could not be held back: a message was lost, and no later one will be delivered."""


@dataclass(frozen=True, slots=True)
class Noted:
    """An event for the log only."""

    event: Event


@dataclass(frozen=True, slots=True)
class IceServerResult:
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
