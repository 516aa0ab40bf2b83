"""Connections of clients: TCP, TLS (RFC 9325), and why one failed."""

import ssl
from collections.abc import Sequence
from errno import EADDRNOTAVAIL, EAFNOSUPPORT, ENETUNREACH, errorcode
from os import strerror
from typing import Final
from urllib.parse import urlsplit

import trio

from sdpx.errors import describe_os_error
from sdpx.options import AccessOptions, BadOption

_NOT_IN_FORCE: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_NO_ROUTE: Final = (ENETUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT)
_NAME_MISMATCH: Final = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH


ByteStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


async def open_stream(host: str, port: int, tls: ssl.SSLContext | None) -> ByteStream:
    """Connect by TCP and, with a context, by TLS, whose handshake is made. Raises `OSError` and `BrokenResourceError`."""
    stream = await trio.open_tcp_stream(host, port)
    if tls is None:
        return stream
    secured = trio.SSLStream(stream, tls, server_hostname=host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def client_context(cafile: str | None = None, *, insecure: bool = False) -> ssl.SSLContext:
    """Return a TLS context, 1.2 and up, that trusts the system's authorities, or only those in `cafile` (PEM).

    With `insecure` it verifies nothing. Raises `BadOption` for an unusable `cafile`.
    """
    try:
        context = ssl.create_default_context(cafile=cafile)
    except ssl.SSLError:
        raise BadOption("--cafile", f"'{cafile}' holds no certificate in PEM ('-----BEGIN CERTIFICATE-----')") from None
    except (OSError, ValueError) as error:
        raise BadOption("--cafile", f"'{cafile}' cannot be read: {describe_os_error(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def relay_context(url: str, access: AccessOptions) -> ssl.SSLContext | None:
    """Return the context for connections to the relay at `url`; None for a ws:// URL, since it takes 0.05 s to make."""
    return client_context(access.cafile, insecure=access.insecure) if urlsplit(url).scheme == "wss" else None


def tls_cause(error: BaseException) -> ssl.SSLError | None:
    """Return the error of TLS that is the cause of an error; None if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__
    return cause


def tls_reason(error: ssl.SSLError) -> str:
    """Return the reason that OpenSSL gives for an error of TLS."""
    return getattr(error, "verify_message", "") or error.reason or "no reason given"


def tls_code(error: ssl.SSLError) -> str:
    """Return the code of an error of TLS in the table of remedies."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "tls_failed"
    if error.verify_code in _NAME_MISMATCH:
        return "certificate_name"
    return "certificate_expired" if error.verify_code in _NOT_IN_FORCE else "certificate_untrusted"


def describe_tls_failure(error: BaseException) -> str:
    """Return why TLS failed and what to do; an empty string if TLS is not the cause."""
    cause = tls_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _NAME_MISMATCH:
            return f"its certificate is for another name ({cause.verify_message}); use a URL with a name that is in it"
        return f"its certificate is not trusted ({cause.verify_message}); --cafile FILE names the authority to trust"
    if cause is None:
        return ""
    reason = tls_reason(cause)
    hint = "; a relay without TLS has a ws:// URL" if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST") else ""
    return f"TLS failed ({reason}){hint}"


def describe_connect_failure(error: BaseException) -> str:
    """Return why a connection failed: TLS, or the system's message for each address that was tried, without the address."""
    if reason := describe_tls_failure(error):
        return reason
    return "; ".join(dict.fromkeys(map(_describe, connect_causes(error))))


def connect_causes(error: BaseException) -> Sequence[BaseException]:
    """Return the errors behind a failed connection: one for each address that was tried."""
    return error.__cause__.exceptions if isinstance(error.__cause__, ExceptionGroup) else [error]


def lacks_route(error: BaseException) -> bool:
    """Return whether this machine has no address, or no route, of the family of an address that could not be used."""
    return isinstance(error, OSError) and error.errno in _NO_ROUTE


def _describe(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused (is the relay running?)"
    if isinstance(error, OSError) and error.errno in errorcode:
        return strerror(error.errno or 0)
    return describe_os_error(error)
