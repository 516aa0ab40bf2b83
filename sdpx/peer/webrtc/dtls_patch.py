"""Patches of private parts of aiortc's DTLS transport (RFC 8842), for the version in `versions.TESTED`.

By itself aiortc
- lets an exception, of an assertion or of a certificate that `cryptography` rejects, end a task that is not awaited, and
  reports no reason for a failed handshake: here the transport becomes `failed`, and a callback gets the reason;
- requires SRTP keys, which a stack made for data channels alone does not negotiate;
- as a client offers no cipher suites for RSA certificates, which some stacks have;
- announces fingerprints by three digests, with which libdatachannel as the client sometimes rejects the certificate (alert
  `unknown_ca`); here there is one, by SHA-256, as in the descriptions of browsers (RFC 8122, 5).
"""

from collections.abc import Callable
from typing import Any, Final

from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport, State
from OpenSSL import SSL, crypto

from sdpx.peer.negotiation.description import DIGESTS

FINGERPRINT_MISMATCH: Final = "its certificate is not the one that its description announced"
# OpenSSL reports an error that an earlier call of the same thread left behind; a real failure is reported again.
STALE_ERRORS: Final = 1
NO_REASON: Final = "OpenSSL reports no reason (no common cipher suite or version?)"
# The cipher suites of aiortc, and the same for RSA (RFC 8422, 6; RFC 5289; RFC 7905).
_SUITES: Final = ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
CIPHERS: Final = ":".join(f"ECDHE-{kind}-{suite}" for suite in _SUITES for kind in ("ECDSA", "RSA")).encode()

_CERTIFICATE: Final = "_RTCDtlsTransport__local_certificate"


def patch(transport: RTCDtlsTransport, on_error: Callable[[str], None]) -> None:
    """Patch a transport that has not started; `on_error` is called with the reason before the state becomes `failed`."""
    patched = _PatchedTransport(transport, on_error)
    vars(transport).update(
        start=patched.start,
        _do_handshake=patched.do_handshake,
        _validate_peer_identity=patched.validate_peer_identity,
        _setup_srtp=patched.set_up_srtp,
    )
    vars(transport)[_CERTIFICATE] = _Certificate(vars(transport)[_CERTIFICATE])


class _Certificate:
    """A certificate of aiortc with one fingerprint that also offers and accepts the cipher suites for RSA."""

    def __init__(self, certificate: RTCCertificate) -> None:
        self._certificate = certificate

    def getFingerprints(self) -> list[RTCDtlsFingerprint]:  # noqa: N802  aiortc calls it
        """Return the fingerprint by SHA-256."""
        return [each for each in self._certificate.getFingerprints() if each.algorithm == "sha-256"]

    def _create_ssl_context(self, srtp_profiles: list[Any]) -> SSL.Context:
        context = self._certificate._create_ssl_context(srtp_profiles)  # noqa: SLF001
        context.set_cipher_list(CIPHERS)
        return context


class _PatchedTransport:
    """Replacements for four methods of a transport."""

    def __init__(self, transport: RTCDtlsTransport, on_error: Callable[[str], None]) -> None:
        self._transport = transport
        self._on_error = on_error
        self._start = transport.start
        self._set_up_srtp = transport._setup_srtp  # noqa: SLF001
        self._stale = STALE_ERRORS
        self._reason = ""

    async def start(self, parameters: RTCDtlsParameters) -> None:
        """Start as aiortc does; any exception that a hostile certificate causes becomes `failed`."""
        try:
            await self._start(parameters)
        except Exception as error:  # noqa: BLE001
            self._fail(f"its certificate or its DTLS parameters are unusable ({str(error) or type(error).__name__})")

    async def do_handshake(self) -> None:
        """Shake hands as aiortc does, but report the error of OpenSSL, and send the alert that OpenSSL has written."""
        connection = self._transport._ssl  # noqa: SLF001
        assert connection is not None
        receive = connection.recv

        def recv(*arguments: Any) -> bytes:  # aiortc drops the error of a received alert, which has the reason
            try:
                return receive(*arguments)
            except SSL.Error as error:
                self._note_reason(error)
                raise

        vars(connection)["recv"] = recv
        try:
            while not self._transport.encrypted:
                await self._step()
                if self._transport.state == "failed":
                    return
        except ConnectionError as error:
            self._fail(f"the handshake failed: {error}")
        else:
            self._on_error("")
        finally:
            del vars(connection)["recv"]

    def _note_reason(self, error: SSL.Error) -> None:
        """Keep the reason of an error; OpenSSL reports it only once."""
        if not isinstance(error, SSL.WantReadError | SSL.ZeroReturnError):
            self._reason = _reason_of(error) or self._reason

    async def _step(self) -> None:
        connection = self._transport._ssl  # noqa: SLF001
        assert connection is not None
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            await self._transport._write_ssl()  # noqa: SLF001
            await self._transport._recv_next()  # noqa: SLF001
        except SSL.Error as error:
            await self._transport._write_ssl()  # noqa: SLF001
            self._note_reason(error)
            if not self._stale:
                self._fail(f"the handshake failed: {self._reason or NO_REASON}")
            self._stale -= 1
        else:
            self._transport.encrypted = True

    def validate_peer_identity(self, parameters: RTCDtlsParameters) -> None:
        """Compare the peer's certificate with its fingerprints (RFC 8122, 5) by its bytes alone.

        `cryptography` does not parse X.509 version 2, which libdatachannel used for years.
        """
        connection = self._transport._ssl  # noqa: SLF001
        assert connection is not None
        certificate = connection.get_peer_certificate()
        known = [each for each in parameters.fingerprints if each.algorithm.lower() in DIGESTS]
        if not known:
            self._fail(f"its description has no fingerprint by {', '.join(DIGESTS)}")
        elif certificate is None or all(_digest(certificate, each.algorithm) != each.value.upper() for each in known):
            self._fail(FINGERPRINT_MISMATCH)

    def set_up_srtp(self) -> None:
        """Derive the SRTP keys, if a profile was negotiated (RFC 5764, 4.2)."""
        profiles = {profile.openssl_profile for profile in self._transport._srtp_profiles}  # noqa: SLF001
        connection = self._transport._ssl  # noqa: SLF001
        if connection is None or connection.get_selected_srtp_profile() in profiles:
            self._set_up_srtp()

    def _fail(self, reason: str) -> None:
        self._on_error(reason)
        self._transport._set_state(State.FAILED)  # noqa: SLF001


def _digest(certificate: crypto.X509, algorithm: str) -> str:
    return certificate.digest(algorithm.lower().replace("-", "")).decode()


def _reason_of(error: SSL.Error) -> str:
    """Return the reason of OpenSSL: an SSL.Error holds a list of (library, function, reason), its subclasses do not."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0] if entry)
    return str(error) or type(error).__name__
