"""Decides about the request of a connection: a page, a refusal, or a WebSocket and the ID that its client gets.

Cheap decisions come first: the request, the state of the relay, its capacity, then origin, token and webhook
(`sdpx.relay.auth.authenticator`), at last the ID.
"""

import os
import re
from typing import Final

from msgspec.structs import replace

from sdpx.events import serve
from sdpx.ids import make_id
from sdpx.relay.auth.authenticator import Authenticator
from sdpx.relay.auth.tokens import UNRESTRICTED, Grant
from sdpx.relay.client import AcceptedUpgrade
from sdpx.relay.http.endpoints import Readiness, operator_pages
from sdpx.relay.http.request import HttpRequest, Remote, host_of
from sdpx.relay.http.responses import CROWDED, ENGINE_UNAVAILABLE, FULL, STOPPING, HttpError, HttpResponse, id_taken
from sdpx.relay.http.upgrade import Pages, Upgrade, parse_plain_request, parse_simple_upgrade, parse_upgrade
from sdpx.relay.monitor import Monitor
from sdpx.relay.relay import Relay

FORWARDED: Final = re.compile(rb"\r\n(?:x-forwarded-for|forwarded):", re.IGNORECASE)

Answer = HttpResponse | HttpError


class Admission:
    """The decisions of one relay.

    `metrics_port` says that `/metrics` has a port of its own (`decide_metrics`) and is not served to clients. `site` has the
    pages for browsers, and `monitor` answers for the relay's numbers.
    """

    def __init__(
        self,
        relay: Relay,
        authenticator: Authenticator | None = None,
        *,
        metrics_port: bool = False,
        site: Pages | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        self._relay = relay
        self._authenticator = authenticator
        self._metrics_pages = operator_pages(relay.stats, relay.snapshot, self._readiness)
        hidden = "/metrics" if metrics_port else None
        self._pages = {path: page for path, page in self._metrics_pages.items() if path != hidden} | dict(site or {})
        self._monitor = monitor
        self._found_proxy = False
        self.is_stopping = False

    def _readiness(self) -> Readiness:
        return "draining" if self.is_stopping else "degraded" if self._relay.is_degraded else "ready"

    # ---- addresses

    def pending_address(self, remote: str) -> str:
        """Return the address that a pending connection counts for: its socket's, where many clients share a proxy's address."""
        return remote if self._is_proxy(host_of(remote)) else Remote.of(remote).address

    def client_of(self, request: HttpRequest, remote: Remote) -> Remote:
        """Return the address of a request's client, behind trusted proxies; log the first proxy that is not trusted."""
        host = host_of(remote.shown)
        if request.is_forwarded and not self._found_proxy and not self._is_proxy(host):
            self._found_proxy = True
            self._relay.log_event(serve.ProxyNotTrusted(host))
        return remote if self._authenticator is None else self._authenticator.client_behind(request, remote)

    def _is_proxy(self, host: str) -> bool:
        return self._authenticator is not None and self._authenticator.is_proxy(host)

    # ---- decisions

    def decide_simple(self, request: bytes, remote: str) -> AcceptedUpgrade | HttpError | None:
        """Decide at once about a simple upgrade request, where nothing has to be awaited; None for any other request."""
        needs_no_wait = self._authenticator is None and not self._relay.is_clustered
        if not needs_no_wait or not (self._found_proxy or not FORWARDED.search(request)):
            return None
        upgrade = parse_simple_upgrade(request)
        return None if upgrade is None else self._reserve_id(upgrade, UNRESTRICTED, Remote.of(remote))

    async def decide(self, request: HttpRequest, remote: Remote) -> AcceptedUpgrade | Answer:
        """Decide about a request of a client; the caller opens an accepted one before any other task runs."""
        if self._monitor is not None and (answer := await self._monitor.answer(request, remote)) is not None:
            return answer
        upgrade = parse_upgrade(request, self._pages)
        if self.is_stopping and not isinstance(upgrade, HttpResponse):
            return STOPPING
        if not isinstance(upgrade, Upgrade):
            return upgrade
        grant: Grant | HttpError = UNRESTRICTED
        if self._authenticator is not None:
            is_resuming = self._relay.find_session(upgrade.resume) is not None
            if not is_resuming and (refusal := self._capacity_refusal(remote)):
                return refusal
            grant = await self._authenticator.authenticate(request, remote)
        if isinstance(grant, HttpError):
            return grant
        return await self._admit(upgrade, grant, remote, request.trailing_data)

    async def decide_metrics(self, request: HttpRequest, _remote: Remote) -> Answer:
        """Answer a request at the metrics port."""
        return parse_plain_request(request, self._metrics_pages)

    async def _admit(
        self, upgrade: Upgrade, grant: Grant, remote: Remote, trailing_data: bytes
    ) -> AcceptedUpgrade | HttpError:
        """Return the upgrade with the ID that it gets, which no other client of the cluster has."""
        if not await self._relay.fetch_session(upgrade.resume, grant.client_id):
            return ENGINE_UNAVAILABLE
        accepted = self._reserve_id(upgrade, grant, remote, trailing_data)
        if not self._relay.is_clustered or isinstance(accepted, HttpError) or accepted.is_resumed:
            return accepted
        client_id = accepted.client_id or make_id(os.urandom)
        result = await self._relay.register(client_id)
        if result != "registered":
            return replace(
                id_taken(client_id, self._relay.resume_window) if result == "taken" else ENGINE_UNAVAILABLE,
                client_id=client_id,
            )
        refusal = STOPPING if self.is_stopping else self._capacity_refusal(remote)
        if refusal is not None:
            self._relay.unregister(client_id)
            return replace(refusal, client_id=client_id)
        return replace(accepted, client_id=client_id)

    def _reserve_id(
        self, upgrade: Upgrade, grant: Grant, remote: Remote, trailing_data: bytes = b""
    ) -> AcceptedUpgrade | HttpError:
        """Return the upgrade with the ID that it gets. A resumed session keeps its ID and its place among `max_clients`."""
        if self.is_stopping:
            return STOPPING
        resumed_id = self._relay.find_session(upgrade.resume, grant.client_id)
        client_id = resumed_id or grant.client_id or upgrade.client_id
        if resumed_id is None:
            if refusal := self._capacity_refusal(remote):
                return replace(refusal, client_id=client_id)
            if client_id is not None and self._relay.has_client(client_id):
                return id_taken(client_id, self._relay.resume_window)
        is_resumed = resumed_id is not None
        return AcceptedUpgrade(upgrade, client_id, is_resumed, grant, trailing_data, remote.shown, remote.address)

    def _capacity_refusal(self, remote: Remote) -> HttpError | None:
        if self._relay.counts.is_full:
            return FULL
        return CROWDED if self._relay.counts.is_crowded(remote.address) else None
