"""The relay's counters and gauges: plain numbers, updated as things happen and read when the metrics are requested.

Most counters follow from events, which are counted whether or not the log shows their level. The relay counts relayed frames.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, get_args

from msgspec import Struct, field

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
_CODE_OF_REFUSAL: Final[dict[type[Event], Callable[[Any], str]]] = {
    serve.MessageRefused: attrgetter("code"),
    serve.PairRefused: attrgetter("code"),
    serve.RelayRefused: attrgetter("code"),
    serve.ConnectionRefused: attrgetter("reason"),
    serve.TlsHandshakeFailed: lambda _: "tls",
}
EVICTIONS: Final[tuple[DisconnectReason, ...]] = ("slow", "timeout", "refused")  # the relay ended the connection


MOVES: Final = ("out", "in", "denied", "failed")


class ClusterStats:
    """Totals of a node of a cluster."""

    def __init__(self) -> None:
        self.frames_in = 0
        self.frames_out = 0
        self.moves: Counter[str] = Counter(dict.fromkeys(MOVES, 0))
        self.engine_times = [0] * (len(RELAY_SECONDS) + 1)
        self.engine_seconds = 0.0

    def count_engine_time(self, seconds: float) -> None:
        """Count a call to the engine, or calls that were made together."""
        self.engine_times[bisect_left(RELAY_SECONDS, seconds)] += 1
        self.engine_seconds += seconds


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
        self.cluster = ClusterStats()
        self._last_took = 0.0
        self._last_bound = 0

    def count(self, event: Event) -> None:
        """Update the counters for an event."""
        kind = type(event)
        if kind is serve.ClientConnected:
            self.clients += 1
        elif kind is serve.Paired:
            self.pairings += 1
        elif code_of := _CODE_OF_REFUSAL.get(kind):
            self.refusals[code_of(event)] += 1

    def count_relay_time(self, seconds: float) -> None:
        """Count the time of a relayed frame from reading it to writing it to the receiver's socket."""
        if seconds != self._last_took:  # the frames of one batch have the same time
            self._last_took, self._last_bound = seconds, bisect_left(RELAY_SECONDS, seconds)
        self.relay_times[self._last_bound] += 1
        self.relay_seconds += seconds

    def count_eviction(self, reason: DisconnectReason) -> None:
        """Count a client that leaves, if the relay disconnected it."""
        if reason in EVICTIONS:
            self.evictions[reason] += 1


class ResumeSnapshot(Struct, frozen=True):
    """Resumable sessions: the suspended ones, the bytes in their replay buffers and in all, and totals."""

    clients: int = 0
    bytes: int = 0
    replay_buffer_bytes: int = 0
    totals: ResumeStats = field(default_factory=ResumeStats)


class ClusterSnapshot(Struct, frozen=True):
    """The nodes of the cluster, and the pairs whose peers are on two nodes."""

    nodes: int
    remote_pairs: int


class RelaySnapshot(Struct, frozen=True):
    """The gauges at one moment; `send_queue_frames_max` is the length of the longest queue."""

    connections: int
    clients: int
    pairs: int
    send_queue_frames: int
    send_queue_bytes: int
    send_queue_frames_max: int
    log_lines_dropped: int
    resume: ResumeSnapshot = field(default_factory=ResumeSnapshot)
    cluster: ClusterSnapshot | None = None
