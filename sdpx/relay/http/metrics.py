"""The metrics page, as Prometheus text or OpenMetrics, rendered once a second at most. Imports prometheus-client, slowly."""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from math import inf
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sdpx import __version__
from sdpx.relay.core.stats import RELAY_SECONDS, ClusterSnapshot, ClusterStats, RelaySnapshot, RelayStats
from sdpx.relay.http.responses import HttpResponse

INFINITY: Final = "+Inf"
CACHE_SECONDS: Final = 1.0

Rendered = tuple[float, HttpResponse]  # when a page was rendered, and the page

Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


def metrics_page(
    stats: RelayStats, snapshot: Callable[[], RelaySnapshot], accept: str, rendered: dict[str, Rendered], now: float
) -> HttpResponse:
    """Return the page in the format that the `Accept` header of the scraper names, and keep it in `rendered`."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # raised for a version that is not a number
        encode, content_type = choose_encoder("")
    then, page = rendered.get(content_type, (-inf, None))
    if page is None or now >= then + CACHE_SECONDS:
        registry = CollectorRegistry()
        registry.register(_RelayCollector(stats, snapshot()))
        ProcessCollector(registry=registry)
        page = HttpResponse(200, content_type, encode(registry))
        rendered[content_type] = now, page
    return page


class _RelayCollector(Collector):
    def __init__(self, stats: RelayStats, snapshot: RelaySnapshot) -> None:
        self._stats = stats
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family of the relay."""
        stats, now, resume = self._stats, self._snapshot, self._snapshot.resume
        for name, help_text, value in (
            ("sdpx_connections", "Open connections, including handshakes", now.connections),
            ("sdpx_clients", "Clients with an ID", now.clients),
            ("sdpx_pairs", "Pairs of clients", now.pairs),
            ("sdpx_send_queue_frames", "Frames in all send queues", now.send_queue_frames),
            ("sdpx_send_queue_bytes", "Bytes in all send queues", now.send_queue_bytes),
            ("sdpx_send_queue_frames_max", "Frames in the longest send queue", now.send_queue_frames_max),
            ("sdpx_sessions_suspended", "Resumable sessions without a connection", resume.clients),
            ("sdpx_suspended_bytes", "Bytes kept for sessions without a connection", resume.bytes),
            ("sdpx_replay_buffer_bytes", "Unacknowledged bytes of all resumable sessions", resume.replay_buffer_bytes),
        ):
            yield GaugeMetricFamily(name, help_text, value)
        yield _labelled(GaugeMetricFamily("sdpx_info", "Version of the relay", labels=["version"]), {__version__: 1})
        for name, help_text, value in (
            ("sdpx_clients_connected", "Clients that connected", stats.clients),
            ("sdpx_pairings", "Pairings made", stats.pairings),
            ("sdpx_relayed_bytes", "Bytes of relayed frames, as received", stats.relayed_bytes),
            ("sdpx_clients_resumed", "Sessions resumed", resume.totals.resumed),
            ("sdpx_sessions_expired", "Sessions not resumed in time", resume.totals.expired),
            ("sdpx_sessions_evicted", "Sessions ended by a memory or session limit", resume.totals.evicted),
            ("sdpx_log_lines_dropped", "Log lines dropped because the log was not read in time", now.log_lines_dropped),
        ):
            yield CounterMetricFamily(name, help_text, value)
        for name, help_text, label, values in (
            ("sdpx_relayed", "Frames relayed", "type", stats.relayed),
            ("sdpx_refusals", "Frames and connections refused", "code", stats.refusals),
            ("sdpx_evictions", "Clients disconnected by the relay", "reason", stats.evictions),
        ):
            yield _labelled(CounterMetricFamily(name, help_text, labels=[label]), values)
        yield _histogram(
            "sdpx_relay_seconds",
            "Time from receiving a whole frame to handing it to the socket of the receiver",
            stats.relay_times,
            stats.relay_seconds,
        )
        if now.cluster is not None:
            yield from _cluster_metrics(stats.cluster, now.cluster)


def _cluster_metrics(stats: ClusterStats, now: ClusterSnapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("sdpx_cluster_nodes", "Nodes of the cluster", now.nodes)
    yield GaugeMetricFamily("sdpx_cluster_remote_pairs", "Clients with a peer on another node", now.remote_pairs)
    frames = {"in": stats.frames_in, "out": stats.frames_out}
    for name, help_text, label, values in (
        ("sdpx_cluster_frames", "Frames from and to other nodes", "direction", frames),
        ("sdpx_cluster_moves", "Sessions that moved between nodes, or did not", "result", stats.moves),
    ):
        yield _labelled(CounterMetricFamily(name, help_text, labels=[label]), values)
    name, help_text = "sdpx_cluster_engine_seconds", "Time of a call to the engine"
    yield _histogram(name, help_text, stats.engine_times, stats.engine_seconds)


def _histogram(name: str, help_text: str, counts: list[int], total: float) -> HistogramMetricFamily:
    bounds = [*map(str, RELAY_SECONDS), INFINITY]
    buckets = list(zip(bounds, accumulate(counts), strict=True))
    return HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=total)


def _labelled(family: Family, values: Mapping[str, int]) -> Family:
    for label, value in values.items():
        family.add_metric([label], value)
    return family
