"""The pages for operators: liveness, readiness and metrics."""

from collections.abc import Callable
from typing import Final

from sdpx.relay.core.stats import RelaySnapshot, RelayStats
from sdpx.relay.http.responses import JSON, HttpResponse
from sdpx.relay.http.upgrade import Pages

ALIVE: Final = HttpResponse(200, JSON, b'{"status":"alive"}\n')
READY: Final = HttpResponse(200, JSON, b'{"status":"ready"}\n')
DRAINING: Final = HttpResponse(503, JSON, b'{"status":"draining"}\n')


def operator_pages(stats: RelayStats, snapshot: Callable[[], RelaySnapshot], is_ready: Callable[[], bool]) -> Pages:
    """Return the pages by path; each reads the state when it is requested."""
    return {
        "/healthz": lambda _accept: ALIVE,
        "/readyz": lambda _accept: READY if is_ready() else DRAINING,
        "/metrics": lambda accept: _metrics(stats, snapshot(), accept),
    }


def _metrics(stats: RelayStats, snapshot: RelaySnapshot, accept: str) -> HttpResponse:
    from sdpx.relay.http.metrics import metrics_page  # noqa: PLC0415  the import takes a tenth of a second

    return metrics_page(stats, snapshot, accept)
