"""What the relay counts: plain integers, added to as things happen, read when somebody asks. Pure.

Most of it follows from the events that are logged anyway, at whatever level the log shows: one look-up each.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, get_args

from sdpx.events import Event, serve
from sdpx.protocol.messages import DisconnectReason, RelayedType
from sdpx.relay.core.sessions import ResumeStats

# Upper bounds in seconds: a frame takes well below a millisecond, unless its receiver is slow.
RELAY_SECONDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    5.0,
    20.0,
)
EVICTIONS: Final[tuple[DisconnectReason, ...]] = ("slow", "timeout", "refused")  # whose end was not their own wish
REFUSALS: Final = frozenset(
    {serve.MessageRefused, serve.PairRefused, serve.RelayRefused, serve.ConnectionRefused, serve.TlsHandshakeFailed}
)


class RelayStats:
    """Totals since the relay started."""

    def __init__(self) -> None:
        self.clients = 0
        self.pairings = 0
        self.relayed: dict[str, int] = dict.fromkeys(get_args(RelayedType), 0)
        self.relayed_bytes = 0
        self.refusals: Counter[str] = Counter()
        self.evictions: Counter[str] = Counter(dict.fromkeys(EVICTIONS, 0))
        self.relay_times = [0] * (len(RELAY_SECONDS) + 1)
        self.relay_seconds = 0.0
        self._last_took = 0.0
        self._last_bound = 0

    def note(self, event: Event) -> None:
        """Count what an event tells."""
        if isinstance(event, serve.Relayed):
            self.relayed[event.type] += 1
            self.relayed_bytes += event.bytes
        elif isinstance(event, serve.ClientConnected):
            self.clients += 1
        elif isinstance(event, serve.Paired):
            self.pairings += 1
        elif type(event) in REFUSALS:
            self._note_refusal(event)

    def _note_refusal(self, event: Event) -> None:
        match event:
            case serve.MessageRefused(code=code) | serve.PairRefused(code=code) | serve.RelayRefused(code=code):
                self.refusals[code] += 1
            case serve.ConnectionRefused(reason=code):
                self.refusals[code] += 1
            case serve.TlsHandshakeFailed():
                self.refusals["tls"] += 1

    def relay_took(self, seconds: float) -> None:
        """Count the time of a relayed frame, from being read whole to being handed to the receiver's socket."""
        if seconds != self._last_took:  # the frames of one batch all took the same
            self._last_took, self._last_bound = seconds, bisect_left(RELAY_SECONDS, seconds)
        self.relay_times[self._last_bound] += 1
        self.relay_seconds += seconds

    def departed(self, reason: DisconnectReason) -> None:
        """Count a client that was let go."""
        if reason in EVICTIONS:
            self.evictions[reason] += 1


@dataclass(frozen=True, slots=True)
class ResumeSnapshot:
    """Clients that may come back: those that are held now, bytes kept for them and for all with numbers, and totals."""

    clients: int = 0
    bytes: int = 0
    unconfirmed_bytes: int = 0
    totals: ResumeStats = field(default_factory=ResumeStats)


@dataclass(frozen=True, slots=True)
class RelaySnapshot:
    """What there is at one moment: connections, clients, pairs, what waits in all outboxes and in the fullest, who is away."""

    connections: int
    clients: int
    pairs: int
    send_queue_frames: int
    send_queue_bytes: int
    outbox_frames_max: int
    log_lines_dropped: int
    away: ResumeSnapshot = field(default_factory=ResumeSnapshot)
