"""Authenticates requests for a WebSocket, by origin, failed attempts, token and webhook, in this order.

The refusal of a token names the rule that the token breaks, and quotes nothing of it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio
from msgspec.structs import replace

from sdpx.events import Event, serve
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.origins import Origins
from sdpx.relay.auth.proxies import Proxies
from sdpx.relay.auth.tokens import UNRESTRICTED, BadToken, Grant, parse_claims, subject_of
from sdpx.relay.auth.webhook import Unavailable, Webhook, WebhookRequest
from sdpx.relay.core.rate_limit import AddressLimit, network_of
from sdpx.relay.http.request import HttpRequest, Remote, host_of
from sdpx.relay.http.responses import HttpError

PROTOCOL_WITH_TOKEN: Final = "sdpx.token."  # noqa: S105  a prefix
LOG_INTERVAL: Final = 10.0
MAX_SHOWN_ORIGIN: Final = 100


@dataclass(eq=False, repr=False)
class Authenticator:
    """Decides about the permissions of requests. `clock` returns seconds since the epoch."""

    _options: AuthOptions
    _credentials: Credentials
    _webhook: Webhook | None
    _clock: Callable[[], float]
    _log: Callable[[Event], None]
    _has_page: bool = False  # at the relay's own origin, which is allowed then

    def __post_init__(self) -> None:
        self.origins = Origins(self._options.allow_origin)
        self._proxies = Proxies(self._options.trusted_proxy)
        self._attempts = AddressLimit(self._options.auth_rate)
        self._quiet_until = trio.current_time()

    @property
    def requires_authentication(self) -> bool:
        """Whether a token, or the webhook's consent, is needed."""
        return self._options.requires_authentication

    def is_proxy(self, host: str) -> bool:
        """Return whether `host` is a trusted proxy, whose address many clients share."""
        return self._proxies.trust(host)

    def client_behind(self, request: HttpRequest, remote: Remote) -> Remote:
        """Return the client behind the trusted proxy at `remote`; `remote` itself if it is not one."""
        host = host_of(remote.shown)
        if not self._proxies.trust(host):
            return remote
        client = self._proxies.client(host, request.values(b"x-forwarded-for"), request.values(b"forwarded"))
        return Remote(f"[{client}]" if ":" in client else client, network_of(client))

    async def authenticate(self, request: HttpRequest, remote: Remote) -> Grant | HttpError:
        """Return the permissions of a request for a WebSocket, or its refusal. May wait for the webhook."""
        origin = ", ".join(request.values(b"origin")) or None  # two of them are no valid origin
        own_host = ", ".join(request.values(b"host")) if self._has_page else None
        if not self.origins.allow(origin, own_host):
            return HttpError(
                403, "origin", f"Connections from pages of '{(origin or '')[:MAX_SHOWN_ORIGIN]}' are not allowed"
            )
        if not self._options.requires_authentication:
            return UNRESTRICTED
        if not self._attempts.has(remote.address, trio.current_time()):
            seconds = int(self._attempts.seconds_to_wait(remote.address, trio.current_time())) + 1
            message = "Too many failed authentication attempts from your address; try again later"
            return HttpError(429, "too_many_attempts", message, (("Retry-After", str(seconds)),))
        try:
            token = _token(request)
            grant = self._grant_of(token, request.asked_id)
            return await self._with_webhook(request, grant, remote, origin, token)
        except BadToken as error:
            self._attempts.force(remote.address, trio.current_time())
            return HttpError(401, "unauthorized", str(error), (("WWW-Authenticate", "Bearer"),), error.client_id)

    def _grant_of(self, token: str | None, asked_id: str | None) -> Grant:
        """Return the token's permissions; raises `BadToken`, also if the token is for another ID than `asked_id`."""
        if not self._options.asks_for_tokens:
            return UNRESTRICTED
        if token is None:
            raise BadToken("A token is required: 'Authorization: Bearer TOKEN', or '?token=TOKEN'")
        claims = self._credentials.keys.claims(token)
        try:
            grant = parse_claims(claims, self._clock(), self._options.auth_audience, self._options.id_claim)
        except BadToken as error:
            raise BadToken(str(error), subject_of(claims, self._options.id_claim)) from None
        if grant.client_id is not None and asked_id not in (None, grant.client_id):
            message = f"The token is for the ID '{grant.client_id}', not '{asked_id}'"
            raise BadToken(message, grant.client_id)
        return grant

    async def _with_webhook(
        self, request: HttpRequest, grant: Grant, remote: Remote, origin: str | None, token: str | None
    ) -> Grant | HttpError:
        if self._webhook is None:
            return grant
        client_id = grant.client_id or request.asked_id
        try:
            asked = WebhookRequest(client_id, remote.shown, origin, token, request.path)
            answer = await self._webhook.ask(asked, remote.address)
        except Unavailable as error:
            self._log_unavailable(str(error))
            message = "The authentication service is unavailable; try again later"
            return HttpError(503, "auth_unavailable", message, (("Retry-After", "5"),), client_id)
        if not answer.allowed:
            raise BadToken(answer.denial(token), client_id)
        return replace(grant, ice_servers=answer.ice_servers)

    def _log_unavailable(self, reason: str) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_INTERVAL
            self._log(serve.AuthWebhookFailed(reason))


def _token(request: HttpRequest) -> str | None:
    """Return the token that a request brings (RFC 6750, 2), or as a subprotocol, all that the WebSockets of a browser can set.

    Raises `BadToken` if there are several.
    """
    schemes = (value.partition(" ") for value in request.values(b"authorization"))
    tokens = {token.strip() for scheme, _, token in schemes if scheme.lower() == "bearer"}
    tokens.update(request.query.get("token", ()))
    offered = request.elements(b"sec-websocket-protocol")
    tokens.update(each.removeprefix(PROTOCOL_WITH_TOKEN) for each in offered if each.startswith(PROTOCOL_WITH_TOKEN))
    if len(tokens) > 1:
        raise BadToken("The request has several different tokens; send one")
    return tokens.pop() if tokens else None


@asynccontextmanager
async def open_authenticator(
    options: AuthOptions,
    credentials: Credentials,
    clock: Callable[[], float],
    log: Callable[[Event], None],
    resumed_at: Callable[[float], float],
    *,
    has_page: bool = False,
) -> AsyncIterator[Authenticator | None]:
    """Yield the authenticator of these options; None if they allow every request. `resumed_at`: see `SuspensionDetector`."""
    async with trio.open_nursery() as nursery:
        url, seconds = options.auth_webhook, options.auth_webhook_timeout
        webhook = None if url is None else Webhook(url, seconds, nursery, resumed_at)
        yield Authenticator(options, credentials, webhook, clock, log, has_page) if options.inspects_requests else None
        nursery.cancel_scope.cancel()
