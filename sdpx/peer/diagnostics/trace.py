"""The trace of one connection: the facts from which its diagnosis and its summary are derived. Pure."""

from collections import Counter
from typing import Literal

from msgspec import Struct, field

Phase = Literal["exchange", "ice", "connected", "channel", "message"]


class TurnRefusal(Struct, frozen=True):
    """A TURN server answered an allocation with an error: `code` as in RFC 8656, 401 for wrong credentials."""

    url: str  # without user and password
    code: int


class ConnectionTrace(Struct):
    """One connection with `peer_id`; each attempt has its own trace.

    Times are in seconds since the connection was begun: by the pairing, or by the decision to connect again. `before` has the
    duration of each earlier phase: `dial`, `pairing`.
    """

    peer_id: str
    is_initiator: bool
    before: dict[str, float] = field(default_factory=dict)
    relay_only: bool = False  # only paths through a TURN server are allowed
    reached_at: dict[Phase, float] = field(default_factory=dict)
    description_sent: bool = False
    description_received: bool = False
    description_flaw: str = ""  # why the peer's description could not be used, or no local one be created
    lacks_channel: bool = False  # no data channel opened in time over the established connection
    data_rejected: bool = False  # the answer rejects the data section
    local_candidates: Counter[str] = field(default_factory=Counter)  # by type: host, srflx, prflx, relay
    gathered: bool = False  # there will be no more local candidates
    remote_candidates: Counter[str] = field(default_factory=Counter)
    remote_mdns: int = 0  # how many of the remote candidates are .local names
    candidate_pairs: int | None = None  # that ICE formed; None: unknown
    silent_stun: list[str] = field(default_factory=list)
    turn_refusals: list[TurnRefusal] = field(default_factory=list)
    ice_state: str = "new"
    dtls_error: str = ""  # empty if DTLS did not fail
    fingerprint_mismatch: bool = False
    overrun: bool = False  # the peer sent faster than this side could take
    last_received: float | None = None
    vanished: bool = False  # the heartbeat is missing, or consent has expired (RFC 7675)
    local_candidate: str | None = None  # the types of the selected candidate pair
    remote_candidate: str | None = None
    bytes_sent: int = 0
    bytes_received: int = 0

    def reach(self, phase: Phase, seconds: float) -> bool:
        """Note when a phase was reached; returns whether it was the first time, which alone counts."""
        first = phase not in self.reached_at
        self.reached_at.setdefault(phase, seconds)
        return first

    def add_remote(self, kind: str | None, address: str = "") -> None:
        """Count a remote candidate by its type, and by whether its address is an mDNS name."""
        self.remote_candidates[kind or "host"] += 1
        self.remote_mdns += address.lower().endswith(".local")

    def add_local(self, kind: str | None) -> None:
        """Count a local candidate by its type."""
        self.local_candidates[kind or "host"] += 1

    @property
    def succeeded(self) -> bool:
        """Whether the connection was established."""
        return "connected" in self.reached_at

    @property
    def ice_completed(self) -> bool:
        """Whether ICE found a network path."""
        return "ice" in self.reached_at

    def phases_ms(self) -> dict[str, float]:
        """Return the duration of each phase in milliseconds, in order."""
        took = {name: round(seconds * 1000, 3) for name, seconds in self.before.items()}
        last = 0.0
        for name, seconds in sorted(self.reached_at.items(), key=lambda item: item[1]):
            if name != "message":
                took["dtls" if name == "connected" else name] = round((seconds - last) * 1000, 3)
                last = seconds
        return took
