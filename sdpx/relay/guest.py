"""What the relay knows of one client, and how that client's connection sees the relay."""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from sdpx import messages
from sdpx.errors import Refusal
from sdpx.events import Event
from sdpx.lobby import Effect
from sdpx.messages import DepartureReason
from sdpx.relay.door import Visitor
from sdpx.relay.frames import Violation
from sdpx.relay.handshake import Upgrade
from sdpx.relay.host import Client, Departure, Sender, refused
from sdpx.relay.numbers import Numbers
from sdpx.relay.quota import Quota
from sdpx.relay.trust.turn import IceServer

TOO_FAST: Final = Violation(1008, "You sent too much, too fast, for too long")


class Leaver(Protocol):
    """Whose socket is closed."""

    @property
    def remote(self) -> str:
        """Its other end."""

    def leave(self) -> None:
        """Do what is left to do."""


class Hall(Protocol):
    """The relay, as those that are in it see it. Nothing here waits."""

    numbers: Numbers

    def tell(self, event: Event) -> None:
        """Count an event and log it."""

    def enter(self, guest: "Guest", upgrade: Upgrade, resume_token: str | None = None) -> None:
        """Let a client in."""

    def readmit(self, guest: "Guest", visitor: Visitor) -> tuple[list[IceServer], str | None]:
        """Let a client come back by another socket; returns its ICE servers and its peer."""

    def take(self, guest: "Guest", frame: str | bytes, now: float) -> int:
        """Take a message."""

    def take_at_once(self, guest: "Guest", data: bytes, now: float) -> bool:
        """Take a message for its peer, if nothing is unusual about it; returns whether it was taken."""

    def refuse(self, guest: "Guest", refusal: Refusal, now: float) -> int:
        """Answer a message that could not be taken."""

    def do(self, effects: Sequence[Effect], sender: "Guest | None" = None, now: float = 0.0) -> int:
        """Do what the lobby decided."""

    def keep(self, client_id: str, size: int) -> None:
        """Note what is kept of a client's unfinished message."""

    def part(self, guest: "Guest", reason: DepartureReason) -> None:
        """Let a client leave the lobby."""

    def leave(self, guest: "Guest", departure: Departure, lost: Iterable[Sender]) -> None:
        """Let a client go altogether; `lost` are the senders of what it never got."""

    def over(self, leaver: Leaver, fault: Exception | None) -> None:
        """Hear that a socket without a task is closed."""


class Guest:
    """One client, and its connection's `Host` if it has but one: see relay.returning for those that have several.

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
        "said",
        "socket",
        "told",
    )

    def __init__(self, hall: Hall, client_id: str, visitor: Visitor, quota: Quota, began: float) -> None:
        self._hall = hall
        self.on_relayed: Final = hall.numbers.relay_took  # as `Host` has it, a call less
        self.client_id = client_id
        self.connection: Client | None = None
        self.socket: Client | None = None
        self.quota = quota
        self.address = visitor.address
        self.remote = visitor.remote
        self.began = began
        self.said = ("", "", "")  # what was relayed last: its type, for whom, and how the log tells of it
        self.told: Guest | None = None  # whom the lobby told that this client left

    def sit(self, connection: Client, visitor: Visitor) -> None:
        """Enter by this connection."""
        self.connection = self.socket = connection
        self._hall.enter(self, visitor.upgrade)

    def on_text(self, data: bytes, now: float) -> bool:
        """Take a message a short way, if it can go one."""
        return self._hall.take_at_once(self, data, now)

    def on_frame(self, frame: str | bytes, now: float) -> int:
        """Take a message."""
        return self._hall.take(self, frame, now)

    def on_extra(self, count: int, now: float) -> Violation | None:
        """Count frames that end no message as messages: they cost as much. One over the rate is let pass, a flood is not."""
        self.quota.allows(now, count)
        return TOO_FAST if self.quota.exhausted else None

    def on_unfinished(self, size: int) -> None:
        """Note what is kept of a message that is not whole."""
        self._hall.keep(self.client_id, size)

    def on_end(self, departure: Departure) -> None:
        """Let the client leave the lobby."""
        self._hall.part(self, departure.reason)

    def on_over(self, fault: Exception | None) -> None:
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

    def too_fast(self) -> None:
        """Let it go for what it sent."""
        if self.socket is not None:
            self.socket.end(refused(TOO_FAST))

    def apologize(self, lost: Iterable[Sender]) -> None:
        """Tell each sender of what was lost, unless it was paired with this client to the end and knows."""
        for sender in dict.fromkeys(lost):
            if sender is not self.told:
                sender.hear(messages.encode(messages.error_frame(messages.unread(self.client_id))))
