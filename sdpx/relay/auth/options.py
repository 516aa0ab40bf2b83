"""Authentication, TLS and TURN options of `sdpx serve`. Pure."""

from dataclasses import dataclass

from sdpx.options import option


@dataclass(frozen=True, slots=True)
class AuthOptions:
    """Options that decide which clients may connect; `auth_rate` is per second and IP address."""

    auth_secret_file: str | None = option(
        None, "Require a token signed with the shared secret in this file (HS256).", "Authentication", "FILE"
    )
    auth_jwks: str | None = option(
        None, "Require a token signed by a public key in this JWK set.", "Authentication", "FILE"
    )
    auth_audience: str | None = option(None, "Require tokens to have this audience ('aud').", "Authentication", "NAME")
    id_claim: str | None = option(
        None,
        "Claim of the token that gives the client's ID; default: 'sub', which may be missing.",
        "Authentication",
        "NAME",
    )
    auth_webhook: str | None = option(
        None, "Ask this HTTP service whether a client may connect.", "Authentication", "URL"
    )
    auth_webhook_timeout: float = option(3.0, "Time for the webhook to answer.", "Authentication", "SECONDS", 0.1, 60)
    auth_rate: float = option(
        1.0, "Failed attempts per second and IP address; 0: no limit.", "Authentication", "NUMBER", 0
    )
    allow_origin: tuple[str, ...] = option(
        (),
        "Accept browser pages from this origin only; https://*.HOST for subdomains; repeatable.",
        "Authentication",
        "ORIGIN",
    )
    trusted_proxy: tuple[str, ...] = option(
        (), "Trust X-Forwarded-For and Forwarded from this network; repeatable.", "Authentication", "CIDR"
    )
    tls_cert: str | None = option(None, "Serve wss:// with this certificate chain (PEM).", "TLS", "FILE")
    tls_key: str | None = option(None, "Private key of the certificate (PEM).", "TLS", "FILE")
    turn_secret_file: str | None = option(
        None, "File with the static-auth-secret of coturn, for --turn-url.", "TURN and ICE", "FILE"
    )
    turn_url: tuple[str, ...] = option(
        (), "Issue clients credentials for this TURN server; repeatable.", "TURN and ICE", "URL"
    )
    turn_ttl: int = option(86_400, "Lifetime of TURN credentials.", "TURN and ICE", "SECONDS", 1, 31_536_000)

    @property
    def asks_for_tokens(self) -> bool:
        """Whether a client needs a token."""
        return self.auth_secret_file is not None or self.auth_jwks is not None

    @property
    def requires_authentication(self) -> bool:
        """Whether a client needs a token or the webhook's permission."""
        return self.asks_for_tokens or self.auth_webhook is not None

    @property
    def inspects_requests(self) -> bool:
        """Whether the decision on a request depends on its headers, which excludes the fast parser of requests."""
        return self.requires_authentication or bool(self.allow_origin) or bool(self.trusted_proxy)
