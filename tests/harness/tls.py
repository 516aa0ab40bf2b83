"""Certificates of a test authority, as files, and clients that trust it."""

import ssl
from pathlib import Path
from typing import Final

import trustme

CA: Final = trustme.CA()


def trusting_context() -> ssl.SSLContext:
    """Return the TLS context of a client that trusts the test authority."""
    return ssl.create_default_context(cadata=CA.cert_pem.bytes().decode())  # which loads no others


def write_certificate(folder: Path, *names: str) -> tuple[str, ...]:
    """Write a certificate for these names with its key, and `ca.pem`; returns the options of `sdpx serve`."""
    issued = CA.issue_cert(*(names or ("127.0.0.1", "localhost")))
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    CA.cert_pem.write_to_path(folder / "ca.pem")
    return "--tls-cert", str(certificate), "--tls-key", str(key)
