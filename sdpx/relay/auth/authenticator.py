"""The gate: whether a request for a WebSocket may have one, by whose page, token and word.

The rules are those of origin, proxy, tokens and attempts; this asks them in turn. Of a token nothing is ever told but what is
wrong with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

import h11
import trio
from msgspec import structs

from sdpx.events import Event, serve
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.origins import Origins
from sdpx.relay.auth.proxies import Proxies
from sdpx.relay.auth.tokens import BadToken, Grant, grant_of, subject_of
from sdpx.relay.core.failed_auth import FailedAuthLimit
from sdpx.relay.core.rate_limit import network_of
from sdpx.relay.http.responses import HttpError
from sdpx.relay.http.upgrade import Upgrade

if TYPE_CHECKING:
    from sdpx.relay.auth.webhook import Webhook

COMPLAIN_SECONDS: Final = 10.0
SHOWN_ORIGIN: Final = 100


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a request comes from: as the log shows it, and what counts as one address."""

    shown: str
    address: str


class Authenticator:
    """`clock` returns seconds since the epoch. `webhook` is there if the options name one; whoever made it closes it."""

    def __init__(
        self,
        options: AuthOptions,
        vault: Credentials,
        webhook: "Webhook | None",
        clock: Callable[[], float],
        tell: Callable[[Event], None],
    ) -> None:
        self._options = options
        self._vault = vault
        self._webhook = webhook
        self._clock = clock
        self._tell = tell
        self._origins = Origins(options.allow_origin)
        self._proxies = Proxies(options.trusted_proxy)
        self._attempts = FailedAuthLimit(options.auth_rate)
        self._quiet_until = trio.current_time()

    def is_proxy(self, host: str) -> bool:
        """Tell whether a connection from `host` is one that many clients share."""
        return self._proxies.trust(host)

    def client_behind(self, request: h11.Request, host: str) -> Remote | None:
        """Return the client that the proxy at `host` speaks for, if it is one."""
        if not self._proxies.trust(host):
            return None
        client = self._proxies.client(host, _values(request, b"x-forwarded-for"), _values(request, b"forwarded"))
        return Remote(f"[{client}]" if ":" in client else client, network_of(client))

    async def check(self, request: h11.Request, upgrade: Upgrade, remote: Remote) -> Upgrade | HttpError:
        """Return the request as it may have its WebSocket, or why it may not. May wait for the webhook."""
        origin = _origin(request)
        if not self._origins.allow(origin):
            return HttpError(403, "origin", f"Pages of '{(origin or '')[:SHOWN_ORIGIN]}' may not connect here")
        if not self._options.requires_authentication:
            return upgrade
        if not self._attempts.may_try(remote.address, trio.current_time()):
            return self._too_many(remote.address)
        try:
            token = _token(request)
            upgrade = self._with_token(upgrade, token)
            return await self._with_webhook(request, upgrade, remote, origin, token)
        except BadToken as error:
            self._attempts.failed(remote.address, trio.current_time())
            return HttpError(401, "unauthorized", str(error), (("WWW-Authenticate", "Bearer"),), error.client_id)

    def _too_many(self, address: str) -> HttpError:
        seconds = int(self._attempts.seconds_to_wait(address, trio.current_time())) + 1
        message = "Too many attempts from your address failed; wait a little"
        return HttpError(429, "too_many_attempts", message, (("Retry-After", str(seconds)),))

    def _with_token(self, upgrade: Upgrade, token: str | None) -> Upgrade:
        if not self._options.asks_for_tokens:
            return upgrade
        if token is None:
            raise BadToken("A token is needed: 'Authorization: Bearer TOKEN', or '?token=TOKEN'")
        claims = self._vault.keys.claims(token)
        try:
            return granted(upgrade, grant_of(claims, self._clock(), self._options.auth_audience))
        except BadToken as error:
            raise BadToken(str(error), subject_of(claims)) from None

    async def _with_webhook(
        self, request: h11.Request, upgrade: Upgrade, remote: Remote, origin: str | None, token: str | None
    ) -> Upgrade | HttpError:
        if self._webhook is None:
            return upgrade
        from sdpx.relay.auth.webhook import Question, Unavailable, shown_reason  # noqa: PLC0415  slow to load

        path = request.target.partition(b"?")[0].decode("latin-1")
        try:
            reply = await self._webhook.ask(Question(upgrade.client_id, remote.shown, origin, token, path))
        except Unavailable as error:
            self._complain(str(error))
            message = "The relay cannot ask whether you may come in; try again later"
            return HttpError(503, "auth_unavailable", message, (("Retry-After", "5"),), upgrade.client_id)
        if not reply.allowed:
            raise BadToken(shown_reason(reply, token), upgrade.client_id)
        return structs.replace(upgrade, grant=replace(upgrade.grant, ice_servers=reply.servers()))

    def _complain(self, reason: str) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAIN_SECONDS
            self._tell(serve.AuthWebhookFailed(reason))


def granted(upgrade: Upgrade, grant: Grant) -> Upgrade:
    """Return the request as the grant lets it be; raises `BadToken` if it is for another ID."""
    bound, asked = grant.client_id, upgrade.client_id
    if bound is not None and asked not in (None, bound):
        raise BadToken(f"The token is for the ID '{bound}', and '{asked}' was asked for")
    return structs.replace(upgrade, client_id=bound or asked, grant=grant)


def _origin(request: h11.Request) -> str | None:
    """Return the Origin header; one that is there twice is nobody's."""
    values = _values(request, b"origin")
    return ", ".join(values) if values else None


def _token(request: h11.Request) -> str | None:
    """Return the token that a request brings (RFC 6750, 2); raises `BadToken` if there are several."""
    tokens = set(_tokens(request))
    if len(tokens) > 1:
        raise BadToken("There are several different tokens; bring one")
    return tokens.pop() if tokens else None


def _tokens(request: h11.Request) -> Iterator[str]:
    for value in _values(request, b"authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            yield token.strip()
    query = request.target.decode("latin-1").partition("?")[2]
    yield from parse_qs(query, keep_blank_values=True).get("token", ())


def _values(request: h11.Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in request.headers if key == name]
