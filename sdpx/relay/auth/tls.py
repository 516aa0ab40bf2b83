"""The relay's certificate and key, as the TLS of a server. Imported only where there is one: X.509 is slow to load."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from sdpx.relay.auth.files import BadFile, read_bytes

# What OpenSSL says of a key and a certificate that are no pair: of one kind, or of two.
_STRANGERS: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def load_context(certificate: Path, key: Path, now: float) -> ssl.SSLContext:
    """Return the TLS of a server with this certificate chain and key, both PEM; raises `BadFile`.

    `now` is in seconds since the epoch: a certificate that has ended is refused, for every client would refuse it.
    """
    _check_certificate(certificate, now)
    if b"PRIVATE KEY-----" not in read_bytes(key):
        raise BadFile(key, "holds no private key in PEM ('-----BEGIN PRIVATE KEY-----')")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=lambda: _refuse_passphrase(key))
    except ssl.SSLError as error:
        if error.reason in _STRANGERS:
            flaw = f"holds a key that does not belong to the certificate in '{certificate}'"
            raise BadFile(key, flaw) from None
        raise BadFile(
            key, f"and '{certificate}' make no TLS: {error.reason or 'a key or certificate is broken'}"
        ) from None
    except OSError as error:
        raise BadFile(key, f"cannot be read: {error.strerror}") from None
    return context


def _refuse_passphrase(key: Path) -> str:
    raise BadFile(key, "is encrypted; use a key without a passphrase")


def _check_certificate(path: Path, now: float) -> None:
    try:
        chain = x509.load_pem_x509_certificates(read_bytes(path))
    except (ValueError, x509.InvalidVersion):
        raise BadFile(path, "holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')") from None
    at = datetime.fromtimestamp(now, UTC)
    if chain[0].not_valid_after_utc < at:
        raise BadFile(path, f"holds a certificate that ended on {chain[0].not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if chain[0].not_valid_before_utc > at:
        raise BadFile(path, f"holds a certificate that begins on {chain[0].not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
