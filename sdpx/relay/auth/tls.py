"""The TLS context of the relay, from its certificate and key. X.509 is slow to load: import this late."""

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from sdpx.relay.auth.files import BadFile, read_bytes

# The reasons that OpenSSL gives for a key that does not belong to the certificate.
_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


def load_context(certificate: Path, key: Path, now: float) -> ssl.SSLContext:
    """Return a server's TLS context with this certificate chain and key, both PEM; raises `BadFile`.

    A certificate that is not valid at `now`, in seconds since the epoch, is refused, as every client would refuse it.
    """
    _check_certificate(certificate, now)
    if b"PRIVATE KEY-----" not in read_bytes(key):
        raise BadFile(key, "contains no PEM private key ('-----BEGIN PRIVATE KEY-----')")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=lambda: _refuse_passphrase(key))
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise BadFile(key, f"does not belong to the certificate in '{certificate}'") from None
        reason = error.reason or "the key or certificate is not valid"
        raise BadFile(key, f"and '{certificate}' cannot be used: {reason}") from None
    except OSError as error:
        raise BadFile(key, f"cannot be read: {error.strerror}") from None
    return context


def _refuse_passphrase(key: Path) -> str:
    raise BadFile(key, "is encrypted; use a key without a passphrase")


def _check_certificate(path: Path, now: float) -> None:
    try:
        chain = x509.load_pem_x509_certificates(read_bytes(path))
    except (ValueError, x509.InvalidVersion):
        raise BadFile(path, "contains no PEM certificate ('-----BEGIN CERTIFICATE-----')") from None
    begins, ends = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    if ends < datetime.fromtimestamp(now, UTC):
        raise BadFile(path, f"contains a certificate that expired on {ends:%Y-%m-%d %H:%M} UTC")
    if begins > datetime.fromtimestamp(now, UTC):
        raise BadFile(path, f"contains a certificate that is not valid before {begins:%Y-%m-%d %H:%M} UTC")
