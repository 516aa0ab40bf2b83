"""The pages for operators: liveness, readiness and metrics."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import trio

from sdpx.relay.core.stats import RelaySnapshot, RelayStats
from sdpx.relay.http.request import HttpRequest
from sdpx.relay.http.responses import JSON, HttpResponse
from sdpx.relay.http.upgrade import Pages

if TYPE_CHECKING:
    from sdpx.relay.http.metrics import Rendered

Readiness = Literal["ready", "degraded", "draining"]
ALIVE: Final = HttpResponse(200, JSON, b'{"status":"alive"}\n')
READINESS: Final[dict["Readiness", HttpResponse]] = {
    "ready": HttpResponse(200, JSON, b'{"status":"ready"}\n'),
    "degraded": HttpResponse(503, JSON, b'{"status":"degraded"}\n'),
    "draining": HttpResponse(503, JSON, b'{"status":"draining"}\n'),
}


def operator_pages(
    stats: RelayStats, snapshot: Callable[[], RelaySnapshot], readiness: Callable[[], Readiness]
) -> Pages:
    """Return the pages by path; each reads the state when it is requested, the metrics once a second at most."""
    rendered: dict[str, Rendered] = {}

    def metrics(request: HttpRequest) -> HttpResponse:
        from sdpx.relay.http.metrics import metrics_page  # noqa: PLC0415  the import takes a tenth of a second

        accept = ", ".join(request.elements(b"accept"))
        return metrics_page(stats, snapshot, accept, rendered, trio.current_time())

    return {
        "/healthz": lambda _request: ALIVE,
        "/readyz": lambda _request: READINESS[readiness()],
        "/metrics": metrics,
    }
