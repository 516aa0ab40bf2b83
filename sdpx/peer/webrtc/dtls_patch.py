"""The private corner, its half for DTLS: a handshake of aiortc's that dies ends in the state `failed`, and says why.

aiortc lets an assertion, or a certificate that `cryptography` refuses, kill a task that nobody looks at; of a handshake
that fails it tells nobody the reason. It also insists on SRTP keys, which a stack made for data alone does not negotiate, and
as a client it offers no cipher suites for RSA certificates, which some stacks have.
`ice.fits` says whether the installed version is one that this was made for.
"""

from collections.abc import Callable
from typing import Any, Final

from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsParameters, RTCDtlsTransport, State
from OpenSSL import SSL, crypto

FINGERPRINT_MISMATCH: Final = "its certificate is not the one that its description announced"
DIGESTS: Final = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}
# OpenSSL blames a call for what an earlier one of the same thread left behind; a handshake that is broken fails again.
STALE_ERRORS: Final = 1
NO_WORDS: Final = "OpenSSL does not say why (no common cipher suite or version?)"
# The suites of aiortc, and the same for RSA (RFC 8422, 6; RFC 5289; RFC 7905).
_SUITES: Final = ("AES128-GCM-SHA256", "CHACHA20-POLY1305", "AES128-SHA", "AES256-SHA")
CIPHERS: Final = ":".join(f"ECDHE-{kind}-{suite}" for suite in _SUITES for kind in ("ECDSA", "RSA")).encode()

_CERTIFICATE: Final = "_RTCDtlsTransport__local_certificate"


def guard(transport: RTCDtlsTransport, blame: Callable[[str], None]) -> None:
    """Watch over the handshake of a transport; `blame` is told why it fails before the state changes."""
    guarded = _Guard(transport, blame)
    vars(transport).update(
        start=guarded.start,
        _do_handshake=guarded.do_handshake,
        _validate_peer_identity=guarded.validate,
        _setup_srtp=guarded.set_up_srtp,
    )
    vars(transport)[_CERTIFICATE] = _Certificate(vars(transport)[_CERTIFICATE])


class _Certificate:
    """A certificate of aiortc's that shakes hands with RSA certificates too."""

    def __init__(self, certificate: RTCCertificate) -> None:
        self._certificate = certificate
        self.getFingerprints = certificate.getFingerprints

    def _create_ssl_context(self, srtp_profiles: list[Any]) -> SSL.Context:
        context = self._certificate._create_ssl_context(srtp_profiles)  # noqa: SLF001
        context.set_cipher_list(CIPHERS)
        return context


class _Guard:
    """Stands in for four methods of a transport."""

    def __init__(self, transport: RTCDtlsTransport, blame: Callable[[str], None]) -> None:
        self._transport = transport
        self._on_dtls_error = blame
        self._start = transport.start
        self._set_up_srtp = transport._setup_srtp  # noqa: SLF001
        self._stale = STALE_ERRORS
        self._words = ""

    async def start(self, parameters: RTCDtlsParameters) -> None:
        """Start as aiortc does, and outlive whatever a stranger's certificate provokes."""
        try:
            await self._start(parameters)
        except Exception as error:  # noqa: BLE001
            self._fail(f"its certificate or its DTLS parameters are unusable ({error or type(error).__name__})")

    async def do_handshake(self) -> None:
        """Do as aiortc does, but tell what OpenSSL says, and the peer by the alert that OpenSSL has written."""
        try:
            while not self._transport.encrypted:
                await self._step()
                if self._transport.state == "failed":
                    return
        except ConnectionError as error:
            self._fail(f"the handshake failed: {error}")
        else:
            self._on_dtls_error("")

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
            self._words = self._words or _words(error)  # once told, OpenSSL does not say it again
            if not self._stale:
                self._fail(f"the handshake failed: {self._words or NO_WORDS}")
            self._stale -= 1
        else:
            self._transport.encrypted = True

    def validate(self, parameters: RTCDtlsParameters) -> None:
        """Compare the certificate with its fingerprints (RFC 8122, 5). It may be what `cryptography` does not parse.

        libdatachannel made certificates of X.509's version 2 for years: only their bytes count here.
        """
        connection = self._transport._ssl  # noqa: SLF001
        assert connection is not None
        certificate = connection.get_peer_certificate()
        known = [each for each in parameters.fingerprints if each.algorithm.lower() in DIGESTS]
        if not known:
            self._fail(f"its description has no fingerprint by {', '.join(DIGESTS)}")
        elif certificate is None or any(_digest(certificate, each.algorithm) != each.value.upper() for each in known):
            self._fail(FINGERPRINT_MISMATCH)

    def set_up_srtp(self) -> None:
        """Derive keys for media, if a profile was negotiated."""
        profiles = {profile.openssl_profile for profile in self._transport._srtp_profiles}  # noqa: SLF001
        connection = self._transport._ssl  # noqa: SLF001
        if connection is None or connection.get_selected_srtp_profile() in profiles:
            self._set_up_srtp()

    def _fail(self, reason: str) -> None:
        self._on_dtls_error(reason)
        self._transport._set_state(State.FAILED)  # noqa: SLF001


def _digest(certificate: crypto.X509, algorithm: str) -> str:
    return certificate.digest(DIGESTS[algorithm.lower()]).decode()


def _words(error: SSL.Error) -> str:
    """Return what OpenSSL says: an error of pyOpenSSL holds a list of (library, function, reason), or is of a special kind."""
    if error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0] if entry)
    return str(error) or type(error).__name__
