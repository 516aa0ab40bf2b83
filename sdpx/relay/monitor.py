"""`/stats.json`: the relay's numbers, with those of ten minutes; for administrators also the clients.

Without authentication it is served to loopback only, by a local name. With it, a valid token gets the numbers, and one whose
`admin` claim is true the clients, too; `DELETE /clients/ID` disconnects one.
"""

from collections import deque
from ipaddress import ip_address
from typing import Any, Final

import msgspec
import trio

from sdpx.relay.auth.authenticator import Authenticator
from sdpx.relay.auth.origins import is_local_name
from sdpx.relay.auth.tokens import UNRESTRICTED, Grant
from sdpx.relay.http.request import HttpRequest, Remote, host_of
from sdpx.relay.http.responses import JSON, HttpError, HttpResponse
from sdpx.relay.relay import Relay

PATH: Final = "/stats.json"
CLIENTS: Final = "/clients/"
SAMPLE_SECONDS: Final = 2.0
SAMPLES: Final = 300
MAX_CLIENTS: Final = 1000
_HEADERS: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
LOCAL_ONLY: Final = HttpError(
    403,
    "forbidden",
    "Without authentication the numbers of the relay are served to this machine only (http://localhost)",
)
ADMIN_ONLY: Final = HttpError(403, "forbidden", "This needs a token whose 'admin' claim is true")


class Monitor:
    """Answers requests for the numbers and the clients of a relay."""

    def __init__(self, relay: Relay, authenticator: Authenticator | None) -> None:
        self._relay = relay
        self._authenticator = authenticator
        self._history: deque[dict[str, float]] = deque(maxlen=SAMPLES)

    async def run(self) -> None:
        """Sample the numbers for ever."""
        while True:
            self._history.append(self._numbers())
            await trio.sleep(SAMPLE_SECONDS)

    async def answer(self, request: HttpRequest, remote: Remote) -> HttpResponse | HttpError | None:
        """Answer a request; None if it is for something else."""
        is_disconnect = request.method == b"DELETE" and request.path.startswith(CLIENTS)
        if not is_disconnect and not (request.path == PATH and request.method in (b"GET", b"HEAD")):
            return None
        grant = await self._authorize(request, remote)
        if isinstance(grant, HttpError):
            return grant
        if not is_disconnect:
            return self._page(grant)
        client_id = request.path.removeprefix(CLIENTS)
        if not grant.is_admin:
            return ADMIN_ONLY
        if not self._relay.disconnect(client_id):
            return HttpError(404, "not_found", f"No client '{client_id[:64]}' is connected")
        return HttpResponse(200, JSON, b'{"disconnected":true}\n', _HEADERS)

    async def _authorize(self, request: HttpRequest, remote: Remote) -> Grant | HttpError:
        if self._authenticator is not None and self._authenticator.requires_authentication:
            return await self._authenticator.authenticate(request, remote)
        has_local_name = is_local_name(", ".join(request.values(b"host")))  # no page by DNS rebinding, no proxy
        try:
            is_local = ip_address(host_of(remote.shown)).is_loopback and not request.is_forwarded and has_local_name
        except ValueError:
            is_local = False
        return UNRESTRICTED if is_local else LOCAL_ONLY

    def _page(self, grant: Grant) -> HttpResponse:
        stats = self._relay.stats
        body: dict[str, Any] = {
            "now": self._numbers(),
            "relayed": stats.relayed,
            "refusals": dict(stats.refusals),
            "evictions": dict(stats.evictions),
            "sample_seconds": SAMPLE_SECONDS,
            "history": list(self._history),
        }
        if grant.is_admin:
            body["clients"] = self._relay.describe_clients(MAX_CLIENTS)
        return HttpResponse(200, JSON, msgspec.json.encode(body) + b"\n", _HEADERS)

    def _numbers(self) -> dict[str, float]:
        """Return gauges, and totals since the relay started."""
        stats, relay = self._relay.stats, self._relay
        return {
            "clients": relay.clients,
            "pairs": relay.pairs,
            "messages": sum(stats.relayed.values()),
            "bytes": stats.relayed_bytes,
            "refused": stats.refusals.total(),
            "timed": sum(stats.relay_times),
            "relay_seconds": round(stats.relay_seconds, 6),
        }
