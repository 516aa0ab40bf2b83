"""TLS contexts of clients (RFC 9325)."""

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
