"""TLS contexts of clients (RFC 9325), and the options that configure them."""

import ssl


class BadCaFile(Exception):
    """The file holds no CA certificates; the message says why."""


def client_context(cafile: str | None = None, *, insecure: bool = False) -> ssl.SSLContext:
    """Return a TLS context, 1.2 and up, that trusts the system's authorities, or only those in `cafile` (PEM).

    With `insecure` it verifies nothing. Raises `BadCaFile`.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
    except ssl.SSLError:
        raise BadCaFile(f"'{cafile}' holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')") from None
    except (OSError, ValueError) as error:
        raise BadCaFile(f"'{cafile}' cannot be read: {getattr(error, 'strerror', None) or error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def validate_tls_options(url: str, cafile: str | None, *, insecure: bool) -> tuple[str, str] | None:
    """Return an option that contradicts the others, and why; None if they fit."""
    option = "--cafile" if cafile is not None else "--insecure"
    if cafile is not None and insecure:
        return "--insecure", "it contradicts --cafile; give one of the two"
    if (cafile is not None or insecure) and not url.lower().startswith("wss://"):
        return option, "it is for TLS, and --url does not begin with wss://"
    return None
