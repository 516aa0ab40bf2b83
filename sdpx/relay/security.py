"""Everything about trust that a running relay has, put together from its options: made at the start, reloaded on SIGHUP."""

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import trio

from sdpx.events import Event, serve
from sdpx.relay.auth.authenticator import Authenticator
from sdpx.relay.auth.credentials import Credentials
from sdpx.relay.auth.ice_issuer import IceServerIssuer
from sdpx.relay.auth.options import AuthOptions
from sdpx.relay.auth.tls_stream import TlsStream
from sdpx.relay.auth.turn import IceServer
from sdpx.relay.websocket.socket_stream import SocketStream

if TYPE_CHECKING:
    from sdpx.relay.auth.webhook import Webhook

RELOAD: Final = signal.SIGHUP


class Security:
    """What the relay's other rooms need: a gate if any request is looked at, the ICE servers, and TLS."""

    def __init__(
        self,
        options: AuthOptions,
        vault: Credentials,
        webhook: "Webhook | None",
        clock: Callable[[], float],
        tell: Callable[[Event], None],
        fixed: tuple[IceServer, ...] = (),
    ) -> None:
        self._options = options
        self._vault = vault
        self._tell = tell
        self.gate = Authenticator(options, vault, webhook, clock, tell) if options.inspects_requests else None
        self.ice = IceServerIssuer(clock, fixed, options.turn_url, options.turn_ttl, lambda: vault.turn_secret)

    def warn(self, host: str) -> None:
        """Tell of what is not wrong but unwise, for a relay that listens at `host`."""
        options = self._options
        if self._vault.has_weak_secret:
            self._tell(serve.WeakSecret(str(options.auth_secret_file)))
        if not options.requires_authentication and not options.allow_origin and not _is_loopback(host):
            self._tell(serve.AuthenticationDisabled(host))

    def secured(self, link: trio.abc.Stream) -> trio.abc.Stream:
        """Return the connection as it is to be served: over TLS, if the relay speaks it."""
        context = self._vault.tls
        return TlsStream(link, context) if context is not None and isinstance(link, SocketStream) else link

    async def reload_on_sighup(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read the files again whenever SIGHUP comes, for ever; it has started once that signal ends the program no more."""
        with trio.open_signal_receiver(RELOAD) as signals:
            task_status.started()
            async for _ in signals:
                await self.reload()

    async def reload(self) -> None:
        """Read the files again; nobody is dropped, and what is bad stays out."""
        result = await trio.to_thread.run_sync(self._vault.reopen, abandon_on_cancel=True)
        for option, reason in result.failed:
            self._tell(serve.ReloadFailed(option, reason))
        if result.done or not result.failed:
            self._tell(serve.Reloaded(", ".join(result.done) or "no option: none has one"))
        if "--turn-secret-file" in result.done:
            self.ice.expire_all()


@asynccontextmanager
async def open_security(
    options: AuthOptions,
    vault: Credentials,
    clock: Callable[[], float],
    tell: Callable[[Event], None],
    fixed: tuple[IceServer, ...] = (),
) -> AsyncIterator[Security]:
    """Put a guard together for as long as the block runs. The vault is open already."""
    if options.auth_webhook is None:
        yield Security(options, vault, None, clock, tell, fixed)
        return
    from sdpx.relay.auth.webhook import Webhook  # noqa: PLC0415  slow to load

    webhook = Webhook(options.auth_webhook, options.auth_webhook_timeout)
    try:
        yield Security(options, vault, webhook, clock, tell, fixed)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await webhook.aclose()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
