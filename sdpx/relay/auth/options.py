"""Who may come in, and how they are kept safe: what `sdpx serve` was asked for, before any file is read. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from sdpx.relay.auth.origins import validate_origin
from sdpx.relay.auth.proxies import validate_network
from sdpx.relay.auth.turn import validate_turn_url


class BadOption(Exception):
    """An option cannot be used: which, as on the command line, and why. No secret is quoted."""

    def __init__(self, option: str, flaw: str) -> None:
        super().__init__(f"{option}: {flaw}")
        self.option = option
        self.flaw = flaw


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """Times are in seconds; `auth_rate` is failed attempts a second from one address, 0 for no limit."""

    auth_secret_file: str | None = None
    auth_jwks: str | None = None
    auth_audience: str | None = None
    auth_webhook: str | None = None
    auth_webhook_timeout: float = 3.0
    auth_rate: float = 1.0
    allow_origin: tuple[str, ...] = ()
    trusted_proxy: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    turn_secret_file: str | None = None
    turn_url: tuple[str, ...] = ()
    turn_ttl: int = 86_400

    @property
    def asks_for_tokens(self) -> bool:
        """Whether a client needs a token."""
        return self.auth_secret_file is not None or self.auth_jwks is not None

    @property
    def requires_authentication(self) -> bool:
        """Whether anything but the network keeps strangers out."""
        return self.asks_for_tokens or self.auth_webhook is not None

    @property
    def inspects_requests(self) -> bool:
        """Whether a request's headers count: such relays know no request at one look."""
        return self.requires_authentication or bool(self.allow_origin) or bool(self.trusted_proxy)

    def check(self) -> None:
        """Raise `BadOption` for the first option that has a wrong form, or lacks another."""
        for option, flaw in self._flaws():
            if flaw:
                raise BadOption(option, flaw)

    def _flaws(self) -> Iterator[tuple[str, str | None]]:
        if self.auth_webhook is not None:
            yield "--auth-webhook", validate_webhook_url(self.auth_webhook)
        yield from (("--allow-origin", validate_origin(each)) for each in self.allow_origin)
        yield from (("--trusted-proxy", validate_network(each)) for each in self.trusted_proxy)
        yield from (("--turn-url", validate_turn_url(each)) for each in self.turn_url)
        yield "--tls-cert", _lacks(self.tls_cert, "--tls-key", self.tls_key)
        yield "--tls-key", _lacks(self.tls_key, "--tls-cert", self.tls_cert)
        yield "--turn-secret-file", _lacks(self.turn_secret_file, "--turn-url", self.turn_url)
        yield "--turn-url", _lacks(self.turn_url, "--turn-secret-file", self.turn_secret_file)
        if self.auth_audience is not None and not self.asks_for_tokens:
            yield "--auth-audience", "it needs --auth-secret-file or --auth-jwks: without one nobody shows a token"


def _lacks(given: object, other: str, there: object) -> str | None:
    return f"it needs {other}" if given and not there else None


def validate_webhook_url(url: str) -> str | None:
    """Return what is wrong with the URL of an HTTP service; it is not quoted, for it may hold a password."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # raises where a name has an empty or endless part
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        return "that is no HTTP URL; it looks like https://HOST/PATH"
    return None
