"""What one connection has shown of itself, from the offer on: what a verdict is reached from, and a summary made of. Pure.

The shell writes down what happens as it happens; nobody asks it what that means.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["exchange", "ice", "connected", "channel", "message"]


@dataclass(frozen=True, slots=True)
class TurnRefusal:
    """A TURN server answered an allocation with an error: `code` as in RFC 8656, 401 for wrong credentials."""

    url: str  # without user and password
    code: int


@dataclass(slots=True)
class ConnectionTrace:
    """One connection with `peer_id`: a rebuilt one has an evidence of its own.

    All times are in seconds since the connection was begun: the pairing, or the decision to rebuild.
    `before` has what led there, in seconds for each phase: `dial`, `pairing`.
    """

    peer_id: str
    is_initiator: bool
    timeout: float
    before: dict[str, float] = field(default_factory=dict)
    relay_only: bool = False  # no path is wanted but those through a TURN server
    reached_at: dict[Phase, float] = field(default_factory=dict)
    description_sent: bool = False
    description_received: bool = False
    description_flaw: str = ""  # why the peer's description could not be used, or none of one's own be made
    local_candidates: Counter[str] = field(default_factory=Counter)  # by type: host, srflx, prflx, relay
    gathered: bool = False  # no more local candidates will come
    remote_candidates: Counter[str] = field(default_factory=Counter)
    remote_mdns: int = 0  # how many of the remote ones are .local names
    candidate_pairs: int | None = None  # that ICE could form; None: not known
    silent_stun: list[str] = field(default_factory=list)
    turn_refusals: list[TurnRefusal] = field(default_factory=list)
    ice_state: str = "new"
    dtls_error: str = ""  # why DTLS failed, if it did
    fingerprint_mismatch: bool = False
    last_heard: float | None = None
    vanished: bool = False  # the heartbeat's word, or consent that expired
    local_type: str | None = None  # of the pair that ICE selected
    remote_type: str | None = None
    bytes_sent: int = 0
    bytes_received: int = 0

    def reach(self, phase: Phase, seconds: float) -> bool:
        """Note when a phase was done; only the first time counts. Returns whether it was the first."""
        first = phase not in self.reached_at
        self.reached_at.setdefault(phase, seconds)
        return first

    def add_remote(self, kind: str | None, address: str = "") -> None:
        """Note a candidate of the peer by its type and its address, which may be an mDNS name."""
        self.remote_candidates[kind or "host"] += 1
        self.remote_mdns += address.lower().endswith(".local")

    def add_local(self, kind: str | None) -> None:
        """Note a candidate of this side by its type."""
        self.local_candidates[kind or "host"] += 1

    @property
    def succeeded(self) -> bool:
        """Whether the connection came up at all."""
        return "connected" in self.reached_at

    def phases_ms(self) -> dict[str, float]:
        """Return how long each phase took by itself, in milliseconds, in their order."""
        took = {name: round(seconds * 1000, 3) for name, seconds in self.before.items()}
        last = 0.0
        for name, seconds in sorted(self.reached_at.items(), key=lambda item: item[1]):
            if name != "message":
                took["dtls" if name == "connected" else name] = round((seconds - last) * 1000, 3)
                last = seconds
        return took
