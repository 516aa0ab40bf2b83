"""The events of a peer connection beside those for the log, and its one exception. Pure.

Its states and data channels have their events in `sdpx.events.webrtc`: the log gets these as they are.
"""

from msgspec import Struct

from sdpx.errors import SdpxError
from sdpx.events import Event
from sdpx.ice_servers import IceServer
from sdpx.peer.negotiation.confirmation import Receipt


class NegotiationFailed(SdpxError):
    """A description or a candidate could not be used; `code` is that of the `negotiation_error` event."""


class MessageReceived(Struct, frozen=True):
    """A message was received, on the first open data channel or on the one with this `label`."""

    data: str | bytes
    label: str | None = None


class HeartbeatReceived(Struct, frozen=True):
    """A message was received on the heartbeat channel; `receipt` is None without counts."""

    receipt: Receipt | None = None


class Overrun(Struct, frozen=True):
    """The other side could not be held back: a message was lost, and no later one will be delivered."""


class IceServerResult(Struct, frozen=True):
    """A STUN or TURN server answered; or refused, with an error `code` (RFC 8489, 14.8); or `reason` says why it did not."""

    server: IceServer
    answered: bool
    code: int | None = None
    reason: str = ""


RtcEvent = Event | MessageReceived | HeartbeatReceived | Overrun | IceServerResult
