"""What the relay knows of one client, and how that client's connection sees the relay."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from sdpx.errors import Refusal
from sdpx.events import Event
from sdpx.ice_servers import RtcIceServer
from sdpx.protocol import messages
from sdpx.protocol.messages import DisconnectReason
from sdpx.relay.auth.tokens import Grant
from sdpx.relay.core.pairing import Effect
from sdpx.relay.core.rate_limit import ClientRateLimit
from sdpx.relay.core.stats import RelayStats
from sdpx.relay.http.upgrade import Upgrade
from sdpx.relay.websocket.handler import ClientConnection, CloseReason, FrameSender, from_violation
from sdpx.relay.websocket.validator import Violation

TOO_FAST: Final = Violation(1008, "You sent too much, too fast, for too long")


class AcceptedUpgrade(Struct, frozen=True):
    """A request whose WebSocket is to open. `client_id` is None if the relay makes one; a resumed session keeps its own."""

    upgrade: Upgrade
    client_id: str | None
    is_resumed: bool
    grant: Grant
    trailing_data: bytes
    remote: str
    address: str


class ClosedSocket(Protocol):
    """Whose socket is closed."""

    @property
    def remote(self) -> str:
        """Its other end."""

    def leave(self) -> None:
        """Do what is left to do."""


class RelayInterface(Protocol):
    """The relay, as those that are in it see it. Nothing here waits."""

    numbers: RelayStats

    def tell(self, event: Event) -> None:
        """Count an event and log it."""

    def enter(self, guest: "ClientSession", visitor: AcceptedUpgrade, resume_token: str | None = None) -> None:
        """Let a client in."""

    def reattach_client(
        self, guest: "ClientSession", visitor: AcceptedUpgrade
    ) -> tuple[list[RtcIceServer], str | None]:
        """Let a client come back by another socket; returns its ICE servers and its peer."""

    def take(self, guest: "ClientSession", frame: str | bytes, now: float) -> int:
        """Take a message."""

    def relay_fast(self, guest: "ClientSession", data: bytes, now: float) -> bool:
        """Take a message for its peer, if nothing is unusual about it; returns whether it was taken."""

    def refuse(self, guest: "ClientSession", refusal: Refusal, now: float) -> int:
        """Answer a message that could not be taken."""

    def do(self, effects: Sequence[Effect], sender: "ClientSession | None" = None, now: float = 0.0) -> int:
        """Do what the lobby decided."""

    def keep(self, client_id: str, size: int) -> None:
        """Note what is kept of a client's unfinished message."""

    def part(self, guest: "ClientSession", reason: DisconnectReason) -> None:
        """Let a client leave the lobby."""

    def leave(self, guest: "ClientSession", departure: CloseReason, lost: Iterable[FrameSender]) -> None:
        """Let a client go altogether; `lost` are the senders of what it never got."""

    def over(self, leaver: ClosedSocket, fault: Exception | None) -> None:
        """Hear that a socket without a task is closed."""


class ClientSession:
    """One client, and its connection's `ConnectionHandler` if it has but one: see relay.returning for those that have several.

    `connection` takes its frames as they are; it is None for who wants them numbered. `socket` is the one that it has now.
    """

    __slots__ = (
        "_hall",
        "address",
        "began",
        "client_id",
        "connection",
        "on_relayed",
        "quota",
        "remote",
        "socket",
        "told",
    )

    def __init__(
        self, hall: RelayInterface, client_id: str, visitor: AcceptedUpgrade, quota: ClientRateLimit, began: float
    ) -> None:
        self._hall = hall
        self.on_relayed: Final = hall.numbers.relay_took  # as `ConnectionHandler` has it, a call less
        self.client_id = client_id
        self.connection: ClientConnection | None = None
        self.socket: ClientConnection | None = None
        self.quota = quota
        self.address = visitor.address
        self.remote = visitor.remote
        self.began = began
        self.told: ClientSession | None = None  # whom the lobby told that this client left

    def sit(self, connection: ClientConnection, visitor: AcceptedUpgrade) -> None:
        """Enter by this connection."""
        self.connection = self.socket = connection
        self._hall.enter(self, visitor)

    def on_text(self, data: bytes, now: float) -> bool:
        """Take a message a short way, if it can go one."""
        return self._hall.relay_fast(self, data, now)

    def on_frame(self, frame: str | bytes, now: float) -> int:
        """Take a message."""
        return self._hall.take(self, frame, now)

    def on_non_message_frames(self, count: int, now: float) -> Violation | None:
        """Count frames that end no message as messages: they cost as much. One over the rate is let pass, a flood is not."""
        self.quota.allows(now, count)
        return TOO_FAST if self.quota.exhausted else None

    def on_partial_message(self, size: int) -> None:
        """Note what is kept of a message that is not whole."""
        self._hall.keep(self.client_id, size)

    def on_disconnected(self, departure: CloseReason) -> None:
        """Let the client leave the lobby."""
        self._hall.part(self, departure.reason)

    def on_closed(self, fault: Exception | None) -> None:
        """Let it go altogether."""
        self._hall.over(self, fault)

    def leave(self) -> None:
        """Do what is left to do when its connection is over."""
        assert self.connection is not None
        assert self.connection.departure is not None
        self._hall.leave(self, self.connection.departure, self.connection.lost)

    def hear(self, text: str) -> None:
        """Be told something, if there is still somebody to tell."""
        if self.connection is not None and self.connection.departure is None:
            self.connection.post(text)

    def disconnect_rate_limited(self) -> None:
        """Let it go for what it sent."""
        if self.socket is not None:
            self.socket.end(from_violation(TOO_FAST))

    def notify_undelivered(self, lost: Iterable[FrameSender]) -> None:
        """Tell each sender of what was lost, unless it was paired with this client to the end and knows."""
        for sender in dict.fromkeys(lost):
            if sender is not self.told:
                sender.hear(messages.encode(messages.error_frame(messages.unread(self.client_id))))
