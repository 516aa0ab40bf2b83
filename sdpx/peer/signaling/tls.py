"""How a peer checks that the relay is the one that it means (RFC 9325): the TLS of a client, and its failures in words."""

import ssl
from typing import Final

_OTHER_NAME: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


class BadCaFile(Exception):
    """The file holds no certificates to trust; the sentence says why."""


def client_context(cafile: str | None = None, *, insecure: bool = False) -> ssl.SSLContext:
    """Return the TLS of a client, 1.2 and up, that trusts the system's authorities, or those in `cafile` (PEM) and no others.

    With `insecure` it trusts everybody. Raises `BadCaFile`.
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


def validate_ca_file(url: str, cafile: str | None, *, insecure: bool) -> tuple[str, str] | None:
    """Return an option that makes no sense with the others, and why."""
    option = "--cafile" if cafile is not None else "--insecure"
    if cafile is not None and insecure:
        return "--insecure", "it contradicts --cafile; give one of the two"
    if (cafile is not None or insecure) and not url.lower().startswith("wss://"):
        return option, "it is for TLS, and --url does not begin with wss://"
    return None


def words_of(error: BaseException) -> str | None:
    """Return why TLS failed, with what to do about it; None if the error is none of TLS."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ssl.SSLError):
        found = found.__cause__
    if isinstance(found, ssl.SSLCertVerificationError) and found.verify_code in _OTHER_NAME:
        return f"its certificate is for another name ({found.verify_message}); give --url with a name that is in it"
    if isinstance(found, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({found.verify_message}); --cafile FILE says whom to trust"
    if isinstance(found, ssl.SSLError):
        reason = found.reason or "no reason given"
        hint = "; a relay without TLS has a ws:// URL" if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST") else ""
        return f"TLS failed ({reason}){hint}"
    return None
