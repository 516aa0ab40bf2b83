"""The pages for whoever runs the relay: whether it lives, whether it may get clients, how it is doing."""

from collections.abc import Callable
from typing import Final

from sdpx.relay.core.stats import RelaySnapshot, RelayStats
from sdpx.relay.http.responses import JSON, HttpResponse
from sdpx.relay.http.upgrade import Pages

ALIVE: Final = HttpResponse(200, JSON, b'{"status":"alive"}\n')
READY: Final = HttpResponse(200, JSON, b'{"status":"ready"}\n')
DRAINING: Final = HttpResponse(503, JSON, b'{"status":"draining"}\n')


def pages_of(numbers: RelayStats, present: Callable[[], RelaySnapshot], is_ready: Callable[[], bool]) -> Pages:
    """Return the pages by path; what they show is looked up when they are asked for."""
    return {
        "/healthz": lambda _accept: ALIVE,
        "/readyz": lambda _accept: READY if is_ready() else DRAINING,
        "/metrics": lambda accept: _metrics(numbers, present(), accept),
    }


def _metrics(numbers: RelayStats, present: RelaySnapshot, accept: str) -> HttpResponse:
    from sdpx.relay.http.metrics import make_page  # noqa: PLC0415  a tenth of a second that the start can do without

    return make_page(numbers, present, accept)
