"""The effects of a node's decisions on its clients, after an entry of the channel or a call; the relay executes them."""

from typing import NamedTuple

from msgspec import Struct

from sdpx.protocol.messages import DisconnectReason


class RemoteSender(NamedTuple):
    """The sender of a relayed frame, on any node."""

    client_id: str
    pairing: str


class Answered(Struct, frozen=True):
    """An answer to a request: registered, taken, unavailable, denied, busy, or asking, with the node that is asked."""

    request: int
    kind: str
    client_id: str
    node: str = ""


class Paired(Struct, frozen=True):
    """The client has a peer."""

    client_id: str
    peer_id: str
    is_initiator: bool


class PairRefused(Struct, frozen=True):
    """The client's `pair_request` is refused."""

    client_id: str
    target_id: str
    code: str


class Ended(Struct, frozen=True):
    """The client's pairing was ended by the other side."""

    client_id: str
    reason: DisconnectReason


class Deliver(Struct, frozen=True):
    """A frame for the client."""

    client_id: str
    sender: RemoteSender
    body: bytes
    body_without_seq: bytes | None


class Unread(Struct, frozen=True):
    """A frame of the client was not delivered; its receiver is still its peer, or was."""

    client_id: str
    receiver_id: str
    is_peer: bool


class Asked(Struct, frozen=True):
    """A node asks for the client's session."""

    client_id: str
    digest: str
    last: int | None
    node: str
    request: str


class Frozen(Struct, frozen=True):
    """No entry comes for the client's session any more: the relay can take the session out."""

    client_id: str


class Claimed(Struct, frozen=True):
    """The client's session comes to this node; `waiting` entries follow."""

    request: int
    client_id: str
    session: bytes
    waiting: int


class IdLost(Struct, frozen=True):
    """Another client has the client's ID."""

    client_id: str


NodeEffect = Answered | Paired | PairRefused | Ended | Deliver | Unread | Asked | Frozen | Claimed | IdLost
