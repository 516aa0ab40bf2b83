"""Keys, tokens and certificates made by other libraries."""

import base64
import json
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECRET: Final = "a secret that is longer than thirty-two bytes"
NOW: Final = 1_800_000_000.0

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

KEYS: Final[dict[str, Private]] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public_jwk(key: Private, **more: str) -> dict[str, Any]:
    match key:
        case rsa.RSAPrivateKey():
            jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: value for name, value in jwk.items() if name != "key_ops"} | more


def private_jwk(key: ed25519.Ed25519PrivateKey) -> dict[str, Any]:
    return dict(OKPAlgorithm.to_jwk(key, as_dict=True))


def pem(key: Private) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def secret_file(tmp_path: Path, secret: str = SECRET) -> Path:
    return write(tmp_path / "secret", f"{secret}\n")


def jwks_file(tmp_path: Path, *keys: dict[str, Any]) -> Path:
    return write(tmp_path / "jwks.json", json.dumps({"keys": keys}))


def token(secret: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    return jwt.encode(claims, secret, algorithm, headers)


def part(data: Any) -> str:
    """Encode a part of a token by hand."""
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()
