"""The pages for whoever runs the relay: whether it lives, whether it may get clients, how it is doing."""

from collections.abc import Callable
from typing import Final

from sdpx.relay.handshake import Pages
from sdpx.relay.numbers import Numbers, Present
from sdpx.relay.responses import JSON, Page

ALIVE: Final = Page(200, JSON, b'{"status":"alive"}\n')
READY: Final = Page(200, JSON, b'{"status":"ready"}\n')
DRAINING: Final = Page(503, JSON, b'{"status":"draining"}\n')


def pages_of(numbers: Numbers, present: Callable[[], Present], is_ready: Callable[[], bool]) -> Pages:
    """Return the pages by path; what they show is looked up when they are asked for."""
    return {
        "/healthz": lambda _accept: ALIVE,
        "/readyz": lambda _accept: READY if is_ready() else DRAINING,
        "/metrics": lambda accept: _metrics(numbers, present(), accept),
    }


def _metrics(numbers: Numbers, present: Present, accept: str) -> Page:
    from sdpx.relay.metrics import make_page  # noqa: PLC0415  a tenth of a second that the start can do without

    return make_page(numbers, present, accept)
