"""The relay's numbers as Prometheus text or OpenMetrics: made when they are asked for, from plain integers."""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sdpx import __version__
from sdpx.relay.core.stats import RELAY_SECONDS, RelaySnapshot, RelayStats
from sdpx.relay.http.responses import HttpResponse

INFINITY: Final = "+Inf"

Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


def make_page(numbers: RelayStats, present: RelaySnapshot, accept: str) -> HttpResponse:
    """Return the page for a scraper that takes what its `Accept` header says."""
    registry = CollectorRegistry()
    registry.register(_Exposition(numbers, present))
    ProcessCollector(registry=registry)
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # it chokes on versions that are none
        encode, content_type = choose_encoder("")
    return HttpResponse(200, content_type, encode(registry))


class _Exposition(Collector):
    def __init__(self, numbers: RelayStats, present: RelaySnapshot) -> None:
        self._numbers = numbers
        self._present = present

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family of the relay."""
        yield from self._gauges()
        yield from self._counters()
        yield self._relay_times()

    def _gauges(self) -> Iterator[Metric]:
        present = self._present
        yield GaugeMetricFamily("sdpx_connections", "Open connections, handshakes included", present.connections)
        yield GaugeMetricFamily("sdpx_clients", "Clients that have an ID", present.clients)
        yield GaugeMetricFamily("sdpx_pairs", "Pairs of clients", present.pairs)
        yield GaugeMetricFamily("sdpx_outbox_frames", "Frames that wait to be read, of all", present.send_queue_frames)
        yield GaugeMetricFamily("sdpx_outbox_bytes", "Bytes that wait to be read, of all", present.send_queue_bytes)
        yield GaugeMetricFamily("sdpx_outbox_frames_max", "Frames in the fullest outbox", present.outbox_frames_max)
        yield GaugeMetricFamily(
            "sdpx_sessions_suspended", "Clients without a socket that may come back", present.away.clients
        )
        yield GaugeMetricFamily("sdpx_suspended_bytes", "Bytes kept for clients without a socket", present.away.bytes)
        unconfirmed = present.away.unconfirmed_bytes
        yield GaugeMetricFamily(
            "sdpx_replay_buffer_bytes", "Bytes that clients with numbers have not confirmed", unconfirmed
        )
        yield _labelled(GaugeMetricFamily("sdpx_info", "The relay's version", labels=["version"]), {__version__: 1})

    def _counters(self) -> Iterator[Metric]:
        numbers, dropped = self._numbers, self._present.log_lines_dropped
        yield CounterMetricFamily("sdpx_clients_connected", "Clients that came", numbers.clients)
        yield CounterMetricFamily("sdpx_pairings", "Pairs that were made", numbers.pairings)
        yield _labelled(_counter("sdpx_relayed", "Frames relayed", "type"), numbers.relayed)
        yield CounterMetricFamily("sdpx_relayed_bytes", "Bytes of relayed frames, as they came", numbers.relayed_bytes)
        yield _labelled(_counter("sdpx_refusals", "Frames and connections refused", "code"), numbers.refusals)
        yield _labelled(_counter("sdpx_evictions", "Clients that were cut", "reason"), numbers.evictions)
        totals = self._present.away.totals
        yield CounterMetricFamily("sdpx_clients_resumed", "Times that a client came back", totals.resumed)
        yield CounterMetricFamily("sdpx_sessions_expired", "Clients that did not come back in time", totals.expired)
        yield CounterMetricFamily("sdpx_sessions_evicted", "Clients that were too much to keep", totals.evicted)
        yield CounterMetricFamily("sdpx_log_lines_dropped", "Log lines that nobody read in time", dropped)

    def _relay_times(self) -> Metric:
        bounds = [*map(str, RELAY_SECONDS), INFINITY]
        totals = list(accumulate(self._numbers.relay_times))
        return HistogramMetricFamily(
            "sdpx_relay_seconds",
            "From a frame's being read whole to its being handed to the receiver's socket",
            buckets=list(zip(bounds, totals, strict=True)),
            sum_value=self._numbers.relay_seconds,
        )


def _counter(name: str, help_text: str, label: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, help_text, labels=[label])


def _labelled(family: Family, values: Mapping[str, int]) -> Family:
    for label, value in values.items():
        family.add_metric([label], value)
    return family
