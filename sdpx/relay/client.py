"""One connected client of the relay, plain or resumable."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from sdpx.relay.auth.tokens import Grant
from sdpx.relay.core.rate_limit import ClientRateLimit
from sdpx.relay.http.upgrade import Upgrade
from sdpx.relay.websocket.connection import Connection

if TYPE_CHECKING:
    from sdpx.relay.cluster.effects import RemoteSender
    from sdpx.relay.cluster.member import Member
    from sdpx.relay.core.replay_buffer import ReplayBuffer
    from sdpx.relay.websocket.close_reasons import CloseReason


class AcceptedUpgrade(Struct, frozen=True):
    """A request whose WebSocket is to open. `client_id` is None if the relay makes one; a resumed session keeps its own."""

    upgrade: Upgrade
    client_id: str | None
    is_resumed: bool
    grant: Grant
    trailing_data: bytes
    remote: str
    address: str


@dataclass(slots=True, eq=False, repr=False)
class ClientSession:
    """A client, from its `your_id` to the end of its session.

    A plain client has one `connection`, for the whole session. A resumable client has a `replay` buffer and one connection
    after another; `connection` is None while it is suspended, and `suspended_by` is then the end of the last one.
    """

    client_id: str
    remote: str
    address: str
    rate_limit: ClientRateLimit
    began: float
    connection: Connection | None = None
    replay: "ReplayBuffer | None" = None
    is_resumed: bool = False
    suspended_by: "CloseReason | None" = None
    indirect: "Member | None" = None  # its member of a cluster, while its frames are not relayed directly
    moved_as: "RemoteSender | None" = None  # once the session has moved to another node
    last_relayed: tuple[str, str, str] = ("", "", "")  # a frame's type and receiver, and the start of its log line
    # Set when the session ends, for `sdpx.relay.delivery`:
    last_peer: "ClientSession | RemoteSender | None" = None  # the peer, which gets `peer_disconnected`
    unacknowledged: list[object] | None = None  # of a resumable session: the senders of frames in its replay buffer

    def release(self) -> None:
        """Drop the references that lead back to an ended session: no cycle keeps its memory for the garbage collector."""
        self.connection = self.last_peer = self.unacknowledged = self.indirect = None
