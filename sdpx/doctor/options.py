"""Options of `sdpx doctor`. Pure."""

from dataclasses import dataclass, field, replace
from typing import Literal

from sdpx.options import AccessOptions, option
from sdpx.peer.options import DEFAULT_URL, STUN, TURN, PeerOptions
from sdpx.urls import complete_relay_url


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """Options of a check of a relay, of this machine's network, and of connections."""

    url: str = option(
        DEFAULT_URL,
        "Relay to check: ws://HOST:PORT, wss://HOST, or HOST:PORT.",
        "Network",
        "URL",
        is_argument=True,
        in_file=False,
    )
    with_peer: str | None = option(
        None, "Connect to this peer at last, instead of to a second one of its own.", "Network", "ID", flag="--with"
    )
    access: AccessOptions = field(default_factory=AccessOptions)
    stun: tuple[str, ...] = STUN()
    turn: tuple[str, ...] = TURN()
    no_stun: bool = option(False, "Check no STUN server.", "TURN and ICE")
    idle: float = option(
        25.0, "Leave a connection to the relay idle for this long; 0: do not.", "Timeouts", "SECONDS", 0, 3600
    )
    timeout: float = option(20.0, "Time for each connection of two peers.", "Timeouts", "SECONDS", 1, 3600)
    format: Literal["text", "json"] = option("text", "text for reading, or json for JSON lines.", "Output", "FORMAT")
    report: str | None = option(
        None, "Write a report to this file, as JSON lines with shortened addresses.", "Output", "FILE"
    )

    def completed(self) -> "DoctorOptions":
        """Return the options with the URL in full."""
        return replace(self, url=complete_relay_url(self.url))

    @property
    def peer(self) -> PeerOptions:
        """The options of a peer that uses the same relay and the same servers."""
        return PeerOptions(url=self.url, access=self.access, stun=self.stun, turn=self.turn, no_stun=self.no_stun)
